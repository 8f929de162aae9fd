"""Matching to the heatmaps of one scale without enlarging them: the same answer for a part of the time.

A bilinearly enlarged heatmap is highest where its cells were, so peaks are looked for among the cells alone, and only
the pixels that a Gaussian is fitted to are computed. With so little to do NumPy is faster than torch.
"""

from __future__ import annotations

from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dekrpose.architectures.dekr.matching import PEAKS_PER_KEYPOINT, Peaks, fit_windows, window_pixels
from dekrpose.config import OUTPUT_STRIDE

_BACK = np.array([0.5, 0.25, 0, 0], np.float32)
"""How far windows around the last cell's pixels reach back towards the cell before."""
_SPAN = np.arange(5)
"""Cells that a window of 13 pixels lies on."""

Maps = NDArray[np.float32]


def read_cell_peaks(heatmaps: Tensor) -> Peaks | None:
    """``matching.read_peaks`` of (K, h, w) heatmaps that are not enlarged; None for those of a single row or column."""
    heat = heatmaps.cpu().numpy()
    _, height, width = heat.shape
    if min(height, width) < 2:
        return None
    return Peaks(*find_cell_peaks(heat), heat, OUTPUT_STRIDE, partial(_fits, heat))


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


def _fits(heat: Maps, places: NDArray[np.int64]) -> NDArray[np.float64]:
    pixels, inside = window_pixels(places, (OUTPUT_STRIDE * heat.shape[1], OUTPUT_STRIDE * heat.shape[2]))
    return fit_windows(enlarged_at(heat, places[:, 0], *pixels), inside, places)


def enlarged_at(
    heat: Maps, keypoints: NDArray[np.int64], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Windows of the enlarged heatmaps.

    Args:
        heat: (K, h, w).
        keypoints: (N,).
        rows, columns: (N, 13) of the windows, ascending, input pixels.

    Returns:
        (N, 13, 13).
    """
    cells, shares = [], []
    for pixels, count in ((rows, heat.shape[1]), (columns, heat.shape[2])):
        first = pixels[:, :1] // OUTPUT_STRIDE
        places = np.minimum(pixels / OUTPUT_STRIDE, count - 1) - first
        cells.append(np.minimum(first + _SPAN, count - 1))
        shares.append(np.maximum(1 - np.abs(places[:, :, None] - _SPAN), 0))
    around = heat[keypoints[:, None, None], cells[0][:, :, None], cells[1][:, None]]
    return np.asarray(np.matmul(np.matmul(shares[0], around), shares[1].swapaxes(1, 2)))
