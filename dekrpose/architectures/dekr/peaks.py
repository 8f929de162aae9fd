"""The peaks of keypoint heatmaps, and moving keypoints to the likeliest of them ("weighted").

A bilinearly enlarged heatmap is highest where its cells were, so peaks are looked for among the cells alone: the answer
is that of the enlarged map, for a part of the time. With so little to do NumPy is faster than torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dekrpose.config import OUTPUT_STRIDE

PEAKS_PER_KEYPOINT = 30
SPREAD = 0.15
"""How far off regressed keypoints are expected to be, as a share of the diagonal of their pose's box."""
WEIGHT_REACH = 2.5
"""Peaks farther away than this many spreads are not taken by weight."""
_BACK = np.array([0.5, 0.25, 0, 0], np.float32)
"""How far windows around the last cell's pixels reach back towards the cell before."""

Maps = NDArray[np.float32]


@dataclass(frozen=True)
class Peaks:
    """The peaks of one image's heatmaps.

    Args:
        places: (K, P, 2) xy, input pixels.
        heat: (K, P); 0 is no peak.
        heatmaps: (K, h, w) that they are in.
        spacing: input pixels per heatmap pixel.
    """

    places: NDArray[np.float32]
    heat: NDArray[np.float32]
    heatmaps: NDArray[np.float32]
    spacing: int


def read_cell_peaks(heatmaps: Tensor) -> Peaks | None:
    """``matching.read_peaks`` of (K, h, w) heatmaps that are not enlarged; None for those of a single row or column."""
    heat = heatmaps.cpu().numpy()
    _, height, width = heat.shape
    if min(height, width) < 2:
        return None
    return Peaks(*find_cell_peaks(heat), heat, OUTPUT_STRIDE)


def find_cell_peaks(heat: Maps) -> tuple[Maps, Maps]:
    """``matching.find_peaks`` of the enlarged heatmaps.

    Args:
        heat: (K, h, w), at least two rows and columns.

    Returns:
        Peaks (K, 30, 2) xy, input pixels, and their heat (K, 30), highest first; a heat of 0 is no peak.
    """
    inner, border = _inner_peaks(heat), _border_peaks(heat)
    channel, x, y = (np.concatenate([inner[part], border[part]]) for part in range(3))
    values = np.concatenate([inner[3], border[3]])
    # by channel, the highest first
    order = np.argsort(2.0 * channel - values / values.max(initial=1e-30).astype(np.float64), kind="stable")
    channel = channel[order]
    rank = np.arange(len(order)) - np.searchsorted(channel, channel)
    few = rank < PEAKS_PER_KEYPOINT
    channel, rank, order = channel[few], rank[few], order[few]
    peaks = np.zeros((len(heat), PEAKS_PER_KEYPOINT, 2), np.float32)
    tops = np.zeros(peaks.shape[:2], np.float32)
    peaks[channel, rank, 0], peaks[channel, rank, 1], tops[channel, rank] = x[order], y[order], values[order]
    return peaks, tops


_Found = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], Maps]
"""Keypoint, x, y in input pixels and heat of each peak."""


def _inner_peaks(heat: Maps) -> _Found:
    """Peaks on cells but those of the last row and column: keypoint, x, y in input pixels, heat."""
    _, height, width = heat.shape
    cells = heat[:, :-1, :-1]
    high = cells > 0
    high &= cells >= heat[:, :-1, 1:]
    high &= cells >= heat[:, 1:, :-1]
    high[:, :, 1:] &= cells[:, :, 1:] >= cells[:, :, :-1]
    high[:, 1:] &= cells[:, 1:] >= cells[:, :-1]
    channel, y, x = np.unravel_index(np.flatnonzero(high), high.shape)
    place = (channel * height + y) * width + x
    flat = heat.reshape(-1)
    own = flat[place]
    # Halfway to the diagonal neighbour the enlarged map is the mean of four cells, and highest of what the window has
    # between cells that are not higher than this one. At the border a cell is its own neighbour.
    top = np.ones(len(place), bool)
    for to_x in (np.where(x > 0, -1, 0), 1):
        for to_y in (np.where(y > 0, -width, 0), width):
            top &= flat[place + to_x] + flat[place + to_y] + flat[place + to_x + to_y] <= 3 * own
    return channel[top], OUTPUT_STRIDE * x[top], OUTPUT_STRIDE * y[top], own[top]


def _border_peaks(heat: Maps) -> _Found:
    """Peaks from the last row and column of cells on, where enlarging repeats the border; as ``_inner_peaks``.

    A cell there is four pixels wide. The first one's window reaches two pixels back towards the cells before, half of
    the way, the second one's a quarter of it, and the others see the border's own line alone.
    """
    count, height, width = heat.shape
    lines = np.empty((2, count, height + width), np.float32)
    lines[:, :, :height] = heat[:, :, -1], heat[:, :, -2]
    lines[:, :, height:] = heat[:, -1], heat[:, -2]
    own, before = lines
    previous, following = _neighbours(height, width)
    highest = (own > 0) & (own >= own[:, previous]) & (own >= own[:, following])
    highest[:, [height - 1, -1]] = False  # the corner, whose pixels are looked at below
    two = highest & (before <= own)
    one = two.copy()
    both = own + before
    for near in (previous, following):
        two &= both + both[:, near] <= 4 * own
        one &= 3 * (own + own[:, near]) + before + before[:, near] <= 8 * own
    channel, along, beyond = np.nonzero(np.stack([two, one, highest, highest], axis=2))
    in_row = along >= height
    x = np.where(in_row, OUTPUT_STRIDE * (along - height), OUTPUT_STRIDE * (width - 1) + beyond)
    y = np.where(in_row, OUTPUT_STRIDE * (height - 1) + beyond, OUTPUT_STRIDE * along)
    value = own[channel, along]
    corner, down, right = np.nonzero(_corner_peaks(heat[:, -2:, -2:]))
    return (
        np.concatenate([channel, corner]),
        np.concatenate([x, OUTPUT_STRIDE * (width - 1) + right]),
        np.concatenate([y, OUTPUT_STRIDE * (height - 1) + down]),
        np.concatenate([value, heat[corner, -1, -1]]),
    )


@lru_cache(maxsize=64)
def _neighbours(height: int, width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The cells before and after each one of the last column and, behind it, the last row; ends have themselves."""
    places = np.arange(height + width)
    previous, following = places - 1, places + 1
    previous[[0, height]] = 0, height
    following[[height - 1, -1]] = height - 1, height + width - 1
    return previous, following


def _corner_peaks(cells: Maps) -> NDArray[np.bool_]:
    """(K, 2, 2) cells of the lower right corner -> (K, 4, 4), which of the last cell's pixels are peaks."""
    shares = np.stack([_BACK, 1 - _BACK])
    reached = np.matmul(np.matmul(shares.T, cells), shares)  # the farthest that each pixel's window sees
    own = cells[:, 1:, 1:]
    highest = (reached <= own) & (reached[:, -1:] <= own) & (reached[:, :, -1:] <= own)
    return np.asarray(highest & (own > 0))


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
