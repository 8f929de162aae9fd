"""A comparison as one HTML page: the table, the verdict, and the local NMS score frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from dekrpose.evaluation.charts import series_chart
from dekrpose.evaluation.page_frame import html_page, html_table, section
from dekrpose.evaluation.video.compare import PER_FRAME, TEMPORAL, Results
from dekrpose.evaluation.video.report import Finding, conditions_of, methods_of, table, verdict

CLIPS = 3
"""Of each condition, how many are plotted."""
_STYLES = {PER_FRAME: "two", TEMPORAL: "one"}  # smoothing changes no score


def comparison_page(results: Results, findings: Sequence[Finding], *, model: str, data: str, command: str) -> str:
    """The page as text; without findings it has no verdict. Model, data and command are as in ``evaluation_page``."""
    head, _, *rows = (line.strip("| ").split(" | ") for line in table(results).splitlines())
    sections = [html_table(head, rows, "numbers")]
    sections += [section("Verdict", f"<pre>{escape(verdict(findings))}</pre>")] if findings else []
    charts = f'<div class="two">{"".join(_charts(results))}</div>'
    return html_page(model, data, command, [*sections, section("Local NMS score, frame by frame", charts)])


def _charts(results: Results) -> list[str]:
    seed = min(key[2] for key in results)
    methods = [method for method in methods_of(results) if method in _STYLES]
    charts = []
    for condition in conditions_of(results):
        for number in range(min(CLIPS, len(results[condition, PER_FRAME, seed].clips))):
            series = {method: results[condition, method, seed].clips[number].series for method in methods}
            charts.append(f"<figure>{series_chart(series, f'clip {number + 1}, {condition}', _STYLES)}</figure>")
    return charts
