"""One run of a model over annotated photos, and the measures that it gives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from dekrpose.evaluation import metrics
from dekrpose.evaluation.coco_ap import CROWD_LIMITS, coco_average_precision
from dekrpose.evaluation.predictions import Predict, Predictions, results_json

if TYPE_CHECKING:
    from dekrpose.estimator import PoseEstimator
from dekrpose.options import default_threshold

SWEEP = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.125, 0.15, 0.175, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7)
"""Score thresholds that a sweep tries."""


@dataclass(frozen=True)
class Measures:
    """What is found and what is made up at one score threshold; NaN where there is nothing to count.

    Attributes:
        score_threshold: predictions below this score are not counted; 0 or less counts all.
        predictions: how many people are predicted in all photos together.
        pck: share of labelled body keypoints nearer than 0.2 torso lengths, see ``metrics.pck``.
        recall: share of people of area >= 32^2 with a prediction of OKS >= 0.5.
        recall_small: the same for smaller people.
        precision: share of predictions that are somebody, see ``metrics.precision``.
        false_people: predictions per photo that shows nobody.
    """

    score_threshold: float
    predictions: int
    pck: float
    recall: float
    recall_small: float
    precision: float
    false_people: float


@dataclass(frozen=True)
class Report(Measures):
    """All of a model's measures on a dataset.

    ``people`` have labelled keypoints; ``seconds`` are spent predicting, without reading the photos; ``ap`` holds
    COCO's measures without a threshold, see ``coco_average_precision``.
    """

    photos: int
    people: int
    seconds: float
    images_per_second: float
    ap: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, None for NaN."""
        values = asdict(self)
        values["ap"] = {name: metrics.none_for_nan(value) for name, value in self.ap.items()}
        return {name: metrics.none_for_nan(value) for name, value in values.items()}

    def rows(self) -> list[tuple[str, str, str]]:
        """Name, value and what it is about, of each measure, as words."""
        shown = f"score >= {self.score_threshold:g}" if self.score_threshold > 0 else "everybody"
        return [
            ("photos", f"{self.photos}", f"{self.seconds:.1f} s, {self.images_per_second:.2f} photos per second"),
            ("people", f"{self.people}", "with labelled keypoints"),
            ("predictions", f"{self.predictions}", shown),
            ("PCK@0.2", percent(self.pck), shown),
            ("recall", percent(self.recall), f"OKS >= 0.5, area >= 32 x 32, {shown}"),
            ("recall, small", percent(self.recall_small), f"OKS >= 0.5, area < 32 x 32, {shown}"),
            ("precision", percent(self.precision), f"OKS >= 0.5, {shown}"),
            ("false people", decimal(self.false_people, 3), f"per photo without people, {shown}"),
            *((name, decimal(100 * value, 1), "OKS, everybody") for name, value in self.ap.items()),
        ]

    def table(self) -> str:
        """Lines for a terminal."""
        return "\n".join(f"{name:15}{value:>9}   {note}" for name, value, note in self.rows())


def own_threshold(estimator: PoseEstimator) -> float:
    """The score threshold that a model's configuration names."""
    return float(default_threshold(estimator.config.decode, estimator.rescoring_net is not None))


def predictor(estimator: PoseEstimator, **options: Any) -> Predict:
    """An estimator as the function that ``collect`` takes; ``options`` are those of ``estimator.estimate_raw``."""
    return partial(estimator.estimate_raw, **options)


def report(
    predictions: Predictions, score_threshold: float, *, crowd_limits: tuple[float, float] = CROWD_LIMITS
) -> Report:
    """All measures of a model's predictions; those below the score threshold count for AP only.

    ImportError if faster-coco-eval is missing.
    """
    photos = predictions.photos
    results = results_json(photos, predictions.people)
    ap = coco_average_precision(predictions.dataset, results, photos=photos, crowd_limits=crowd_limits)
    return Report(
        photos=len(photos),
        people=sum(len(photo.labelled) for photo in photos),
        seconds=predictions.seconds,
        images_per_second=len(photos) / predictions.seconds if predictions.seconds else float("nan"),
        **asdict(measure(predictions, score_threshold)),
        ap=ap,
    )


def measure(predictions: Predictions, score_threshold: float) -> Measures:
    """The measures that depend on the score threshold; NumPy only."""
    photos, skeleton = predictions.photos, predictions.dataset.skeleton
    shown = predictions.shown(score_threshold)
    return Measures(
        score_threshold=score_threshold,
        predictions=sum(map(len, shown)),
        pck=metrics.pck(photos, shown, skeleton),
        recall=metrics.recall(photos, shown, skeleton),
        recall_small=metrics.recall(photos, shown, skeleton, areas=(0.0, metrics.SMALL_AREA)),
        precision=metrics.precision(photos, shown, skeleton),
        false_people=metrics.false_people(photos, shown),
    )


def sweep(predictions: Predictions, thresholds: Sequence[float] = SWEEP) -> list[Measures]:
    """The measures at several score thresholds, to choose a model's own."""
    return [measure(predictions, threshold) for threshold in thresholds]


def sweep_table(rows: Sequence[Measures]) -> str:
    """A sweep as lines for a terminal."""
    lines = ["threshold   PCK@0.2    recall     small  precision  false people"]
    lines += [
        f"{row.score_threshold:9.3f}{percent(row.pck):>10}{percent(row.recall):>10}{percent(row.recall_small):>10}"
        f"{percent(row.precision):>11}{decimal(row.false_people, 3):>14}"
        for row in rows
    ]
    return "\n".join(lines)


def percent(share: float) -> str:
    """A share for a terminal; "-" for NaN."""
    return "-" if math.isnan(share) else f"{100 * share:.1f} %"


def decimal(value: float, digits: int) -> str:
    """A number for a terminal; "-" for NaN."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
