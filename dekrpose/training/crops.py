"""What augmentation takes and gives: photos with people, and crops of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dekrpose.data.dataset import Photo
from dekrpose.skeletons import Skeleton


class PhotoSource(Protocol):
    """What augmentation needs of a dataset."""

    skeleton: Skeleton
    photos: list[Photo]

    def read(self, index: int) -> NDArray[np.uint8]: ...
    def ignored_mask(self, index: int) -> NDArray[np.bool_]: ...


@dataclass(frozen=True)
class Placement:
    """How a photo came into its crop.

    Attributes:
        matrix: (2, 3) float64 for column vectors (x, y, 1), image pixels to input pixels, before mirroring.
        area_factor: by which areas grow, from ``training_affine``.
        mirrored: whether the crop was mirrored afterwards.
    """

    matrix: NDArray[np.float64]
    area_factor: float
    mirrored: bool


@dataclass(frozen=True)
class Crop:
    """One augmented crop.

    Attributes:
        image: (h, w, 3) uint8 RGB.
        keypoints: (P, K, 3) float32 x, y, visibility; input pixels; outside the crop visibility is 0.
        ignored: (h, w) True where people are not annotated.
        placement: of the photo; None for a mosaic.
        cells: left, top, right, bottom of a mosaic's parts, input pixels, right and bottom not included.
    """

    image: NDArray[np.uint8]
    keypoints: NDArray[np.float32]
    ignored: NDArray[np.bool_]
    placement: Placement | None = None
    cells: tuple[tuple[int, int, int, int], ...] = ()


def moved_keypoints(
    keypoints: NDArray[np.float32], matrix: NDArray[np.float64], size: tuple[int, int]
) -> NDArray[np.float32]:
    """Keypoints in a crop's frame; those outside become unlabelled, as they would be in such a photo.

    Args:
        keypoints: (P, K, 3) x, y, visibility, image pixels.
        matrix: (2, 3) image pixels to input pixels.
        size: (height, width) of the crop.

    Returns:
        (P, K, 3) x, y, visibility, input pixels.
    """
    moved = keypoints.copy()
    moved[..., :2] = keypoints[..., :2] @ matrix[:, :2].T + matrix[:, 2]
    inside = (moved[..., :2] >= 0).all(-1) & (moved[..., 0] < size[1]) & (moved[..., 1] < size[0])
    moved[..., 2] *= inside
    return moved
