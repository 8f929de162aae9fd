"""Crops of photos with people, and the affine map between the two."""

from __future__ import annotations

from math import cos, radians, sin
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dekrpose.data.dataset import Photo
from dekrpose.skeletons import Skeleton

SCALE_UNIT = 200.0
"""Image pixels per unit of the official "scale"."""


def training_affine(
    center_xy: tuple[float, float], scale: float, size: tuple[int, int], rotation_degrees: float
) -> tuple[np.ndarray, float]:
    """The map that turns and scales a photo about ``center_xy`` and puts that point into the crop's middle.

    Args:
        center_xy: the point that comes to the middle, image pixels.
        scale: side of the square that fills the crop's short side, in units of 200 image pixels.
        size: (height, width) of the crop, in input pixels or heatmap pixels.
        rotation_degrees: counter-clockwise as seen in the picture.

    Returns:
        The (2, 3) float64 matrix for column vectors (x, y, 1), and the factor by which areas grow.

    Raises:
        ValueError: scale is not positive.
    """
    if scale <= 0:
        raise ValueError(f"scale must be positive, got {scale}")
    height, width = size
    zoom = min(height, width) / (SCALE_UNIT * scale)
    along, across = zoom * cos(radians(rotation_degrees)), zoom * sin(radians(rotation_degrees))
    linear = np.array([[along, across], [-across, along]])
    shift = np.array([width / 2, height / 2]) - linear @ np.asarray(center_xy, dtype=np.float64)
    return np.column_stack([linear, shift]), zoom * zoom


class PhotoSource(Protocol):
    """What augmentation needs of a dataset."""

    skeleton: Skeleton
    photos: list[Photo]

    def read(self, index: int) -> NDArray[np.uint8]: ...
    def ignored_mask(self, index: int) -> NDArray[np.bool_]: ...


def moved_keypoints(
    keypoints: NDArray[np.float32], matrix: NDArray[np.float64], size: tuple[int, int]
) -> NDArray[np.float32]:
    """Keypoints (P, K, 3) in a crop's frame; those outside become unlabelled, as they would be in such a photo.

    ``matrix`` (2, 3) maps image pixels to input pixels, ``size`` is the (height, width) of the crop.
    """
    moved = keypoints.copy()
    moved[..., :2] = keypoints[..., :2] @ matrix[:, :2].T + matrix[:, 2]
    inside = (moved[..., :2] >= 0).all(-1) & (moved[..., 0] < size[1]) & (moved[..., 1] < size[0])
    moved[..., 2] *= inside
    return moved
