"""Geometry of poses, as pure functions of arrays: joint angles, normalised poses, similarity."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dekrpose.skeletons import Skeleton

Floats = NDArray[np.float32]

# Joint: what lies on either side of it.
_JOINTS = {
    "elbow": ("shoulder", "wrist"),
    "knee": ("hip", "ankle"),
    "shoulder": ("elbow", "hip"),
    "hip": ("shoulder", "knee"),
}
_SLIMMEST = 0.1  # of the squared diagonal: the smallest area that is believed of a person


def joints_of(skeleton: Skeleton) -> dict[str, tuple[str, str]]:
    """The joints of a skeleton, with the two keypoints that their angle lies between.

    Elbows, knees, shoulders and hips of the usual names, left and right; besides them, keypoints with two edges.
    """
    names = skeleton.keypoints
    found: dict[str, tuple[str, str]] = {}
    for channel, name in enumerate(names):
        side, _, joint = name.rpartition("_")
        first, second = (f"{side}_{end}" for end in _JOINTS.get(joint, ("", "")))
        near = [a + b - channel for a, b in skeleton.edges if channel in (a, b)]
        if first in names and second in names:
            found[name] = (first, second)
        elif joint not in ("nose", "eye", "ear") and len(near) == 2:
            found[name] = (names[near[0]], names[near[1]])
    return found


def angles_at(
    keypoints: Floats, skeleton: Skeleton, joint: str, between: tuple[str, str] | None = None
) -> NDArray[Any]:
    """The angle at a keypoint, of the points as placed.

    Args:
        keypoints: (..., K, 2) xy, image pixels.
        skeleton: names of the K keypoints.
        joint: the keypoint where the angle is.
        between: the two keypoints that it lies between; None takes those of ``joints_of``.

    Returns:
        (...) float64 degrees from 0 to 180 (stretched), in the plane of the image; NaN where two of the points coincide
        or are not finite.

    Raises:
        KeyError: there is no such keypoint.
        ValueError: it is no joint and ``between`` is None, or that is not two keypoints.
    """
    place = skeleton.index(joint)
    if between is None:
        joints = joints_of(skeleton)
        if joint not in joints:
            known = ", ".join(joints) or "none"
            raise ValueError(f"{joint!r} is no joint ({known}); say between which: between=('left_hip', 'left_knee')")
        between = joints[joint]
    if isinstance(between, str) or len(between) != 2:
        raise ValueError(f"between must be two keypoints such as ('left_hip', 'left_knee'), got {between!r}")
    first, second = (keypoints[..., skeleton.index(end), :].astype(np.float64) for end in between)
    middle = keypoints[..., place, :].astype(np.float64)
    one, other = first - middle, second - middle
    cross = one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0]
    angles = np.degrees(np.arctan2(np.abs(cross), (one * other).sum(axis=-1)))
    known_angle = (np.abs(one).sum(axis=-1) > 0) & (np.abs(other).sum(axis=-1) > 0)
    return np.asarray(np.where(known_angle, angles, np.nan))


def normalized(keypoints: Floats, counts: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Poses wherever and however large people are: centred on, and as a multiple of, their own extent.

    Args:
        keypoints: (N, K, 2) xy, image pixels.
        counts: (N, K) which keypoints the origin and the unit are taken from.

    Returns:
        (N, K, 2) float64 xy, y down; the origin is the mean of the keypoints that count, the unit their root mean
        square distance from it. NaN for people of whom fewer than two places count.
    """
    weights = counts[..., None].astype(np.float64)
    number = np.maximum(weights.sum(axis=1, keepdims=True), 1)
    points = keypoints.astype(np.float64)
    known = np.where(weights > 0, points, 0.0)
    centers = known.sum(axis=1, keepdims=True) / number
    unit = np.sqrt((weights * (known - centers) ** 2).sum(axis=(1, 2), keepdims=True) / number)
    return np.asarray((points - centers) / np.where(unit > 0, unit, np.nan))


def similarity(first: Floats, second: Floats, common: NDArray[np.bool_], skeleton: Skeleton, *, aligned: bool) -> float:
    """Object keypoint similarity (OKS) of two poses, from 0 to 1: the same.

    The mean of exp(-d^2 / (2 area (2 sigma)^2)) over the keypoints that count in both; area is the mean of both boxes'
    areas, sigma the skeleton's.

    Args:
        first, second: (K, 2) xy, image pixels.
        common: (K,) which keypoints count in both.
        skeleton: its sigmas.
        aligned: compare shapes: both are normalised before. False compares places in the image, too.

    Returns:
        In [0, 1]; 0 where fewer than two keypoints count in both.
    """
    pair = np.stack([first, second])[:, common].astype(np.float64)
    if pair.shape[1] < 2:
        return 0.0
    if aligned:
        pair = normalized(pair, np.ones(pair.shape[:2], bool))  # type: ignore[arg-type]
    sides = np.ptp(pair, axis=1)
    area = float(np.maximum(sides.prod(axis=1), _SLIMMEST * (sides**2).sum(axis=1)).mean())
    if not area > 0:
        return 0.0
    falloff = 2 * area * (2 * np.array(skeleton.sigmas)[common]) ** 2
    return float(np.exp(-((pair[0] - pair[1]) ** 2).sum(axis=1) / falloff).mean())
