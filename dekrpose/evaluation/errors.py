"""How keypoints go wrong: jitter, inversion, swap and miss.

Source: Ronchi and Perona, "Benchmarking and Error Diagnosis in Multi-Instance Pose Estimation" (ICCV 2017), as the DEKR
paper uses it in its ablation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dekrpose.data.dataset import Person, Photo
from dekrpose.evaluation.metrics import SMALL_AREA, matches
from dekrpose.skeletons import Skeleton

KINDS = ("good", "jitter", "inversion", "swap", "miss")
GOOD, NEAR = 0.85, 0.5
"""Keypoint similarity of a good keypoint, and of one that is near something."""


def keypoint_errors(
    photos: Sequence[Photo], predicted: Sequence[NDArray[np.float32]], skeleton: Skeleton
) -> dict[str, float]:
    """Sort the labelled keypoints of people with a prediction by what became of them.

    A keypoint is good or a jitter when it is near its own place, an inversion near the place of its left or right
    counterpart, a swap near that of another person (either side), else a miss. Counted are people of area >= 32^2;
    near a person is measured by that person's area.

    Args:
        photos: photos with people.
        predicted: per photo (N, K, 2) xy, image pixels, best first; they claim, in their order, the free person of
            highest OKS (at least 0.1).
        skeleton: what the K channels mean.

    Returns:
        Shares of ``good``, ``jitter``, ``inversion``, ``swap`` and ``miss``, which add up to 1; NaN when no prediction
        belongs to anybody.
    """
    counts = np.zeros(len(KINDS), np.int64)
    for photo, poses in zip(photos, predicted, strict=True):
        people = photo.labelled
        for match in matches(poses, people, skeleton):
            if people[match.person].area >= SMALL_AREA:
                kinds = keypoint_kinds(poses[match.pose], people, match.person, skeleton)
                counts += np.bincount(kinds[kinds >= 0], minlength=len(KINDS))
    total = int(counts.sum())
    return {kind: count / total if total else float("nan") for kind, count in zip(KINDS, counts.tolist(), strict=True)}


def keypoint_kinds(
    pose: NDArray[np.float32], people: Sequence[Person], own: int, skeleton: Skeleton
) -> NDArray[np.int64]:
    """What became of each keypoint of person ``own``.

    Args:
        pose: (K, 2) xy, image pixels: the one that belongs to them.
        people: everybody with labelled keypoints in the photo.
        own: index of the person.
        skeleton: what the K channels mean.

    Returns:
        (K,) indices into ``KINDS``; -1 where the person has no label.
    """
    mirror = list(skeleton.flip_indices)
    paired = np.array(mirror) != np.arange(len(mirror))
    keypoints = np.stack([person.keypoints for person in people])
    areas = np.array([person.area for person in people])
    same = _similarity(pose, keypoints, areas, skeleton)
    mirrored = _similarity(pose, keypoints[:, mirror], areas, skeleton) * paired
    others = np.delete(np.maximum(same, mirrored), own, axis=0).max(axis=0, initial=0.0)
    conditions = [same[own] >= GOOD, same[own] >= NEAR, mirrored[own] >= NEAR, others >= NEAR]
    kinds = np.select(conditions, range(len(conditions)), default=KINDS.index("miss"))
    return np.where(keypoints[own, :, 2] > 0, kinds, -1)


def _similarity(
    pose: NDArray[np.float32], keypoints: NDArray[np.float32], areas: NDArray[np.float64], skeleton: Skeleton
) -> NDArray[np.float64]:
    """(P, K) similarity of a pose's keypoints to those of P people; 0 where they are not labelled."""
    squared = np.square(pose - keypoints[..., :2], dtype=np.float64).sum(axis=2)
    falloff = 2 * (areas[:, None] + np.spacing(1)) * np.square(2 * np.array(skeleton.sigmas))
    return np.asarray(np.where(keypoints[..., 2] > 0, np.exp(-squared / falloff), 0.0), np.float64)
