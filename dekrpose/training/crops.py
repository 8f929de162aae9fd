"""Crops of photos with people, the affine map between the two, and who is taught in a crop."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, radians, sin
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dekrpose.architectures.dekr.targets import COCO_KEYPOINTS, drop_small_centers, official_areas, person_centers
from dekrpose.config import OUTPUT_STRIDE
from dekrpose.data.dataset import Photo
from dekrpose.errors import DekrPoseError
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
    """Keypoints (P, K, 3) in a crop's frame; those outside become unlabelled, as they would be in such a photo.

    ``matrix`` (2, 3) maps image pixels to input pixels, ``size`` is the (height, width) of the crop.
    """
    moved = keypoints.copy()
    moved[..., :2] = keypoints[..., :2] @ matrix[:, :2].T + matrix[:, 2]
    inside = (moved[..., :2] >= 0).all(-1) & (moved[..., 0] < size[1]) & (moved[..., 1] < size[0])
    moved[..., 2] *= inside
    return moved


@dataclass(frozen=True)
class CropPeople:
    """The people of a crop; P may be 0.

    Attributes:
        keypoints, centers: (P, K, 3) and (P, 3) x, y, visibility, heatmap pixels.
        ignored: (h, w) boolean, True where people are not annotated; h, w are the map's.
        areas: (P,) input pixels squared, for official ``offset_targets``; None for the paper's.
    """

    keypoints: Tensor
    centers: Tensor
    ignored: Tensor
    areas: Tensor | None = None


def paper_people(crop: Crop, minimum_keypoints: int = 1) -> CropPeople:
    """Everybody with labels inside a crop, whatever is pasted or joined in it; centers are means of these labels.

    People with fewer than ``minimum_keypoints`` labels inside have no center.
    """
    keypoints = torch.from_numpy(crop.keypoints).clone()
    keypoints[..., :2] /= OUTPUT_STRIDE
    centers = person_centers(keypoints, minimum_keypoints=minimum_keypoints)
    middle = OUTPUT_STRIDE // 2
    return CropPeople(keypoints, centers, _every_fourth(crop.ignored, middle, middle))


def official_people(crop: Crop, photo: Photo, skeleton: Skeleton) -> CropPeople:
    """Everybody in the photo, as the released training code places them in a crop of that photo alone.

    Centers and areas are taken in the photo, so they do not change with what the crop leaves out; then the centers move
    as if they were keypoints. Labels stay on keypoints outside the crop. Somebody without labels has a center at the
    photo's pixel (0, 0); crowds count only if they have labels. With COCO's 17 keypoints people of an annotated area
    below 32 x 32 image pixels have no center. Numbers are float64, as there. DekrPoseError if the crop is a mosaic.
    """
    if crop.placement is None:
        raise DekrPoseError("official targets are those of crops of one photo, got a mosaic; set mosaic to 0")
    # without crowds that have no labels: in COCO's format crowds, and only they, are regions of run lengths
    people = [p for p in photo.people if (p.keypoints[:, 2] > 0).any() or not isinstance(p.segmentation, dict)]
    count = len(skeleton)
    annotated = np.stack([person.keypoints for person in people]) if people else np.zeros((0, count, 3))
    keypoints = torch.from_numpy(annotated).double()
    centers = person_centers(keypoints, mode="official")
    if count == COCO_KEYPOINTS:
        centers = drop_small_centers(centers, torch.tensor([person.area for person in people], dtype=torch.float64))
    areas = official_areas(keypoints) * crop.placement.area_factor
    points = torch.cat([keypoints, centers[:, None]], dim=1)
    matrix = torch.from_numpy(crop.placement.matrix) / OUTPUT_STRIDE
    points[..., :2] = points[..., :2] @ matrix[:, :2].T + matrix[:, 2]
    column = 0
    if crop.placement.mirrored:
        # Mirrored in the map, not in the crop: they differ by 3/4 of a heatmap pixel, as the released networks
        # have learned it.
        points[..., 0] = crop.ignored.shape[1] // OUTPUT_STRIDE - 1 - points[..., 0]
        points = points[:, [*skeleton.flip_indices, count]]
        column = OUTPUT_STRIDE - 1
    return CropPeople(points[:, :-1], points[:, -1], _every_fourth(crop.ignored, 0, column), areas)


def _every_fourth(mask: NDArray[np.bool_], row: int, column: int) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(mask[row::OUTPUT_STRIDE, column::OUTPUT_STRIDE]))
