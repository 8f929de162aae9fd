"""Saved, uploaded and moved models give the same poses, to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dekrpose import PoseEstimator, Poses, Skeleton
from dekrpose.config import DecodeConfig
from tests import checkpoint_fixtures as fixtures
from tests.hub_server import Account, HubServer
from tests.small_model import SMALL, write_small_model

REPO = "ada/five-keypoints"
SKELETON = Skeleton(
    name="hand",
    keypoints=("wrist", "thumb", "index", "left_side", "right_side"),
    edges=((0, 1), (0, 2), (0, 3), (0, 4)),
    flip_pairs=((3, 4),),
    sigmas=(0.05, 0.06, 0.07, 0.08, 0.08),
)
CONFIG = replace(
    SMALL,
    name="five",
    skeleton=SKELETON,
    input_size=96,
    decode=DecodeConfig(score_threshold=0.2, nms_threshold=0.31),
    license="mit",
    training_data="made-up hands",
    metrics={"AP": 12.5},
)
PHOTO = np.random.default_rng(7).integers(0, 256, (120, 160, 3), dtype=np.uint8)


@pytest.fixture
def estimator(tmp_path: Path) -> PoseEstimator:
    return PoseEstimator.from_pretrained(write_small_model(tmp_path / "five.safetensors", CONFIG), device="cpu")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer() as server:
        server.use(monkeypatch, tmp_path / "home")
        server.accounts = {"hf_ada": Account("ada")}
        yield server


def poses_of(estimator: PoseEstimator) -> Poses:
    return estimator.estimate(PHOTO, flip_test=True, score_threshold=0)


def assert_equal(first: PoseEstimator, second: PoseEstimator) -> None:
    assert second.config == first.config
    ours, theirs = poses_of(first), poses_of(second)
    assert len(ours) > 0
    np.testing.assert_array_equal(theirs.keypoints, ours.keypoints)
    np.testing.assert_array_equal(theirs.keypoint_scores, ours.keypoint_scores)
    np.testing.assert_array_equal(theirs.scores, ours.scores)


def test_a_saved_folder(estimator: PoseEstimator, tmp_path: Path) -> None:
    estimator.save_pretrained(tmp_path / "saved")
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == [
        "README.md", "config.json", "model.safetensors",
    ]  # fmt: skip
    assert_equal(estimator, PoseEstimator.from_pretrained(tmp_path / "saved", device="cpu"))


def test_the_weights_file_alone_rebuilds_the_estimator(estimator: PoseEstimator, tmp_path: Path) -> None:
    estimator.save_pretrained(tmp_path / "saved")
    alone = tmp_path / "elsewhere" / "renamed.safetensors"
    alone.parent.mkdir()
    (tmp_path / "saved" / "model.safetensors").rename(alone)
    other = PoseEstimator.from_pretrained(alone, device="cpu")
    assert other.config.skeleton == SKELETON
    assert other.config.input_size == 96
    assert other.config.decode.score_threshold == 0.2
    assert other.config.decode.nms_threshold == 0.31
    assert poses_of(other)[0]["thumb"] == poses_of(estimator)[0]["thumb"]
    assert_equal(estimator, other)


def test_an_uploaded_model_with_its_scoring_net(hub: HubServer, tmp_path: Path) -> None:
    torch.save(fixtures.scoring_net(), tmp_path / "net.pth")
    path = write_small_model(tmp_path / "model.safetensors")
    first = PoseEstimator.from_pretrained(path, rescoring_net=tmp_path / "net.pth", device="cpu")
    address = first.push_to_hub("ada/people", token="hf_ada", commit_message="First")
    assert "ada/people" in address
    second = PoseEstimator.from_pretrained("ada/people", device="cpu")
    assert second.rescoring_net is not None
    assert_equal(first, second)


def test_an_uploaded_private_model_and_its_card(hub: HubServer, estimator: PoseEstimator, tmp_path: Path) -> None:
    estimator.push_to_hub(REPO, token="hf_ada", private=True, revision="v1")
    second = PoseEstimator.from_pretrained(REPO, token="hf_ada", revision="v1", device="cpu")
    assert_equal(estimator, second)
    third = PoseEstimator.from_pretrained(REPO, revision="v1", local_files_only=True, device="cpu")
    assert_equal(estimator, third)
    (card,) = (tmp_path / "home").rglob("README.md")
    text = card.read_text(encoding="utf-8")
    assert f'from_pretrained("{REPO}")' in text
    assert "pipeline_tag: keypoint-detection" in text
    assert "made-up hands" in text
