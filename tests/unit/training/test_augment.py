"""Augmentation: keypoints stay on what they mark, whatever happens to the photo."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dekrpose.architectures.learning import AugmentConfig
from dekrpose.data.dataset import Person, Photo
from dekrpose.skeletons import COCO_17, Skeleton
from dekrpose.training.augment import augment

SIZE = 128
WHITE = 255


@dataclass
class OneDot:
    """Photos with one white dot, which is somebody's left wrist; a black quarter is ignored."""

    skeleton: Skeleton = COCO_17
    photos: list[Photo] = field(default_factory=list)

    def __post_init__(self) -> None:
        keypoints = np.zeros((17, 3), np.float32)
        keypoints[9] = (70, 50, 2)
        box = np.array([60, 40, 20, 20], np.float32)
        self.photos = [Photo(1, "dot", 120, 96, "", (Person(keypoints, box, 400.0, False, "", []),))]

    def read(self, index: int) -> NDArray[np.uint8]:
        image = np.zeros((96, 120, 3), np.uint8)
        cv2.circle(image, (70, 50), 3, (WHITE, WHITE, WHITE), -1)
        return image

    def ignored_mask(self, index: int) -> NDArray[np.bool_]:
        mask = np.zeros((96, 120), bool)
        mask[47:54, 67:74] = True
        return mask


STILL = AugmentConfig(size=SIZE, rotation=0, scale=(1.0, 1.0), translation=0, flip=0)


def dots(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Centers of the bright spots, xy."""
    _, _, statistics, centers = cv2.connectedComponentsWithStats((image[..., 0] > 100).astype(np.uint8))
    return np.asarray(centers[1:][statistics[1:, 4] > 4])


@pytest.mark.parametrize(
    "config",
    [
        STILL,
        replace(STILL, rotation=180.0),
        replace(STILL, scale=(0.6, 1.4)),
        replace(STILL, translation=20.0),
        replace(STILL, flip=1.0),
        replace(STILL, flip=0.5, rotation=40, scale=(0.6, 1.4), translation=20, on_person=0.5),
    ],
)
def test_a_keypoint_stays_on_its_dot(config: AugmentConfig) -> None:
    for seed in range(20):
        crop = augment(OneDot(), 0, config, np.random.default_rng(seed))
        labelled = crop.keypoints[crop.keypoints[..., 2] > 0][:, :2]
        for point in labelled:
            if (point > 4).all() and (point < SIZE - 5).all():
                assert np.linalg.norm(dots(crop.image)[0] - point) < 0.75
                x, y = point.round().astype(int)
                assert crop.ignored[y, x]


def test_mirroring_makes_left_right() -> None:
    crop = augment(OneDot(), 0, replace(STILL, flip=1.0), np.random.default_rng(0))
    assert crop.keypoints[0, COCO_17.index("right_wrist"), 2] == 2
    assert crop.keypoints[0, COCO_17.index("left_wrist"), 2] == 0


def test_a_mosaic_brings_several_people_each_on_a_dot() -> None:
    counts = []
    for seed in range(20):
        crop = augment(OneDot(), 0, replace(STILL, mosaic=1.0, flip=0.5), np.random.default_rng(seed))
        points = crop.keypoints[crop.keypoints[..., 2] > 0][:, :2]
        counts.append(len(points))
        inner = [point for point in points if (np.abs(dots(crop.image) - point).sum(1) < 6).any()]
        assert len(inner) >= len(points) - 1  # a dot may be cut by the edge of its cell
        assert crop.image.shape == (SIZE, SIZE, 3)
    assert max(counts) == 4


def test_keypoints_that_leave_the_crop_become_unlabelled() -> None:
    crop = augment(OneDot(), 0, replace(STILL, scale=(0.05, 0.05)), np.random.default_rng(0))
    assert len(crop.keypoints) == 0


def test_the_same_generator_gives_the_same_crop_and_another_one_does_not() -> None:
    config = AugmentConfig(size=SIZE, color=0.3, grey=0.1, mosaic=0.5)
    first, again, other = (augment(OneDot(), 0, config, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.keypoints, again.keypoints)
    assert (first.image != other.image).any()


def test_grey_removes_the_colours() -> None:
    class Red(OneDot):
        def read(self, index: int) -> NDArray[np.uint8]:
            return np.full((96, 120, 3), (200, 30, 60), np.uint8)

    crop = augment(Red(), 0, replace(STILL, grey=1.0), np.random.default_rng(0))
    middle = crop.image[SIZE // 2, SIZE // 2].astype(int)
    assert middle.max() - middle.min() <= 1
