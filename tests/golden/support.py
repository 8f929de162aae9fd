"""What all golden checks share.

A golden is a recording of the official code. ``data/`` holds a small subset; ``--goldens FOLDER`` (or the
environment variable ``DEKRPOSE_GOLDENS``) points at a larger set of the same layout: ``index.json`` that
describes every file, ``*.npz`` with the arrays, ``shapes/*.json`` and ``photos/``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from dekrpose.images import load
from tests.golden.seeded_weights import synthetic_image

BUNDLED = Path(__file__).parent / "data"
AREAS = sorted(path.stem for path in Path(__file__).parent.glob("area_*.py"))


@dataclass(frozen=True)
class Row:
    """One compared quantity: its largest error and the tolerance that it must keep."""

    case: str
    quantity: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance  # NaN fails


@dataclass(frozen=True)
class Case:
    """One recording: its name, what ``index.json`` says of it, its arrays."""

    name: str
    info: dict[str, Any]
    arrays: dict[str, np.ndarray]
    folder: Path


@cache
def _index(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "index.json").read_text())


def cases(folder: Path, kind: str) -> Iterator[Case]:
    """The recordings of one kind in a folder, in the order of their names."""
    for name, info in sorted(_index(folder).items()):
        if isinstance(info, dict) and info.get("kind") == kind and (folder / f"{name}.npz").exists():
            with np.load(folder / f"{name}.npz") as file:
                yield Case(name, info, {key: file[key] for key in file.files}, folder)


def whole_set() -> Path | None:
    """The full set of goldens, when it is there."""
    for place in (os.environ.get("DEKRPOSE_GOLDENS"), Path(__file__).parents[3] / "shared" / "goldens"):
        if place and (Path(place) / "index.json").exists():
            return Path(place)
    return None


def largest(actual: Any, expected: Any) -> float:
    """The largest absolute difference; infinite when the shapes differ; 0 when both are empty."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    if actual.shape != expected.shape:
        return float("inf")
    if actual.size == 0:
        return 0.0
    return float(np.abs(actual.astype(np.float64) - expected.astype(np.float64)).max())


def relative(actual: Any, expected: np.ndarray) -> float:
    """The largest absolute difference in units of the largest expected value."""
    return largest(actual, expected) / max(float(np.abs(expected).max(initial=0)), 1e-12)


def stats(values: Any) -> np.ndarray:
    """What recordings keep of a whole tensor: mean, standard deviation, minimum, maximum, sum of magnitudes."""
    exact = np.asarray(values, np.float64)
    return np.array([exact.mean(), exact.std(), exact.min(), exact.max(), np.abs(exact).sum()])


def photo(case: Case) -> np.ndarray | None:
    """The RGB image of a recording, made up or beside it; None when the folder lacks it."""
    name = case.info["image"]
    if name.startswith("synthetic:"):
        height, width, seed = map(int, name.removeprefix("synthetic:").split("x"))
        return np.asarray(synthetic_image(height, width, seed))  # type: ignore[no-untyped-call]
    path = case.folder / "photos" / name.replace("/", "_")
    return load(path, exif=False)[0] if path.exists() else None
