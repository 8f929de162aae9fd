"""Match to heatmap: move regressed keypoints onto the peaks of the keypoint heatmaps."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

MatchMode = Literal["official", "paper"]

PEAK_WINDOW = 5
PEAKS_PER_KEYPOINT = 30
REACH = 75.0
"""Input pixels: peaks farther away belong to somebody else."""
FIT_RADIUS = 6
"""Input pixels on each side of the peak that the Gaussian is fitted to."""
FIT_MIN_SCORE = 0.05
START_SIGMA = 2.0
"""Input pixels."""
FIT_EVALUATIONS = 300
"""A fit that needs more has failed; recordings of the official code keep one of 209 and give up one of 411."""


def match_to_heatmaps(
    poses: Tensor, keypoint_scores: Tensor, heatmaps: Tensor, *, mode: MatchMode = "official"
) -> Tensor:
    """Move each keypoint to the nearest peak of its heatmap, then to the center of a Gaussian fitted there.

    Scores stay what they were before. In the official code a window that the image border cuts is read with rows
    and columns mixed up, which puts keypoints near borders 3 to 5 pixels off, sometimes far outside; "official"
    reproduces it, "paper" fits what the heatmap shows.

    Args:
        poses: (N, K, 2) xy, input pixels.
        keypoint_scores: (N, K); keypoints up to 0.05 are moved but not fitted.
        heatmaps: (K, H, W) at input resolution (see ``average_heatmaps``).
        mode: "official" or "paper".

    Returns:
        (N, K, 2) xy, input pixels, a new tensor.

    Raises:
        ValueError: unknown mode.
    """
    if mode not in get_args(MatchMode):
        raise ValueError(f"mode must be one of {get_args(MatchMode)}, got {mode!r}")
    moved = move_to_peaks(poses, heatmaps)
    if len(moved) == 0:
        return moved
    return _fit_all(moved, keypoint_scores, heatmaps, mode)


def move_to_peaks(poses: Tensor, heatmaps: Tensor) -> Tensor:
    """Move each keypoint to the nearest of its heatmap's 30 highest 5x5 peaks, if one is nearer than 75 pixels.

    Args:
        poses: (N, K, 2) xy, input pixels.
        heatmaps: (K, H, W) at input resolution.

    Returns:
        (N, K, 2) xy, input pixels, a new tensor.
    """
    count, _, width = heatmaps.shape
    highest = F.max_pool2d(heatmaps[None], PEAK_WINDOW, stride=1, padding=PEAK_WINDOW // 2)[0]
    # The official code fills up missing peaks with arbitrary pixels of zero heat; those are nobody's keypoints.
    peaks = torch.where((heatmaps == highest) & (heatmaps > 0), heatmaps, 0.0).reshape(count, -1)
    values, places = peaks.topk(min(PEAKS_PER_KEYPOINT, peaks.shape[1]))
    peak_points = torch.stack([places % width, places // width], dim=2).to(poses.dtype)
    distances = (poses[:, :, None] - peak_points[None]).square().sum(3).sqrt()
    distances = distances.masked_fill(values[None] <= 0, float("inf"))
    nearest, index = distances.min(2)
    targets = peak_points[torch.arange(count, device=poses.device), index]
    return torch.where((nearest < REACH)[..., None], targets, poses)


def _fit_all(poses: Tensor, keypoint_scores: Tensor, heatmaps: Tensor, mode: MatchMode) -> Tensor:
    points = poses.cpu().numpy().copy()
    scores = keypoint_scores.cpu().numpy()
    heat = heatmaps.cpu().numpy()
    height, width = heat.shape[1:]
    # Two people who share a keypoint's pixel share its fit.
    fits: dict[tuple[int, int, int], tuple[float, float] | None] = {}
    for person, keypoint in zip(*np.nonzero((scores > FIT_MIN_SCORE) & np.isfinite(points).all(2)), strict=True):
        # A keypoint outside the image is fitted at the border, where its heat was read.
        x, y = (int(value) for value in points[person, keypoint].round().clip(0, (width - 1, height - 1)))
        key = (int(keypoint), x, y)
        if key not in fits:
            fits[key] = _fit_gaussian(heat[keypoint], x, y, mode)
        fit = fits[key]
        if fit is not None:
            points[person, keypoint] = fit
    return torch.from_numpy(points).to(poses)


def _fit_gaussian(heat: NDArray[np.float32], x: int, y: int, mode: MatchMode) -> tuple[float, float] | None:
    """The center of a round Gaussian fitted around a pixel, in input pixels; None when the fit fails."""
    from scipy.optimize import leastsq  # slow to import, and needed here only

    left, top = max(0, x - FIT_RADIUS), max(0, y - FIT_RADIUS)
    window = heat[top : y + FIT_RADIUS + 1, left : x + FIT_RADIUS + 1].astype(np.float64)
    rows, columns = window.shape
    # leastsq needs as many values as the Gaussian has parameters; where nothing is hot there is nothing to fit.
    if window.size < 4 or not np.isfinite(window).all() or window.max() <= 0:
        return None
    place = np.arange(window.size)
    if mode == "official":
        xs, ys = place % rows, place // rows
        start_x, start_y = FIT_RADIUS, FIT_RADIUS
    else:
        xs, ys = place % columns, place // columns
        start_x, start_y = x - left, y - top
    values = window.ravel()

    def residuals(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        height, center_x, center_y, sigma = parameters
        squared = (xs - center_x) ** 2 + (ys - center_y) ** 2
        return np.asarray(height * np.exp(-squared / (2 * sigma**2)) - values)

    start = (window[y - top, x - left], start_x, start_y, START_SIGMA)
    with np.errstate(all="ignore"):
        fit, _, _, _, status = leastsq(residuals, start, full_output=True, maxfev=FIT_EVALUATIONS)
    if status not in (1, 2, 3, 4) or not np.isfinite(fit).all():
        return None
    return left + float(fit[1]), top + float(fit[2])
