"""Matching to the heatmaps of one scale without enlarging them: the same answer for a part of the time.

A bilinearly enlarged heatmap is highest where its cells were, so peaks are looked for among the cells alone, and only
the pixels that a Gaussian is fitted to are computed.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dekrpose.decode.matching import (
    PEAKS_PER_KEYPOINT,
    fit_all,
    fit_windows,
    move_to_peaks,
    peak_values,
    window_pixels,
)
from dekrpose.decode.multiscale import upsample_aligned

STRIDE = 4
"""Input pixels per heatmap pixel; a peak's 5x5 window then ends halfway to the next cell."""
CANDIDATES = 2 * PEAKS_PER_KEYPOINT
"""Cells per heatmap that are looked at closely."""


def match_at_stride(poses: Tensor, keypoint_scores: Tensor, heatmaps: Tensor) -> Tensor | None:
    """``match_to_heatmaps(mode="paper")`` on heatmaps that are not enlarged.

    Args:
        poses: (N, K, 2) xy, input pixels.
        keypoint_scores: (N, K).
        heatmaps: (K, h, w), cells 4 input pixels apart.

    Returns:
        (N, K, 2) xy, input pixels, a new tensor; None where cells do not decide which peaks are the highest.
    """
    found = find_cell_peaks(heatmaps)
    if found is None:
        return None
    moved = move_to_peaks(poses, *found)
    heat = heatmaps.cpu().numpy()
    size = (STRIDE * heat.shape[1], STRIDE * heat.shape[2])

    def fit(places: NDArray[np.int64]) -> NDArray[np.float64]:
        rows, columns, inside = window_pixels(places, size)
        return fit_windows(enlarged_at(heat, places[:, 0, None, None], rows, columns), inside, places)

    return fit_all(moved, keypoint_scores, size, fit)


def find_cell_peaks(heatmaps: Tensor) -> tuple[Tensor, Tensor] | None:
    """``matching.find_peaks`` of the enlarged heatmaps.

    Args:
        heatmaps: (K, h, w).

    Returns:
        Peaks (K, P, 2) xy, input pixels, and their heat (K, P); None when too many cells look like peaks and are not.
    """
    count, height, width = heatmaps.shape
    if min(height, width) < 2:
        return None
    padded = F.pad(heatmaps, (1, 1, 1, 1), value=-torch.inf)
    across = torch.maximum(padded[:, 1:-1, :-2], padded[:, 1:-1, 2:])
    beside = torch.maximum(across, torch.maximum(padded[:, :-2, 1:-1], padded[:, 2:, 1:-1]))
    cells = torch.where((heatmaps >= beside) & (heatmaps > 0), heatmaps, 0.0)[:, :-1, :-1].reshape(count, -1)
    values, places = cells.topk(min(CANDIDATES, cells.shape[1]))
    x, y = places % (width - 1), places // (width - 1)
    tops = torch.where(_tops_its_diagonals(heatmaps, x, y), values, 0.0)
    few = (tops > 0).sum(1) < PEAKS_PER_KEYPOINT
    if cells.shape[1] > CANDIDATES and (few & (values[:, -1] > 0)).any():
        return None
    points = STRIDE * torch.stack([x, y], dim=2)
    found = [(points, tops), _last_column(heatmaps), _last_row(heatmaps)]
    points, tops = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
    tops, which = tops.topk(min(PEAKS_PER_KEYPOINT, tops.shape[1]))
    return points.gather(1, which[..., None].expand(-1, -1, 2)).to(heatmaps.dtype), tops


def _last_column(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels (K, P, 2) xy and peaks (K, P) from the last column of cells on, where enlarging repeats the border."""
    height, width = heatmaps.shape[1:]
    values = peak_values(upsample_aligned(heatmaps[..., -2:], (STRIDE * height, 2 * STRIDE)))[..., STRIDE:]
    pixels = _pixels_of(values)
    return pixels + torch.tensor([STRIDE * (width - 1), 0], device=heatmaps.device), values.flatten(1)


def _last_row(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """The same from the last row of cells on, without what ``_last_column`` has."""
    height, width = heatmaps.shape[1:]
    strip = peak_values(upsample_aligned(heatmaps[:, -2:], (2 * STRIDE, STRIDE * width)))
    values = strip[:, STRIDE:, : STRIDE * (width - 1)]
    pixels = _pixels_of(values)
    return pixels + torch.tensor([0, STRIDE * (height - 1)], device=heatmaps.device), values.flatten(1)


def _pixels_of(values: Tensor) -> Tensor:
    """(K, H * W, 2) xy of every pixel of (K, H, W) maps, row by row."""
    count, height, width = values.shape
    y, x = torch.meshgrid(
        torch.arange(height, device=values.device), torch.arange(width, device=values.device), indexing="ij"
    )
    return torch.stack([x, y], dim=2).reshape(1, -1, 2).expand(count, -1, -1)


def _tops_its_diagonals(heatmaps: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(K, P): whether cells (K, P) are at least as high as the 2 enlarged pixels around them in both directions."""
    _, height, width = heatmaps.shape
    channel = torch.arange(len(heatmaps), device=heatmaps.device)[:, None]
    own = heatmaps[channel, y, x]
    highest = torch.full_like(own, -torch.inf)
    for to_x in (-1, 1):
        for to_y in (-1, 1):
            beside_x, beside_y = (x + to_x).clamp(0, width - 1), (y + to_y).clamp(0, height - 1)
            horizontal, vertical = heatmaps[channel, y, beside_x], heatmaps[channel, beside_y, x]
            diagonal = heatmaps[channel, beside_y, beside_x]
            for share_x in (0.25, 0.5):
                row, other = own.lerp(horizontal, share_x), vertical.lerp(diagonal, share_x)
                for share_y in (0.25, 0.5):
                    highest = torch.maximum(highest, row.lerp(other, share_y))
    return own >= highest


def enlarged_at(
    heat: NDArray[np.float32], keypoints: NDArray[np.int64], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The enlarged heatmaps (K, h, w) at some pixels, rows and columns in input pixels; the arguments broadcast."""
    y, x = (np.minimum(rows / STRIDE, heat.shape[1] - 1), np.minimum(columns / STRIDE, heat.shape[2] - 1))
    top, left = y.astype(np.int64), x.astype(np.int64)
    below, right = np.minimum(top + 1, heat.shape[1] - 1), np.minimum(left + 1, heat.shape[2] - 1)
    share_y, share_x = y - top, x - left
    upper = heat[keypoints, top, left] * (1 - share_x) + heat[keypoints, top, right] * share_x
    lower = heat[keypoints, below, left] * (1 - share_x) + heat[keypoints, below, right] * share_x
    return np.asarray(upper * (1 - share_y) + lower * share_y)
