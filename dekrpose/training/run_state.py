"""Where a run stands, and whether a saved state belongs to it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from dekrpose.training.recipes import TrainConfig

STATE = "last.pt"
"""The file in a run's folder that it goes on from."""
_MAY_CHANGE = {"precision", "workers", "checkpoint_minutes", "epochs"}


@dataclass
class Progress:
    """Where a run stands; saved with the weights.

    Attributes:
        step, images: done, by all processes together.
        seconds: of this process.
        waited: seconds of these in which it waited for data.
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


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Settings that differ although the run would not be the same run with them; older states lack newer ones."""
    after, old = json.loads(json.dumps(now)), json.loads(json.dumps(_filled(before, asdict(TrainConfig()))))
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
