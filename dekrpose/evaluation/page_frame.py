"""What HTML pages of measurements share: everything inside, no script; narrow and wide windows, light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def html_page(model: str, data: str, command: str, sections: Iterable[str]) -> str:
    """A whole page: its heading, the command that gives the same numbers, and HTML sections."""
    title = escape(f"Evaluation of {model} on {data}")
    head = (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape(model)} <small>on {escape(data)}</small></h1>\n<p><code>{escape(command)}</code></p>\n"
    )
    return "\n".join([head, *sections, "</main>\n</body>\n</html>\n"])


def section(title: str, content: str, heading: str = "h2") -> str:
    """A section of HTML content."""
    return f"<section><{heading}>{escape(title)}</{heading}>{content}</section>"


def html_table(head: Sequence[str], rows: Iterable[Sequence[str]], css: str, own: int | None = None) -> str:
    """A table of a class of the style sheet; the row with the index ``own`` is marked."""
    titles = "".join(f'<th scope="col">{escape(title)}</th>' for title in head)
    body = "".join(
        f"<tr{' class=own' if index == own else ''}>{''.join(f'<td>{escape(value)}</td>' for value in row)}</tr>"
        for index, row in enumerate(rows)
    )
    return f'<div class="wide"><table class="{css}"><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'


STYLE = """
:root { color-scheme: light dark; --back: #fbfbf9; --card: #ffffff; --ink: #1d2126; --faint: #626973; --line: #dfe2e6;
  --one: #0b6bcb; --two: #b25e00; --three: #1c7c54; --bad: #c8322b; --mark: #fff3c9; }
@media (prefers-color-scheme: dark) {
  :root { --back: #15181c; --card: #1e2228; --ink: #e8eaed; --faint: #9aa3ae; --line: #343a43;
    --one: #5fb0ff; --two: #ffb05c; --three: #5fd3a0; --bad: #ff7b72; --mark: #3b3415; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: clamp(16px, 3vw, 40px); }
h1 { font-size: clamp(1.4rem, 4vw, 2rem); line-height: 1.2; margin: 0 0 .4rem; overflow-wrap: anywhere; }
h1 small { color: var(--faint); font-weight: 400; font-size: .65em; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .7rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .7rem; }
p { margin: .2rem 0; }
code { font-size: .86em; overflow-wrap: anywhere; }
.note, figcaption, small { color: var(--faint); font-size: .87rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: 10px; margin: 1.2rem 0; }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px; }
.tiles b { display: block; font-size: 1.5rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.tiles span { color: var(--faint); font-size: .82rem; line-height: 1.3; display: block; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 0 28px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: 4px 12px; text-align: left; border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--faint); white-space: nowrap; }
.measures td:nth-child(2), .numbers td, .numbers th { text-align: right; white-space: nowrap; }
.measures td:nth-child(1) { white-space: nowrap; }
.measures td:nth-child(3) { color: var(--faint); }
tr.own td { background: var(--mark); font-weight: 600; }
figure { margin: 0; }
.chart { display: block; width: 100%; max-width: 520px; }
.chart text { fill: var(--faint); font-size: 12px; }
.chart path, .chart polyline { fill: none; stroke-width: 2; stroke-linejoin: round; }
.chart .grid { stroke: var(--line); stroke-width: 1; }
.chart .one { stroke: var(--one); } .chart .two { stroke: var(--two); } .chart .three { stroke: var(--three); }
.chart circle.one { fill: var(--one); stroke: var(--back); }
.chart .ideal { stroke: var(--faint); stroke-dasharray: 4 4; }
.chart rect.share { fill: var(--line); } .chart path.share { stroke: var(--line); stroke-width: 8; }
.bar { display: grid; grid-template-columns: minmax(0, 17rem) 1fr 4rem; gap: 4px 12px; align-items: center; }
.bar i { background: var(--line); border-radius: 4px; height: 14px; overflow: hidden; }
.bar b { display: block; height: 100%; background: var(--two); }
.bar.good b { background: var(--three); } .bar.jitter b { background: var(--one); }
.bar.miss b { background: var(--bad); }
.bar em { font-style: normal; text-align: right; font-variant-numeric: tabular-nums; }
.bars { display: grid; gap: 8px; max-width: 760px; margin-bottom: .6rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 460px), 1fr)); gap: 16px;
  align-items: start; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 10px; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 8px; align-items: start; }
.pair img { display: block; width: 100%; height: auto; border-radius: 5px; }
.card figcaption { padding: 8px 4px 0; line-height: 1.4; }
.card figcaption b { color: var(--ink); font-size: 1.05rem; margin-right: .4em; }
@media (max-width: 560px) {
  .bar { grid-template-columns: 1fr 4rem; } .bar span { grid-column: 1 / -1; margin-bottom: -4px; }
  th, td { padding: 4px 8px; }
}
"""
