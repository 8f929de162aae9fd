"""Who is taught in a crop, and where: this library's way, and that of the released training code."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dekrpose.architectures.dekr.targets import COCO_KEYPOINTS, drop_small_centers, official_areas, person_centers
from dekrpose.architectures.learning import Crop
from dekrpose.config import OUTPUT_STRIDE
from dekrpose.data.dataset import Photo
from dekrpose.errors import DekrPoseError
from dekrpose.skeletons import Skeleton


@dataclass(frozen=True)
class CropPeople:
    """The people of a crop; P may be 0.

    Attributes:
        keypoints: (P, K, 3) x, y, visibility, heatmap pixels.
        centers: (P, 3) x, y, visibility, heatmap pixels.
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
    """Everybody in the photo, as the released training code places them in a crop.

    Centers and areas are taken in the photo, so they do not change with what the crop leaves out; then the
    centers move as if they were keypoints. Labels stay on keypoints outside the crop. Somebody without labels
    has a center at the photo's pixel (0, 0); crowds count only if they have labels. With COCO's 17 keypoints
    people of an annotated area below 32 x 32 image pixels have no center. Numbers are float64, as there.

    Args:
        crop: of that photo alone.
        photo: with all its annotations.
        skeleton: says how keypoints change places in a mirrored crop.

    Raises:
        DekrPoseError: the crop is a mosaic.
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
