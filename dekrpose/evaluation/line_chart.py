"""Lines against one axis as SVG, without a library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 400
_LEFT, _TOP, _RIGHT, _BOTTOM = 68, 52, 616, 340  # the plot within the picture
_TICKS = 5
COLORS = ("#0b72c4", "#d9730d", "#2f9e6e", "#8e44ad", "#c0392b", "#1f2933")


@dataclass(frozen=True)
class Line:
    """One line of a chart: its name in the legend, points x and y, the next one of ``COLORS`` if it has no own."""

    name: str
    points: Sequence[tuple[float, float]]
    color: str | None = None
    dots: bool = True


def line_chart(
    title: str,
    x_label: str,
    lines: Sequence[Line],
    *,
    band: Sequence[tuple[float, float, float]] = (),
    top: int = 0,
    reach: float = 0.0,
) -> str:
    """The elements of a chart of 640 x 400, from zero on both axes.

    ``band`` is x, lowest and highest y of a shaded band, ``top`` where the chart begins in the picture, ``reach`` what
    the x axis reaches at least, so that charts below each other agree.
    """
    xs = [reach, *(x for line in lines for x, _ in line.points)]
    ys = [y for line in lines for _, y in line.points] + [high for _, _, high in band]
    x_ticks, y_ticks = (_ticks(max(values, default=0) or 1) for values in (xs, ys))

    def place(x: float, y: float) -> tuple[float, float]:
        across = _LEFT + (_RIGHT - _LEFT) * x / x_ticks[-1]
        return across, _BOTTOM - (_BOTTOM - _TOP) * y / y_ticks[-1]

    parts = [
        f'<g transform="translate(0 {top})">',
        *_grid(x_ticks, y_ticks),
        _text((_LEFT + _RIGHT) / 2, _BOTTOM + 42, x_label, "middle"),
        _text(_LEFT, _TOP - 30, title, "start", 'font-weight="600"'),
    ]
    if band:
        edge = [place(x, high) for x, _, high in band] + [place(x, low) for x, low, _ in reversed(band)]
        parts.append(f'<polygon points="{_points(edge)}" fill="#1f2933" opacity="0.12"/>')
    left = float(_LEFT)
    for index, line in enumerate(lines):
        color = line.color or COLORS[index % len(COLORS)]
        places = [place(x, y) for x, y in line.points]
        parts.append(f'<polyline points="{_points(places)}" fill="none" stroke="{color}" stroke-width="2"/>')
        if line.dots:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{color}"/>' for x, y in places]
        parts.append(f'<path d="M{left:.1f} {_TOP - 16}h18" stroke="{color}" stroke-width="3"/>')
        parts.append(_text(left + 24, _TOP - 12, line.name, "start"))
        left += 44 + 7.5 * len(line.name)
    return "\n".join([*parts, "</g>"])


def svg(charts: Sequence[str]) -> str:
    """A picture of charts, one below the other; each must have been made for its place."""
    height = HEIGHT * len(charts)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
            f'height="{height}" font-family="system-ui, sans-serif" font-size="13" fill="#1f2933">',
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
            *charts,
            "</svg>\n",
        ]
    )


def _grid(x_ticks: Sequence[float], y_ticks: Sequence[float]) -> list[str]:
    parts = []
    for tick in y_ticks:
        y = _BOTTOM - (_BOTTOM - _TOP) * tick / y_ticks[-1]
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_RIGHT}" stroke="#dde3ea"/>')
        parts.append(_text(_LEFT - 8, y + 4.5, f"{tick:,g}", "end"))
    for tick in x_ticks:
        x = _LEFT + (_RIGHT - _LEFT) * tick / x_ticks[-1]
        parts.append(f'<path d="M{x:.1f} {_BOTTOM}v5" stroke="#8a97a5"/>')
        parts.append(_text(x, _BOTTOM + 20, f"{tick:,g}", "middle"))
    return [*parts, f'<path d="M{_LEFT} {_BOTTOM}H{_RIGHT}" stroke="#8a97a5"/>']


def _ticks(highest: float) -> list[float]:
    """Round numbers from 0 to at least the highest."""
    rough = max(highest, 1e-9) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    return [round(step * index, 12) for index in range(math.ceil(highest / step - 1e-9) + 1)]


def _points(line: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in line)


def _text(x: float, y: float, words: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{escape(words)}</text>'
