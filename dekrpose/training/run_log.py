"""The record of a run: ``log.jsonl``, and event files for TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dekrpose.errors import DekrPoseError
from dekrpose.formats import write_whole

LOG = "log.jsonl"
TENSORBOARD = "tensorboard"
_TAGS = {
    "heat": "loss/heatmaps",
    "offset": "loss/offsets",
    "learning_rate": "training/learning_rate",
    "gradient_norm": "training/gradient_norm",
    "images_per_second": "speed/images_per_second",
    "waiting": "speed/waiting_for_data",
}
"""Names in TensorBoard of what a line of the log holds."""


class RunLog:
    """Writes lines of numbers; what an interrupted run wrote beyond its last saved state is taken off.

    Args:
        folder: of the run.
        step: where the run goes on.
        tensorboard: write event files too.

    Raises:
        DekrPoseError: TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path, step: int, tensorboard: bool = False) -> None:
        self.path = folder / LOG
        drop_later_lines(self.path, step)
        # the first step that this run will write itself; TensorBoard hides what is there from it on
        self._events = summary_writer()(str(folder / TENSORBOARD), purge_step=step + 1) if tensorboard else None

    def write(self, record: Mapping[str, float]) -> None:
        """Append one line; ``record`` holds "step"."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(record)) + "\n")
        if self._events is not None:
            for name, tag in _TAGS.items():
                self._events.add_scalar(tag, record[name], int(record["step"]))
            self._events.flush()

    def close(self) -> None:
        """End the event file."""
        if self._events is not None:
            self._events.close()


def summary_writer() -> Any:
    """TensorBoard's writer.

    Raises:
        DekrPoseError: it is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise DekrPoseError(
            "--tensorboard needs the package tensorboard, which is missing; run: pip install 'dekrpose[train]'"
        ) from error
    return SummaryWriter


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a record; none where there is no file."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if _step(line) < float("inf")]


def drop_later_lines(path: Path, step: int) -> None:
    """Keep whole lines up to a step."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if _step(line) <= step]
    if kept != lines:
        write_whole(path, "".join(kept))


def _step(line: str) -> float:
    """The step of a line; infinite if a kill cut the line off."""
    try:
        return float(json.loads(line)["step"]) if line.endswith("\n") else float("inf")
    except (ValueError, KeyError, TypeError):
        return float("inf")
