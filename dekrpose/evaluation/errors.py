"""How keypoints go wrong: jitter, inversion, swap and miss; and which photos a model does best and worst on.

Source: Ronchi and Perona, "Benchmarking and Error Diagnosis in Multi-Instance Pose Estimation" (ICCV 2017), as the DEKR
paper uses it in its ablation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dekrpose.data.dataset import Person, Photo
from dekrpose.data.oks import keypoint_similarity
from dekrpose.evaluation.metrics import SMALL_AREA, in_ignored_box, matches
from dekrpose.evaluation.predictions import Predictions
from dekrpose.skeletons import Skeleton

KINDS = ("good", "jitter", "inversion", "swap", "miss")
GOOD, NEAR = 0.85, 0.5
"""Keypoint similarity of a good keypoint, and of one that is near something."""


def keypoint_errors(
    photos: Sequence[Photo], predicted: Sequence[NDArray[np.float32]], skeleton: Skeleton
) -> dict[str, float]:
    """Sort the labelled keypoints of people with a prediction by what became of them; shares that add up to 1.

    A keypoint is good or a jitter when it is near its own place, an inversion near the place of its left or right
    counterpart, a swap near that of another person (either side), else a miss. Counted are people of area >= 32^2; near
    a person is measured by that person's area. Predictions are as for ``matches``, one array per photo; shares are NaN
    when none belongs to anybody.
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
    """(K,) indices into ``KINDS``, what became of each keypoint of person ``own``; -1 where there is no label.

    The pose (K, 2) xy, image pixels, is the one that belongs to them; ``people`` are all with labelled keypoints.
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


@dataclass(frozen=True)
class Mark:
    """How well a model does on one photo.

    Attributes:
        photo: position in the predictions.
        oks: of each annotated person, those without labelled keypoints left out; 0 for those who are missed.
        false: which of the shown poses belong to nobody; those on ignored people are left out.
        wrong: per kind of error ("inversion", "swap", "miss") how often which keypoint of a person with a pose is so.
    """

    photo: int
    oks: tuple[float, ...]
    false: tuple[int, ...]
    wrong: Mapping[str, Mapping[str, int]]

    @property
    def value(self) -> float:
        """Mean OKS of the people, less one for each false pose per person; at most 1."""
        return (sum(self.oks) - len(self.false)) / max(len(self.oks), 1)


def mark_photos(predictions: Predictions, score_threshold: float) -> list[Mark]:
    """Mark each photo, in their order; poses below the threshold do not count, 0 or less counts all."""
    shown = predictions.shown(score_threshold)
    skeleton = predictions.dataset.skeleton
    pairs = zip(predictions.photos, shown, strict=True)
    return [_mark(index, photo, poses, skeleton) for index, (photo, poses) in enumerate(pairs)]


def best_and_worst(marks: Sequence[Mark], count: int) -> tuple[list[Mark], list[Mark]]:
    """The ``count`` best and worst photos, each from its extreme on; of equals, those of more people first.

    Photos without anybody, annotated or predicted, are in neither; no photo is in both.
    """
    ranked = sorted((mark for mark in marks if mark.oks or mark.false), key=lambda mark: (-mark.value, -len(mark.oks)))
    middle = (len(ranked) + 1) // 2
    worst = sorted(ranked[middle:], key=lambda mark: (mark.value, -len(mark.oks)))
    return [mark for mark in ranked[:middle] if mark.oks][:count], worst[:count]


def _mark(index: int, photo: Photo, poses: NDArray[np.float32], skeleton: Skeleton) -> Mark:
    people = photo.labelled
    oks = [0.0] * len(people)
    wrong: dict[str, Counter[str]] = {kind: Counter() for kind in ("inversion", "swap", "miss")}
    claimed = set()
    for match in matches(poses, people, skeleton):
        claimed.add(match.pose)
        oks[match.person] = match.oks
        for channel, kind in enumerate(keypoint_kinds(poses[match.pose], people, match.person, skeleton).tolist()):
            if kind >= 0 and KINDS[kind] in wrong:
                wrong[KINDS[kind]][skeleton.keypoints[channel]] += 1
    free = (pose for pose in range(len(poses)) if pose not in claimed)
    return Mark(index, tuple(oks), tuple(pose for pose in free if not in_ignored_box(poses[pose], photo)), wrong)
