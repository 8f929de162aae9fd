"""From what locations say to people: scores, and box NMS as the only step after the network.

DirectPose paper, "Inference". Everything is in input pixels; a pose's box is that of its keypoints within the input.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dekrpose.architectures.directpose.locations import FIRST_STRIDE, locations, strides

CLASS_THRESHOLD = 0.05
"""Locations of a lower class score see nobody."""
MOST_PER_LEVEL = 1000
"""Locations of one level that are looked at, those of the highest class scores."""
Candidates = tuple[Tensor, Tensor, Tensor, Tensor]
"""Class scores (B, n), scores (B, n), poses (B, n, K, 2) xy in input pixels, and the input's (width, height) (B, 2)."""


def candidates(
    maps: Sequence[Tensor], size: tuple[int, int] | None = None, most: int | None = MOST_PER_LEVEL
) -> Candidates:
    """What the locations of all levels say, level by level.

    Args:
        maps: (B, 2 + 2K, h, w) of each level, see ``DirectPose``.
        size: (height, width) of the input, input pixels; None is that of whole cells.
        most: of each level; None is all.
    """
    found = []
    for level, stride in zip(maps, strides(len(maps)), strict=True):
        flat = level.float().flatten(2)
        classes, centers = flat[:, :2].sigmoid().unbind(1)
        cells = locations(level.shape[2], level.shape[3], stride, level.device)
        relative = (
            flat[:, 2:].transpose(1, 2).reshape(flat.shape[0], cells.shape[0], -1, 2)
        )  # not len, which an exporter would take for a constant
        poses = cells[:, None] + stride * relative
        scores = (classes * centers).sqrt()
        if most is not None and flat.shape[2] > most:
            classes, chosen = classes.topk(most, dim=1)
            scores = scores.gather(1, chosen)
            poses = poses.gather(1, chosen[..., None, None].expand(-1, -1, *poses.shape[2:]))
        found.append((classes, scores, poses))
    classes, scores, poses = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
    height, width = size or (FIRST_STRIDE * side for side in maps[0].shape[2:])
    return classes, scores, poses, torch.stack([torch.full_like(scores[:, 0], side) for side in (width, height)], dim=1)


def unmirrored(mirrored: Candidates, flip_indices: Sequence[int]) -> Candidates:
    """What a mirrored image's candidates are in the image."""
    classes, scores, poses, size = mirrored
    xs = size[:, 0, None, None] - 1 - poses[..., 0]
    return classes, scores, torch.stack([xs, poses[..., 1]], dim=-1)[:, :, list(flip_indices)], size


def boxes_of(poses: Tensor, size: Tensor) -> Tensor:
    """(..., 4) left, top, right, bottom of (..., K, 2) poses within an input of (2,) width and height.

    Sides are at least a cell of the finest level: keypoints on one point or line would overlap with nothing.
    """
    low, high = poses.amin(-2), poses.amax(-2)
    middle = (low + high) / 2
    low, high = low.minimum(middle - FIRST_STRIDE / 2), high.maximum(middle + FIRST_STRIDE / 2)
    return torch.cat([low.clamp(min=0).minimum(size - 1), high.clamp(min=0).minimum(size - 1)], dim=-1)


def overlaps(first: Tensor, second: Tensor) -> Tensor:
    """(...) intersection over union of (..., 4) boxes, broadcast; boxes without an area overlap with nothing."""
    common = torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])
    common = common.clamp(min=0).prod(-1)
    area, other = ((boxes[..., 2:] - boxes[..., :2]).prod(-1) for boxes in (first, second))
    return common / (area + other - common).clamp(min=1e-6)


def decode(
    looks: Sequence[tuple[Tensor, ...]], *, nms_threshold: float, max_people: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Who is in one image.

    Args:
        looks: ``Candidates`` without the batch dimension, for each scale; the first is that of scale 1.
        nms_threshold: intersection over union above which the lower of two scores is dropped.
        max_people: most people in the answer.

    Returns:
        Poses (M, K, 2) in input pixels of scale 1, keypoint scores (M, K), which are those of the people, and scores
        (M,), best first; M may be 0.
    """
    size = looks[0][3]
    classes, scores = (torch.cat([look[part] for look in looks]) for part in (0, 1))
    poses = torch.cat([_rescaled(look[2], look[3], size) for look in looks])
    seen = classes > CLASS_THRESHOLD
    scores, order = scores[seen].sort(descending=True, stable=True)
    poses = poses[seen][order]
    kept = _suppress(boxes_of(poses, size), nms_threshold, max_people)
    return poses[kept], scores[kept, None].expand(-1, poses.shape[1]).clone(), scores[kept]


def _rescaled(poses: Tensor, own: Tensor, size: Tensor) -> Tensor:
    """From the pixels of one input to those of another of the same photo: their short sides and middles fit."""
    return poses if bool((own == size).all()) else (poses - own / 2) * (size.min() / own.min()) + size / 2


def _suppress(boxes: Tensor, threshold: float, most: int) -> list[int]:
    """Indices of the boxes that no kept better one overlaps with; boxes come best first."""
    kept: list[int] = []
    free = torch.ones(len(boxes), dtype=torch.bool)
    while len(kept) < most and bool(free.any()):
        best = int(free.to(torch.uint8).argmax())
        kept.append(best)
        free &= ~(overlaps(boxes[best], boxes) > threshold)
        free[best] = False
    return kept
