"""Whether scores can be believed: of the poses of score 0.7, about 70 % should fit somebody (OKS of at least 0.5)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from dekrpose.evaluation.metrics import HIT_OKS, best_oks, none_for_nan
from dekrpose.evaluation.predictions import Predictions


@dataclass(frozen=True, eq=False)
class Reliability:
    """Scores against OKS, in B bins of scores, which hold their lower border; NaN where a bin is empty.

    Attributes:
        hits: share of the poses with an OKS of at least 0.5.
        calibration_error: expected calibration error, the mean of |mean score - hits| over predictions; NaN without
            any.
        pearson: correlation of scores and OKS; NaN when one of them is all the same.
        spearman: correlation of their ranks, which is what AP depends on.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    mean_scores: NDArray[np.float64]
    mean_oks: NDArray[np.float64]
    hits: NDArray[np.float64]
    calibration_error: float
    pearson: float
    spearman: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, None for NaN."""
        bins = {name: getattr(self, name).tolist() for name in ("edges", "counts", "mean_scores", "mean_oks", "hits")}
        values = {name: [none_for_nan(value) for value in column] for name, column in bins.items()}
        scalars = {name: none_for_nan(getattr(self, name)) for name in ("calibration_error", "pearson", "spearman")}
        return {**values, **scalars}

    def table(self) -> str:
        """Lines for a terminal."""
        lines = ["score         poses  mean score  OKS >= 0.5  mean OKS"]
        for low, high, count, *shares in zip(
            self.edges, self.edges[1:], self.counts, self.mean_scores, self.hits, self.mean_oks, strict=False
        ):
            score, hits, oks = ("-" if math.isnan(share) else f"{share:.2f}" for share in shares)
            lines.append(f"{low:.1f} to {high:.1f}  {count:7,}  {score:>10}  {hits:>10}  {oks:>8}")
        return "\n".join([*lines, f"calibration error {self.calibration_error:.3f}"])


def reliability(predictions: Predictions, threshold: float = -math.inf) -> Reliability:
    """Compare the scores of predictions, from ``threshold`` on, with what they promise; see ``scores_and_oks``."""
    scores, oks = scores_and_oks(predictions)
    return reliability_of(scores[scores >= threshold], oks[scores >= threshold])


def reliability_of(scores: NDArray[np.float64], oks: NDArray[np.float64], bins: int = 10) -> Reliability:
    """Of (N,) scores and their (N,) OKS, in bins of equal width from 0 to 1; the outer ones hold what is beyond."""
    edges = np.linspace(0.0, 1.0, bins + 1)
    index = np.digitize(scores, edges[1:-1])
    counts = np.bincount(index, minlength=bins)
    filled = np.where(counts > 0, counts, np.nan)
    mean_scores = np.bincount(index, scores, bins) / filled
    hits = np.bincount(index, oks >= HIT_OKS, bins) / filled
    gaps = np.nan_to_num(np.abs(mean_scores - hits))
    return Reliability(
        edges=edges,
        counts=counts,
        mean_scores=mean_scores,
        mean_oks=np.bincount(index, oks, bins) / filled,
        hits=hits,
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
