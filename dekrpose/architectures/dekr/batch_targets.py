"""The paper's targets for a whole batch at once, on any device; equal to those of ``targets``, crop by crop."""

from __future__ import annotations

import torch
from torch import Tensor

from dekrpose.architectures.dekr.targets import inside, person_centers, windowed_gaussians


def heatmap_targets(
    people: Tensor,
    size: int,
    *,
    sigma: float,
    center_sigma: float,
    ignored: Tensor,
    background_weight: float = 0.1,
    minimum_keypoints: int = 1,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gaussians of keypoints and centers, their weights, and the centers.

    Args:
        people: (B, P, K, 3) x, y, visibility, heatmap pixels; invisible people are nobody.
        size: side of the maps.
        sigma, center_sigma: heatmap pixels.
        ignored: (B, size, size) boolean, weight 0.
        background_weight: outside the Gaussians' windows.
        minimum_keypoints: people with fewer labels have no center.

    Returns:
        Heatmaps and weights (B, K+1, size, size), centers (B, P, 3) x, y, visibility.
    """
    centers = person_centers(people.flatten(0, 1)).reshape(*people.shape[:2], 3)
    centers[..., 2] *= (people[..., 2] > 0).sum(-1) >= minimum_keypoints
    points = torch.cat([people, centers[:, :, None]], 2)
    sigmas = people.new_full((points.shape[2],), sigma)
    sigmas[-1] = center_sigma
    drawn = inside(points, (size, size))
    heatmaps = people.new_zeros(len(people), points.shape[2], size, size)
    columns, rows = (windowed_gaussians(points[..., axis], drawn, sigmas, size) for axis in (0, 1))
    for index in range(points.shape[1]):  # one person of every crop at a time keeps the memory small
        torch.maximum(heatmaps, rows[:, index, :, :, None] * columns[:, index, :, None, :], out=heatmaps)
    weights = torch.where(heatmaps > 0, 1.0, background_weight) * ~ignored[:, None]
    return heatmaps, weights, centers


def offset_targets(people: Tensor, centers: Tensor, size: int, *, radius: int) -> tuple[Tensor, Tensor]:
    """Offsets (pixel - keypoint) in the discs around centers, and their weights.

    Args:
        people: (B, P, K, 3) x, y, visibility, heatmap pixels.
        centers: (B, P, 3) x, y, visibility.
        size: side of the maps.
        radius: of the discs.

    Returns:
        Both (B, 2K, size, size), channels x0, y0, x1, ...
    """
    batch, _, keypoints, _ = people.shape
    axis = torch.arange(size, device=people.device, dtype=people.dtype)
    present = inside(centers, (size, size))

    def squared_distance(points: Tensor) -> Tensor:
        return (axis[:, None] - points[..., 1, None, None]).square() + (axis - points[..., 0, None, None]).square()

    in_disc = (squared_distance(centers.floor()) <= radius * radius) & present[..., None, None]
    nearest, winner = torch.where(in_disc, squared_distance(centers), torch.inf).min(1)
    labelled = people[..., 2] > 0
    low = torch.where(labelled[..., None], people[..., :2], torch.inf).amin(2)
    high = torch.where(labelled[..., None], people[..., :2], -torch.inf).amax(2)
    diagonal = torch.linalg.vector_norm(high - low, dim=-1).nan_to_num(posinf=radius).clamp(min=radius)
    weight = inside(people, (size, size)) / diagonal[..., None]
    chosen = winner.flatten(1)[..., None]
    targets = people[..., :2].flatten(2).gather(1, chosen.expand(-1, -1, 2 * keypoints))
    weights = weight.repeat_interleave(2, -1).gather(1, chosen.expand(-1, -1, 2 * keypoints))
    pixels = torch.stack([axis.repeat(size), axis.repeat_interleave(size)], -1).repeat(1, keypoints)
    weights = weights * nearest.flatten(1).isfinite()[..., None]
    offsets = (pixels - targets) * (weights > 0)
    return tuple(maps.mT.reshape(batch, 2 * keypoints, size, size) for maps in (offsets, weights))
