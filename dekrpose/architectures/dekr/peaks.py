"""The peaks of keypoint heatmaps, and moving keypoints to the likeliest of them ("weighted")."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dekrpose.config import OUTPUT_STRIDE

PEAKS_PER_KEYPOINT = 30
SPREAD = 0.15
"""How far off regressed keypoints are expected to be, as a share of the diagonal of their pose's box."""
WEIGHT_REACH = 2.5
"""Peaks farther away than this many spreads are not taken by weight."""


@dataclass(frozen=True)
class Peaks:
    """The peaks of one image's heatmaps.

    Args:
        places: (K, P, 2) xy, input pixels; P is at most 30.
        heat: (K, P), highest first; 0 is no peak.
        heatmaps: (K, h, w) that they are in.
        spacing: input pixels per heatmap pixel.
    """

    places: NDArray[np.float32]
    heat: NDArray[np.float32]
    heatmaps: NDArray[np.float32]
    spacing: int


def cell_peaks(heatmaps: Tensor) -> Peaks:
    """The peaks of heatmaps (K, h, w) that are not enlarged: cells above 0 that no neighbour surpasses."""
    count, _, width = heatmaps.shape
    highest = F.max_pool2d(heatmaps[None], 3, stride=1, padding=1)[0]
    heat = torch.where((heatmaps == highest) & (heatmaps > 0), heatmaps, 0.0).reshape(count, -1)
    heat, places = heat.topk(min(PEAKS_PER_KEYPOINT, heat.shape[1]))
    cells = torch.stack([places % width, places // width], dim=2).to(heat.dtype)
    return Peaks((OUTPUT_STRIDE * cells).cpu().numpy(), heat.cpu().numpy(), heatmaps.cpu().numpy(), OUTPUT_STRIDE)


def move_by_weight(poses: Tensor, peaks: Peaks) -> tuple[Tensor, Tensor]:
    """Move each keypoint to the peak of the highest weight: its heat times a Gaussian of the way there.

    The Gaussian is as wide as regressed keypoints are uncertain, ``SPREAD`` of the pose's box, so a clear peak is
    taken before a faint one that is nearer. A keypoint with no peak in reach stays.

    Args:
        poses: (N, K, 2) xy, input pixels.
        peaks: of the image.

    Returns:
        (N, K, 2) xy, input pixels, a new tensor; and (N, K) the weights, 0 where a keypoint stays.
    """
    points = poses.cpu().numpy()
    diagonals = np.linalg.norm(np.ptp(points, axis=1), axis=1)
    x = points[:, :, None, 0] - peaks.places[:, :, 0]
    y = points[:, :, None, 1] - peaks.places[:, :, 1]
    squared = (x * x + y * y) / np.maximum(np.square(SPREAD * diagonals), 1e-9)[:, None, None]
    weights = np.where(squared < WEIGHT_REACH**2, peaks.heat * np.exp(-0.5 * squared), 0.0)
    index = weights.argmax(2)
    best = np.take_along_axis(weights, index[..., None], 2)
    moved = np.where(best > 0, peaks.places[np.arange(points.shape[1]), index], points)
    return torch.from_numpy(moved).to(poses), torch.from_numpy(best[..., 0]).to(poses)


def refine(poses: Tensor, weights: Tensor, peaks: Peaks) -> Tensor:
    """Keypoints (N, K, 2) xy, input pixels, moved from peaks to the exact place.

    It is where a parabola through three logarithms is highest, those of the sums over rows, and over columns, of
    the peak's 3x3 surroundings at stride 4: exact for a Gaussian, and a small part of the work of a fit.
    Keypoints of weight 0 stay.
    """
    points = poses.cpu().numpy().copy()
    people, keypoints = np.nonzero(weights.cpu().numpy() > 0)
    _, height, width = peaks.heatmaps.shape
    step = OUTPUT_STRIDE // peaks.spacing
    steps = (np.arange(-1, 2) * step)[None]
    cells = np.rint(points[people, keypoints] / peaks.spacing).astype(np.int64)
    cells = np.minimum(cells, (width - step, height - step))  # from there on enlarging repeats the border
    rows = (cells[:, 1:] + steps).clip(0, height - 1)[:, :, None]
    columns = (cells[:, :1] + steps).clip(0, width - 1)[:, None]
    around = np.maximum(peaks.heatmaps[keypoints[:, None, None], rows, columns], 0)
    sums = np.log(np.maximum(np.stack([around.sum(1), around.sum(2)]), 1e-3))
    before, top, after = np.moveaxis(sums, 2, 0)
    bend = np.maximum(2 * top - before - after, 1e-6)
    shifts = OUTPUT_STRIDE * np.clip((after - before) / (2 * bend), -0.75, 0.75)
    points[people, keypoints] = peaks.spacing * cells + shifts.T
    return torch.from_numpy(points).to(poses)
