"""The contact sheet draws what is taught, not what was annotated."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dekrpose.architectures.dekr.batches import TargetConfig
from dekrpose.architectures.directpose.targets import LocationTargets
from dekrpose.architectures.learning import AugmentConfig
from dekrpose.data.dataset import KeypointDataset
from dekrpose.errors import DekrPoseError
from dekrpose.training.contact_sheet import contact_sheet, draw_samples
from dekrpose.training.loader import Samples
from tests.training_photos import made_up_dataset, write_dataset

STILL = AugmentConfig(size=96, rotation=0, scale=(1.0, 1.0), translation=0, flip=0)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> KeypointDataset:
    return made_up_dataset(tmp_path_factory.mktemp("data"), photos=3)


@pytest.mark.parametrize("offset_pixels", [0, 80])
def test_the_drawn_pose_is_the_taught_one(photos: KeypointDataset, offset_pixels: int) -> None:
    sample = Samples(photos, STILL, TargetConfig(offset_pixels=offset_pixels), seed=0)[0, 0, 1]
    (pose,) = sample.shown().poses
    keypoints = photos.photos[1].people[0].keypoints[:, :2]
    assert pose.taught.all()
    np.testing.assert_allclose(pose.keypoints, keypoints, atol=1e-3)
    np.testing.assert_allclose(pose.center, keypoints.mean(axis=0), atol=4)
    assert len(pose.places) == 49  # of a disc of radius 4


def test_directpose_is_drawn_as_it_is_taught(photos: KeypointDataset) -> None:
    sample = Samples(photos, STILL, LocationTargets(levels=3), seed=0)[0, 0, 1]
    shown = sample.shown()
    (pose,) = shown.poses
    keypoints = photos.photos[1].people[0].keypoints[:, :2]
    assert pose.taught.all()
    np.testing.assert_allclose(pose.keypoints, keypoints, atol=1e-3)
    middle = (keypoints.min(axis=0) + keypoints.max(axis=0)) / 2
    np.testing.assert_allclose(pose.center, middle, atol=pose.sides[0])
    assert len(pose.places) == sample.positive.sum()
    cells = np.argwhere(shown.heat[:-1])[:, ::-1][:, :2] * shown.stride + shown.first
    np.testing.assert_allclose(cells, keypoints, atol=4.01)
    picture = draw_samples([sample], ["a"], photos.skeleton)
    moved = draw_samples([replace(sample, keypoints=sample.keypoints + 1)], ["a"], photos.skeleton)
    assert (picture != moved).any(axis=2).sum() > 50


def test_a_wrong_target_is_seen(photos: KeypointDataset) -> None:
    sample = Samples(photos, STILL, TargetConfig(), seed=0)[0, 0, 0]
    right = draw_samples([sample], ["a"], photos.skeleton)
    offsets = sample.offsets.clone()
    offsets[20] += 3 * (sample.offset_weights[20] > 0)
    heatmaps = torch.roll(sample.heatmaps, 5, dims=2)
    for wrong in (replace(sample, offsets=offsets), replace(sample, heatmaps=heatmaps)):
        picture = draw_samples([wrong], ["a"], photos.skeleton)
        assert picture.shape == right.shape
        assert (picture != right).any(axis=2).sum() > 50


def test_nobody_is_drawn_where_nobody_is_taught(tmp_path: Path) -> None:
    annotations, images = write_dataset(tmp_path / "data", photos=1)
    content = json.loads(annotations.read_text())
    content["annotations"][0] |= {"keypoints": [0] * 51, "bbox": [0, 0, 48, 96]}
    annotations.write_text(json.dumps(content))
    dataset = KeypointDataset(annotations, [images])
    sample = Samples(dataset, STILL, TargetConfig(), seed=0)[0, 0, 0]
    assert sample.shown().poses == []
    picture = draw_samples([sample], ["a"], dataset.skeleton)
    plain = draw_samples(
        [replace(sample, heatmap_weights=torch.full_like(sample.heatmap_weights, 0.1))], ["a"], dataset.skeleton
    )
    hatched = (picture[10:298, 10:298] != plain[10:298, 10:298]).any(axis=2)
    assert 0.1 < hatched[:, :140].mean() < 0.5
    assert not hatched[:, 148:].any()


def test_the_sheet_is_written_whole_and_the_same_for_a_seed(photos: KeypointDataset, tmp_path: Path) -> None:
    mixed = AugmentConfig(size=64, mosaic=0.5)
    for name, seed in (("a.png", 0), ("b.png", 0), ("c.png", 1), ("d.jpg", 0)):
        assert contact_sheet(photos, mixed, TargetConfig(), tmp_path / "new" / name, count=4, seed=seed).is_file()
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.png", "b.png", "c.png", "d.jpg"]
    a, b, c = (cv2.imread(str(tmp_path / "new" / name)) for name in ("a.png", "b.png", "c.png"))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_what_cannot_be_drawn_is_refused(photos: KeypointDataset, tmp_path: Path) -> None:
    with pytest.raises(DekrPoseError, match=r"is a .jpg or .png file, got 'a.gif'"):
        contact_sheet(photos, STILL, TargetConfig(), tmp_path / "a.gif")
    empty = tmp_path / "people.json"
    empty.write_text('{"images": [], "annotations": []}')
    with pytest.raises(DekrPoseError, match="no photos"):
        contact_sheet(KeypointDataset(empty), STILL, TargetConfig(), tmp_path / "a.png")
