"""Charts of a report as inline SVG, coloured by the page's style sheet."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from dekrpose.evaluation.reliability import Reliability

_WIDTH, _HEIGHT = 400, 340
_LEFT, _TOP, _RIGHT, _BOTTOM = 44, 34, 390, 290  # the plot within the picture
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
_SMALLEST_DOT, _LARGEST_DOT = 2.5, 9.0
_KEY, _LETTER = 36.0, 6.6  # widths in the legend
_HISTOGRAM = 0.18  # of the plot's height


def precision_recall_chart(curves: NDArray[np.float64]) -> str:
    """Precision against recall.

    Args:
        curves: (10, 101), see ``precision_curves``; all NaN where there is nobody to find.
    """
    recall = np.linspace(0, 1, curves.shape[1])
    lines = [
        ("OKS 0.50", "one", curves[0]),
        ("OKS 0.75", "two", curves[5]),
        ("mean of ten: AP", "three", curves.mean(0)),
    ]
    body = [_polyline(recall, values, css) for _, css, values in lines]
    return _chart("Precision against recall", "recall", "precision", body, [(name, css) for name, css, _ in lines])


def reliability_chart(measured: Reliability) -> str:
    """Mean OKS against mean score in bins of scores, with the share of poses in each bin below.

    Args:
        measured: see ``reliability``.
    """
    total = max(int(measured.counts.sum()), 1)
    shares = measured.counts / total
    body = [f'<path class="ideal" d="M{_x(0):.1f} {_y(0):.1f}L{_x(1):.1f} {_y(1):.1f}"/>']
    highest = max(float(shares.max()), 1e-9)
    for low, high, share in zip(measured.edges[:-1], measured.edges[1:], shares, strict=True):
        top = _y(_HISTOGRAM * float(share) / highest)
        width, height = _x(high) - _x(low) - 1, _y(0) - top
        body.append(f'<rect class="share" x="{_x(low):.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}"/>')
    filled = measured.counts > 0
    scores, oks = measured.mean_scores[filled].clip(0, 1), measured.mean_oks[filled]
    body.append(_polyline(scores, oks, "one"))
    for score, similarity, share in zip(scores, oks, shares[filled], strict=True):
        radius = _SMALLEST_DOT + (_LARGEST_DOT - _SMALLEST_DOT) * float(np.sqrt(share / highest))
        body.append(f'<circle class="one" cx="{_x(score):.1f}" cy="{_y(similarity):.1f}" r="{radius:.1f}"/>')
    legend = [("mean of a bin", "one"), ("ideal", "ideal"), ("share of poses", "share")]
    return _chart("Reliability of scores", "mean score", "mean OKS", body, legend)


def _chart(title: str, x_label: str, y_label: str, body: Sequence[str], legend: Sequence[tuple[str, str]]) -> str:
    parts = [f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">']
    for tick in _TICKS:
        parts.append(f'<path class="grid" d="M{_x(tick):.1f} {_TOP}V{_BOTTOM}M{_LEFT} {_y(tick):.1f}H{_RIGHT}"/>')
        parts.append(_text(_x(tick), _BOTTOM + 17, f"{tick:g}", "middle"))
        parts.append(_text(_LEFT - 7, _y(tick) + 4, f"{tick:g}", "end"))
    parts += body
    parts.append(_text((_LEFT + _RIGHT) / 2, _BOTTOM + 40, x_label, "middle"))
    middle = (_TOP + _BOTTOM) / 2
    parts.append(
        f'<text transform="translate(11 {middle:.0f}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>'
    )
    left = float(_LEFT)
    for name, css in legend:
        parts.append(f'<path class="{css} key" d="M{left:.1f} 14h14"/>')
        parts.append(_text(left + 19, 18, name, "start"))
        left += _KEY + _LETTER * len(name)
    return "".join([*parts, "</svg>"])


def _polyline(xs: NDArray[np.float64], ys: NDArray[np.float64], css: str) -> str:
    known = np.isfinite(ys)
    points = " ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in zip(xs[known], ys[known], strict=True))
    return f'<polyline class="{css}" points="{points}"/>'


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _x(value: float) -> float:
    return _LEFT + float(value) * (_RIGHT - _LEFT)


def _y(value: float) -> float:
    return _BOTTOM - float(value) * (_BOTTOM - _TOP)
