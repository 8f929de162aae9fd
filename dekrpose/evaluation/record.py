"""Writing what was measured into the model that it was measured on."""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dekrpose.errors import DekrPoseError
from dekrpose.hub.repository import CARD, CONFIG, WEIGHTS

if TYPE_CHECKING:
    from dekrpose.evaluation.evaluate import Report

_OLD_CARD = "README.previous.md"
_AP = ("AP", "AP50", "AP75", "AR")


@dataclass(frozen=True)
class Target:
    """A local model that numbers can be written into: its safetensors file of ours and, if any, the folder around it.

    ``stamp`` tells whether the file was replaced meanwhile.
    """

    weights: Path
    folder: Path | None
    stamp: tuple[int, int, int]


def find_target(model: str) -> Target:
    """The local model behind what the command line names; to be called before measuring.

    Raises:
        CheckpointError: a folder holds no model, or its files disagree.
        DekrPoseError: it is no local model, was not written by this library, or cannot be written.
    """
    from dekrpose.checkpoints import read_stored_config
    from dekrpose.hub import models

    path = Path(model).expanduser()
    if model == "tiny" or not path.exists():
        raise DekrPoseError(
            f"--record writes into a model folder or file of yours, and {model!r} is none; save it as one first: "
            f"PoseEstimator.from_pretrained({model!r}).save_pretrained(FOLDER)"
        )
    weights, folder = (models.resolve(path), path) if path.is_dir() else (path, None)
    if folder is None and weights.name == WEIGHTS and (weights.parent / CONFIG).is_file():
        folder = weights.parent  # or the two would disagree
    if weights.suffix != ".safetensors" or read_stored_config(weights) is None:
        raise DekrPoseError(
            f"{weights} was not written by dekrpose and has no place for numbers; run `dekrpose convert {weights.name} "
            f"{weights.stem}.safetensors`, then evaluate that file with --record"
        )
    if not os.access(weights.parent, os.W_OK):
        raise DekrPoseError(f"--record cannot write into {weights.parent}; make it writable or copy the model")
    return Target(weights, folder, _stamp(weights))


def record(target: Target, measures: Report, evaluation: str, data: str) -> None:
    """Replace a model's numbers by those of ``evaluation``, a command, on the whole of ``data``; its weights stay.

    A folder's config.json and model card are written anew; a card that somebody changed is kept beside it.
    DekrPoseError if the model was replaced while it was measured, or there are no numbers.
    """
    from dekrpose.checkpoints import read_checkpoint, write_config
    from dekrpose.hub import models
    from dekrpose.hub.model_cards import model_card

    metrics = numbers(measures)
    if not metrics:
        raise DekrPoseError(f"{data} has nobody with labelled keypoints, so there are no numbers to record")
    if _stamp(target.weights) != target.stamp:
        raise DekrPoseError(f"{target.weights} was replaced while it was measured; nothing is recorded, measure again")
    checkpoint = read_checkpoint(target.weights)
    config = replace(checkpoint.config, metrics=metrics, evaluation=evaluation, evaluation_data=data)
    if target.folder is None:
        write_config(target.weights, config, source=target.weights)
        return
    card = target.folder / CARD
    if card.is_file():
        ours = model_card(checkpoint.config, checkpoint.rescoring is not None)
        if card.read_text(encoding="utf-8", errors="replace") != ours:
            shutil.copy(card, target.folder / _OLD_CARD)
    models.save_config(target.folder, config, checkpoint.rescoring is not None)


def numbers(measures: Report) -> dict[str, float]:
    """What a model's configuration keeps of a report: shares and AP in percent, without what could not be measured."""
    shares = {"PCK@0.2": measures.pck, "recall": measures.recall, "precision": measures.precision}
    shares |= {name: measures.ap[name] for name in _AP if name in measures.ap}
    kept = {name: round(100 * value, 2) for name, value in shares.items() if math.isfinite(value)}
    if math.isfinite(measures.false_people):
        kept["false people per photo of nobody"] = round(measures.false_people, 3)
    return kept


def _stamp(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino
