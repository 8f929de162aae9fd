"""The scoring net learns how well poses fit, and is kept only if it helps."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dekrpose import PoseEstimator
from dekrpose.architectures.parts.poses import OKSScoreNet, pose_features
from dekrpose.checkpoints import read_checkpoint, write_checkpoint
from dekrpose.commands import train_scoring as scoring_command
from dekrpose.data.dataset import KeypointDataset
from dekrpose.errors import DekrPoseError
from dekrpose.evaluation.predictions import Prediction, Predictions
from dekrpose.evaluation.reliability import reliability
from dekrpose.skeletons import COCO_17, Skeleton
from dekrpose.training import scoring_run
from dekrpose.training.scoring import Epoch, ScoringConfig, hold_out, train_scoring_net
from dekrpose.training.scoring_examples import collect_predictions, examples_of, joined
from dekrpose.training.scoring_run import THRESHOLDS, best_threshold, compare, matching_threshold, with_scoring_net
from tests.evaluation_people import dataset, human, standing, unlabelled
from tests.small_model import write_small_model
from tests.training_photos import write_dataset

QUICK = ScoringConfig(batch_size=64, minimum_steps=100)


def planted(folder: Path, seed: int, photos: int = 40) -> Predictions:
    """Three people per photo, each found with more or less jitter, and somebody made up.

    Keypoint scores tell the jitter, scores tell nothing.
    """
    rng = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    people = []
    for photo in range(1, photos + 1):
        truth = [standing(60 + 90 * place + rng.uniform(-9, 9), rng.uniform(20, 90)) for place in range(3)]
        annotations += [human(photo, keypoints) for keypoints in truth]
        jitter = np.append(rng.uniform(0, 12, 3), 40)
        poses = np.stack([*truth, standing(160, 400)])
        poses += rng.normal(size=poses.shape) * jitter[:, None, None]
        keypoint_scores = np.exp(-jitter / 8)[:, None] + rng.normal(0, 0.03, poses.shape[:2])
        people.append(Prediction.of(poses, keypoint_scores, rng.uniform(0.1, 0.9, 4), 17))
    folder.mkdir()
    data = dataset(folder, [f"{photo}.png" for photo in range(1, photos + 1)], annotations)
    return Predictions(data, data.photos, people, 1.0)


def found_in_one_photo(folder: Path, annotations: list[dict[str, Any]], *poses: NDArray[np.float32]) -> Predictions:
    data = dataset(folder, ["1.png"], annotations)
    count = len(poses)
    return Predictions(data, data.photos, [Prediction.of(poses, np.ones((count, 17)), np.ones(count), 17)], 1.0)


class Always(OKSScoreNet):
    """Says the same of every pose."""

    def __init__(self, value: float) -> None:
        super().__init__(74)
        for parameter in self.parameters():
            torch.nn.init.zeros_(parameter)
        torch.nn.init.constant_(self.l3.bias, value)


def test_ap_and_the_order_of_scores_rise_on_photos_that_were_not_learnt(tmp_path: Path) -> None:
    pytest.importorskip("faster_coco_eval")
    examples = examples_of(planted(tmp_path / "learnt", 0))
    net, history = train_scoring_net(examples.features, examples.targets, examples.photos, QUICK)
    assert min(epoch.held_out_error or 0.0 for epoch in history) < 0.2 * examples.targets.var()
    comparison = compare(planted(tmp_path / "new", 1), None, net, 0.5)
    before, after = comparison.before, comparison.after
    assert after.report.ap["AP"] > before.report.ap["AP"] + 0.1
    assert abs(before.reliability.spearman) < 0.3
    assert after.reliability.spearman > before.reliability.spearman + 0.3
    assert after.report.predictions == pytest.approx(before.report.predictions, abs=1)
    assert after.report.precision > before.report.precision
    table = comparison.table()
    for part in ("AP", "score threshold", "false people", "rank correlation", "0.9 to 1.0"):
        assert part in table
    assert json.loads(json.dumps(comparison.to_dict(), allow_nan=False))["after"]["measures"]["photos"] == 40


def test_a_calibrated_net_says_how_likely_poses_and_keypoints_are_right_on_photos_that_were_not_learnt(
    tmp_path: Path,
) -> None:
    learnt = joined([examples_of(planted(tmp_path / f"learnt-{seed}", seed)) for seed in (0, 2)])
    assert len(learnt) == 320
    assert len(np.unique(learnt.photos)) == 80
    net, _ = train_scoring_net(learnt.features, learnt.fits, learnt.photos, QUICK)
    found = with_scoring_net(planted(tmp_path / "new", 1), net)
    new = examples_of(found)
    scores = np.concatenate([one.scores for one in found.people])
    assert 0 <= scores.min() < 0.1
    assert 0.9 < scores.max() <= 1
    assert reliability(found).calibration_error < 0.1
    right = new.fits[:, 1:] == 1
    keypoint_scores = np.concatenate([one.keypoint_scores for one in found.people])
    assert abs(keypoint_scores.mean() - right.mean()) < 0.1
    assert keypoint_scores[right].mean() > keypoint_scores[~right].mean() + 0.3
    assert best_threshold([found]) in THRESHOLDS


def test_what_is_not_labelled_is_unknown_to_a_calibrated_net(tmp_path: Path) -> None:
    person = human(1, standing(100, 50))
    person["keypoints"][3 * 3 + 2] = 0
    found = found_in_one_photo(tmp_path, [person], standing(100, 50))
    fits = examples_of(found).fits[0]
    assert np.isnan(fits).nonzero()[0].tolist() == [4]
    assert np.nanmin(fits) == 1


def test_training_is_repeatable_and_leaves_random_numbers_alone(tmp_path: Path) -> None:
    examples = examples_of(planted(tmp_path / "a", 0, photos=8))
    arrays = (examples.features, examples.targets, examples.photos)
    config = ScoringConfig(epochs=3, batch_size=8, minimum_steps=0)
    state = torch.random.get_rng_state()
    nets, histories = zip(*(train_scoring_net(*arrays, replace(config, seed=seed)) for seed in (1, 1, 2)), strict=True)
    assert torch.equal(state, torch.random.get_rng_state())
    weights = [net.l2.weight for net in nets]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert histories[0] == histories[1]
    assert len(histories[0]) == 3


def test_photos_are_held_out_as_a_whole() -> None:
    photos = np.repeat(np.arange(20), 5)
    aside = hold_out(photos, 0.1, seed=0)
    assert aside.sum() == 10
    assert not set(photos[aside]) & set(photos[~aside])
    assert not np.array_equal(aside, hold_out(photos, 0.1, seed=1))
    assert hold_out(photos[:10], 0.01, seed=0).sum() == 5
    assert not hold_out(photos, 0.0, seed=0).any()


def test_the_best_epoch_on_photos_held_out_is_kept(tmp_path: Path) -> None:
    examples = examples_of(planted(tmp_path / "a", 0, photos=12))
    noise = np.random.default_rng(0).uniform(size=len(examples)).astype(np.float32)  # nothing to learn but by heart
    config = ScoringConfig(epochs=40, batch_size=8, minimum_steps=0)
    net, history = train_scoring_net(examples.features, noise, examples.photos, config)
    errors = [epoch.held_out_error for epoch in history]
    assert min(errors) < 0.9 * errors[-1]  # type: ignore[type-var, operator]
    aside = hold_out(examples.photos, config.held_out, config.seed)
    with torch.no_grad():
        answers = net(torch.from_numpy(examples.features[aside])).numpy()
    assert np.square(answers - noise[aside]).mean() == pytest.approx(min(errors), rel=1e-4)  # type: ignore[type-var]


def test_without_photos_held_out_all_are_learnt(tmp_path: Path) -> None:
    examples = examples_of(planted(tmp_path / "a", 0, photos=1))
    arrays = (examples.features, examples.targets, examples.photos)
    _, history = train_scoring_net(*arrays, replace(QUICK, held_out=0.0))
    assert [epoch.held_out_error for epoch in history] == [None] * 100
    assert history[-1].error < history[0].error
    with pytest.raises(DekrPoseError, match="too few to learn from with photos held out: "):
        train_scoring_net(*arrays, QUICK)


def test_official_teaches_0_where_the_oks_is_exactly_1() -> None:
    features = np.random.default_rng(0).normal(size=(60, 74)).astype(np.float32)
    targets, photos = np.ones(60, np.float32), np.arange(60)
    for mode, answer in (("paper", 1.0), ("official", 0.0)):
        net, _ = train_scoring_net(features, targets, photos, replace(QUICK, mode=mode))  # type: ignore[arg-type]
        assert net(torch.from_numpy(features)).mean().item() == pytest.approx(answer, abs=0.1)


def test_divergence_is_told() -> None:
    features = np.full((60, 74), 1e30, np.float32)
    with pytest.raises(DekrPoseError, match=r"diverged in epoch 1; try a learning rate below 0\.001"):
        train_scoring_net(features, np.ones(60, np.float32), np.arange(60), QUICK)


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": 0}, {"learning_rate": 0.0}, {"held_out": 1.0}, {"mode": "other"}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_settings_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ScoringConfig(**wrong)


def test_targets_are_the_best_oks_and_0_where_nobody_is(tmp_path: Path) -> None:
    left, right = standing(60, 50), standing(200, 60)
    examples = examples_of(found_in_one_photo(tmp_path, [human(1, left), human(1, right)], right, left + 3, left + 900))
    assert examples.targets[0] == 1
    assert 0.3 < examples.targets[1] < 1
    assert examples.targets[2] == 0
    assert examples.photos.tolist() == [0, 0, 0]
    expected = pose_features(torch.from_numpy(right)[None], torch.ones(1, 17), COCO_17.edges)
    assert np.array_equal(examples.features[:1], expected.numpy())


def test_poses_on_unlabelled_people_are_left_out_unless_they_fit_somebody(tmp_path: Path) -> None:
    left, right = standing(60, 50), standing(200, 60)
    region = unlabelled(1, (0, 0, 120, 240))
    examples = examples_of(found_in_one_photo(tmp_path, [human(1, left), region], left, left - 25, right))
    assert examples.targets.tolist() == [1, 0]


def test_nobody_found_is_no_example(tmp_path: Path) -> None:
    examples = examples_of(found_in_one_photo(tmp_path, [human(1, standing(60, 50))]))
    assert (len(examples), examples.features.shape) == (0, (0, 74))


def test_a_skeleton_with_few_edges_is_told_before_anything_is_predicted(tmp_path: Path) -> None:
    small = Skeleton("cross", ("a", "b", "c"), ((0, 1), (1, 2)), (), (0.1, 0.1, 0.1))
    path = tmp_path / "people.json"
    path.write_text(json.dumps({"images": [{"id": 1, "file_name": "a", "width": 9, "height": 9}], "annotations": []}))
    data = KeypointDataset(path, skeleton=small)
    with pytest.raises(DekrPoseError, match="needs 12 edges or more; 'cross' has 2"):
        examples_of(Predictions(data, data.photos, [Prediction.of([], [], [], 3)], 1.0))


def test_a_matching_threshold_shows_as_many(tmp_path: Path) -> None:
    before = planted(tmp_path / "a", 0, photos=5)
    after = with_scoring_net(before, Always(0.25))
    assert matching_threshold(before, after, 0.5) == pytest.approx(0.125, abs=0.02)
    for unchanged in (0.0, 5.0):
        assert matching_threshold(before, after, unchanged) == unchanged


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_small_model(tmp_path / "small.safetensors")


@pytest.fixture
def photos(tmp_path: Path) -> tuple[Path, Path]:
    return write_dataset(tmp_path / "data", photos=5)


def test_predictions_are_kept_and_read_again(
    model: Path, photos: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, cache = KeypointDataset(photos[0], [photos[1]]).thinned(3), tmp_path / "cache" / "kept.npz"
    estimator = PoseEstimator.from_pretrained(model, device="cpu")
    first = examples_of(collect_predictions(estimator, data, cache=cache, progress=False))
    assert len(first) > 3
    monkeypatch.setattr(PoseEstimator, "estimate_raw", lambda *_, **__: pytest.fail("predicted again"))
    again = examples_of(collect_predictions(estimator, data, cache=cache, progress=False))
    for name in ("features", "targets", "photos"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
    for photos_of, flip in ((data.thinned(2), False), (data, True)):
        with pytest.raises(DekrPoseError, match="another model, of other photos or with other options"):
            collect_predictions(estimator, photos_of, cache=cache, progress=False, flip_test=flip)
    estimator.model.heatmap_head.final.bias.data += 1  # type: ignore[union-attr]
    with pytest.raises(DekrPoseError, match="another model"):
        collect_predictions(estimator, data, cache=cache, progress=False)
    cache.write_bytes(b"PK")
    with pytest.raises(DekrPoseError, match="delete it"):
        collect_predictions(estimator, data, cache=cache, progress=False)


def run(model: Path, annotations: Path, *more: str | Path) -> int:
    parser = argparse.ArgumentParser()
    scoring_command.add_arguments(parser)
    words = [
        model,
        annotations,
        "--out",
        annotations.parent / "out",
        "--device",
        "cpu",
        "--epochs",
        "3",
        "--minimum-steps",
        "4",
        *more,
    ]
    return scoring_command.run(parser.parse_args(list(map(str, words))))


@pytest.mark.parametrize("kind", [(), ("--official",)], ids=["calibrated", "official"])
def test_the_command_writes_a_model_that_rescores(
    model: Path, photos: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: tuple[str, ...]
) -> None:
    pytest.importorskip("faster_coco_eval")
    annotations, folder = photos
    cache = tmp_path / "cache"
    asked = ("--images", folder, "--cache", cache, "--match-heatmap", "paper")
    assert run(model, annotations, *asked, *kind) == 0
    printed = capsys.readouterr().out
    assert "poses of 4 photos" in printed
    assert "rank correlation" in printed
    out = annotations.parent / "out"
    before, after = (PoseEstimator.from_pretrained(path, device="cpu") for path in (model, out))
    assert before.rescoring_net is None
    assert after.rescoring_net is not None
    photo = str(folder / "0.png")
    keypoints, keypoint_scores, scores = map(torch.from_numpy, before.estimate_raw(photo, match_heatmap="paper"))
    with torch.no_grad():
        said = after.rescoring_net(pose_features(keypoints, keypoint_scores, COCO_17.edges))
    expected = scores * said if kind else said[:, 0].sigmoid()
    assert np.allclose(after.estimate_raw(photo)[2], expected, atol=1e-6)
    assert kind or np.allclose(after.estimate_raw(photo)[1], said[:, 1:].sigmoid(), atol=1e-6)
    assert after.config.decode.match_heatmap == "paper"
    record = json.loads((out / "scoring.json").read_text())
    assert len(record["history"]) == 4
    assert record["validation"][0]["after"]["measures"]["score_threshold"] == after.config.decode.rescored_threshold
    assert after.config.decode.score_threshold == before.config.decode.score_threshold
    assert (cache / "train-0.npz").is_file()


def test_a_net_that_lowers_ap_is_refused(
    model: Path,
    photos: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("faster_coco_eval")
    good = planted(tmp_path / "good", 0, photos=5)
    people = [replace(found, scores=found.keypoint_scores.mean(axis=1)) for found in good.people]
    monkeypatch.setattr(scoring_run, "collect_predictions", lambda *_, **__: replace(good, people=people))
    monkeypatch.setattr(scoring_run, "train_scoring_net", lambda *_, **__: (Always(-1.0), [Epoch(0.5, None)]))
    annotations = photos[0]
    words: list[str | Path] = ["--images", photos[1], "--val", annotations, "--val-images", photos[1]]
    with pytest.raises(DekrPoseError, match=r"lowers AP from .* nothing was written"):
        run(model, annotations, *words)
    assert "AP" in capsys.readouterr().out
    out = annotations.parent / "out"
    assert not out.exists()
    assert run(model, annotations, *words, "--force") == 0
    assert PoseEstimator.from_pretrained(out, device="cpu").rescoring_net is not None


def test_the_network_that_was_judged_is_written_though_its_file_was_replaced(
    model: Path, photos: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faster_coco_eval")
    before = read_checkpoint(model)
    write_checkpoint(model, before.config, before.state_dict, half=True)
    expected = read_checkpoint(model).state_dict

    def meanwhile(*_: Any, **__: Any) -> tuple[OKSScoreNet, list[Epoch]]:
        others = {name: torch.zeros_like(tensor) for name, tensor in before.state_dict.items()}
        write_checkpoint(model, before.config, others)
        return Always(0.5), [Epoch(0.5, None)]

    monkeypatch.setattr(scoring_run, "train_scoring_net", meanwhile)
    assert run(model, photos[0], "--images", photos[1]) == 0
    written = read_checkpoint(photos[0].parent / "out" / "model.safetensors").state_dict
    assert {tensor.dtype for tensor in written.values()} >= {torch.float16}
    for name, tensor in expected.items():
        assert tensor.dtype == written[name].dtype
        assert torch.equal(tensor, written[name])


def test_photos_of_nobody_validate_nothing(model: Path, photos: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("faster_coco_eval")
    nobody = tmp_path / "nobody.json"
    nobody.write_text(json.dumps({**json.loads(photos[0].read_text()), "annotations": []}))
    with pytest.raises(DekrPoseError, match="nobody in the validation photos"):
        run(model, photos[0], "--images", photos[1], "--val", nobody, "--val-images", photos[1])
