"""Backgrounds and cloth, drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from dekrpose.data.clips.clip import Floats, Split

Random = np.random.Generator


def _clouds(rng: Random, size: int) -> Floats:
    value = np.zeros((size, size))
    for octave in range(2, 7):
        cells = rng.normal(size=(2**octave, 2**octave))
        value += 0.6**octave * cv2.resize(cells, (size, size), interpolation=cv2.INTER_CUBIC)
    return _unit(value)


def _houses(rng: Random, size: int) -> Floats:
    value = np.full((size, size), rng.uniform())
    for _ in range(int(rng.integers(12, 40))):
        (x, y), (width, height) = rng.integers(0, size, 2), rng.integers(size // 20, size // 3, 2)
        value[y : y + height, x : x + width] = rng.uniform()
    return value


def _tiles(rng: Random, size: int) -> Floats:
    y, x = np.mgrid[:size, :size] / size
    angle, cells = rng.uniform(0, np.pi), rng.uniform(5, 14)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    shades = rng.uniform(size=(64, 64))
    return np.asarray(shades[np.floor(u * cells).astype(int) % 64, np.floor(v * cells).astype(int) % 64])


def _waves(rng: Random, size: int) -> Floats:
    y, x = np.mgrid[:size, :size] / size
    value = np.zeros((size, size))
    for _ in range(5):
        (fx, fy), phase = rng.normal(0, 18, 2), rng.uniform(0, 2 * np.pi)
        value += np.sin(fx * x + fy * y + phase + 1.5 * np.sin(6 * x + phase))
    return _unit(value)


def _pebbles(rng: Random, size: int) -> Floats:
    value = np.full((size, size), rng.uniform(), np.float32)
    for _ in range(int(rng.integers(40, 160))):
        center, axes = rng.integers(0, size, 2).tolist(), rng.integers(size // 50, size // 10, 2).tolist()
        cv2.ellipse(value, center, axes, float(rng.uniform(0, 180)), 0, 360, float(rng.uniform()), -1, cv2.LINE_AA)
    return value.astype(np.float64)


def _twigs(rng: Random, size: int) -> Floats:
    value = np.full((size, size), rng.uniform(), np.float32)
    for _ in range(int(rng.integers(30, 90))):
        a, b = rng.integers(0, size, 2).tolist(), rng.integers(0, size, 2).tolist()
        cv2.line(value, a, b, float(rng.uniform()), int(rng.integers(1, max(2, size // 25))), cv2.LINE_AA)
    return value.astype(np.float64)


BACKGROUNDS: Mapping[Split, Mapping[str, Callable[[Random, int], Floats]]] = {
    "train": {"clouds": _clouds, "houses": _houses, "tiles": _tiles},
    "test": {"waves": _waves, "pebbles": _pebbles, "twigs": _twigs},
}
"""Patterns (size, size) in [0, 1] behind people; those of the splits differ in kind."""


def background(rng: Random, split: Split, size: int) -> NDArray[np.uint8]:
    """(size, size, 3) RGB: one pattern between two colours, another one faintly over it, lit unevenly."""
    kinds = list(BACKGROUNDS[split].values())
    first, second = (kinds[rng.integers(len(kinds))](rng, size)[..., None] for _ in range(2))
    colors = rng.uniform(0, 255, (3, 3))
    grey = rng.uniform(0, 1, (3, 1))  # strong colours are rare behind people
    low, high, third = colors + grey * (colors.mean(axis=1, keepdims=True) - colors)
    picture = low + (high - low) * first
    picture += rng.uniform(0, 0.4) * second * (third - picture)
    light = cv2.resize(rng.uniform(0.7, 1.2, (3, 3)), (size, size), interpolation=cv2.INTER_LINEAR)
    return np.asarray((picture * light[..., None]).clip(0, 255), np.uint8)


PATCH = 32
"""Side of a patch of cloth, and the number of its threads across a limb."""


def _plain(rng: Random) -> Floats:
    return np.ones((PATCH, PATCH))


def _hoops(rng: Random) -> Floats:
    return 1 - 0.4 * (np.arange(PATCH)[:, None] % int(rng.integers(4, 12)) < 2) * np.ones((1, PATCH))


def _tweed(rng: Random) -> Floats:
    return 1 + 0.25 * rng.normal(size=(PATCH, PATCH))


def _checks(rng: Random) -> Floats:
    index = np.arange(PATCH) // int(rng.integers(3, 7)) % 2
    return 1 - 0.45 * (index[:, None] ^ index)


def _dots(rng: Random) -> Floats:
    grid = np.arange(PATCH) % 8 - 3.5
    return 1 - 0.5 * (grid[:, None] ** 2 + grid**2 < rng.uniform(4, 9))


def _faded(rng: Random) -> Floats:
    return np.linspace(rng.uniform(0.5, 1), rng.uniform(0.9, 1.3), PATCH)[:, None] * np.ones((1, PATCH))


CLOTH: Mapping[Split, Mapping[str, Callable[[Random], Floats]]] = {
    "train": {"plain": _plain, "hoops": _hoops, "tweed": _tweed},
    "test": {"checks": _checks, "dots": _dots, "faded": _faded},
}
"""Patterns (along a limb, across it) of brightness, about 1."""


def cloth(rng: Random, split: Split) -> Floats:
    """(PATCH, PATCH, 3) brightness of a colour at each thread, as RGB in 0 to 255."""
    kinds = list(CLOTH[split].values())
    return np.asarray(rng.uniform(20, 240, 3) * kinds[rng.integers(len(kinds))](rng)[..., None])


def _unit(value: Floats) -> Floats:
    return np.asarray((value - value.min()) / max(float(np.ptp(value)), 1e-9))
