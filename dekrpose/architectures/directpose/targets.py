"""What DirectPose is taught of a crop: for each location of each level, whether it stands for somebody, and for whom.

A keypoint is (x, y, visibility) in input pixels; visibility above 0 means labelled. Levels and centers are those of
FCOS (Tian et al., ICCV 2019).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from torch import Tensor

from dekrpose.architectures.directpose.locations import FIRST_STRIDE, locations, map_sizes, strides
from dekrpose.architectures.learning import AugmentConfig, Batch, Crop, Shown, Targets, TaughtPose
from dekrpose.data.dataset import Photo
from dekrpose.errors import DekrPoseError
from dekrpose.skeletons import Skeleton

_FIRST_RANGE = 64.0
"""Input pixels: the finest level takes people whose farthest box side is at most so far; each next level twice that."""
_MARGIN = 1.0
"""Input pixels between outermost keypoints and their person's box."""


@dataclass(frozen=True)
class LocationBatch(Batch):
    """Crops and targets at the L locations of all levels, finest first, each row by row.

    Attributes:
        images: (B, 3, H, W) uint8 RGB.
        positive: (B, L) bool, whether a location stands for somebody.
        counted: (B, L) bool, False where it is not known whether it does.
        centerness: (B, L), 1 in the middle of the box, 0 elsewhere than at positive locations.
        boxes: (B, L, 4) to the box's left, top, right and bottom, in cells of the level.
        keypoints: (B, L, K, 2) xy relative to the location, in cells of the level.
        labelled: (B, L, K) bool, which keypoints of the person are labelled.
        heat: (B, K, h, w) bool, the finest level's cells that are nearest to somebody's keypoint.
        heat_counted: (B, h, w) bool, False where people are not annotated.
    """

    positive: Tensor
    counted: Tensor
    centerness: Tensor
    boxes: Tensor
    keypoints: Tensor
    labelled: Tensor
    heat: Tensor
    heat_counted: Tensor

    def shown(self) -> Shown:
        """See ``Batch``: centers are positive locations of any level, the more the nearer to the middle."""
        height, width = self.images.shape[1:]
        every = (map_sizes(height, width, levels) for levels in count(1))
        sizes = next(own for own in every if sum(map(math.prod, own)) == len(self.positive))
        points, cells = _all_locations(sizes)
        keypoints = points[:, None] + self.keypoints * cells[:, None, None]
        told = (points, cells, keypoints, self.labelled, self.centerness)
        poses = TaughtPose.of_places(*(own.numpy() for own in told))
        maps = torch.split(self.centerness, [math.prod(size) for size in sizes])
        rows, columns = sizes[0]
        finest = [
            own.reshape(size).repeat_interleave(2**level, 0).repeat_interleave(2**level, 1)[:rows, :columns]
            for level, (own, size) in enumerate(zip(maps, sizes, strict=True))
        ]
        heat = torch.cat([self.heat.float(), torch.stack(finest).amax(0, keepdim=True)])
        return Shown(poses, heat.numpy(), self.heat_counted.float().numpy(), FIRST_STRIDE, FIRST_STRIDE // 2)


@dataclass(frozen=True)
class LocationTargets(Targets):
    """How targets are drawn, and the weight of the auxiliary heatmap.

    Args:
        levels: of the network's pyramid.
        radius: half the side of the square around a box's middle whose locations are positive, in cells.
        heat_factor: weight of the heatmap loss.
        box_factor: weight of the box loss.
    """

    levels: int = 5
    radius: float = 1.5
    heat_factor: float = 4.0
    box_factor: float = 1.0

    @property
    def title(self) -> str:
        """See ``Targets``."""
        return "DirectPose's targets"

    @property
    def anywhere(self) -> bool:
        """See ``Targets``: the loader makes them."""
        return False

    def check(self, augmentation: AugmentConfig) -> None:
        """See ``Targets``: they exist for all crops."""

    def sample(
        self, crop: Crop, photo: Photo | None, skeleton: Skeleton, minimum_keypoints: int, rng: np.random.Generator
    ) -> LocationBatch:
        """See ``Targets``."""
        people = torch.from_numpy(crop.keypoints)
        known = (people[..., 2] > 0).sum(1) >= max(1, minimum_keypoints)
        ignored = torch.from_numpy(crop.ignored).clone()
        for left, top, right, bottom in boxes_around(people[~known]).int().tolist():
            ignored[max(top, 0) : bottom + 1, max(left, 0) : right + 1] = True
        images = torch.from_numpy(crop.image).permute(2, 0, 1)
        return LocationBatch(images, *location_targets(people[known], ignored, self.levels, radius=self.radius))

    def on_device(
        self, images: Tensor, people: Tensor, ignored: Tensor, minimum_keypoints: int, draw: Callable[[int], Tensor]
    ) -> LocationBatch:
        """See ``Targets``."""
        raise DekrPoseError("DirectPose's targets are made by the loader; leave out --on-device")


def boxes_around(people: Tensor) -> Tensor:
    """(P, 4) left, top, right, bottom around the labelled keypoints of (P, K, 3), a pixel wider on each side."""
    labelled, xy = people[..., 2:] > 0, people[..., :2]
    low = torch.where(labelled, xy, torch.inf).amin(1) - _MARGIN
    high = torch.where(labelled, xy, -torch.inf).amax(1) + _MARGIN
    return torch.cat([low, high], dim=1)


def assigned_people(boxes: Tensor, height: int, width: int, levels: int, *, radius: float = 1.5) -> Tensor:
    """For each location, the person it stands for.

    A location is positive when it lies in the square around the middle of a person's box, cut to the box, and the
    farthest side of the box is within its level's range: up to 64 pixels, 64 to 128, ..., the last without end. Of
    several people the one with the smallest box counts.

    Args:
        boxes: (P, 4) left, top, right, bottom, input pixels.
        height, width: of the input.
        levels: of the pyramid.
        radius: half the side of the square, in cells.

    Returns:
        (L,) indices of people, -1 for nobody.
    """
    found = []
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    for level, ((rows, columns), stride) in enumerate(
        zip(map_sizes(height, width, levels), strides(levels), strict=True)
    ):
        if not len(boxes):
            found.append(torch.full((rows * columns,), -1))
            continue
        points = locations(rows, columns, stride)[:, None]
        middle = (boxes[:, :2] + boxes[:, 2:]) / 2
        low = torch.maximum(middle - radius * stride, boxes[:, :2])
        high = torch.minimum(middle + radius * stride, boxes[:, 2:])
        inside = ((points > low) & (points < high)).all(2)
        sides = torch.cat([points - boxes[:, :2], boxes[:, 2:] - points], dim=2).amax(2)
        least = _FIRST_RANGE * 2 ** (level - 1) if level else -1.0
        most = _FIRST_RANGE * 2**level if level < levels - 1 else torch.inf
        inside &= (sides >= least) & (sides <= most)
        smallest, person = torch.where(inside, areas, torch.inf).min(1)
        found.append(torch.where(smallest.isfinite(), person, -1))
    return torch.cat(found)


def location_targets(people: Tensor, ignored: Tensor, levels: int, *, radius: float = 1.5) -> tuple[Tensor, ...]:
    """All of ``LocationBatch`` but the images, for one crop.

    Args:
        people: (P, K, 3), input pixels; P may be 0.
        ignored: (H, W) bool, where people are not annotated.
        levels, radius: see ``assigned_people``.
    """
    height, width = ignored.shape
    sizes = map_sizes(height, width, levels)
    points, cells = _all_locations(sizes)
    boxes = boxes_around(people)
    person = assigned_people(boxes, height, width, levels, radius=radius)
    positive = person >= 0
    at = points.long()
    counted = positive | ~ignored[at[:, 1].clamp(max=height - 1), at[:, 0].clamp(max=width - 1)]
    # somebody stands in for nobody, so that indices exist; what is not positive is cleared
    chosen = torch.cat([people, people.new_zeros(1, *people.shape[1:])])[person]
    box = torch.cat([boxes, boxes.new_zeros(1, 4)])[person]
    sides = torch.cat([points - box[:, :2], box[:, 2:] - points], dim=1) / cells[:, None]
    sides = sides * positive[:, None]
    relative = (chosen[..., :2] - points[:, None]) / cells[:, None, None] * positive[:, None, None]
    labelled = (chosen[..., 2] > 0) & positive[:, None]
    heat = _nearest_cells(people, *sizes[0])
    half = FIRST_STRIDE // 2
    heat_counted = heat.any(0) | ~ignored[half::FIRST_STRIDE, half::FIRST_STRIDE]
    return positive, counted, centerness(sides) * positive, sides, relative, labelled, heat, heat_counted


def _all_locations(sizes: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """Of all levels' cells, whose maps have these sizes: (L, 2) xy and (L,) sides, input pixels."""
    levels = [(locations(*size, stride), stride) for size, stride in zip(sizes, strides(len(sizes)), strict=True)]
    sides = [torch.full((len(points),), float(stride)) for points, stride in levels]
    return torch.cat([points for points, _ in levels]), torch.cat(sides)


def centerness(sides: Tensor) -> Tensor:
    """(...) from (..., 4) distances to left, top, right, bottom: 1 in the middle, 0 at a border."""
    x, y = sides[..., 0::2], sides[..., 1::2]
    ratios = x.amin(-1) * y.amin(-1) / (x.amax(-1) * y.amax(-1)).clamp(min=1e-6)
    return ratios.clamp(min=0).sqrt()


def _nearest_cells(people: Tensor, rows: int, columns: int) -> Tensor:
    """(K, rows, columns) bool: the finest level's cells whose points are nearest to labelled keypoints."""
    heat = torch.zeros(people.shape[1], rows, columns, dtype=torch.bool)
    cells = ((people[..., :2] - FIRST_STRIDE // 2) / FIRST_STRIDE).round().long()
    x, y = cells.unbind(-1)
    seen = (people[..., 2] > 0) & (x >= 0) & (y >= 0) & (x < columns) & (y < rows)
    _, keypoint = seen.nonzero(as_tuple=True)
    heat[keypoint, y[seen], x[seen]] = True
    return heat
