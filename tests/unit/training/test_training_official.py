"""Official targets in training: a sample is what the released code would have made of the photo."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dekrpose.architectures.dekr.batches import MapBatch as Batch
from dekrpose.architectures.dekr.batches import TargetConfig
from dekrpose.architectures.dekr.recipes import tiny_recipe
from dekrpose.architectures.dekr.targets import (
    drop_small_centers,
    heatmap_targets,
    official_areas,
    official_center_sigma,
    offset_targets,
    person_centers,
)
from dekrpose.architectures.learning import AugmentConfig, TrainConfig
from dekrpose.commands import train as command
from dekrpose.data.dataset import Person, Photo
from dekrpose.errors import DekrPoseError
from dekrpose.skeletons import COCO_17, CROWDPOSE_14, Skeleton
from dekrpose.training import start
from dekrpose.training.crops import training_affine
from dekrpose.training.loader import Samples
from dekrpose.training.run_log import changes

SIZE, WIDTH, HEIGHT = 128, 200, 160
STILL = AugmentConfig(size=SIZE, rotation=0, scale=(0.7, 0.7), translation=0, flip=0)
OFFICIAL = TargetConfig(mode="official")


def person(skeleton: Skeleton, box: tuple[float, float, float, float], area: float, unlabelled: int = 0) -> Person:
    """Somebody whose keypoints are spread over a box (left, top, right, bottom); the first ones may be unlabelled."""
    rng = np.random.default_rng(int(area))
    keypoints = np.full((len(skeleton), 3), 2, np.float32)
    keypoints[:, :2] = rng.uniform(box[:2], box[2:], (len(skeleton), 2)).round(1)
    keypoints[:unlabelled] = 0
    frame = np.array([box[0], box[1], box[2] - box[0], box[3] - box[1]], np.float32)
    return Person(keypoints, frame, area, unlabelled == len(skeleton), "", [])


@dataclass
class FivePeople:
    """Whole, reaching out of the crop, small, without labels (large and small); and a crowd."""

    skeleton: Skeleton = COCO_17
    photos: list[Photo] = field(default_factory=list)

    def __post_init__(self) -> None:
        count = len(self.skeleton)
        crowd = Person(
            np.zeros((count, 3), np.float32), np.zeros(4, np.float32), 9e3, True, "", {"counts": [], "size": []}
        )
        people = (
            person(self.skeleton, (60, 50, 120, 130), 4000.0),
            person(self.skeleton, (0, 20, 90, 110), 5000.0, unlabelled=4),
            person(self.skeleton, (120, 70, 140, 95), 1000.0),
            person(self.skeleton, (150, 0, 199, 60), 2000.0, unlabelled=count),
            person(self.skeleton, (0, 0, 20, 20), 300.0, unlabelled=count),
            crowd,
        )
        self.photos = [Photo(1, "people", WIDTH, HEIGHT, "", people)]

    def read(self, index: int) -> NDArray[np.uint8]:
        return np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)

    def ignored_mask(self, index: int) -> NDArray[np.bool_]:
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[:60, 150:] = True
        return mask


def directly(source: FivePeople, scale: float, mirrored: bool) -> tuple[torch.Tensor, ...]:
    """Heatmaps, offsets, offset weights by the functions alone: the map's own affine on joints and centers."""
    count = len(source.skeleton)
    people = source.photos[0].people[:5]
    keypoints = torch.tensor(np.stack([p.keypoints for p in people])).double()
    centers = person_centers(keypoints, mode="official")
    if count == 17:
        centers = drop_small_centers(centers, torch.tensor([p.area for p in people]))
    joints = torch.cat([keypoints, centers[:, None]], 1)
    area_factor = training_affine((WIDTH / 2, HEIGHT / 2), scale, (SIZE, SIZE), 0)[1]
    matrix = torch.tensor(training_affine((WIDTH / 2, HEIGHT / 2), scale, (SIZE // 4, SIZE // 4), 0)[0])
    joints[..., :2] = joints[..., :2] @ matrix[:, :2].T + matrix[:, 2]
    if mirrored:
        joints[..., 0] = SIZE // 4 - 1 - joints[..., 0]
        joints = joints[:, [*source.skeleton.flip_indices, count]]
    size = (SIZE // 4, SIZE // 4)
    heatmaps, weights = heatmap_targets(joints[:, :-1], joints[:, -1], size, center_sigma=official_center_sigma(count))
    areas = official_areas(keypoints) * area_factor
    return heatmaps, weights, *offset_targets(joints[:, :-1], joints[:, -1], size, mode="official", areas=areas)


def sample(source: FivePeople, augmentation: AugmentConfig = STILL, targets: TargetConfig = OFFICIAL) -> Batch:
    return Samples(source, augmentation, targets, seed=0)[0, 0, 0]


@pytest.mark.parametrize("skeleton", [COCO_17, CROWDPOSE_14], ids=["COCO", "CrowdPose"])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("zoom", [0.7, 1.4])
def test_a_sample_equals_the_targets_made_from_the_photo(skeleton: Skeleton, mirrored: bool, zoom: float) -> None:
    source = FivePeople(skeleton)
    made = sample(source, replace(STILL, flip=float(mirrored), scale=(zoom, zoom)))
    heatmaps, weights, offsets, offset_weights = directly(source, zoom * HEIGHT / 200, mirrored)
    assert (offset_weights > 0).any()
    torch.testing.assert_close(made.heatmaps, heatmaps, atol=1e-6, rtol=0)
    torch.testing.assert_close(made.offsets, offsets, atol=1e-4, rtol=0)
    torch.testing.assert_close(made.offset_weights, offset_weights, atol=1e-8, rtol=1e-5)
    seen = (made.heatmap_weights > 0).all(0)
    assert not seen.all()
    torch.testing.assert_close(made.heatmap_weights[:, seen], weights[:, seen])


def test_what_the_crop_leaves_out_moves_no_center() -> None:
    source = FivePeople()
    keypoints = source.photos[0].people[1].keypoints
    matrix, _ = training_affine((WIDTH / 2, HEIGHT / 2), 0.7 * HEIGHT / 200, (SIZE // 4, SIZE // 4), 0)
    moved = keypoints[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    labelled = keypoints[:, 2] > 0
    outside = labelled & (moved < 0).any(axis=1)
    assert outside.sum() >= 2
    whole, visible = moved[labelled].mean(axis=0), moved[labelled & ~outside].mean(axis=0)
    assert np.linalg.norm(whole - visible) > 1
    official, paper = sample(source).heatmaps[-1], sample(source, targets=TargetConfig()).heatmaps[-1]
    x, y = whole.round().astype(int)
    assert official[y, x] > 0.97
    assert paper[y, x] < 0.97


def test_small_people_have_no_center_with_seventeen_keypoints_only() -> None:
    for skeleton, centers in ((COCO_17, 0), (CROWDPOSE_14, 1)):
        source = FivePeople(skeleton)
        source.photos = [replace(source.photos[0], people=source.photos[0].people[2:3])]
        made = sample(source)
        assert (made.offset_weights > 0).any() == bool(centers)
        assert (made.heatmaps[-1].max() > 0.9) == bool(centers)
        assert (made.heatmaps[:-1].amax((1, 2)) > 0.9).all()


def test_somebody_without_labels_has_a_center_at_the_corner_of_the_photo() -> None:
    source = FivePeople()
    for chosen, centers in ((slice(3, 4), True), (slice(4, 5), False), (slice(5, 6), False), (slice(0, 0), False)):
        photos = FivePeople(photos=[])
        photos.photos = [replace(source.photos[0], people=source.photos[0].people[chosen])]
        made = sample(photos, replace(STILL, scale=(1.4, 1.4)))
        matrix, _ = training_affine((WIDTH / 2, HEIGHT / 2), 1.4 * HEIGHT / 200, (SIZE // 4, SIZE // 4), 0)
        x, y = matrix[:, 2].round().astype(int)
        assert (made.heatmaps[-1, y, x] > 0.9) == centers
        assert not (made.offset_weights > 0).any()


def test_turned_and_shifted_samples_are_still_those_of_the_photo() -> None:
    source = FivePeople()
    augmentation = AugmentConfig(size=SIZE)
    for position in range(6):
        samples = Samples(source, augmentation, OFFICIAL, seed=1)
        made, crop = samples[0, position, 0], samples.draw((0, position, 0))[0]
        assert crop.placement is not None
        center = person_centers(torch.tensor(source.photos[0].people[0].keypoints)[None])[0, :2].numpy()
        x, y = (crop.placement.matrix[:, :2] @ center + crop.placement.matrix[:, 2]) / 4
        x = SIZE // 4 - 1 - x if crop.placement.mirrored else x
        if min(x, y) > 1 and max(x, y) < SIZE // 4 - 2:
            assert made.heatmaps[-1, round(y), round(x)] > 0.97


def test_chosen_pixels_hold_official_offsets() -> None:
    source = FivePeople()
    dense, sparse = sample(source), sample(source, targets=replace(OFFICIAL, offset_pixels=300))
    assert sparse.pixels is not None
    x, y = sparse.pixels.T
    assert torch.equal(dense.offsets[:, y, x], sparse.offsets)
    assert (dense.offset_weights > 0).sum() == (sparse.offset_weights > 0).sum()


def test_mosaics_and_pasted_people_are_refused() -> None:
    for change in ({"mosaic": 0.2}, {"copy_paste": 0.2}):
        with pytest.raises(DekrPoseError, match="set both to 0"):
            Samples(FivePeople(), replace(STILL, **change), OFFICIAL, seed=0)  # type: ignore[arg-type]


def parsed(*arguments: str) -> TrainConfig:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return start.recipe(parser.parse_args(["data.json", *arguments]))


def test_official_targets_bring_their_weight_of_the_offset_loss() -> None:
    released = parsed("--arch", "dekr-w32-coco", "--paper", "--targets", "official")
    assert (released.targets, released.offset_factor) == (OFFICIAL, 0.03)
    assert parsed("--arch", "dekr-w32-coco", "--paper").offset_factor == 0.002
    assert parsed("--targets", "official", "--mosaic", "0").offset_factor == 0.03


def test_crowds_are_the_recipes_unless_the_command_line_says_otherwise() -> None:
    assert (parsed().augment.mosaic, parsed().augment.copy_paste) == (
        tiny_recipe().augment.mosaic,
        tiny_recipe().augment.copy_paste,
    )
    changed = parsed("--mosaic", "0.5", "--copy-paste", "0").augment
    assert (changed.mosaic, changed.copy_paste) == (0.5, 0.0)
    with pytest.raises(DekrPoseError, match="set both to 0"):
        parsed("--targets", "official", "--mosaic", "0.5")
    with pytest.raises(SystemExit):
        parsed("--copy-paste", "20")


def test_a_state_of_before_these_settings_can_still_be_resumed() -> None:
    now = asdict(tiny_recipe())
    before = {**now, "augment": dict(now["augment"]), "targets": dict(now["targets"])}
    del before["augment"]["copy_paste"], before["targets"]["mode"]
    assert changes(before, now) == []
    before["augment"]["mosaic"] = 0.77
    assert changes(before, now) == ["augment"]
