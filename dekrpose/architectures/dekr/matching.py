"""Match to heatmap: move regressed keypoints onto the nearest peaks of the keypoint heatmaps, as the paper does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dekrpose.architectures.dekr.gaussian_fit import fit_gaussians

PEAK_WINDOW = 5
PEAKS_PER_KEYPOINT = 30
REACH = 75.0
"""Input pixels: peaks farther away belong to somebody else."""
FIT_RADIUS = 6
"""Input pixels on each side of the peak that the Gaussian is fitted to."""
FIT_MIN_SCORE = 0.05
START_SIGMA = 8.0
"""Input pixels: two heatmap pixels, the width that the heatmaps are trained with."""
OFFICIAL_START_SIGMA = 2.0
"""What the official code starts from, which decides which of its fits it gives up."""
FIT_EVALUATIONS = 300
"""A fit that needs more has failed; recordings of the official code keep one of 209 and give up one of 411."""


Fits = Callable[[NDArray[np.int64]], NDArray[np.float64]]
"""(N, 3) keypoint, x, y -> fitted (N, 2) xy, input pixels; NaN where a fit fails."""


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


def match(poses: Tensor, keypoint_scores: Tensor, peaks: Peaks, official: bool = True) -> Tensor:
    """Move each keypoint to the nearest peak of its heatmap, then to the center of a Gaussian fitted there.

    Scores stay what they were before. In the official code a window that the image border cuts is read with rows
    and columns mixed up, which puts keypoints near borders 3 to 5 pixels off, sometimes far outside.

    Args:
        poses: (N, K, 2) xy, input pixels.
        keypoint_scores: (N, K); keypoints up to 0.05 are moved but not fitted.
        peaks: of the image, from heatmaps at input resolution.
        official: with this quirk; else what the heatmap shows is fitted, as the paper says.

    Returns:
        (N, K, 2) xy, input pixels, a new tensor.
    """
    heat = peaks.heatmaps
    fit = _official_fits if official else _fits
    moved = move_to_peaks(poses.cpu().numpy(), peaks.places, peaks.heat)
    size = (heat.shape[1], heat.shape[2])
    return torch.from_numpy(fit_all(moved, keypoint_scores.cpu().numpy(), size, partial(fit, heat))).to(poses)


def read_peaks(heatmaps: Tensor) -> Peaks:
    """The peaks of heatmaps (K, H, W) at input resolution."""
    return Peaks(*find_peaks(heatmaps), heatmaps.cpu().numpy(), 1)


def find_peaks(heatmaps: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The 30 highest 5x5 peaks of each heatmap.

    Args:
        heatmaps: (K, H, W) at input resolution.

    Returns:
        Peaks (K, P, 2) xy, input pixels, and their heat (K, P); P is at most 30, and a heat of 0 is no peak.
    """
    count, _, width = heatmaps.shape
    values, places = peak_values(heatmaps).reshape(count, -1).topk(min(PEAKS_PER_KEYPOINT, heatmaps[0].numel()))
    peaks = torch.stack([places % width, places // width], dim=2).to(heatmaps.dtype)
    return peaks.cpu().numpy(), values.cpu().numpy()


def move_to_peaks(
    poses: NDArray[np.float32], peaks: NDArray[np.float32], values: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Move each keypoint to the nearest of its peaks, if one is nearer than 75 input pixels.

    Args:
        poses: (N, K, 2) xy, input pixels.
        peaks, values: as from ``find_peaks``.

    Returns:
        (N, K, 2) xy, input pixels, a new array.
    """
    x = poses[:, :, None, 0] - peaks[:, :, 0]
    y = poses[:, :, None, 1] - peaks[:, :, 1]
    distances = np.sqrt(x * x + y * y)
    distances[:, values <= 0] = np.inf
    index = distances.argmin(2)
    nearest = np.take_along_axis(distances, index[..., None], 2)
    return np.where(nearest < REACH, peaks[np.arange(len(peaks)), index], poses)


def peak_values(heatmaps: Tensor) -> Tensor:
    """Heat (K, H, W) where a pixel is the highest of its 5x5 window, elsewhere 0."""
    # The official code fills up missing peaks with arbitrary pixels of zero heat; those are nobody's keypoints.
    return torch.where((heatmaps == window_maximum(heatmaps)) & (heatmaps > 0), heatmaps, 0.0)


def window_maximum(heatmaps: Tensor) -> Tensor:
    """The largest value of each pixel's 5x5 window: a few maxima of shifted maps, several times faster than pooling."""
    for axis in (-1, -2):
        size = heatmaps.shape[axis]
        padding = [0, 0, 0, 0]
        padding[-2 * axis - 2 : -2 * axis] = [PEAK_WINDOW // 2] * 2
        one = F.pad(heatmaps, padding, value=-torch.inf)
        two = torch.maximum(one.narrow(axis, 0, size + 3), one.narrow(axis, 1, size + 3))
        four = torch.maximum(two.narrow(axis, 0, size + 1), two.narrow(axis, 2, size + 1))
        heatmaps = torch.maximum(four.narrow(axis, 0, size), one.narrow(axis, 4, size))
    return heatmaps


def fit_all(
    poses: NDArray[np.float32], keypoint_scores: NDArray[np.float32], size: tuple[int, int], fit: Fits
) -> NDArray[np.float32]:
    """Move keypoints to the centers of the Gaussians fitted around them.

    Args:
        poses: (N, K, 2) xy, input pixels.
        keypoint_scores: (N, K); keypoints up to 0.05 stay.
        size: (height, width), input pixels.
        fit: fits around places.

    Returns:
        (N, K, 2) xy, input pixels, a new array.
    """
    points = poses.copy()
    height, width = size
    people, keypoints = np.nonzero((keypoint_scores > FIT_MIN_SCORE) & np.isfinite(points).all(2))
    # A keypoint outside the image is fitted at the border, where its heat was read.
    pixels = points[people, keypoints].round().clip(0, (width - 1, height - 1)).astype(np.int64)
    # Two people who share a keypoint's pixel share its fit.
    numbers = (keypoints * height + pixels[:, 1]) * width + pixels[:, 0]
    _, first, which = np.unique(numbers, return_index=True, return_inverse=True)
    fits = fit(np.column_stack([keypoints[first], pixels[first]]))[which.reshape(-1)]
    fitted = np.isfinite(fits).all(1)
    points[people[fitted], keypoints[fitted]] = fits[fitted]
    return points


def window_pixels(places: NDArray[np.int64], size: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Rows and columns (2, N, 13), input pixels, of the windows around (N, 3) keypoint, x, y, and which of them lie in
    the image; those that do not are moved to its border.
    """
    lengths = np.array(size).reshape(2, 1, 1)
    pixels = places[:, :0:-1].T[:, :, None] + np.arange(-FIT_RADIUS, FIT_RADIUS + 1)
    return pixels.clip(0, lengths - 1), (pixels >= 0) & (pixels < lengths)


def _fits(heat: NDArray[np.float32], places: NDArray[np.int64]) -> NDArray[np.float64]:
    pixels, inside = window_pixels(places, (heat.shape[1], heat.shape[2]))
    rows, columns = pixels
    return fit_windows(heat[places[:, 0, None, None], rows[:, :, None], columns[:, None]], inside, places)


def fit_windows(
    windows: NDArray[np.floating], inside: NDArray[np.bool_], places: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Centers of the Gaussians fitted to windows.

    Args:
        windows: (N, 13, 13) heat around each place.
        inside: (2, N, 13): rows and columns that count.
        places: (N, 3) keypoint, x, y, input pixels.

    Returns:
        (N, 2) xy, input pixels; NaN where a fit fails.
    """
    rows, columns = inside
    windows = windows.astype(np.float64)
    start = np.tile([0.0, FIT_RADIUS, FIT_RADIUS, START_SIGMA], (len(places), 1))
    start[:, 0] = windows[:, FIT_RADIUS, FIT_RADIUS]
    # A fit needs as many values as the Gaussian has parameters; where nothing is hot there is nothing to fit.
    enough = rows.sum(1) * columns.sum(1) >= start.shape[1]
    useful = enough & np.isfinite(windows).all((1, 2))
    useful &= np.where(rows[:, :, None] & columns[:, None], windows, 0.0).max((1, 2)) > 0
    fits, converged = fit_gaussians(windows[useful], rows[useful], columns[useful], start[useful])
    converged &= (np.abs(fits[:, 1:3] - FIT_RADIUS) < REACH).all(1)  # slopes without a top send it anywhere
    centers = np.full((len(places), 2), np.nan)
    centers[np.flatnonzero(useful)[converged]] = fits[converged, 1:3]
    return np.asarray(centers + (places[:, 1:] - FIT_RADIUS), dtype=np.float64)


def _official_fits(heat: NDArray[np.float32], places: NDArray[np.int64]) -> NDArray[np.float64]:
    """The same as the official code does it, which reads windows cut by the border with rows and columns mixed up."""
    fits = [_official_fit(heat[keypoint], int(x), int(y)) for keypoint, x, y in places]
    return np.array([fit or (np.nan, np.nan) for fit in fits]).reshape(-1, 2)


def _official_fit(heat: NDArray[np.float32], x: int, y: int) -> tuple[float, float] | None:
    from scipy.optimize import leastsq  # slow to import, and needed here only

    left, top = max(0, x - FIT_RADIUS), max(0, y - FIT_RADIUS)
    window = heat[top : y + FIT_RADIUS + 1, left : x + FIT_RADIUS + 1].astype(np.float64)
    # leastsq needs as many values as the Gaussian has parameters; where nothing is hot there is nothing to fit.
    if window.size < 4 or not np.isfinite(window).all() or window.max() <= 0:
        return None
    place = np.arange(window.size)
    xs, ys = place % len(window), place // len(window)
    values = window.ravel()

    def residuals(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        height, center_x, center_y, sigma = parameters
        squared = (xs - center_x) ** 2 + (ys - center_y) ** 2
        return np.asarray(height * np.exp(-squared / (2 * sigma**2)) - values)

    start = (window[y - top, x - left], FIT_RADIUS, FIT_RADIUS, OFFICIAL_START_SIGMA)
    with np.errstate(all="ignore"):
        fit, _, _, _, status = leastsq(residuals, start, full_output=True, maxfev=FIT_EVALUATIONS)
    if status not in (1, 2, 3, 4) or not np.isfinite(fit).all():
        return None
    return left + float(fit[1]), top + float(fit[2])
