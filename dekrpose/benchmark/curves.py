"""How the time of an estimate grows: with the network's pixels, the people in a photo, and the photos in a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import asdict, dataclass, replace
from typing import Any

from dekrpose.benchmark.report import number, table
from dekrpose.benchmark.settings import Setting
from dekrpose.benchmark.stages import NETWORK, WHOLE, Times, Timing, measure, photo_job
from dekrpose.config import SIZE_MULTIPLE
from dekrpose.errors import counted
from dekrpose.estimator import PoseEstimator
from dekrpose.evaluation.line_chart import Line, line_chart, svg

CURVES = ("pixels", "people", "batch")
PEOPLE = 3
"""In a made-up photo, unless another number is asked for."""
_PEOPLE = (0, 1, 2, 5, 10, 20, 30)
_BATCHES = (1, 2, 4, 8)
_SHARES = (0.5, 1.0, 1.5, 2.0, 3.0)
_UNITS = {"pixels": "megapixel", "batch": "photo"}
_UNIT_SIZES = {"pixels": 1e6, "batch": 1}
_CHANGED = {"pixels": "input_size", "batch": "batch"}
_COLORS = {WHOLE: "#1f2933", NETWORK: "#0b72c4", "decode": "#d9730d", "draw": "#2f9e6e"}
_AXES = {"pixels": "megapixels of the network's input", "people": "people in the photo", "batch": "photos in a batch"}


@dataclass(frozen=True)
class Point:
    """One place of a curve; the last of its stages is the whole.

    ``value`` is what was asked for: short side of the network's input, people, or photos. ``amount`` is what the time
    is set against: pixels of the network's input, people, or photos.
    """

    value: int
    amount: int
    stages: dict[str, Timing]


@dataclass(frozen=True)
class Curve:
    """Times against one quantity, a kind of ``CURVES``; photo and points as they were asked for."""

    kind: str
    setting: Setting
    photo: str
    points: tuple[Point, ...]

    @property
    def exponent(self) -> float | None:
        """The power of the amount with which the time grows, from the first to the last point; 1 is linear."""
        first, last = self.points[0], self.points[-1]
        if first.amount < 1 or last.amount == first.amount:
            return None
        times = last.stages[WHOLE].median_ms / first.stages[WHOLE].median_ms
        return math.log(times) / math.log(last.amount / first.amount)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = asdict(self)
        return {"curve": values.pop("kind"), **values, "exponent": self.exponent}

    def __str__(self) -> str:
        shown = ("network", "decode", "draw")
        header = ["short side", "pixels"] if self.kind == "pixels" else [self.kind]
        header += ["median ms", "fastest", "slowest", *shown]
        header += [] if self.kind == "people" else [f"ms per {_UNITS[self.kind]}"]
        rows = []
        for point in self.points:
            whole = point.stages[WHOLE]
            row = [str(point.value), *([f"{point.amount:,}"] if self.kind == "pixels" else [])]
            row += [number(value) for value in (whole.median_ms, whole.fastest_ms, whole.slowest_ms)]
            row += [number(point.stages[stage].median_ms) for stage in shown]
            if self.kind != "people":
                row.append(number(whole.median_ms / point.amount * _UNIT_SIZES[self.kind]))
            rows.append(row)
        runs = self.points[0].stages[WHOLE].runs
        head = f"time against {self.kind}: {self.setting.label()}, photo {self.photo}, {counted(runs, 'run')} each"
        return "\n".join([head, table(header, rows), self._growth()])

    def svg(self) -> str:
        """Medians of the whole, the network, decoding and drawing; a band from the fastest to the slowest whole."""
        unit = _UNIT_SIZES.get(self.kind, 1)
        points = sorted(self.points, key=lambda point: point.amount)
        lines = [
            Line(stage, [(p.amount / unit, p.stages[stage].median_ms) for p in points if stage in p.stages], color)
            for stage, color in _COLORS.items()
        ]
        band = [(p.amount / unit, p.stages[WHOLE].fastest_ms, p.stages[WHOLE].slowest_ms) for p in points]
        title = f"{self.setting.label()}: median milliseconds"
        return svg([line_chart(title, _AXES[self.kind], lines, band=band)])

    def _growth(self) -> str:
        first, last = self.points[0], self.points[-1]
        times = last.stages[WHOLE].median_ms / first.stages[WHOLE].median_ms
        words = f"from {first.amount:,} to {last.amount:,} {'photos' if self.kind == 'batch' else self.kind}: "
        words += f"{times:.2f} times as long"
        return words if self.exponent is None else f"{words}; it grows with the power {self.exponent:.2f}"


def default_values(kind: str, own_input_size: int) -> tuple[int, ...]:
    """Where a curve is measured unless the user says."""
    if kind != "pixels":
        return _PEOPLE if kind == "people" else _BATCHES
    sides = (max(1, round(share * own_input_size / SIZE_MULTIPLE)) * SIZE_MULTIPLE for share in _SHARES)
    return tuple(dict.fromkeys(sides))


def measure_curve(
    kind: str,
    setting: Setting,
    load: Callable[[Setting], PoseEstimator],
    *,
    photo: str,
    data: bytes,
    values: Sequence[int] | None,
    people: int | None,
    runs: int,
) -> Curve:
    """Measure all places of a curve in turn.

    ``kind`` is one of ``CURVES``, ``photo`` as it was asked for and ``data`` its bytes. Values of None are the usual
    ones; ``people`` are made-up ones in the photo, if any, unless the curve is over people. ValueError if the kind is
    unknown or values are not possible.
    """
    if kind not in CURVES:
        raise ValueError(f"--curve must be one of {', '.join(CURVES)}, got {kind!r}")
    estimator = load(setting)
    values = values or default_values(kind, setting.input_size or estimator.config.input_size)
    least = 0 if kind == "people" else 1
    if min(values) < least or len(set(values)) != len(values):
        raise ValueError(f"--at must be different whole numbers of at least {least}, got {tuple(values)}")
    jobs: dict[str, Callable[[], Times]] = {}
    amounts = {}
    for value in values:
        changes: dict[str, Any] = {_CHANGED[kind]: value} if kind in _CHANGED else {}
        changed = replace(setting, **changes)
        shared = copy(estimator)  # the weights are the same, the planted people are not
        run, size = photo_job(shared, changed, data, value if kind == "people" else people)
        jobs[str(value)] = run
        amounts[value] = size[0] * size[1] if kind == "pixels" else value
    found = measure(jobs, runs)
    points = tuple(Point(value, amounts[value], found[str(value)]) for value in values)
    return Curve(kind, setting, photo, points)
