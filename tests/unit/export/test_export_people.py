"""Files that compute offsets at centers alone find the people that torch finds, and refuse what needs the map."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dekrpose import DekrPoseError, PoseEstimator, export
from dekrpose.architectures.dekr import exporting
from dekrpose.architectures.dekr.exported_network import ExportedNetwork
from dekrpose.architectures.dekr.exported_poses import ExportedCenters, ExportedPoses, PoseOutputs
from dekrpose.architectures.parts.poses import OKSScoreNet
from dekrpose.config import EfficientNetLiteConfig, HeadConfig
from dekrpose.engines.file import open_exported
from tests.movenet_files import OWN
from tests.small_model import SMALL
from tests.unit.engines.test_engines_cpu import network
from tests.unit.export.test_export import FEW_BRANCHES, Files, opened, photo, small, written_once

CHANGES: dict[str, dict[str, Any]] = {
    "as small": {},
    "one map": {"backbone": EfficientNetLiteConfig(channels=16)},
    "two blocks": {"head": HeadConfig(heatmap_channels=8, keypoint_channels=4, blocks=2)},
    "grouped": {"head": HeadConfig(heatmap_channels=8, keypoint_channels=4, blocks=1, branches="grouped_13")},
    "movenet's heads": {"backbone": OWN.backbone, "head": OWN.head},
    "plain convolutions": {"head": HeadConfig(heatmap_channels=8, keypoint_channels=4, blocks=2, adaptive=False)},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=list(CHANGES))
def test_the_graph_reads_what_whole_maps_hold(tmp_path: Path, changes: dict[str, Any]) -> None:
    estimator = small(tmp_path, **changes)
    pictures = torch.from_numpy(np.stack([photo(96, 128), photo(96, 128, seed=1)])).permute(0, 3, 1, 2)
    poses = PoseOutputs(estimator.config, estimator.rescoring_net, 20)
    people, whole = (
        kind(ExportedNetwork(estimator.model, "grid_sample", offsets), poses).eval()  # type: ignore[arg-type]
        for kind, offsets in ((ExportedCenters, "people"), (ExportedPoses, "map"))
    )
    with torch.inference_mode():
        heatmaps, candidates, *found = people(pictures)
        own_heatmaps, offsets, *expected = whole(pictures)
    torch.testing.assert_close(heatmaps, own_heatmaps)
    assert candidates.shape == (2, 20, 17, 3)
    assert (candidates[..., 2] > 0.01).all()
    assert exporting._candidates_apart(candidates, heatmaps[:, -1], offsets) < 1e-2
    # rounding may change the order of people who are as good as each other
    assert export._people_apart(tuple(expected), found) < 1e-2  # type: ignore[arg-type]
    torch.testing.assert_close(found[2].sort(1)[0], expected[2].sort(1)[0], atol=1e-3, rtol=1e-4)


def lively() -> PoseEstimator:
    """A small estimator whose centers are not all equally high, and so come in one order everywhere."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = OKSScoreNet(3 * len(SMALL.skeleton.edges) + len(SMALL.skeleton))
    return PoseEstimator(network(replace(SMALL, head=FEW_BRANCHES)), rescoring_net=net)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return written_once(tmp_path_factory.mktemp("people"), lively, offsets="people")


@pytest.fixture(params=[*(pytest.param(name, marks=pytest.mark.slow) for name in ("onnx", "openvino")), "pt2"])
def exported(request: pytest.FixtureRequest, files: Files) -> Path:
    return files(request.param)


@pytest.mark.parametrize("options", [{}, {"rescore": False, "nms_threshold": 0.3}, {"max_people": 2}], ids=str)
def test_people_are_those_of_torch(exported: Path, options: dict[str, Any]) -> None:
    estimator, other = lively(), opened(exported)
    photos = [photo(180, 260), photo(180, 260, seed=1), photo(64, 64)]
    options = {"score_threshold": 0, "input_size": 128, **options}
    expected, found = (list(one.estimate_many(photos, **options)) for one in (estimator, other))
    for own, poses in zip(found, expected, strict=True):
        assert len(own) == len(poses) > 0
        # made-up people are nearly as good as each other, so rounding may change their order
        apart = np.abs(own.keypoints[:, None] - poses.keypoints[None]).max(axis=(2, 3))
        assert apart.min(axis=1).max() <= 0.05
        np.testing.assert_allclose(np.sort(own.scores), np.sort(poses.scores), atol=1e-3)


def test_hooks_do_not_change_what_a_file_gives(exported: Path) -> None:
    estimator = PoseEstimator.from_pretrained(exported, device="cpu", trust_code=True)
    expected = estimator.estimate(photo(64, 64), score_threshold=0)
    estimator.model.register_forward_hook(lambda *_: None)
    assert np.array_equal(estimator.estimate(photo(64, 64), score_threshold=0).keypoints, expected.keypoints)


def test_keypoints_are_matched_to_heatmaps(exported: Path) -> None:
    estimator, other = lively(), opened(exported)
    options: dict[str, Any] = {"score_threshold": 0, "match_heatmap": "paper", "max_people": 1}
    expected, poses = (one.estimate(photo(96, 128), **options) for one in (estimator, other))
    apart = np.abs(poses.keypoints - expected.keypoints).max(axis=2)
    assert (apart <= 0.05).mean() >= 0.9  # among peaks of noise some are as high as others
    assert not np.allclose(
        poses.keypoints, other.estimate(photo(96, 128), **{**options, "match_heatmap": False}).keypoints
    )


def test_what_needs_the_map_is_refused(files: Files) -> None:
    estimator = opened(files("pt2"))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"flip_test": True}, "export the model with `--offsets map`"),
        ({"scales": (0.5, 1)}, "export the model with `--offsets map`"),
        ({"max_people": 31}, "has 30 places for people, got max_people=31; export the model with `--max-people 31`"),
    ]
    for options, message in cases:
        with pytest.raises(ValueError, match=message):
            estimator.estimate(photo(64, 64), **options)
        with pytest.raises(ValueError, match=message):
            estimator.estimate_many([photo(64, 64)], **options)


def test_the_first_outputs_say_what_it_is(exported: Path) -> None:
    runner, texts = open_exported(exported, people=True, trust_code=True)
    assert texts["dekrpose_offsets"] == "people"
    answer = runner(photo(96, 128).transpose(2, 0, 1)[None].copy())
    assert [part.shape for part in answer] == [(1, 18, 24, 32), (1, 30, 17, 3), (1, 30, 17, 2), (1, 30, 17), (1, 30)]


@pytest.mark.slow
def test_half_precision_on_openvino(files: Files) -> None:
    path = files("openvino")
    poses = PoseEstimator.from_pretrained(path, dtype="bfloat16").estimate(photo(64, 64), score_threshold=0)
    assert len(poses)
    assert np.isfinite(poses.keypoints).all()


@pytest.mark.slow
def test_poses_that_differ_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    estimator = small(tmp_path, head=FEW_BRANCHES)
    right = PoseOutputs.poses_at
    monkeypatch.setattr(PoseOutputs, "poses_at", lambda self, xy, offsets: right(self, xy, offsets) + 0.1)
    with pytest.raises(DekrPoseError, match=r"answered differently from torch, .* keypoints by 0\.1"):
        estimator.export("pt2", tmp_path / "small.pt2", offsets="people")
    assert not (tmp_path / "small.pt2").exists()


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="offsets must be one of map, people, got 'few'"):
        small(tmp_path).export("pt2", tmp_path / "x.pt2", offsets="few")  # type: ignore[arg-type]
