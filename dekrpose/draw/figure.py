"""What there is to draw of a person: which limbs and keypoints, how wide, and how clearly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dekrpose.draw.painting import Disc, Limb
from dekrpose.skeletons import Skeleton

SIDES = ("left", "right", "middle")
RELATIVE_FLOOR = 0.1
"""Keypoints below this share of the person's best keypoint score count as not seen."""

THIN = 1.5
"""Limbs below this width, image pixels, are those of very small people: drawn more clearly, with smaller dots."""

_ABSOLUTE_FLOOR = 0.01  # keypoint scores below this are noise, whatever the person's best is
_RELATIVE_FULL = 0.5  # from this share of the person's best on, keypoints are drawn in full
_CONFIDENT = 0.2  # people whose best score is below this are drawn fainter as a whole
_FAINTEST_PERSON = 0.6
_FAINTEST_KEYPOINT = 0.3


@dataclass(frozen=True)
class Brush:
    """How one person is drawn; ``reach`` is how far limbs go towards keypoints outside the image."""

    width: float
    reach: float
    colors: dict[str, tuple[int, int, int]]
    image_size: tuple[int, int]


def keypoint_alphas(keypoint_scores: NDArray[np.float32], threshold: float | None = None) -> NDArray[np.float64]:
    """How clearly keypoints are drawn, by the rule in ``draw_poses``.

    Args:
        keypoint_scores: (N, K) in [0, 1].
        threshold: None, or the lowest score that is drawn.

    Returns:
        (N, K) in [0, 1]; 0 is not drawn.
    """
    scores = np.nan_to_num(keypoint_scores.astype(np.float64), nan=-1.0)
    best = np.maximum(scores.max(axis=1, keepdims=True, initial=0), 1e-9)
    rise = np.clip((scores / best - RELATIVE_FLOOR) / (_RELATIVE_FULL - RELATIVE_FLOOR), 0, 1)
    person = _FAINTEST_PERSON + (1 - _FAINTEST_PERSON) * np.clip(best / _CONFIDENT, 0, 1)
    alphas = person * (_FAINTEST_KEYPOINT + (1 - _FAINTEST_KEYPOINT) * rise)
    if threshold is None:
        drawn = (scores >= RELATIVE_FLOOR * best) & (scores >= _ABSOLUTE_FLOOR)
    else:
        drawn = (scores >= threshold) & (scores >= 0)
    return np.where(drawn, alphas, 0.0)


def counting(keypoints: NDArray[np.float32], keypoint_scores: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(N, K) which keypoints count: those of at least a tenth of the person's best score, wherever they lie."""
    best = keypoint_scores.max(axis=1, keepdims=True, initial=0)
    return np.asarray((keypoint_scores >= RELATIVE_FLOOR * best) & np.isfinite(keypoints).all(axis=2))


def inside(points: NDArray[np.float32], image_size: tuple[int, int]) -> NDArray[np.bool_]:
    """Which points (..., 2) the image shows; pixel centers have integer coordinates."""
    limits = np.array([image_size[1], image_size[0]]) - 0.5
    return np.asarray(((points >= -0.5) & (points <= limits)).all(axis=-1))


def size_of(points: NDArray[np.float32]) -> float:
    """Diagonal of the box around a person's visible keypoints, image pixels; 0 for none."""
    return float(np.linalg.norm(np.ptp(points, axis=0))) if len(points) else 0.0


def limb_width(size: float, image_size: tuple[int, int]) -> float:
    """Limb width: in proportion to the person, within bounds that grow with the image."""
    image = float(np.sqrt(image_size[0] * image_size[1]))
    wanted = min(max(0.017 * size, 0.0036 * image, 1.4), max(0.011 * image, 1.4))
    return max(min(wanted, 0.045 * size), 1.2)


@lru_cache(maxsize=16)
def _plan(skeleton: Skeleton) -> tuple[list[tuple[int, int, str, bool]], list[tuple[str, bool]]]:
    """What to draw of a skeleton: limbs (start, end, side, whether in the face) and keypoints (side, face).

    Two kinds of edges are left out, for looks: those between face and body (COCO's ear to shoulder), and
    those between a pair that a keypoint in the middle joins already (the eyes by the nose, CrowdPose's
    shoulders by the neck).
    """
    names = skeleton.keypoints
    face = [name.split("_")[-1] in ("nose", "eye", "ear") for name in names]
    sides = skeleton.sides
    middles = [{a + b - channel for a, b in skeleton.edges if channel in (a, b)} for channel in range(len(names))]
    middles = [{other for other in near if sides[other] == "middle"} for near in middles]
    limbs = []
    for start, end in skeleton.edges:
        ends = {sides[start], sides[end]}
        side = "middle" if {"left", "right"} <= ends else next(iter(ends - {"middle"}), "middle")
        joined_already = {"left", "right"} == ends and middles[start] & middles[end]
        if face[start] == face[end] and not joined_already:
            limbs.append((start, end, side, face[start]))
    return limbs, list(zip(sides, face, strict=True))


def ground_of(
    canvas: NDArray[np.uint8], points: NDArray[np.float32], seen: NDArray[np.bool_], skeleton: Skeleton
) -> NDArray[np.float64]:
    """(3, 3) mean colours of the pixels below a person's left, right and middle limbs; NaN where there are none."""
    starts, ends, sides = _samples(skeleton)
    used = seen[starts] & seen[ends]
    middles = np.where(used[:, None], (points[starts] + points[ends]) / 2, 0)
    columns, rows = np.rint(middles).astype(int).T
    pixels = canvas[rows.clip(0, canvas.shape[0] - 1), columns.clip(0, canvas.shape[1] - 1)]
    weights = sides * used
    with np.errstate(invalid="ignore"):
        return np.asarray(weights @ pixels / weights.sum(axis=1, keepdims=True))


@lru_cache(maxsize=16)
def _samples(skeleton: Skeleton) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Keypoints, and the ends of limbs, whose middles show the ground; (3, P) which side they are of."""
    edges, keypoints = _plan(skeleton)
    samples = [(channel, channel, side) for channel, (side, _) in enumerate(keypoints)]
    samples += [(start, end, side) for start, end, side, _ in edges]
    starts, ends, names = zip(*samples, strict=True)
    return np.array(starts), np.array(ends), np.array([[name == side for name in names] for side in SIDES], float)


def shapes(
    points: list[tuple[float, float]], alphas: list[float], seen: list[bool], brush: Brush, skeleton: Skeleton
) -> tuple[list[Limb], list[Disc]]:
    """The limbs and discs of one person, faint ones first, so that clear ones come on top."""
    limbs, discs = [], []
    edges, keypoints = _plan(skeleton)
    for start, end, side, face in edges:
        if (seen[end], alphas[end]) > (seen[start], alphas[start]):
            start, end = end, start
        if not seen[start] or alphas[end] == 0:
            continue
        tip, tip_alpha = points[end], alphas[end]
        if not seen[end]:
            tip, tip_alpha = _fade_point(points[start], tip, brush), 0.0
        width = brush.width * (0.6 if face else 1.0)
        limbs.append(Limb(points[start], tip, (alphas[start], tip_alpha), width, brush.colors[side]))
    neck = _neck(points, alphas, seen, brush, skeleton)
    limbs += [neck] if neck else []
    for point, alpha, visible, (side, face) in zip(points, alphas, seen, keypoints, strict=True):
        if visible:
            radius = brush.width * (0.62 if face else 0.95) * (0.8 if brush.width < THIN else 1)
            discs.append(Disc(point, alpha, radius, brush.colors[side]))
    limbs.sort(key=lambda limb: limb.alphas)
    discs.sort(key=lambda disc: disc.alpha)
    return limbs, discs


def _neck(
    points: list[tuple[float, float]], alphas: list[float], seen: list[bool], brush: Brush, skeleton: Skeleton
) -> Limb | None:
    """A thin line from the middle of the shoulders to the nose, for skeletons without a neck: no head floats."""
    ends = ("nose", "left_shoulder", "right_shoulder")
    if not set(ends) <= set(skeleton.keypoints) or "neck" in skeleton.keypoints:
        return None
    nose, left, right = (skeleton.index(name) for name in ends)
    if not (seen[nose] and seen[left] and seen[right]):
        return None
    middle = ((points[left][0] + points[right][0]) / 2, (points[left][1] + points[right][1]) / 2)
    alpha = min(alphas[nose], alphas[left], alphas[right])
    return Limb(middle, points[nose], (alpha, 0.25 * alpha), 0.6 * brush.width, brush.colors["middle"])


def _fade_point(start: tuple[float, float], end: tuple[float, float], brush: Brush) -> tuple[float, float]:
    """Where a limb from inside the image to a keypoint outside of it has faded to nothing: at the border at most."""
    share = brush.reach / math.dist(start, end)
    for origin, target, size in zip(start, end, reversed(brush.image_size), strict=True):
        if not -0.5 <= target <= size - 0.5:
            border = size - 0.5 if target > origin else -0.5
            share = min(share, (border - origin) / (target - origin))
    return start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share
