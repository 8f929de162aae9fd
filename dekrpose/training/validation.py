"""Measuring a network while it is trained: what it reaches, which weights were the best, and its curves."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from dekrpose.architectures.contract import build
from dekrpose.architectures.learning import learning_of
from dekrpose.checkpoints import write_checkpoint
from dekrpose.config import ModelConfig
from dekrpose.data.dataset import KeypointDataset
from dekrpose.estimator import PoseEstimator
from dekrpose.evaluation.coco_ap import load_evaluator
from dekrpose.evaluation.evaluate import Report, own_threshold, percent, predictor, report
from dekrpose.evaluation.line_chart import HEIGHT, Line, line_chart, svg
from dekrpose.evaluation.predictions import collect
from dekrpose.formats import write_whole
from dekrpose.training.run_log import LOG, drop_later_lines, read_lines

BEST = "best.safetensors"
"""The weights of the highest mean AP."""
VALIDATION = "validation.jsonl"
CURVES = "curves.svg"
TIMES = 10
"""How often a run is measured unless somebody says."""
_SMOOTHED = 20
"""Lines of the log that a point of a loss is the mean of."""
_MEASURES = (("ap", "AP"), ("recall", "recall"), ("pck", "PCK@0.2"))


class Validation:
    """Measures averaged weights on one or several sets of photos.

    Args:
        datasets: never trained on; their order is that of the picture's lines.
        every: steps between two measurements; None is a tenth of the run.
        patience: end the run after so many measurements in a row without a higher mean AP; None trains to the end.

    Raises:
        ImportError: faster-coco-eval is missing.
        ValueError: a number is below 1, a set comes twice, or there is nobody to measure on.
    """

    def __init__(
        self, datasets: Sequence[KeypointDataset], every: int | None = None, patience: int | None = None
    ) -> None:
        load_evaluator()  # say what is missing before the long part
        for option, value in (("--val-every", every), ("--patience", patience)):
            if value is not None and value < 1:
                raise ValueError(f"{option} must be at least 1, got {value}")
        if not any(photo.labelled for dataset in datasets for photo in dataset.photos):
            names = ", ".join(str(dataset.path) for dataset in datasets)
            raise ValueError(f"nobody with labelled keypoints is in {names}: there is nothing to measure on")
        self.datasets, self.every, self.patience = datasets, every, patience
        short = {dataset.path.name for dataset in datasets}
        self.names = [own.path.name if len(short) == len(datasets) else str(own.path) for own in datasets]
        if len(set(self.names)) < len(datasets):
            raise ValueError(f"--val names a set twice: {', '.join(self.names)}")
        self.records: list[dict[str, Any]] = []
        self.folder = Path()

    def begin(self, folder: Path, step: int) -> None:
        """Take what the folder's run measured up to a step; for the process that measures."""
        self.folder = folder
        drop_later_lines(folder / VALIDATION, step)
        self.records = read_lines(folder / VALIDATION)

    def is_due(self, step: int, total_steps: int) -> bool:
        """Whether a step is one to measure at; every process says the same."""
        return step == total_steps or step % (self.every or max(1, total_steps // TIMES)) == 0

    def measure(self, config: ModelConfig, weights: Mapping[str, Tensor], device: torch.device, step: int) -> str:
        """Measure weights, keep them if they are the best, and draw the curves; a line for people."""
        with torch.device("meta"):
            model = build(config)
        model.load_state_dict({name: value.clone() for name, value in weights.items()}, assign=True)
        estimator = PoseEstimator(cast(Any, model), device=device)
        measured = {
            name: report(collect(predictor(estimator), dataset, progress=False), own_threshold(estimator))
            for name, dataset in zip(self.names, self.datasets, strict=True)
        }
        known = [own.ap["AP"] for own in measured.values() if not math.isnan(own.ap["AP"])]
        mean = sum(known) / len(known) if known else 0.0
        best = mean > max((record["mean_ap"] for record in self.records), default=-1.0)
        if best:
            write_checkpoint(self.folder / BEST, config, weights)
        record = {"step": step, "mean_ap": mean, "sets": {name: own.to_dict() for name, own in measured.items()}}
        self.records.append(record)
        with (self.folder / VALIDATION).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        picture = curves_svg(read_lines(self.folder / LOG), self.records, learning_of(config).LOSSES)
        write_whole(self.folder / CURVES, picture)
        words = "; ".join(f"{name}: {_words(own)}" for name, own in measured.items())
        return f"step {step:,}: {words}{f'; the best so far, in {BEST}' if best else ''}"

    @property
    def is_hopeless(self) -> bool:
        """Whether the last ``patience`` measurements brought nothing better."""
        values = [record["mean_ap"] for record in self.records]
        first_best = values.index(max(values)) if values else -1
        return self.patience is not None and len(values) - 1 - first_best >= self.patience


def _words(measured: Report) -> str:
    parts = [f"AP {100 * measured.ap['AP']:.1f}", f"recall {percent(measured.recall)}"]
    if not math.isnan(measured.pck):
        parts.append(f"PCK {percent(measured.pck)}")
    if not math.isnan(measured.false_people):
        parts.append(f"{measured.false_people:.2f} false people")
    return ", ".join(parts)


def curves_svg(
    log: Sequence[Mapping[str, Any]], records: Sequence[Mapping[str, Any]], losses: Mapping[str, str]
) -> str:
    """The picture, from lines of ``log.jsonl`` and of ``validation.jsonl``; without the latter, of losses alone.

    ``losses`` are the parts of the loss, names in the log and for people.
    """
    charts: list[str] = []
    reach = max((float(line["step"]) for line in (*log, *records)), default=0.0)
    if records:
        lines = [
            Line(f"{title} {name}", points)
            for name in records[0]["sets"]
            for key, title in _MEASURES
            if (points := _points(records, name, key))
        ]
        charts.append(line_chart("validation, percent", "steps", lines, reach=reach))
    for key, title in losses.items():
        if log and key not in log[0]:
            continue  # a part that this network does not have
        line = Line(title, _smoothed(log, key), dots=False)
        charts.append(line_chart(title, "steps", [line], top=HEIGHT * len(charts), reach=reach))
    return svg(charts)


def _points(records: Sequence[Mapping[str, Any]], name: str, key: str) -> list[tuple[float, float]]:
    points = []
    for record in records:
        measured = record["sets"].get(name, {})
        value = measured.get("ap", {}).get("AP") if key == "ap" else measured.get(key)
        if value is not None:
            points.append((record["step"], 100 * value))
    return points


def _smoothed(log: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    windows = (log[max(0, end - _SMOOTHED) : end] for end in range(1, len(log) + 1))
    return [(window[-1]["step"], sum(line[key] for line in window) / len(window)) for window in windows]
