"""A comparison as one HTML page: the table, the verdict, and the local NMS score frame by frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from dekrpose.data.clips.clip import Floats
from dekrpose.evaluation.page_style import STYLE
from dekrpose.evaluation.video.compare import PER_FRAME, TEMPORAL, Results
from dekrpose.evaluation.video.report import Finding, conditions_of, methods_of, table, verdict

CLIPS = 3
"""Of each condition, how many are plotted."""
_WIDTH, _HEIGHT = 400, 220
_LEFT, _TOP, _RIGHT, _BOTTOM = 44, 34, 390, 178
_STYLES = {PER_FRAME: "two", TEMPORAL: "one"}  # smoothing changes no score


def comparison_page(results: Results, findings: Sequence[Finding], *, model: str, data: str, command: str) -> str:
    """The page as text.

    Args:
        results: see ``compare``.
        findings: criterion and controls; may be empty.
        model, data: names, for the heading.
        command: the command that gives the same numbers.
    """
    head, _, *rows = (line.strip("| ").split(" | ") for line in table(results).splitlines())
    title = f"{model} on {data}"
    return "".join(
        [
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<style>{STYLE}</style>\n</head>\n<body>\n<main>",
            f"<h1>{escape(model)} <small>on {escape(data)}</small></h1><p><code>{escape(command)}</code></p>",
            '<div class="wide"><table class="numbers"><thead>',
            _row(head, "th"),
            "</thead><tbody>",
            *(_row(row, "td") for row in rows),
            "</tbody></table></div>",
            f"<h2>Verdict</h2><pre>{escape(verdict(findings))}</pre>" if findings else "",
            "<h2>Local NMS score, frame by frame</h2>",
            f'<div class="two">{"".join(_charts(results))}</div>',
            "</main>\n</body>\n</html>\n",
        ]
    )


def series_chart(series: Mapping[str, Floats], title: str) -> str:
    """Scores of the best person over the frames of a clip, as inline SVG.

    Args:
        series: (T,) by method, 0 to 100; the methods share T.
        title: over the chart.
    """
    frames = max((len(values) for values in series.values()), default=1)
    top = max([10.0, *(float(values.max(initial=0)) for values in series.values())])

    def x(frame: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * frame / max(frames - 1, 1)

    def y(score: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * score / top

    parts = [f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">']
    for share in (0.0, 0.5, 1.0):
        parts.append(f'<path class="grid" d="M{_LEFT} {y(share * top):.1f}H{_RIGHT}"/>')
        parts.append(_text(_LEFT - 7, y(share * top) + 4, f"{share * top:.0f}", "end"))
        parts.append(_text(x(share * (frames - 1)), _BOTTOM + 17, f"{share * (frames - 1):.0f}", "middle"))
    left = float(_LEFT)
    for name, values in series.items():
        points = " ".join(f"{x(frame):.1f},{y(score):.1f}" for frame, score in enumerate(values.tolist()))
        css = _STYLES.get(name, "three")
        parts += [f'<polyline class="{css}" points="{points}"/>', f'<path class="{css} key" d="M{left:.1f} 14h14"/>']
        parts.append(_text(left + 19, 18, name, "start"))
        left += 36 + 6.6 * len(name)
    parts.append(_text((_LEFT + _RIGHT) / 2, _BOTTOM + 36, f"frame of {title}", "middle"))
    return "".join([*parts, "</svg>"])


def _charts(results: Results) -> list[str]:
    seed = min(key[2] for key in results)
    methods = [method for method in methods_of(results) if method in _STYLES]
    charts = []
    for condition in conditions_of(results):
        clips = min(CLIPS, len(results[condition, PER_FRAME, seed].clips))
        for number in range(clips):
            series = {method: results[condition, method, seed].clips[number].series for method in methods}
            charts.append(f"<figure>{series_chart(series, f'clip {number + 1}, {condition}')}</figure>")
    return charts


def _row(cells: Sequence[str], kind: str) -> str:
    return f"<tr>{''.join(f'<{kind}>{escape(cell)}</{kind}>' for cell in cells)}</tr>"


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
