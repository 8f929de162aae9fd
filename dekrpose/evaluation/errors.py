"""How keypoints go wrong: jitter, inversion, swap and miss.

Source: Ronchi and Perona, "Benchmarking and Error Diagnosis in Multi-Instance Pose Estimation" (ICCV 2017), as the DEKR
paper uses it in its ablation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dekrpose.data.dataset import Person, Photo
from dekrpose.data.oks import keypoint_similarity
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
    same = keypoint_similarity(pose, keypoints, areas, skeleton.sigmas)
    mirrored = keypoint_similarity(pose, keypoints[:, mirror], areas, skeleton.sigmas) * paired
    others = np.delete(np.maximum(same, mirrored), own, axis=0).max(axis=0, initial=0.0)
    conditions = [same[own] >= GOOD, same[own] >= NEAR, mirrored[own] >= NEAR, others >= NEAR]
    kinds = np.select(conditions, range(len(conditions)), default=KINDS.index("miss"))
    return np.where(keypoints[own, :, 2] > 0, kinds, -1)
