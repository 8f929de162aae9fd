"""COCO's average precision with the detections of every clip kept apart, so that clips can be drawn again and again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dekrpose.data.clips.clip import Clip, Floats
from dekrpose.data.oks import oks_matrix
from dekrpose.evaluation.predictions import Prediction
from dekrpose.skeletons import COCO_17
from dekrpose.tracking.tracks import person_areas

THRESHOLDS = np.linspace(0.5, 0.95, 10)
DETECTIONS = 20
"""Per frame, the best ones."""
_RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True, eq=False)
class Detections:
    """What was found in one clip.

    Attributes:
        scores: (N,).
        right: (N, 10) whether a detection belongs to somebody, at each OKS threshold.
        left_out: (N,) whether it lies where people are not annotated; counts only where it belongs to nobody.
        people: how many there are to find.
    """

    scores: Floats
    right: NDArray[np.bool_]
    left_out: NDArray[np.bool_]
    people: int


def detections_of(clip: Clip, found: Sequence[Prediction]) -> Detections:
    """Compare what was found in the labelled frames of a clip with its people, as COCO's evaluation does.

    Areas are those of the boxes around labelled keypoints, see ``person_areas``.
    """
    scores, right, left_out, people = [], [], [], 0
    for time in np.flatnonzero(clip.labelled).tolist():
        truth = clip.keypoints[time, (clip.keypoints[time, ..., 2] > 0).any(axis=1)]
        order = np.argsort(-found[time].scores, kind="stable")[:DETECTIONS]
        points = found[time].keypoints[order]
        similarity = oks_matrix(points, truth, areas_of(truth), COCO_17.sigmas)
        scores.append(found[time].scores[order])
        right.append(_assign(similarity))
        left_out.append(_in_regions(points, clip.ignored[time]))
        people += len(truth)
    empty = np.zeros((0, len(THRESHOLDS)), bool)
    return Detections(
        np.concatenate([np.zeros(0), *scores]).astype(np.float64),
        np.concatenate([empty, *right]),
        np.concatenate([np.zeros(0, bool), *left_out]),
        people,
    )


def areas_of(people: NDArray[np.floating]) -> Floats:
    """(P,) square pixels of (P, 17, 3) people."""
    return person_areas(people[..., :2].astype(np.float64), people[..., 2].astype(np.float64))


def _assign(similarity: Floats) -> NDArray[np.bool_]:
    """(N, thresholds): in the order of detections, each takes the most similar person that is still free."""
    right = np.zeros((len(similarity), len(THRESHOLDS)), bool)
    for column, threshold in enumerate(THRESHOLDS):
        free = np.ones(similarity.shape[1], bool)
        for row, values in enumerate(similarity):
            candidates = np.where(free, values, -1.0)
            if len(candidates) and candidates.max() >= min(threshold, 1 - 1e-10):
                free[candidates.argmax()] = False
                right[row, column] = True
    return right


def _in_regions(points: NDArray[np.floating], ignored: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(N,) whether the middle of a pose lies in a region."""
    middles = np.rint(points.mean(axis=1)).astype(int)
    x, y = middles[:, 0], middles[:, 1]
    height, width = ignored.shape
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    return np.asarray(inside & ignored[y.clip(0, height - 1), x.clip(0, width - 1)])


class AveragePrecision:
    """AP of a set of clips, for many weightings of them."""

    def __init__(self, clips: Sequence[Detections]) -> None:
        self.people = np.array([clip.people for clip in clips], np.float64)
        scores = np.concatenate([clip.scores for clip in clips])
        order = np.argsort(-scores, kind="stable")
        self._clip = np.repeat(np.arange(len(clips)), [len(clip.scores) for clip in clips])[order]
        self._right = np.concatenate([clip.right for clip in clips])[order]
        self._wrong = ~self._right & ~np.concatenate([clip.left_out for clip in clips])[order][:, None]

    def __call__(self, weights: Floats | None = None) -> float:
        """AP in [0, 1], (clips,) weights saying how often each counts, None once; NaN where there is nobody to find."""
        counts = np.ones(len(self.people)) if weights is None else weights
        total = float(counts @ self.people)
        if total == 0:
            return float("nan")
        each = counts[self._clip][:, None]
        right, wrong = np.cumsum(self._right * each, axis=0), np.cumsum(self._wrong * each, axis=0)
        precision = right / np.maximum(right + wrong, np.spacing(1))
        best = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        recall = right / total
        means = []
        for column in range(len(THRESHOLDS)):
            first = np.searchsorted(recall[:, column], _RECALLS - 1e-12, side="left")
            means.append(np.append(best[:, column], 0.0)[first].mean())
        return float(np.mean(means))
