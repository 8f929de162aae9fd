"""A curve as an SVG picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from dekrpose.benchmark.curves import Curve
from dekrpose.benchmark.stages import NETWORK, WHOLE

_WIDTH, _HEIGHT = 640, 400
_LEFT, _TOP, _RIGHT, _BOTTOM = 68, 52, 616, 340  # the plot within the picture
_COLORS = {WHOLE: "#1f2933", NETWORK: "#0b72c4", "decode": "#d9730d", "draw": "#2f9e6e"}
_AXES = {"pixels": "megapixels of the network's input", "people": "people in the photo", "batch": "photos in a batch"}
_TICKS = 5


def curve_svg(curve: Curve) -> str:
    """Medians of the whole, the network, decoding and drawing; a band from the fastest to the slowest whole."""
    unit = 1e6 if curve.kind == "pixels" else 1
    points = sorted(curve.points, key=lambda point: point.amount)
    xs = [point.amount / unit for point in points]
    x_ticks = _ticks(max(xs))
    y_ticks = _ticks(max(point.stages[WHOLE].slowest_ms for point in points))
    to_x = [_LEFT + (_RIGHT - _LEFT) * x / x_ticks[-1] for x in xs]

    def to_y(milliseconds: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * milliseconds / y_ticks[-1]

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" font-family="system-ui, sans-serif" font-size="13" fill="#1f2933">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        *_grid(x_ticks, y_ticks),
        _text((_LEFT + _RIGHT) / 2, _BOTTOM + 42, _AXES[curve.kind], "middle"),
        _text(_LEFT, _TOP - 30, f"{curve.setting.label()}: median milliseconds", "start", 'font-weight="600"'),
    ]
    band = [(x, to_y(point.stages[WHOLE].slowest_ms)) for x, point in zip(to_x, points, strict=True)]
    band += reversed([(x, to_y(point.stages[WHOLE].fastest_ms)) for x, point in zip(to_x, points, strict=True)])
    parts.append(f'<polygon points="{_points(band)}" fill="{_COLORS[WHOLE]}" opacity="0.12"/>')
    left = float(_LEFT)
    for stage, color in _COLORS.items():
        line = [
            (x, to_y(point.stages[stage].median_ms))
            for x, point in zip(to_x, points, strict=True)
            if stage in point.stages
        ]
        parts.append(f'<polyline points="{_points(line)}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{color}"/>' for x, y in line]
        parts.append(f'<path d="M{left:.1f} {_TOP - 16}h18" stroke="{color}" stroke-width="3"/>')
        parts.append(_text(left + 24, _TOP - 12, stage, "start"))
        left += 44 + 7.5 * len(stage)
    return "\n".join([*parts, "</svg>\n"])


def _grid(x_ticks: Sequence[float], y_ticks: Sequence[float]) -> list[str]:
    parts = []
    for tick in y_ticks:
        y = _BOTTOM - (_BOTTOM - _TOP) * tick / y_ticks[-1]
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_RIGHT}" stroke="#dde3ea"/>')
        parts.append(_text(_LEFT - 8, y + 4.5, f"{tick:,g}", "end"))
    for tick in x_ticks:
        x = _LEFT + (_RIGHT - _LEFT) * tick / x_ticks[-1]
        parts.append(f'<path d="M{x:.1f} {_BOTTOM}v5" stroke="#8a97a5"/>')
        parts.append(_text(x, _BOTTOM + 20, f"{tick:g}", "middle"))
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
