"""Matching to the heatmaps of one scale without enlarging them: the same answer for a part of the time.

A bilinearly enlarged heatmap is highest where its cells were, so peaks are looked for among the cells alone, and only
the pixels that a Gaussian is fitted to are computed. With so little to do NumPy is faster than torch.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dekrpose.config import OUTPUT_STRIDE
from dekrpose.decode.matching import PEAKS_PER_KEYPOINT, Peaks, fit_windows, window_pixels

_SHARES = np.arange(OUTPUT_STRIDE, dtype=np.float32) / OUTPUT_STRIDE
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
    """Peaks from the last row and column of cells on, where enlarging repeats the border; as ``_inner_peaks``."""
    count, height, width = heat.shape
    # where the last row begins, behind the last column and a gap that windows do not cross
    row = OUTPUT_STRIDE * height + 2
    lines = np.zeros((2, count, row + OUTPUT_STRIDE * width), np.float32)
    lines[:, :, : row - 2] = _enlarged(np.stack([heat[:, :, -1], heat[:, :, -2]]))
    lines[:, :, row:] = _enlarged(np.stack([heat[:, -1], heat[:, -2]]))
    own, before = lines
    before -= own
    # a window that begins in the border's own pixels is as high as these; others begin one or two pixels before
    highest, one, two = own >= _window_maximum(np.stack([own, own + 0.25 * before, own + 0.5 * before]))
    highest &= own > 0
    highest[:, row + OUTPUT_STRIDE * (width - 1) :] = False  # the last column has these
    one &= highest
    two &= one
    channel, along, beyond = np.nonzero(np.stack([two, one, highest, highest], axis=2))
    in_row = along >= row
    x = np.where(in_row, along - row, OUTPUT_STRIDE * (width - 1) + beyond)
    y = np.where(in_row, OUTPUT_STRIDE * (height - 1) + beyond, along)
    return channel, x, y, own[channel, along]


def _enlarged(cells: Maps) -> Maps:
    """(..., n) -> (..., 4n): linear from cell to cell, the last one repeated."""
    steps = np.zeros_like(cells)
    np.subtract(cells[..., 1:], cells[..., :-1], out=steps[..., :-1])
    enlarged = cells[..., None] + steps[..., None] * _SHARES
    return enlarged.astype(np.float32, copy=False).reshape(*cells.shape[:-1], -1)


def _window_maximum(values: Maps) -> Maps:
    """The largest of 0, each place and the two on either side, along the last axis."""
    one = np.zeros((*values.shape[:-1], values.shape[-1] + 4), np.float32)
    one[..., 2:-2] = values
    two = np.maximum(one[..., :-1], one[..., 1:])
    return np.maximum(np.maximum(two[..., :-3], two[..., 2:-1]), one[..., 4:])


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
