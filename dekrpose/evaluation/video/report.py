"""What a comparison found: the table, the verdict in words, numbers for JSON, one HTML page with charts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from dekrpose.evaluation.charts import series_chart
from dekrpose.evaluation.evaluate import decimal
from dekrpose.evaluation.page_frame import html_page, html_table, section
from dekrpose.evaluation.video.compare import (
    METHODS,
    ONE_EURO,
    PER_FRAME,
    RESET,
    SHUFFLED,
    TEMPORAL,
    Bootstrap,
    Interval,
    Results,
    summary,
)

CLIPS = 3
"""Of each condition, how many are plotted."""
_STYLES = {PER_FRAME: "two", TEMPORAL: "one"}  # smoothing changes no score
_COLUMNS = ("local NMS score", "OKS", "AP", "acceleration error", "lag")
_DIGITS = (1, 1, 1, 2, 2)
_ERROR_ON_CLEAN = "the acceleration error on clean clips is not significantly higher"


@dataclass(frozen=True)
class Finding:
    """One part of the criterion: what it asks for, whether it is so, and the numbers behind it."""

    words: str
    holds: bool
    numbers: str


def methods_of(results: Results) -> list[str]:
    """The methods that were run, in the order of the table."""
    return [method for method in METHODS if any(key[1] == method for key in results)]


def conditions_of(results: Results) -> list[str]:
    """The conditions in the order in which they were run."""
    return list(dict.fromkeys(condition for condition, _, _ in results))


def table(results: Results) -> str:
    """All methods under all conditions, means over seeds, as Markdown."""
    lines = [f"| clips | method | {' | '.join(_COLUMNS)} |", f"|---|---|{'---|' * len(_COLUMNS)}"]
    for condition in conditions_of(results):
        for method in methods_of(results):
            values = summary(results, condition, method).values()
            cells = [decimal(value, digits) for value, digits in zip(values, _DIGITS, strict=True)]
            lines.append(f"| {condition} | {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def criterion(results: Results, bootstrap: Bootstrap) -> list[Finding]:
    """What a network for video must show, part by part.

    It passes when it beats the image model on AP and on acceleration error under corruption, with intervals that leave
    out 0, loses nothing significant on clean clips, and lags no more than the filter.
    """
    conditions = conditions_of(results)
    spoilt, clean = [[name for name in conditions if (name == "clean") == wanted] for wanted in (False, True)]
    findings = []
    for chosen, better, error, surely in (
        (spoilt, "AP is higher under corruption", "the acceleration error is lower under corruption", True),
        (clean, "AP on clean clips is not significantly lower", _ERROR_ON_CLEAN, False),
    ):
        if chosen:
            precision = bootstrap.precision(TEMPORAL, PER_FRAME, chosen)
            jitter = bootstrap.acceleration(TEMPORAL, PER_FRAME, chosen)
            holds = (precision.above, jitter.below) if surely else (not precision.below, not jitter.above)
            findings.append(Finding(better, holds[0], f"by {words(precision)} points"))
            findings.append(Finding(error, holds[1], f"by {words(jitter)} % of a size"))
    late = bootstrap.lag(TEMPORAL, ONE_EURO, conditions)
    return [*findings, Finding("it lags no more than the filter", late.value <= 0, f"by {words(late)} frames")]


def controls(results: Results, bootstrap: Bootstrap) -> list[Finding]:
    """The negative controls, when they were run."""
    if RESET not in methods_of(results):
        return []
    conditions = conditions_of(results)
    spoilt = [condition for condition in conditions if condition != "clean"] or conditions
    same = bootstrap.precision(RESET, PER_FRAME, conditions), bootstrap.acceleration(RESET, PER_FRAME, conditions)
    shuffled = bootstrap.precision(SHUFFLED, PER_FRAME, spoilt)
    jitter = bootstrap.acceleration(SHUFFLED, PER_FRAME, spoilt)
    return [
        Finding(
            "reset at every frame, the advantage is exactly 0",
            all(interval == Interval(0.0, 0.0, 0.0) for interval in same),
            f"AP {words(same[0])}, acceleration error {words(same[1])}",
        ),
        Finding("in shuffled order the advantage in AP is gone", not shuffled.above, words(shuffled)),
        Finding("in shuffled order the advantage in acceleration error is gone", not jitter.below, words(jitter)),
    ]


def verdict(findings: Sequence[Finding]) -> str:
    """The findings line by line, and whether all hold."""
    lines = [f"{'yes' if finding.holds else 'NO '}  {finding.words}: {finding.numbers}" for finding in findings]
    failed = sum(not finding.holds for finding in findings)
    last = f"does not pass: {failed} of {len(findings)} do not hold." if failed else "passes the criterion."
    return "\n".join([*lines, f"The memory {last}"])


def numbers(results: Results, findings: Sequence[Finding]) -> dict[str, Any]:
    """Everything for JSON: measures by condition and method, the mean series, the findings."""
    measures = {
        condition: {method: _finite(summary(results, condition, method)) for method in methods_of(results)}
        for condition in conditions_of(results)
    }
    return {"measures": measures, "criterion": [asdict(finding) for finding in findings]}


def words(interval: Interval) -> str:
    """Such as "+1.24 (0.31 to 2.20)"."""
    return f"{interval.value:+.2f} ({interval.low:.2f} to {interval.high:.2f})"


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


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
