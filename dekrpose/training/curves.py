"""The curves of a training as a picture: what it reached on validation photos, and its losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dekrpose.evaluation.line_chart import HEIGHT, Line, line_chart, svg

_SMOOTHED = 20
"""Lines of the log that a point of a loss is the mean of."""
_MEASURES = (("ap", "AP"), ("recall", "recall"), ("pck", "PCK@0.2"))


def curves_svg(log: Sequence[Mapping[str, Any]], records: Sequence[Mapping[str, Any]]) -> str:
    """The picture.

    Args:
        log: lines of ``log.jsonl``.
        records: lines of ``validation.jsonl``; the first chart is left out without any.
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
    for key, title in (("heat", "heatmap loss"), ("offset", "offset loss")):
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
    points = []
    for index, line in enumerate(log):
        window = log[max(0, index + 1 - _SMOOTHED) : index + 1]
        points.append((line["step"], sum(own[key] for own in window) / len(window)))
    return points
