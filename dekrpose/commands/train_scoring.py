"""``dekrpose train-scoring``: teach a model to judge its own poses, and keep that only if it helps."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dekrpose.architectures.parts.scoring_net import OKSScoreNet, rescore
from dekrpose.checkpoints import read_checkpoint
from dekrpose.data.dataset import KeypointDataset
from dekrpose.errors import DekrPoseError
from dekrpose.estimator import PoseEstimator
from dekrpose.evaluation.coco_ap import load_evaluator
from dekrpose.evaluation.evaluate import Report, own_threshold, percent, report
from dekrpose.evaluation.predictions import Prediction, Predictions
from dekrpose.evaluation.reliability import Reliability, reliability
from dekrpose.formats import json_text, write_whole
from dekrpose.hub import models
from dekrpose.training.scoring import Epoch, ScoringConfig, hold_out, train_scoring_net
from dekrpose.training.scoring_examples import collect_predictions, examples_of

VALIDATION_SHARE = 0.2
"""Of the photos, when no validation data are named."""
_AP = ("AP", "AP50", "AP75", "AR")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``dekrpose train-scoring``."""
    parser.description = (
        "Train the scoring net, which predicts how well a pose fits (its OKS), on what a model finds in photos with "
        "COCO-format keypoints; write the model with the net inside, unless that lowers AP on the validation photos."
    )
    parser.add_argument("model", metavar="MODEL", help="a model's name, folder or weights file")
    parser.add_argument("data", metavar="DATA.json", type=Path, help="COCO keypoints file, .json or .json.gz")
    places = "folders, .tar or .zip files; default: beside"
    parser.add_argument("--images", metavar="PLACE", type=Path, nargs="+", help=f"{places} DATA.json")
    parser.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="the model with the net inside")
    parser.add_argument(
        "--val", metavar="VAL.json", type=Path, help="validation data; default: a fifth of DATA's photos, not learnt"
    )
    parser.add_argument("--val-images", metavar="PLACE", type=Path, nargs="+", help=f"{places} VAL.json")
    parser.add_argument("--force", action="store_true", help="write the model even if AP is lower")
    parser.add_argument("--flip", action="store_true", help="average with the mirrored photo, as published nets do")
    parser.add_argument("--input-size", metavar="N", type=int, help="short side in pixels; default: the model's")
    parser.add_argument("--limit", metavar="N", type=int, help="only the first N photos of DATA")
    parser.add_argument("--cache", metavar="FOLDER", type=Path, help="keep what the model finds, to train again")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps, ...")
    own = ScoringConfig()
    for name, kind, metavar, text in (
        ("epochs", int, "N", "times that every pose is seen, or more"),
        ("minimum-steps", int, "N", "as many more epochs as make so many steps, for few photos"),
        ("batch-size", int, "N", "poses per step"),
        ("learning-rate", float, "X", "of Adam"),
        ("held-out", float, "X", "share of the photos that choose the best epoch; 0 for the last epoch"),
        ("seed", int, "N", "decides first weights, order and photos held out"),
    ):
        default = getattr(own, name.replace("-", "_"))
        parser.add_argument(f"--{name}", type=kind, metavar=metavar, default=default, help=f"{text} ({default})")


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
    estimator = PoseEstimator.from_pretrained(options.model, device=options.device)
    learnt, validation = _predictions(estimator, options)
    examples = examples_of(learnt)
    net, history = train_scoring_net(examples.features, examples.targets, examples.photos, config, progress=True)
    print(_training_summary(examples.targets, len(learnt.photos), history))
    comparison = compare(validation, estimator.rescoring_net, net, own_threshold(estimator))
    print(comparison.table())
    before, after = comparison.before.report.ap["AP"], comparison.after.report.ap["AP"]
    if after < before and not options.force:
        raise DekrPoseError(
            f"the scoring net lowers AP from {100 * before:.2f} to {100 * after:.2f} on the validation photos, so "
            "nothing was written; more photos may help, and --force writes it all the same"
        )
    _write(options.out, estimator, dtypes, net, comparison)
    record = {"config": asdict(config), "history": [asdict(epoch) for epoch in history], **comparison.to_dict()}
    write_whole(options.out / "scoring.json", json_text(record))
    print(f"wrote {options.out}, with score threshold {comparison.after.report.score_threshold:g}")
    return 0


def _write(
    folder: Path,
    estimator: PoseEstimator,
    dtypes: Mapping[str, torch.dtype],
    net: OKSScoreNet,
    comparison: Comparison,
) -> None:
    """Write the network that was judged, which its file may not hold any more, in the types that the file had."""
    decode = replace(estimator.config.decode, rescored_threshold=comparison.after.report.score_threshold)
    config = replace(estimator.config.without_numbers(), decode=decode)
    network = {name: tensor.to(dtypes[name]) for name, tensor in estimator.model.state_dict().items()}
    models.save_folder(folder, config, network, net.state_dict())


def _predictions(estimator: PoseEstimator, options: argparse.Namespace) -> tuple[Predictions, Predictions]:
    """What the model finds in the photos to learn from, and in those to validate on."""
    skeleton = estimator.config.skeleton
    settings = {"flip_test": options.flip, "input_size": options.input_size}
    caches = [options.cache and options.cache / name for name in ("train.npz", "val.npz")]
    data = KeypointDataset(options.data, options.images, skeleton)
    val = None if options.val is None else KeypointDataset(options.val, options.val_images, skeleton)
    found = collect_predictions(estimator, data, cache=caches[0], limit=options.limit, **settings)
    if val is not None:
        return found, collect_predictions(estimator, val, cache=caches[1], **settings)
    aside = hold_out(np.arange(len(found.photos)), VALIDATION_SHARE, options.seed)
    return _subset(found, np.flatnonzero(~aside)), _subset(found, np.flatnonzero(aside))


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
            ("false people", [_number(side.report.false_people) for side in sides], "per photo without people"),
            ("rank correlation", [_number(side.reliability.spearman) for side in sides], "of score and OKS"),
            ("calibration error", [_number(side.reliability.calibration_error) for side in sides], "|score - OKS|"),
        ]
        lines = [f"{'':18}{'before':>9}{'after':>9}"]
        lines += [f"{title:18}{values[0]:>9}{values[1]:>9}   {note}" for title, values, note in rows]
        return "\n".join([*lines, "", *self._bins()])

    def _bins(self) -> list[str]:
        edges = self.before.reliability.edges
        lines = ["mean OKS by score     before           after"]
        for index in range(len(edges) - 1):
            cells = [
                f"{side.reliability.mean_oks[index]:7.2f} of {side.reliability.counts[index]:<6}"
                if side.reliability.counts[index]
                else f"{'-':>7}          "
                for side in (self.before, self.after)
            ]
            lines.append(f"{edges[index]:.1f} to {edges[index + 1]:.1f}  {'  '.join(cells)}".rstrip())
        return lines


def compare(predictions: Predictions, old: OKSScoreNet | None, new: OKSScoreNet, score_threshold: float) -> Comparison:
    """Measure a new scoring net against the scores that a model gives without it.

    Args:
        predictions: of the validation photos, without any scoring net.
        old: the net that the model has, if any.
        new: the net to judge.
        score_threshold: the model's own; the new scores get one that shows as many people.

    Raises:
        DekrPoseError: nobody in these photos has labelled keypoints.
        ImportError: faster-coco-eval is missing.
    """
    before = predictions if old is None else with_scoring_net(predictions, old)
    after = with_scoring_net(predictions, new)
    threshold = matching_threshold(before, after, score_threshold)
    sides = [
        Side(report(found, at), reliability(found)) for found, at in ((before, score_threshold), (after, threshold))
    ]
    if np.isnan(sides[0].report.ap["AP"]):
        raise DekrPoseError("nobody in the validation photos has labelled keypoints; name others with --val")
    return Comparison(*sides)


def with_scoring_net(predictions: Predictions, net: OKSScoreNet) -> Predictions:
    """The same poses with the scores that ``PoseEstimator`` would give them with this net."""
    edges = predictions.dataset.skeleton.edges

    def rescored(found: Prediction) -> Prediction:
        keypoints, keypoint_scores = torch.from_numpy(found.keypoints), torch.from_numpy(found.keypoint_scores)
        scores = rescore(net, keypoints, keypoint_scores, torch.from_numpy(found.scores), edges)
        return replace(found, scores=scores.numpy())

    return replace(predictions, people=[rescored(found) for found in predictions.people])


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
    text = f"learnt from {len(targets):,} poses of {photos:,} photos, mean OKS {targets.mean():.3f}"
    if history[-1].held_out_error is None:
        return f"{text}; mean square error {history[-1].error:.4f}"
    errors = [float(epoch.held_out_error or 0.0) for epoch in history]
    best = int(np.argmin(errors))
    return (
        f"{text}; epoch {best + 1} of {len(history)} is best on photos held out: mean square error {errors[best]:.4f}, "
        f"{targets.var():.4f} for always saying the mean"
    )


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
