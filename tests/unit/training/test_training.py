"""The training loop: it learns, it resumes where it was, it says why it stops."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dekrpose import PoseEstimator
from dekrpose.architectures.dekr.batches import TargetConfig
from dekrpose.architectures.dekr.recipes import paper_recipe
from dekrpose.architectures.learning import AugmentConfig, TrainConfig
from dekrpose.checkpoints import read_checkpoint
from dekrpose.commands import train as command
from dekrpose.config import ARCHITECTURES, with_head
from dekrpose.errors import DekrPoseError
from dekrpose.hub import models
from dekrpose.training import loop
from dekrpose.training.loader import CachedPhotos, Samples, collate
from dekrpose.training.loop import Trainer
from dekrpose.training.order import EpochOrder
from dekrpose.training.recipes import learning_rate
from dekrpose.training.run_log import Progress
from tests.small_model import write_small_model
from tests.training_photos import SMALL, made_up_dataset, write_dataset

CONFIG = TrainConfig(
    epochs=4,
    batch_size=2,
    warmup=2,
    workers=0,
    ema=0.5,
    augment=AugmentConfig(size=64, mosaic=0.3),
    targets=TargetConfig(sigma=1.5, center_sigma=2.0, radius=3, offset_pixels=40),
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> CachedPhotos:
    return CachedPhotos(made_up_dataset(tmp_path_factory.mktemp("data")), progress=False)


def test_the_loss_falls(photos: CachedPhotos, tmp_path: Path) -> None:
    still = AugmentConfig(size=64, rotation=0, scale=(1.0, 1.0), translation=0, flip=0)
    config = replace(CONFIG, epochs=60, batch_size=6, learning_rate=5e-3, augment=still)
    trainer = Trainer(SMALL, config, photos, tmp_path)
    batch = next(iter(trainer.loader))
    before = sum(float(part.detach()) for part in trainer.losses(batch).values())
    trainer.run()
    trainer.model.train()
    assert sum(float(part.detach()) for part in trainer.losses(batch).values()) < 0.7 * before


def test_a_resumed_run_equals_an_uninterrupted_one(photos: CachedPhotos, tmp_path: Path) -> None:
    whole = Trainer(SMALL, CONFIG, photos, tmp_path / "whole")
    whole.run()
    Trainer(SMALL, CONFIG, photos, tmp_path / "cut").run(until=5)  # in the middle of an epoch
    resumed = Trainer(SMALL, CONFIG, photos, tmp_path / "cut")
    assert resumed.progress.step == 5
    resumed.run()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
        assert torch.equal(whole.average[name], resumed.average[name]), name


def test_batches_made_on_the_device(photos: CachedPhotos, tmp_path: Path) -> None:
    config = replace(CONFIG, on_device=True)
    whole = Trainer(SMALL, config, photos, tmp_path / "whole")
    whole.run()
    Trainer(SMALL, config, photos, tmp_path / "cut").run(until=5)
    resumed = Trainer(SMALL, config, photos, tmp_path / "cut")
    resumed.run()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_the_papers_recipe_keeps_the_last_weights_and_lowers_the_rate_in_steps(
    photos: CachedPhotos, tmp_path: Path
) -> None:
    recipe = replace(paper_recipe(64), batch_size=2, epochs=4, milestones=(2, 3), workers=0)
    trainer = Trainer(SMALL, recipe, photos, tmp_path)
    assert type(trainer.optimizer) is torch.optim.Adam
    rates = [learning_rate(recipe, step, len(trainer.order)) for step in range(trainer.total_steps)]
    assert rates == pytest.approx([1e-3] * 6 + [1e-4] * 3 + [1e-5] * 3)
    trainer.run(until=2)
    for name, value in trainer.model.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(value, trainer.average[name]), name


def test_states_of_before_a_setting_existed_are_resumed(photos: CachedPhotos, tmp_path: Path) -> None:
    Trainer(SMALL, CONFIG, photos, tmp_path).run(until=1)
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    del state["config"]["schedule"], state["progress"]["waited"]
    torch.save(state, tmp_path / "last.pt")
    assert Trainer(SMALL, CONFIG, photos, tmp_path).progress.step == 1
    with pytest.raises(DekrPoseError, match="schedule"):
        Trainer(SMALL, replace(CONFIG, schedule="steps"), photos, tmp_path)


def test_workers_change_nothing(photos: CachedPhotos, tmp_path: Path) -> None:
    alone = next(iter(Trainer(SMALL, CONFIG, photos, tmp_path / "a").loader))
    helped = next(iter(Trainer(SMALL, replace(CONFIG, workers=1), photos, tmp_path / "b").loader))
    assert torch.equal(alone.images, helped.images)
    assert torch.equal(alone.offsets, helped.offsets)


def test_a_folder_with_another_run_is_refused(photos: CachedPhotos, tmp_path: Path) -> None:
    Trainer(SMALL, CONFIG, photos, tmp_path).run(until=1)
    with pytest.raises(DekrPoseError, match="learning_rate"):
        Trainer(SMALL, replace(CONFIG, learning_rate=0.5), photos, tmp_path)
    Trainer(SMALL, replace(CONFIG, epochs=9), photos, tmp_path)  # a longer run is the same run
    with pytest.raises(DekrPoseError, match="belongs to another network"):
        Trainer(with_head(SMALL, "small", adaptive=False), CONFIG, photos, tmp_path)


def test_divergence_stops_and_keeps_the_last_good_state(photos: CachedPhotos, tmp_path: Path) -> None:
    trainer = Trainer(SMALL, CONFIG, photos, tmp_path)
    trainer.run(until=2)
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(float("nan"))
    with pytest.raises(DekrPoseError, match=r"diverged at step 2 .*last\.pt"):
        trainer.run()
    assert Trainer(SMALL, CONFIG, photos, tmp_path).progress.step == 2
    weights = read_checkpoint(tmp_path / "model.safetensors").state_dict
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_a_bad_batch_leaves_the_last_state_as_it_is(photos: CachedPhotos, tmp_path: Path) -> None:
    trainer = Trainer(SMALL, replace(CONFIG, checkpoint_minutes=0), photos, tmp_path)
    trainer.run(until=3)
    batches = list(trainer.loader)
    batches[1].heatmaps[0, 0, 0, 0] = float("nan")
    trainer.loader = batches
    with pytest.raises(DekrPoseError, match=r"diverged at step 4 .*last\.pt holds the last good state"):
        trainer.run()
    assert Trainer(SMALL, CONFIG, photos, tmp_path).progress.step == 4


def test_a_device_that_runs_ahead_is_asked_when_the_log_is_written(
    photos: CachedPhotos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "LOG_STEPS", 4)
    trainer = Trainer(SMALL, CONFIG, photos, tmp_path)
    trainer._runs_ahead = True
    trainer.run(until=2)
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(float("nan"))
    with pytest.raises(DekrPoseError, match=r"diverged at step 4 .*last\.pt holds the last good state"):
        trainer.run()
    assert Trainer(SMALL, CONFIG, photos, tmp_path).progress.step == 2


@pytest.mark.slow
def test_a_compiled_network_learns_the_same(
    photos: CachedPhotos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[nn.Module] = []

    whole = nn.Module.compile

    def compile_fast(module: nn.Module) -> None:  # all of torch.compile but its code generator, which takes minutes
        compiled.append(module)
        whole(module, backend="aot_eager")

    monkeypatch.setattr(nn.Module, "compile", compile_fast)
    plain = Trainer(SMALL, CONFIG, photos, tmp_path / "plain")
    fused = Trainer(SMALL, replace(CONFIG, compiled=True), photos, tmp_path / "compiled")
    assert compiled == [fused.model.backbone, fused.model.heatmap_head]
    batch = next(iter(plain.loader))
    for ours, theirs in zip(fused.losses(batch).values(), plain.losses(batch).values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    fused.run(until=1)
    assert set(read_checkpoint(tmp_path / "compiled" / "model.safetensors").state_dict) == set(plain.average)


def test_broken_weights_are_not_saved(photos: CachedPhotos, tmp_path: Path) -> None:
    trainer = Trainer(SMALL, CONFIG, photos, tmp_path)
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(float("inf"))
    with pytest.raises(DekrPoseError, match=r"diverged at step 0 .*no state was saved before"):
        trainer.save()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("file write failed")])
def test_a_full_disk_leaves_the_last_whole_state_and_nothing_else(
    photos: CachedPhotos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    Trainer(SMALL, CONFIG, photos, tmp_path).run(until=1)
    before = {item.name: item.read_bytes() for item in tmp_path.iterdir() if item.name != "log.jsonl"}

    def save(_: object, path: Path) -> None:
        path.write_bytes(b"half a state")
        raise error

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(DekrPoseError, match=r"the state of step 2 cannot be written to .*free some space"):
        Trainer(SMALL, CONFIG, photos, tmp_path).run(until=2)
    assert {item.name: item.read_bytes() for item in tmp_path.iterdir() if item.name != "log.jsonl"} == before


def test_speed_and_waiting_are_counted(photos: CachedPhotos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Progress(step=1, images=20, seconds=2.0, waited=1.0)
    now = Progress(step=3, images=2060, seconds=10.0, waited=3.0)
    assert now.speed_since(before) == {"images_per_second": 255.0, "waiting": 0.25}
    assert now.summary_since(before) == "2,040 images in 0:00:08, 255.0 images/s, 25% waiting for data"
    monkeypatch.setattr(loop, "LOG_STEPS", 2)
    trainer = Trainer(SMALL, CONFIG, photos, tmp_path)
    trainer.run(until=5)
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2, 4]  # the first, and every second one
    for record in records:
        assert record["images_per_second"] > 0
        assert 0 < record["waiting"] < 1
    assert trainer.summary().startswith("10 images in 0:00:")


def test_tensorboard_shows_each_step_once(
    photos: CachedPhotos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr(loop, "LOG_STEPS", 1)
    Trainer(SMALL, CONFIG, photos, tmp_path, tensorboard=True).run(until=3)
    state = (tmp_path / "last.pt").read_bytes()
    Trainer(SMALL, CONFIG, photos, tmp_path, tensorboard=True).run(until=5)
    (tmp_path / "last.pt").write_bytes(state)  # as if the run had been killed at step 5
    Trainer(SMALL, CONFIG, photos, tmp_path, tensorboard=True).run(until=6)
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert len(events.Tags()["scalars"]) == 6
    for tag, name in (("loss/heatmaps", "heat"), ("speed/waiting_for_data", "waiting")):
        scalars = events.Scalars(tag)
        assert [scalar.step for scalar in scalars] == [1, 2, 3, 4, 5, 6]
        assert [scalar.value for scalar in scalars] == pytest.approx([record[name] for record in records])


def test_missing_tensorboard_is_named_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    (tmp_path / "nothing.json").write_text("{}")
    options = parser.parse_args([str(tmp_path / "nothing.json"), "--out", str(tmp_path), "--tensorboard"])
    with pytest.raises(DekrPoseError, match=r"pip install 'dekrpose\[train\]'"):
        command.run(options)


def test_training_takes_back_the_numbers_of_its_start(photos: CachedPhotos, tmp_path: Path) -> None:
    measured = replace(SMALL, metrics={"AP": 50.0}, evaluation="dekrpose eval", published={"AP": 60.0}, license="MIT")
    weights = Trainer(measured, CONFIG, photos, tmp_path).run(until=1)
    config = read_checkpoint(weights).config
    assert (config.metrics, config.evaluation, config.published, config.license) == ({}, "", {}, "MIT")
    written = ["README.md", "config.json", "last.pt", "log.jsonl", weights.name]
    assert sorted(item.name for item in tmp_path.iterdir()) == written
    assert "Not measured." in (tmp_path / "README.md").read_text(encoding="utf-8")
    Trainer(replace(measured, license="other terms"), CONFIG, photos, tmp_path).run(until=2)
    assert read_checkpoint(models.resolve(tmp_path)).config.license == "other terms"  # its three files agree again


def test_too_few_photos_for_a_batch_are_named(photos: CachedPhotos, tmp_path: Path) -> None:
    with pytest.raises(DekrPoseError, match=r"too few for a batch of 100: [0-9]+ photos?; take a smaller --batch-size"):
        Trainer(SMALL, replace(CONFIG, batch_size=100), photos, tmp_path)


def test_every_photo_comes_once_per_epoch_in_a_new_order() -> None:
    order = EpochOrder(12, 4, seed=0)
    epochs = []
    for epoch in (0, 1):
        order.epoch = epoch
        epochs.append([photo for batch in order for _, _, photo in batch])
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(12))
    assert epochs[0] != epochs[1]
    order.epoch, order.first_batch = 0, 2
    assert [photo for batch in order for _, _, photo in batch] == epochs[0][8:]


def test_chosen_pixels_hold_every_weighted_one(photos: CachedPhotos) -> None:
    everywhere = Samples(photos, CONFIG.augment, replace(CONFIG.targets, offset_pixels=0), seed=0)
    some = Samples(photos, CONFIG.augment, replace(CONFIG.targets, offset_pixels=200), seed=0)
    dense, sparse = everywhere[0, 0, 0], some[0, 0, 0]
    assert sparse.pixels is not None
    assert (dense.offset_weights > 0).sum() == (sparse.offset_weights > 0).sum() > 0
    x, y = sparse.pixels.T
    assert torch.equal(dense.offsets[:, y, x], sparse.offsets)


def test_both_ways_of_offsets_give_the_same_loss(photos: CachedPhotos, tmp_path: Path) -> None:
    def loss(pixels: int) -> float:
        config = replace(CONFIG, targets=replace(CONFIG.targets, offset_pixels=pixels))
        trainer = Trainer(SMALL, config, photos, tmp_path / str(pixels))
        trainer.model.eval()
        samples = Samples(photos, config.augment, config.targets, seed=0)
        return float(trainer.losses(collate([samples[0, 0, 0], samples[0, 1, 1]]))["offset"].detach())

    assert loss(0) == pytest.approx(loss(256), rel=1e-5)
    assert loss(0) > 0


def test_the_command_trains_a_model_that_the_estimator_loads(tmp_path: Path) -> None:
    annotations, images = write_dataset(tmp_path / "data", photos=4)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    words = [annotations, "--images", images, "--out", tmp_path / "run", "--epochs", 1, "--batch-size", 2]
    words += ["--size", 64, "--workers", 0, "--precision", "float32", "--device", "cpu"]
    assert command.run(parser.parse_args([str(word) for word in words])) == 0
    estimator = PoseEstimator.from_pretrained(tmp_path / "run" / "model.safetensors", device="cpu")
    estimator.estimate(np.zeros((64, 64, 3), np.uint8), input_size=64)
    assert "from_pretrained" in (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    assert PoseEstimator.from_pretrained(tmp_path / "run", device="cpu").config == estimator.config
    state = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert state["progress"]["images"] == 4
    assert json.dumps(state["config"])


def test_the_command_trains_the_variants_of_the_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(ARCHITECTURES, "tiny", SMALL)
    annotations, images = write_dataset(tmp_path / "data", photos=2)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    words = [annotations, "--images", images, "--out", tmp_path / "run", "--epochs", 1, "--batch-size", 2]
    words += ["--size", 64, "--workers", 0, "--device", "cpu", "--head-branches", "grouped_5", "--no-adaptive"]
    assert command.run(parser.parse_args([str(word) for word in words])) == 0
    head = read_checkpoint(tmp_path / "run" / "model.safetensors").config.head
    assert (head.branches, head.adaptive) == ("grouped_5", False)
    assert "2 images in " in capsys.readouterr().out
    assert command.run(parser.parse_args([str(word) for word in words])) == 0
    printed = capsys.readouterr().out
    assert "this run had ended before, at step 1" in printed
    assert "0 images" not in printed
    words += ["--init", write_small_model(tmp_path / "start.safetensors")]
    with pytest.raises(DekrPoseError, match="brings its own head"):
        command.run(parser.parse_args([str(word) for word in words]))


def test_crops_of_a_wrong_size_are_refused(tmp_path: Path) -> None:
    annotations, images = write_dataset(tmp_path / "data", photos=2)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    options = parser.parse_args([str(annotations), "--images", str(images), "--out", str(tmp_path), "--size", "100"])
    with pytest.raises(ValueError, match="multiple of 32"):
        command.run(options)


def test_the_command_checks_data_without_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations, images = write_dataset(tmp_path / "data", photos=4)
    monkeypatch.chdir(tmp_path)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    words = ["--check", str(annotations), "--images", str(images), "--size", "64"]
    assert command.run(parser.parse_args(words)) == 0
    assert "error" not in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["people.samples.jpg"]
    content = json.loads(annotations.read_text())
    content["annotations"][1]["keypoints"] = [1, 2]
    annotations.write_text(json.dumps(content))
    assert command.run(parser.parse_args(words)) == 1
    assert "keypoint-count" in capsys.readouterr().out


def test_the_command_fine_tunes_another_skeleton(tmp_path: Path) -> None:
    annotations, images = write_dataset(tmp_path / "data", photos=4)
    content = json.loads(annotations.read_text())
    names = ["nose", "left_tip", "right_tip"]
    content["categories"] = [{"id": 1, "name": "kite", "keypoints": names, "skeleton": [[1, 2], [1, 3]]}]
    for annotation in content["annotations"]:
        annotation["keypoints"], annotation["num_keypoints"] = annotation["keypoints"][:9], 3
    annotations.write_text(json.dumps(content))
    start = write_small_model(tmp_path / "start.safetensors")
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    words = [annotations, "--images", images, "--out", tmp_path / "kite", "--epochs", 1, "--batch-size", 2]
    words += ["--size", 64, "--workers", 0, "--precision", "float32", "--device", "cpu", "--init", start]
    assert command.run(parser.parse_args([str(word) for word in words])) == 0
    estimator = PoseEstimator.from_pretrained(tmp_path / "kite", device="cpu")
    assert estimator.config.skeleton.keypoints == tuple(names)
    assert estimator.config.name == "kite"
    assert estimator.config.decode.nms_min_keypoints == 1
    assert estimator.estimate(np.zeros((64, 64, 3), np.uint8)).keypoints.shape[1:] == (3, 2)
