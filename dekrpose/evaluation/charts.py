"""Charts of a report as inline SVG, coloured by the page's style sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from dekrpose.evaluation.reliability import Reliability

_WIDTH = 400
_LEFT, _TOP, _RIGHT, _BELOW = 44, 34, 390, 50  # the plot within the picture
_SMALLEST_DOT, _LARGEST_DOT = 2.5, 9.0
_KEY, _LETTER = 36.0, 6.6  # widths in the legend
_HISTOGRAM = 0.18  # of the plot's height


@dataclass(frozen=True)
class _Plot:
    """Where numbers lie in a picture: from 0 to ``reach`` across, from 0 to ``top`` upwards."""

    reach: float = 1.0
    top: float = 1.0
    height: int = 340

    @property
    def bottom(self) -> int:
        return self.height - _BELOW

    def x(self, value: float) -> float:
        return _LEFT + float(value) * (_RIGHT - _LEFT) / self.reach

    def y(self, value: float) -> float:
        return self.bottom - float(value) * (self.bottom - _TOP) / self.top

    def polyline(self, xs: NDArray[np.floating], ys: NDArray[np.floating], css: str) -> str:
        known = np.isfinite(ys)
        points = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in zip(xs[known], ys[known], strict=True))
        return f'<polyline class="{css}" points="{points}"/>'

    def chart(
        self,
        title: str,
        labels: tuple[str, str],
        body: Sequence[str],
        legend: Sequence[tuple[str, str]],
        ticks: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0),
    ) -> str:
        """A picture: grid lines at shares of both axes, what is plotted, names of axes, names and classes of lines."""
        parts = [f'<svg class="chart" viewBox="0 0 {_WIDTH} {self.height}" role="img" aria-label="{escape(title)}">']
        for x, y in ((share * self.reach, share * self.top) for share in ticks):
            grid = f"M{self.x(x):.1f} {_TOP}V{self.bottom}M{_LEFT} {self.y(y):.1f}H{_RIGHT}"
            parts.append(f'<path class="grid" d="{grid}"/>')
            parts.append(_text(self.x(x), self.bottom + 17, f"{x:.4g}", "middle"))
            parts.append(_text(_LEFT - 7, self.y(y) + 4, f"{y:.4g}", "end"))
        parts += body
        parts.append(_text((_LEFT + _RIGHT) / 2, self.bottom + 40, labels[0], "middle"))
        place = f"translate(11 {(_TOP + self.bottom) / 2:.0f}) rotate(-90)"
        parts.append(f'<text transform="{place}" text-anchor="middle">{escape(labels[1])}</text>')
        left = float(_LEFT)
        for name, css in legend:
            parts.append(f'<path class="{css} key" d="M{left:.1f} 14h14"/>')
            parts.append(_text(left + 19, 18, name, "start"))
            left += _KEY + _LETTER * len(name)
        return "".join([*parts, "</svg>"])


def precision_recall_chart(curves: NDArray[np.float64]) -> str:
    """Precision against recall, from (10, 101) ``precision_curves``; all NaN where there is nobody to find."""
    recall, plot = np.linspace(0, 1, curves.shape[1]), _Plot()
    lines = [
        ("OKS 0.50", "one", curves[0]),
        ("OKS 0.75", "two", curves[5]),
        ("mean of ten: AP", "three", curves.mean(0)),
    ]
    body = [plot.polyline(recall, values, css) for _, css, values in lines]
    legend = [(name, css) for name, css, _ in lines]
    return plot.chart("Precision against recall", ("recall", "precision"), body, legend)


def reliability_chart(measured: Reliability) -> str:
    """Mean OKS against mean score in bins of scores, with the share of poses in each bin below."""
    plot, shares = _Plot(), measured.counts / max(int(measured.counts.sum()), 1)
    body = [f'<path class="ideal" d="M{plot.x(0):.1f} {plot.y(0):.1f}L{plot.x(1):.1f} {plot.y(1):.1f}"/>']
    highest = max(float(shares.max()), 1e-9)
    for low, high, share in zip(measured.edges[:-1], measured.edges[1:], shares, strict=True):
        top = plot.y(_HISTOGRAM * float(share) / highest)
        width, height = plot.x(high) - plot.x(low) - 1, plot.y(0) - top
        place = f'x="{plot.x(low):.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}"'
        body.append(f'<rect class="share" {place}/>')
    filled = measured.counts > 0
    scores, oks = measured.mean_scores[filled].clip(0, 1), measured.mean_oks[filled]
    body.append(plot.polyline(scores, oks, "one"))
    for score, similarity, share in zip(scores, oks, shares[filled], strict=True):
        radius = _SMALLEST_DOT + (_LARGEST_DOT - _SMALLEST_DOT) * float(np.sqrt(share / highest))
        body.append(f'<circle class="one" cx="{plot.x(score):.1f}" cy="{plot.y(similarity):.1f}" r="{radius:.1f}"/>')
    legend = [("mean of a bin", "one"), ("ideal", "ideal"), ("share of poses", "share")]
    return plot.chart("Reliability of scores", ("mean score", "mean OKS"), body, legend)


def series_chart(series: Mapping[str, NDArray[np.floating]], title: str, styles: Mapping[str, str]) -> str:
    """Scores of the best person over the frames of a clip: (T,) by method, 0 to 100; T is the same for all.

    ``styles`` maps methods to classes of the style sheet.
    """
    frames = max((len(values) for values in series.values()), default=1)
    top = max([10.0, *(float(values.max(initial=0)) for values in series.values())])
    plot = _Plot(max(frames - 1, 1), top, 228)
    legend = [(name, styles.get(name, "three")) for name in series]
    lines = [plot.polyline(np.arange(float(frames)), series[name], css) for name, css in legend]
    return plot.chart(title, (f"frame of {title}", "score"), lines, legend, (0.0, 0.5, 1.0))


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
