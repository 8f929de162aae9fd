"""Where a run stands, whether a saved state belongs to it, and its record: ``log.jsonl``, TensorBoard's event files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from dekrpose.architectures.learning import Targets, TrainConfig
from dekrpose.errors import DekrPoseError
from dekrpose.formats import write_whole

STATE = "last.pt"
"""The file in a run's folder that it goes on from."""
_MAY_CHANGE = {"precision", "workers", "checkpoint_minutes", "epochs"}
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
"""Names in TensorBoard of what a line of the log holds; the others are parts of the loss."""
_UNTAGGED = {"step", "images", "seconds", "waited", "epoch"}


@dataclass
class Progress:
    """Where a run stands; saved with the weights.

    Steps and images are done by all processes together; ``seconds``, and those in which it waited for data, are this
    one's.
    """

    step: int = 0
    images: int = 0
    seconds: float = 0.0
    waited: float = 0.0

    def speed_since(self, before: Progress) -> dict[str, float]:
        """Images per second and the share of the time that went into waiting for data."""
        seconds = max(self.seconds - before.seconds, 1e-9)
        images, waited = self.images - before.images, self.waited - before.waited
        return {"images_per_second": images / seconds, "waiting": waited / seconds}

    def summary_since(self, before: Progress) -> str:
        """The same in words."""
        speed = self.speed_since(before)
        return (
            f"{self.images - before.images:,} images in {timedelta(seconds=round(self.seconds - before.seconds))}, "
            f"{speed['images_per_second']:.1f} images/s, {speed['waiting']:.0%} waiting for data"
        )


def changes(before: Mapping[str, Any], now: Mapping[str, Any], targets: Targets | None = None) -> list[str]:
    """Settings that differ although the run would not be the same run with them; older states lack newer ones.

    ``targets`` are the defaults of the architecture's; None: DEKR's.
    """
    defaults = TrainConfig() if targets is None else TrainConfig(targets=targets)
    after, old = json.loads(json.dumps(now)), json.loads(json.dumps(_filled(before, asdict(defaults))))
    return [key for key in after if key not in _MAY_CHANGE and after[key] != old[key]]


def _filled(before: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of an older state, with the defaults of those that it lacks, also within ``augment`` and ``targets``."""
    return {
        key: _filled(before.get(key, {}), default) if isinstance(default, dict) else before.get(key, default)
        for key, default in defaults.items()
    }


def clear_unfinished(folder: Path) -> None:
    """Remove what a run that was killed while it saved has left."""
    (folder / f"{STATE}.tmp").unlink(missing_ok=True)
    for item in folder.glob(f".{'[0-9a-f]' * 32}.tmp"):
        shutil.rmtree(item, ignore_errors=True)


class RunLog:
    """Writes lines of numbers; what an interrupted run wrote beyond its last saved state is taken off.

    The run goes on at ``step``. DekrPoseError if TensorBoard is asked for, to write event files too, and not installed.
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
            for name in record.keys() - _UNTAGGED:
                self._events.add_scalar(_TAGS.get(name, f"loss/{name}"), record[name], int(record["step"]))
            self._events.flush()

    def close(self) -> None:
        """End the event file."""
        if self._events is not None:
            self._events.close()


def summary_writer() -> Any:
    """TensorBoard's writer; DekrPoseError if it is not installed."""
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
