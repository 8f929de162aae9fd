"""Which photos a model does best and worst on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dekrpose.data.dataset import Photo
from dekrpose.evaluation.errors import KINDS, keypoint_kinds
from dekrpose.evaluation.metrics import in_ignored_box, matches
from dekrpose.evaluation.predictions import Predictions
from dekrpose.skeletons import Skeleton


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
    """Mark each photo, in their order.

    Args:
        predictions: see ``collect``.
        score_threshold: poses below it are not shown and do not count; 0 or less shows all.
    """
    shown = predictions.shown(score_threshold)
    skeleton = predictions.dataset.skeleton
    pairs = zip(predictions.photos, shown, strict=True)
    return [_mark(index, photo, poses, skeleton) for index, (photo, poses) in enumerate(pairs)]


def best_and_worst(marks: Sequence[Mark], count: int) -> tuple[list[Mark], list[Mark]]:
    """The best and the worst photos, each from its extreme on; of equals, those of more people first.

    Photos without anybody, annotated or predicted, are in neither; no photo is in both.

    Args:
        marks: of all photos.
        count: most photos in each.
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
