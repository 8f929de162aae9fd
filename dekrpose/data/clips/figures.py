"""Drawn people: limbs as shaded capsules of cloth and skin, a head with a face, exactly where the keypoints are."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dekrpose.data.clips.clip import Floats, Split
from dekrpose.data.clips.scenery import PATCH, cloth

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


@dataclass(frozen=True, eq=False)
class Looks:
    """What somebody wears: patches of cloth by part, see ``scenery.cloth``; skin and hair are plain."""

    patches: dict[str, Floats]

    @classmethod
    def draw(cls, rng: np.random.Generator, split: Split) -> Looks:
        """Draw clothes of a split."""
        tone = rng.uniform(0.3, 1.0) * np.array([235, 190, 160]) * rng.uniform(0.92, 1.08, 3)
        skin = np.broadcast_to(tone, (PATCH, PATCH, 3))
        hair = np.broadcast_to(rng.uniform(10, 150) * np.array([1, 0.8, 0.6]), (PATCH, PATCH, 3))
        shirt, trousers = cloth(rng, split), cloth(rng, split)
        return cls(
            {
                "skin": skin, "hair": hair, "shirt": shirt, "trousers": trousers, "shoe": cloth(rng, split),
                "sleeve": shirt if rng.random() < 0.5 else skin, "leg": trousers if rng.random() < 0.7 else skin,
            }
        )  # fmt: skip


def draw_figure(
    frame: NDArray[np.uint8], keypoints: Floats, depth: Floats, height: float, looks: Looks
) -> NDArray[np.bool_]:
    """Draw one person into a (H, W, 3) uint8 RGB frame, in place; (H, W) where the person is.

    Keypoints (17, 2) are xy in frame pixels and may lie outside; ``height`` is the body's, frame pixels. Depths (17,)
    point towards the camera, in heights; nearer limbs cover those behind.
    """
    covered = np.zeros(frame.shape[:2], bool)
    parts = sorted(_parts(keypoints, depth, height), key=lambda part: part.depth)
    for part in parts:
        covered |= _paint(frame, _outline(part.ends), part.axis, part.radius, looks.patches[part.cloth])
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
    frame: NDArray[np.uint8], keypoints: Floats, depth: Floats, height: float, looks: Looks
) -> NDArray[np.bool_]:
    middle = keypoints[3:5].mean(axis=0)
    width, tall = np.array(_HEAD) * height
    up = middle - keypoints[5:7].mean(axis=0)
    up = up / max(float(np.linalg.norm(up)), 1e-6)
    aside, crown = np.array([up[1], -up[0]]), middle + tall * up
    oval = middle + width * _CIRCLE[:, :1] * aside + tall * _CIRCLE[:, 1:] * up
    hair, skin = looks.patches["hair"], looks.patches["skin"]
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
