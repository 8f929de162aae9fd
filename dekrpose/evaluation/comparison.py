"""The same photos by two models, or by one in two ways: how far keypoints move, and what that changes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from copy import copy
from dataclasses import asdict, dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from dekrpose.config import MatchMode, ModelConfig
from dekrpose.data.oks import oks_matrix
from dekrpose.errors import DekrPoseError
from dekrpose.evaluation.evaluate import Report
from dekrpose.evaluation.metrics import none_for_nan
from dekrpose.evaluation.predictions import Predictions
from dekrpose.options import read_changes, whole_number

_SAME_PERSON = 0.5
"""OKS of two poses from which on they can be the same person's."""
_ROWS = ("predictions", "PCK@0.2", "recall", "precision", "false people", "AP", "AP50", "AP75", "AR")


@dataclass(frozen=True)
class Shift:
    """How far keypoints of the same people are apart in two sets of predictions.

    ``people`` are those shown by both, each the other's most similar pose, with an OKS of 0.5 or more; ``first`` and
    ``second`` those shown by each. The distances are of keypoints from themselves, image pixels; NaN without people.
    """

    people: int
    first: int
    second: int
    median: float
    ninth_decile: float
    largest: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, None for NaN."""
        return {name: none_for_nan(value) for name, value in asdict(self).items()}

    def table(self) -> str:
        """Lines for a terminal."""
        people = f"people             {self.people} found by both, of {self.first} and {self.second}"
        if not self.people:
            return people
        apart = f"{self.median:.3g} (median), {self.ninth_decile:.3g} (ninth decile), {self.largest:.3g} (most)"
        return f"{people}\nkeypoints apart    {apart} image pixels"


def shift(first: Predictions, second: Predictions, thresholds: tuple[float, float]) -> Shift:
    """Compare predictions for the same photos, of the people whose scores reach the thresholds of each."""
    sigmas = first.dataset.skeleton.sigmas
    apart, counts = [np.zeros(0)], np.zeros(2, int)
    for poses, others in zip(first.shown(thresholds[0]), second.shown(thresholds[1]), strict=True):
        counts += len(poses), len(others)
        for one, other in _pairs(poses, others, sigmas):
            apart.append(np.linalg.norm(poses[one] - others[other], axis=1))
    distances = np.concatenate(apart)
    quantiles = np.quantile(distances, (0.5, 0.9, 1.0)).tolist() if len(distances) else [float("nan")] * 3
    return Shift(len(apart) - 1, *counts.tolist(), *quantiles)


def _pairs(poses: NDArray[np.float32], others: NDArray[np.float32], sigmas: Sequence[float]) -> list[tuple[int, int]]:
    """Rows of the same person."""
    if not (len(poses) and len(others)):
        return []
    areas = np.prod(np.ptp(others, axis=1), axis=1)
    labelled = np.concatenate([others, np.ones_like(others[..., :1])], axis=2)
    similarity = oks_matrix(poses, labelled, areas, sigmas)
    best = similarity.argmax(axis=1)
    return [
        (row, column)
        for row, column in enumerate(best.tolist())
        if similarity[row, column] >= _SAME_PERSON and similarity[:, column].argmax() == row
    ]


def compared_table(moved: Shift, first: Report, second: Report) -> str:
    """Lines for a terminal: how far keypoints are apart, and the measures of both."""
    values = {name: value for name, value, _ in first.rows()}
    others = {name: value for name, value, _ in second.rows()}
    rows = [f"{name:15}{values[name]:>9}{others[name]:>11}" for name in _ROWS]
    return "\n".join([moved.table(), "", f"{'':15}{'first':>9}{'compared':>11}", *rows])


def check_keypoints(first: ModelConfig, second: ModelConfig) -> None:
    """DekrPoseError unless two models find the same keypoints."""
    if first.skeleton.keypoints != second.skeleton.keypoints:
        names = f"{first.name} finds {first.skeleton.name}, {second.name} {second.skeleton.name}"
        raise DekrPoseError(f"--compare takes a model of the same keypoints; {names}")


def other_options(options: argparse.Namespace) -> argparse.Namespace:
    """The options of the other run of ``dekrpose eval --compare``: the same with the changes, or ValueError."""
    other = copy(options)
    changes = read_changes(options.compare, ("dtype", "input-size", "match-heatmap"))
    modes = (*get_args(MatchMode), "off")
    if changes.get("match-heatmap", "off") not in modes:
        raise ValueError(f"match-heatmap must be one of {', '.join(modes)}, got {changes['match-heatmap']!r}")
    for key, value in changes.items():
        setattr(other, key.replace("-", "_"), whole_number(key, value) if key == "input-size" else value)
    return other
