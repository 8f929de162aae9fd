"""Whether scores can be believed: a pose of score 0.7 should fit somebody with an OKS of about 0.7."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from dekrpose.evaluation.metrics import best_oks, none_for_nan
from dekrpose.evaluation.predictions import Predictions


@dataclass(frozen=True, eq=False)
class Reliability:
    """Scores against OKS, in B bins of scores, which hold their lower border; NaN where a bin is empty.

    Attributes:
        calibration_error: expected calibration error, the mean of |mean score - mean OKS| over predictions; NaN without
            any.
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


def reliability(predictions: Predictions) -> Reliability:
    """Compare the scores of a model's predictions with what they promise; see ``scores_and_oks``."""
    return reliability_of(*scores_and_oks(predictions))


def reliability_of(scores: NDArray[np.float64], oks: NDArray[np.float64], bins: int = 10) -> Reliability:
    """Of (N,) scores and their (N,) OKS, in bins of equal width from 0 to 1; the outer ones hold what is beyond."""
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
        spearman=_correlation(rankdata(scores), rankdata(oks)),
    )


def scores_and_oks(predictions: Predictions) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores (N,) as they come, and OKS (N,) of every prediction that can be judged, see ``best_oks``; N may be 0."""
    pairs = [np.zeros((0, 2))]
    for photo, found in zip(predictions.photos, predictions.people, strict=True):
        best, judged = best_oks(found.keypoints, photo, predictions.dataset.skeleton)
        pairs.append(np.stack([found.scores[judged], best[judged]], axis=1))
    values = np.concatenate(pairs)
    return values[:, 0], values[:, 1]


def _correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    spread = first.std() * second.std() if len(first) else 0.0
    return float(np.corrcoef(first, second)[0, 1]) if spread > 0 else float("nan")
