"""Drawn people, limbs as shaded capsules of cloth and skin exactly where the keypoints are; cloth and backgrounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

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


_SHIFT = 4  # OpenCV's sub-pixel bits
_TURN = np.linspace(0, 2 * np.pi, 20, endpoint=False)
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)
# Half the thickness at shoulder, elbow, wrist, hip, knee, ankle, in heights of the body.
_SHOULDER, _ELBOW, _WRIST, _HIP, _KNEE, _ANKLE = 0.042, 0.034, 0.025, 0.06, 0.045, 0.03
_HEAD = (0.055, 0.072)
_LIMBS = (
    (5, 7, _SHOULDER, _ELBOW, "shirt"), (7, 9, _ELBOW, _WRIST, "sleeve"),
    (6, 8, _SHOULDER, _ELBOW, "shirt"), (8, 10, _ELBOW, _WRIST, "sleeve"),
    (11, 13, _HIP, _KNEE, "trousers"), (13, 15, _KNEE, _ANKLE, "leg"),
    (12, 14, _HIP, _KNEE, "trousers"), (14, 16, _KNEE, _ANKLE, "leg"),
)  # fmt: skip
_WRISTS, _ANKLES = (9, 10), (15, 16)


def draw_looks(rng: Random, split: Split) -> dict[str, Floats]:
    """What somebody wears: patches of a split's cloth by part, see ``cloth``; skin and hair are plain."""
    tone = rng.uniform(0.3, 1.0) * np.array([235, 190, 160]) * rng.uniform(0.92, 1.08, 3)
    skin = np.broadcast_to(tone, (PATCH, PATCH, 3))
    hair = np.broadcast_to(rng.uniform(10, 150) * np.array([1, 0.8, 0.6]), (PATCH, PATCH, 3))
    shirt, trousers = cloth(rng, split), cloth(rng, split)
    return {
        "skin": skin, "hair": hair, "shirt": shirt, "trousers": trousers, "shoe": cloth(rng, split),
        "sleeve": shirt if rng.random() < 0.5 else skin, "leg": trousers if rng.random() < 0.7 else skin,
    }  # fmt: skip


def draw_figure(
    frame: NDArray[np.uint8], keypoints: Floats, depth: Floats, height: float, looks: dict[str, Floats]
) -> NDArray[np.bool_]:
    """Draw one person into a (H, W, 3) uint8 RGB frame, in place; (H, W) where the person is.

    Keypoints (17, 2) are xy in frame pixels and may lie outside; ``height`` is the body's, frame pixels. Depths (17,)
    point towards the camera, in heights; nearer limbs cover those behind.
    """
    covered = np.zeros(frame.shape[:2], bool)
    parts = sorted(_parts(keypoints, depth, height), key=lambda part: part.depth)
    for part in parts:
        covered |= _paint(frame, _outline(part.ends), part.axis, part.radius, looks[part.cloth])
    return covered | _draw_head(frame, keypoints, depth, height, looks)


@dataclass(frozen=True, eq=False)
class _Part:
    """The hull of circles (center, radius) that cloth covers along an axis; larger depths are nearer."""

    depth: float
    cloth: str
    ends: list[tuple[Floats, float]]
    axis: tuple[Floats, Floats]
    radius: float


def _parts(keypoints: Floats, depth: Floats, height: float) -> list[_Part]:
    def limb(near: float, cloth: str, *ends: tuple[Floats, float]) -> _Part:
        return _Part(near, cloth, list(ends), (ends[0][0], ends[1][0]), max(radius for _, radius in ends))

    parts = []
    for start, end, first, last, name in _LIMBS:
        tip = keypoints[end], last * height
        parts.append(limb(float(depth[start] + depth[end]) / 2, name, (keypoints[start], first * height), tip))
        if end in _ANKLES:
            parts.append(limb(float(depth[end]) + 0.001, "shoe", _foot(keypoints, depth, end, height), tip))
        if end in _WRISTS:
            hand = keypoints[end], 1.15 * _WRIST * height
            parts.append(limb(float(depth[end]) + 0.001, "skin", hand, hand))
    shoulders, hips = keypoints[5:7].mean(axis=0), keypoints[11:13].mean(axis=0)
    corners = [(keypoints[index], (_SHOULDER if index < 7 else _HIP) * height) for index in (5, 6, 12, 11)]
    wide = max(float(np.linalg.norm(keypoints[5] - keypoints[6])) / 2, 0.06 * height) + _SHOULDER * height
    parts.append(_Part(float(depth[[5, 6, 11, 12]].mean()), "shirt", corners, (shoulders, hips), wide))
    neck = 0.03 * height
    parts.append(limb(float(depth[:5].mean()) - 0.02, "skin", (shoulders, neck), (keypoints[3:5].mean(axis=0), neck)))
    return parts


def _foot(keypoints: Floats, depth: Floats, ankle: int, height: float) -> tuple[Floats, float]:
    """The toes: ahead of the ankle, as far as the heading shows."""
    across = keypoints[5] - keypoints[6]
    ahead = np.clip((depth[6] - depth[5]) / 0.21, -1, 1)
    facing = np.clip(across[0] / (0.21 * height), -1, 1)
    return keypoints[ankle] + height * np.array([0.075 * ahead, 0.02 + 0.025 * facing]), 0.022 * height


def _draw_head(
    frame: NDArray[np.uint8], keypoints: Floats, depth: Floats, height: float, looks: dict[str, Floats]
) -> NDArray[np.bool_]:
    middle = keypoints[3:5].mean(axis=0)
    width, tall = np.array(_HEAD) * height
    up = middle - keypoints[5:7].mean(axis=0)
    up = up / max(float(np.linalg.norm(up)), 1e-6)
    aside, crown = np.array([up[1], -up[0]]), middle + tall * up
    oval = middle + width * _CIRCLE[:, :1] * aside + tall * _CIRCLE[:, 1:] * up
    hair, skin = looks["hair"], looks["skin"]
    covered = _paint(frame, oval, (crown, middle), width, skin)
    faces = depth[0] > depth[3:5].mean()
    covered |= _paint(frame, oval[_CIRCLE[:, 1] > (0.35 if faces else -0.6)], (crown, middle), width, hair)
    for ear in (3, 4):
        if depth[ear] > depth[7 - ear] - 0.02:
            covered |= _paint(
                frame, keypoints[ear] + 0.016 * height * _CIRCLE, (keypoints[ear],) * 2, height, 0.85 * skin
            )
    if faces:
        for point, radius, patch in ((0, 0.012, 0.7 * skin), (1, 0.009, 0.3 * skin), (2, 0.009, 0.3 * skin)):
            covered |= _paint(
                frame, keypoints[point] + radius * height * _CIRCLE, (keypoints[point],) * 2, height, patch
            )
    return covered


def _outline(ends: list[tuple[Floats, float]]) -> Floats:
    """The convex hull of circles."""
    cloud = np.concatenate([center + radius * _CIRCLE for center, radius in ends])
    return np.asarray(cv2.convexHull(cloud.astype(np.float32))[:, 0], np.float64)


def _paint(
    frame: NDArray[np.uint8], polygon: Floats, axis: tuple[Floats, Floats], radius: float, patch: Floats
) -> NDArray[np.bool_]:
    """Fill a convex polygon with cloth that runs along an axis, darker towards the rim; tell where."""
    covered = np.zeros(frame.shape[:2], bool)
    height, width = frame.shape[0], frame.shape[1]
    low, high = polygon.min(axis=0), polygon.max(axis=0)
    left, top = (max(int(np.floor(value)) - 1, 0) for value in low.tolist())
    right, bottom = (
        min(int(np.ceil(value)) + 2, side) for value, side in zip(high.tolist(), (width, height), strict=True)
    )
    if left >= right or top >= bottom:
        return covered
    mask = np.zeros((bottom - top, right - left), np.uint8)
    cv2.fillConvexPoly(mask, np.rint((polygon - (left, top)) * 2**_SHIFT).astype(np.int32), 255, cv2.LINE_AA, _SHIFT)
    along = axis[1] - axis[0]
    length = max(float(np.linalg.norm(along)), 1e-6)
    along = along / length if length > 1e-6 else np.array([0.0, 1.0])
    x, y = np.arange(left, right) - axis[0][0], (np.arange(top, bottom) - axis[0][1])[:, None]
    lengthwise, across = (x * along[0] + y * along[1]) / radius, (x * along[1] - y * along[0]) / radius
    shade = 0.6 + 0.4 * np.sqrt(np.maximum(1 - across**2, 0))
    color = patch[(8 * lengthwise).astype(int) % PATCH, ((across + 1) * PATCH / 2).astype(int).clip(0, PATCH - 1)]
    place = slice(top, bottom), slice(left, right)
    alpha = (mask / 255.0)[..., None]
    frame[place] = np.rint(frame[place] + alpha * ((shade[..., None] * color).clip(0, 255) - frame[place]))
    covered[place] = mask > 127
    return covered
