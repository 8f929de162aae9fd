"""A curve as an SVG picture."""

from __future__ import annotations

from dekrpose.benchmark.curves import Curve
from dekrpose.benchmark.stages import NETWORK, WHOLE
from dekrpose.evaluation.line_chart import Line, line_chart, svg

_COLORS = {WHOLE: "#1f2933", NETWORK: "#0b72c4", "decode": "#d9730d", "draw": "#2f9e6e"}
_AXES = {"pixels": "megapixels of the network's input", "people": "people in the photo", "batch": "photos in a batch"}


def curve_svg(curve: Curve) -> str:
    """Medians of the whole, the network, decoding and drawing; a band from the fastest to the slowest whole."""
    unit = 1e6 if curve.kind == "pixels" else 1
    points = sorted(curve.points, key=lambda point: point.amount)
    lines = [
        Line(
            stage,
            [(point.amount / unit, point.stages[stage].median_ms) for point in points if stage in point.stages],
            color,
        )
        for stage, color in _COLORS.items()
    ]
    band = [(p.amount / unit, p.stages[WHOLE].fastest_ms, p.stages[WHOLE].slowest_ms) for p in points]
    title = f"{curve.setting.label()}: median milliseconds"
    return svg([line_chart(title, _AXES[curve.kind], lines, band=band)])
