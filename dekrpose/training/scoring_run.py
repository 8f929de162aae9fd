"""What ``dekrpose train-scoring`` does: it teaches a model to judge its own poses, and keeps that only if it helps."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dekrpose.architectures.contract import architecture_of
from dekrpose.architectures.parts.poses import OKSScoreNet, pose_features
from dekrpose.checkpoints import read_checkpoint
from dekrpose.data.dataset import KeypointDataset
from dekrpose.errors import DekrPoseError, counted
from dekrpose.estimator import PoseEstimator
from dekrpose.evaluation.coco_ap import load_evaluator
from dekrpose.evaluation.evaluate import Report, decimal, measure, own_threshold, percent, report
from dekrpose.evaluation.predictions import Prediction, Predictions
from dekrpose.evaluation.reliability import Reliability, reliability
from dekrpose.formats import json_text, write_whole
from dekrpose.hub import models
from dekrpose.options import with_matching
from dekrpose.training.scoring import Epoch, ScoringConfig, hold_out, train_scoring_net
from dekrpose.training.scoring_examples import collect_predictions, examples_of, joined

VALIDATION_SHARE = 0.2
"""Of the photos, when no validation data are named."""
THRESHOLDS = tuple(round(0.01 * step, 2) for step in range(25, 41))
"""Of calibrated scores: those that users of other libraries know."""
_AP = ("AP", "AP50", "AP75", "AR")


def run(options: argparse.Namespace) -> int:
    """Train a scoring net and write the model with it; 0 when written.

    Raises:
        DekrPoseError: AP would be lower, and nothing was written; or the data, the model or the cache cannot be used.
        ImportError: faster-coco-eval is missing.
    """
    load_evaluator()
    if options.out.exists() and not options.out.is_dir():
        raise NotADirectoryError(f"--out names a folder, and {options.out} is a file")
    config = ScoringConfig(
        epochs=options.epochs, batch_size=options.batch_size, learning_rate=options.learning_rate,
        minimum_steps=options.minimum_steps, held_out=options.held_out, seed=options.seed,
    )  # fmt: skip
    stored = read_checkpoint(models.resolve(options.model)).state_dict
    dtypes = {name: tensor.dtype for name, tensor in stored.items()}
    estimator = PoseEstimator.from_pretrained(options.model, device=options.device, trust_code=options.trust_code)
    architecture_of(estimator.config).check(replace(estimator._options(), rescore=True))
    estimator.config = with_matching(estimator.config, options.match_heatmap)  # written into the model, too
    learnt, validation = _predictions(estimator, options)
    examples = joined([examples_of(found) for found in learnt])
    targets = examples.targets if options.official else examples.fits
    net, history = train_scoring_net(examples.features, targets, examples.photos, config, progress=True)
    print(_training_summary(examples.targets, sum(len(found.photos) for found in learnt), history))
    old = own_threshold(estimator)
    threshold = None if options.official else best_threshold([with_scoring_net(found, net) for found in validation])
    comparisons = [compare(found, estimator.rescoring_net, net, old, threshold) for found in validation]
    for name, comparison in zip(options.val or options.data, comparisons, strict=False):
        print(f"\n{name}\n{comparison.table()}")
    sides = ([getattr(comparison, side).report.ap["AP"] for comparison in comparisons] for side in ("before", "after"))
    before, after = (sum(values) / len(values) for values in sides)
    if after < before and not options.force:
        raise DekrPoseError(
            f"the scoring net lowers AP from {100 * before:.2f} to {100 * after:.2f} on the validation photos (in the "
            "mean over several sets), so nothing was written; more photos may help, and --force writes it all the same"
        )
    threshold = comparisons[0].after.report.score_threshold
    _write(options.out, estimator, dtypes, net, threshold)
    record = {
        "config": asdict(config),
        "history": [asdict(epoch) for epoch in history],
        "validation": [comparison.to_dict() for comparison in comparisons],
    }
    write_whole(options.out / "scoring.json", json_text(record))
    print(f"wrote {options.out}, with score threshold {threshold:g}")
    return 0


def _write(
    folder: Path,
    estimator: PoseEstimator,
    dtypes: Mapping[str, torch.dtype],
    net: OKSScoreNet,
    score_threshold: float,
) -> None:
    """Write the network that was judged, which its file may not hold any more, in the types that the file had."""
    decode = replace(estimator.config.decode, rescored_threshold=score_threshold)
    config = replace(estimator.config.without_numbers(), decode=decode)
    network = {name: tensor.to(dtypes[name]) for name, tensor in estimator.model.state_dict().items()}
    models.save_folder(folder, config, network, net.state_dict())


def _predictions(estimator: PoseEstimator, options: argparse.Namespace) -> tuple[list[Predictions], list[Predictions]]:
    """What the model finds in the photos to learn from, and in those to validate on, file by file."""
    skeleton = estimator.config.skeleton
    settings = {"flip_test": options.flip, "input_size": options.input_size}
    data = [KeypointDataset(path, options.images, skeleton).thinned(options.limit) for path in options.data]
    places = [*options.val_images, *[None] * len(options.val)]
    val = [KeypointDataset(path, place, skeleton) for path, place in zip(options.val, places, strict=False)]
    learnt, validated = (
        [
            collect_predictions(
                estimator, part, cache=options.cache and options.cache / f"{name}-{number}.npz", **settings
            )
            for number, part in enumerate(parts)
        ]
        for name, parts in (("train", data), ("val", val))
    )
    if val:
        return learnt, validated
    rows = [hold_out(np.arange(len(found.photos)), VALIDATION_SHARE, options.seed) for found in learnt]
    pairs = list(zip(learnt, rows, strict=True))
    return (
        [_subset(found, np.flatnonzero(~aside)) for found, aside in pairs],
        [_subset(found, np.flatnonzero(aside)) for found, aside in pairs],
    )


def _subset(predictions: Predictions, rows: NDArray[np.intp]) -> Predictions:
    photos, people = [predictions.photos[row] for row in rows], [predictions.people[row] for row in rows]
    return replace(
        predictions, photos=photos, people=people, seconds=predictions.seconds * len(rows) / len(predictions.photos)
    )


@dataclass(frozen=True, eq=False)
class Side:
    """One way of scoring the same poses."""

    report: Report
    reliability: Reliability


@dataclass(frozen=True, eq=False)
class Comparison:
    """The same poses with a model's scores and with those of a new scoring net."""

    before: Side
    after: Side

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            name: {"measures": side.report.to_dict(), "reliability": side.reliability.to_dict()}
            for name, side in (("before", self.before), ("after", self.after))
        }

    def table(self) -> str:
        """Lines for a terminal."""
        sides = (self.before, self.after)
        rows: list[tuple[str, Sequence[str], str]] = [
            (name, [f"{100 * side.report.ap[name]:.2f}" for side in sides], "COCO OKS, everybody") for name in _AP
        ]
        rows.append(("score threshold", [f"{side.report.score_threshold:g}" for side in sides], "shows as many people"))
        rows += [
            (title, [percent(getattr(side.report, name)) for side in sides], "from that score on")
            for title, name in (("PCK@0.2", "pck"), ("recall", "recall"), ("precision", "precision"))
        ]
        rows += [
            ("false people", [decimal(side.report.false_people, 3) for side in sides], "per photo without people"),
            ("rank correlation", [decimal(side.reliability.spearman, 3) for side in sides], "of score and OKS"),
            ("calibration error", [decimal(side.reliability.calibration_error, 3) for side in sides], "from it on"),
        ]
        lines = [f"{'':18}{'before':>9}{'after':>9}"]
        lines += [f"{title:18}{values[0]:>9}{values[1]:>9}   {note}" for title, values, note in rows]
        tables = (self.before.reliability.table(), self.after.reliability.table())
        return "\n".join([*lines, "", "before", tables[0], "after", tables[1]])


def compare(
    predictions: Predictions,
    old: OKSScoreNet | None,
    new: OKSScoreNet,
    score_threshold: float,
    new_threshold: float | None = None,
) -> Comparison:
    """Measure a new scoring net against the scores that a model gives without it.

    Args:
        predictions: of the validation photos, without any scoring net.
        old: the net that the model has, if any.
        new: the net to judge.
        score_threshold: the model's own.
        new_threshold: that of the new scores; None is one that shows as many people.

    Raises:
        DekrPoseError: nobody in these photos has labelled keypoints.
        ImportError: faster-coco-eval is missing.
    """
    before = predictions if old is None else with_scoring_net(predictions, old)
    after = with_scoring_net(predictions, new)
    threshold = matching_threshold(before, after, score_threshold) if new_threshold is None else new_threshold
    sides = [
        Side(report(found, at), reliability(found, at)) for found, at in ((before, score_threshold), (after, threshold))
    ]
    if np.isnan(sides[0].report.ap["AP"]):
        raise DekrPoseError("nobody in the validation photos has labelled keypoints; name others with --val")
    return Comparison(*sides)


@torch.inference_mode()
def with_scoring_net(predictions: Predictions, net: OKSScoreNet) -> Predictions:
    """The same poses with the scores that ``PoseEstimator`` would give them with this net."""
    edges = predictions.dataset.skeleton.edges

    def rescored(found: Prediction) -> Prediction:
        keypoints, keypoint_scores = torch.from_numpy(found.keypoints), torch.from_numpy(found.keypoint_scores)
        features = pose_features(keypoints, keypoint_scores, edges)
        scores, keypoint_scores = net.scored(features, keypoint_scores, torch.from_numpy(found.scores))
        return replace(found, scores=scores.numpy(), keypoint_scores=keypoint_scores.numpy())

    return replace(predictions, people=[rescored(found) for found in predictions.people])


def best_threshold(validation: Sequence[Predictions]) -> float:
    """The score threshold, of ``THRESHOLDS``, with the highest F1 (of people found and people that are there)."""

    def f1(threshold: float) -> float:
        shares = [measure(found, threshold) for found in validation]
        precision, recall = (
            np.mean(np.nan_to_num([getattr(own, n) for own in shares])) for n in ("precision", "recall")
        )
        return float(2 * precision * recall / max(precision + recall, 1e-9))

    return max(THRESHOLDS, key=f1)


def matching_threshold(before: Predictions, after: Predictions, score_threshold: float) -> float:
    """The score threshold that shows as many poses of ``after`` as ``score_threshold`` shows of ``before``.

    Halfway between the last one shown and the next, to three digits and never 0, which would show everybody. A
    threshold that shows everybody or nobody stays as it is.
    """
    shown = sum(len(found.shown(score_threshold)) for found in before.people)
    if score_threshold <= 0 or shown == 0:
        return score_threshold
    scores = np.sort(np.concatenate([found.scores for found in after.people]))[::-1]
    return max(float(f"{scores[shown - 1 : shown + 1].mean():.3g}"), 1e-6)


def _training_summary(targets: Any, photos: int, history: Sequence[Epoch]) -> str:
    text = f"learnt from {counted(len(targets), 'pose')} of {counted(photos, 'photo')}, mean OKS {targets.mean():.3f}"
    if history[-1].held_out_error is None:
        return f"{text}; error {history[-1].error:.4f}"
    errors = [float(epoch.held_out_error or 0.0) for epoch in history]
    best = int(np.argmin(errors))
    return (
        f"{text}; epoch {best + 1} of {len(history)} is best on photos held out: error {errors[best]:.4f}, "
        f"{errors[0]:.4f} after the first"
    )
