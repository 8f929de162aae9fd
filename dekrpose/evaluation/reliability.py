"""Whether scores can be believed: a pose of score 0.7 should fit somebody with an OKS of about 0.7."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dekrpose.data.oks import oks_matrix
from dekrpose.evaluation.metrics import in_ignored_box, none_for_nan
from dekrpose.evaluation.predictions import Predictions

_MATCH_OKS = 0.5


@dataclass(frozen=True, eq=False)
class Reliability:
    """Scores against OKS, in B bins of scores.

    Attributes:
        edges: (B + 1,) borders of the bins; a bin holds its lower border.
        counts: (B,) predictions in each.
        mean_scores: (B,) NaN where a bin is empty.
        mean_oks: (B,) NaN where a bin is empty.
        calibration_error: expected calibration error, the mean of |mean score - mean OKS| over predictions; NaN
            without any.
        pearson: correlation of scores and OKS; NaN when one of them is all the same.
        spearman: correlation of their ranks, which is what AP depends on.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    mean_scores: NDArray[np.float64]
    mean_oks: NDArray[np.float64]
    calibration_error: float
    pearson: float
    spearman: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, None for NaN."""
        bins = {name: getattr(self, name).tolist() for name in ("edges", "counts", "mean_scores", "mean_oks")}
        values = {name: [none_for_nan(value) for value in column] for name, column in bins.items()}
        scalars = {name: none_for_nan(getattr(self, name)) for name in ("calibration_error", "pearson", "spearman")}
        return {**values, **scalars}


def reliability(predictions: Predictions, bins: int = 10, *, score_threshold: float = 0.0) -> Reliability:
    """Compare scores with what they promise.

    Args:
        predictions: of a model, with people to compare them to.
        bins: how many, of equal width from 0 to 1; scores outside go into the first or last.
        score_threshold: only predictions of at least this score; 0 or less takes all.

    Raises:
        ValueError: ``bins`` is not positive.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    return reliability_of(*scores_and_oks(predictions, score_threshold=score_threshold), bins)


def reliability_of(scores: NDArray[np.float64], oks: NDArray[np.float64], bins: int = 10) -> Reliability:
    """``reliability`` of (N,) scores and their (N,) OKS; N may be 0."""
    edges = np.linspace(0.0, 1.0, bins + 1)
    index = np.digitize(scores, edges[1:-1])
    counts = np.bincount(index, minlength=bins)
    filled = np.where(counts > 0, counts, np.nan)
    mean_scores = np.bincount(index, scores, bins) / filled
    mean_oks = np.bincount(index, oks, bins) / filled
    gaps = np.nan_to_num(np.abs(mean_scores - mean_oks))
    return Reliability(
        edges=edges,
        counts=counts,
        mean_scores=mean_scores,
        mean_oks=mean_oks,
        calibration_error=float(gaps @ counts / len(scores)) if len(scores) else float("nan"),
        pearson=_correlation(scores, oks),
        spearman=_correlation(_ranks(scores), _ranks(oks)),
    )


def scores_and_oks(
    predictions: Predictions, *, score_threshold: float = 0.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each prediction's score and its highest OKS with a person of its photo, 0 where nobody is.

    A prediction without a match (OKS 0.5) is left out when at least half of its keypoints lie in the box of an ignored
    person: nobody can say how good it is.

    Args:
        predictions: see ``collect``.
        score_threshold: as in ``reliability``.

    Returns:
        Scores (N,) as they come, not clipped; OKS (N,) in [0, 1]; photo by photo, best first; N may be 0.
    """
    sigmas = predictions.dataset.skeleton.sigmas
    pairs: list[tuple[float, float]] = []
    for photo, everybody in zip(predictions.photos, predictions.people, strict=True):
        prediction = everybody.shown(score_threshold)
        people = [person for person in photo.people if not person.ignored]
        keypoints, areas = [person.keypoints for person in people], [person.area for person in people]
        best = oks_matrix(prediction.keypoints, keypoints, areas, sigmas).max(axis=1, initial=0.0)
        for pose, score, oks in zip(prediction.keypoints, prediction.scores.tolist(), best.tolist(), strict=True):
            if oks >= _MATCH_OKS or not in_ignored_box(pose, photo):
                pairs.append((score, oks))
    values = np.array(pairs, np.float64).reshape(-1, 2)
    return values[:, 0], values[:, 1]


def _correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    first, second = first - first.sum() / max(len(first), 1), second - second.sum() / max(len(second), 1)
    spread = math.sqrt(float(first @ first) * float(second @ second))
    return float(first @ second) / spread if spread > 0 else float("nan")


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1; equal values share their mean rank."""
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[index], np.float64)
