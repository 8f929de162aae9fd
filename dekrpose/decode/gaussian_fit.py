"""Round Gaussians fitted to many small windows at once, by Levenberg and Marquardt's damped least squares."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MOST_STEPS = 60
"""A fit that needs more has failed."""
START_DAMPING = 1e-3
SMALL_STEP = 1e-4
"""Relative to each parameter: a smaller step ends the fit."""
SMALL_GAIN = 1e-6
"""Relative to the sum of squares: an accepted step that gains less ends the fit."""


def fit_gaussians(windows: Array, valid: NDArray[np.bool_], start: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Fit height * exp(-((x - center_x)^2 + (y - center_y)^2) / (2 sigma^2)) to each window.

    Args:
        windows: (N, n, n) values; pixel [y, x] of a window lies at (x, y).
        valid: (N, n, n): pixels that count.
        start: (N, 4): height, center_x, center_y, sigma to start from.

    Returns:
        (N, 4) fitted parameters, center and sigma in window pixels; (N,) whether the fit converged.
    """
    fitted = start.copy()
    converged = np.zeros(len(windows), dtype=bool)
    active = np.arange(len(windows))
    damping = np.full(len(windows), START_DAMPING)
    diagonal = np.arange(start.shape[1])
    with np.errstate(all="ignore"):
        gaussian, residual, cost = _residual(start, windows, valid)
        for _ in range(MOST_STEPS):
            if len(active) == 0:
                break
            old = fitted[active]
            slopes = _slopes(old, gaussian)
            curvature = slopes @ slopes.transpose(0, 2, 1)
            curvature[:, diagonal, diagonal] *= 1 + damping[:, None]
            step, solvable = _solve(curvature, slopes @ residual.reshape(len(active), -1, 1))
            new_gaussian, new_residual, new_cost = _residual(old - step, windows[active], valid[active])
            better = solvable & (new_cost <= cost)
            fitted[active[better]] -= step[better]
            still = (np.abs(step) <= SMALL_STEP * (np.abs(old) + SMALL_STEP)).all(1)
            ended = solvable & (still | (better & (cost - new_cost <= SMALL_GAIN * cost)))
            converged[active[ended]] = True
            gaussian[better], residual[better], cost[better] = (
                new_gaussian[better],
                new_residual[better],
                new_cost[better],
            )
            damping *= np.where(better, 0.1, 10.0)
            on = solvable & ~ended
            active, damping, gaussian, residual, cost = active[on], damping[on], gaussian[on], residual[on], cost[on]
    return fitted, converged & np.isfinite(fitted).all(1)


def _residual(parameters: Array, values: Array, weights: NDArray[np.bool_]) -> tuple[Array, Array, Array]:
    """Gaussians of height 1 (N, n, n), what they miss (N, n, n), and its sums of squares (N,)."""
    place = np.arange(values.shape[1], dtype=np.float64)
    height, center_x, center_y, sigma = parameters.T[:, :, None]
    across = np.exp(-((place - center_x) ** 2) / (2 * sigma**2))
    down = np.exp(-((place - center_y) ** 2) / (2 * sigma**2))
    gaussian = down[:, :, None] * across[:, None, :] * weights
    residual = height[:, :, None] * gaussian - values * weights
    return gaussian, residual, (residual**2).sum((1, 2))


def _slopes(parameters: Array, gaussian: Array) -> Array:
    """(N, 4, n * n): how the Gaussians change with each parameter."""
    place = np.arange(gaussian.shape[1], dtype=np.float64)
    height, center_x, center_y, sigma = parameters.T[:, :, None, None]
    x, y = place - center_x, place[:, None] - center_y
    steep = height * gaussian / sigma**2
    slopes = [gaussian, steep * x, steep * y, steep * (x**2 + y**2) / sigma]
    return np.stack(slopes, axis=1).reshape(len(gaussian), 4, -1)


def _solve(matrices: Array, values: Array) -> tuple[Array, NDArray[np.bool_]]:
    """(N, 4) solutions, and where there is one; elsewhere zeros."""
    solvable = np.asarray(np.isfinite(matrices).all((1, 2)) & np.isfinite(values).all((1, 2)))
    solvable[solvable] &= np.abs(np.linalg.det(matrices[solvable])) > 0
    solutions = np.zeros((len(matrices), 4))
    solutions[solvable] = np.linalg.solve(matrices[solvable], values[solvable])[..., 0]
    return solutions, solvable
