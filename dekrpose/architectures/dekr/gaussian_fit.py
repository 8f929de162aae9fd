"""Round Gaussians fitted to many small windows at once, by Levenberg and Marquardt's damped least squares.

A round Gaussian is a product of one along x and one along y, and so are its slopes: the normal equations need sums over
rows and over columns alone, never a slope of each pixel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MOST_STEPS = 20
"""A fit that needs more has failed."""
START_DAMPING, LEAST_DAMPING = 1e-3, 1e-10
SMALL_STEP = 1e-3
"""Relative to each parameter: a smaller step ends the fit."""
SMALL_GAIN = 1e-6
"""Relative to the sum of squares: an accepted step that gains less ends the fit."""
LEAST_SQUARE = 1e-200
"""A slope whose sum of squares is smaller is none."""

# The slopes are sums of products of a power of y, from the first list, and one of x, times the Gaussian: 1, x, y and
# x^2 + y^2, of which the last two products are the parts.
_OF_Y, _OF_X = np.array([0, 0, 1, 0, 2]), np.array([0, 1, 0, 2, 0])
_Y_PAIRS, _X_PAIRS = (np.ix_(powers, powers) for powers in (_OF_Y, _OF_X))


def fit_gaussians(
    windows: Array, rows: NDArray[np.bool_], columns: NDArray[np.bool_], start: Array
) -> tuple[Array, NDArray[np.bool_]]:
    """Fit height * exp(-((x - center_x)^2 + (y - center_y)^2) / (2 sigma^2)) to each window.

    Args:
        windows: (N, n, n) values; pixel [y, x] of a window lies at (x, y).
        rows, columns: (N, n): those whose pixels count.
        start: (N, 4): height, center_x, center_y, sigma to start from.

    Returns:
        (N, 4) fitted parameters, center and sigma in window pixels; (N,) whether the fit converged.
    """
    fitted = start.copy()
    converged = np.zeros(len(windows), dtype=bool)
    active = np.arange(len(windows))
    damping = np.full(len(windows), START_DAMPING)
    windows = windows * (rows[:, :, None] & columns[:, None])
    given: list[NDArray[Any]] = [windows, np.stack([rows, columns], axis=1), (windows**2).sum((1, 2))]
    with np.errstate(all="ignore"):
        equations = _equations(start, *given)
        for _ in range(MOST_STEPS):
            old = fitted[active]
            step, solvable = _step(old, equations[0], equations[1], damping)
            # a step this small is the last: what it leaves is far smaller
            still = solvable & (np.abs(step) <= SMALL_STEP * (np.abs(old) + SMALL_STEP)).all(1)
            fitted[active[still]] -= step[still]
            converged[active[still]] = True
            if not (on := solvable & ~still).all():
                active, damping, step, old = active[on], damping[on], step[on], old[on]
                equations, given = [part[on] for part in equations], [part[on] for part in given]
            if len(active) == 0:
                break
            new = _equations(old - step, *given)
            cost, new_cost = equations[2], new[2]
            better = new_cost <= cost
            fitted[active[better]] -= step[better]
            ended = better & (cost - new_cost <= SMALL_GAIN * cost)
            converged[active[ended]] = True
            equations = _chosen(better, new, equations)
            damping = np.maximum(damping * np.where(better, 0.1, 10.0), LEAST_DAMPING)
            if ended.any():
                active, damping = active[~ended], damping[~ended]
                equations, given = [part[~ended] for part in equations], [part[~ended] for part in given]
    return fitted, converged & np.isfinite(fitted).all(1)


def _equations(parameters: Array, windows: Array, inside: NDArray[np.bool_], energy: Array) -> list[Array]:
    """The normal equations, for slopes without their common factors, and the sums of squares.

    Args:
        parameters: (N, 4).
        windows: (N, n, n), zero outside.
        inside: (N, 2, n): rows and columns that count.
        energy: (N,) sums of the windows' squares.

    Returns:
        (N, 4, 4) products of the slopes; (N, 4) their products with what is missed; (N,) the sums of its squares.
    """
    place = np.arange(windows.shape[1], dtype=np.float64)
    away = place - parameters[:, 2:0:-1, None]  # (N, 2, n): from the center, along y and along x
    bells = np.exp(away**2 / (-2 * parameters[:, 3, None, None] ** 2)) * inside
    sloped = bells * away
    moments = np.stack([bells, sloped, sloped * away], axis=2)  # (N, 2, 3, n): the Gaussian times powers of y, of x
    down, across = moments[:, 0], moments[:, 1]
    products = np.matmul(moments, moments.swapaxes(2, 3))
    products = products[:, 0][(slice(None), *_Y_PAIRS)] * products[:, 1][(slice(None), *_X_PAIRS)]
    values = np.matmul(np.matmul(down, windows), across.swapaxes(1, 2))[:, _OF_Y, _OF_X]
    height = parameters[:, 0]
    missed = height[:, None] * products[:, 0] - values
    cost = height**2 * products[:, 0, 0] - 2 * height * values[:, 0] + energy
    missed[:, 3] += missed[:, 4]
    products[:, 3] += products[:, 4]
    products[:, :, 3] += products[:, :, 4]
    return [products[:, :4, :4], missed[:, :4], cost]


def _step(parameters: Array, products: Array, missed: Array, damping: Array) -> tuple[Array, NDArray[np.bool_]]:
    """(N, 4) damped steps towards the least squares, and where there is one; elsewhere zeros."""
    squares = np.einsum("nii->ni", products)
    solvable = np.asarray(np.isfinite(products).all((1, 2)) & np.isfinite(missed).all(1))
    solvable &= (squares > LEAST_SQUARE).all(1)
    size = np.sqrt(np.where(solvable[:, None], squares, 1.0))
    matrices = np.where(solvable[:, None, None], products, 0.0) / (size[:, :, None] * size[:, None])
    # ones and the damping on the diagonal: never singular
    matrices[:, np.arange(4), np.arange(4)] = 1 + damping[:, None]
    step = np.linalg.solve(matrices, (np.where(solvable[:, None], missed, 0.0) / size)[..., None])[..., 0] / size
    height, sigma = parameters[:, 0], parameters[:, 3]
    steep = height / sigma**2
    step[:, 1:] /= np.stack([steep, steep, steep / sigma], axis=1)
    solvable &= np.isfinite(step).all(1)
    step[~solvable] = 0.0
    return step, solvable


def _chosen(which: NDArray[np.bool_], first: list[Array], second: list[Array]) -> list[Array]:
    """Rows of the first where ``which`` says so, else of the second."""
    if which.all():
        return first
    return [
        np.where(which.reshape(-1, *[1] * (one.ndim - 1)), one, other) for one, other in zip(first, second, strict=True)
    ]
