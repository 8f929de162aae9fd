"""An evaluation as one HTML page: everything inside, no script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from dekrpose.errors import counted
from dekrpose.evaluation.charts import precision_recall_chart, reliability_chart
from dekrpose.evaluation.coco_ap import precision_curves
from dekrpose.evaluation.errors import Mark, best_and_worst, keypoint_errors, mark_photos
from dekrpose.evaluation.evaluate import SWEEP, Report, decimal, percent, sweep
from dekrpose.evaluation.page_frame import html_page, html_table, section
from dekrpose.evaluation.pictures import annotated_picture, jpeg_uri, predicted_picture
from dekrpose.evaluation.predictions import Predictions, results_json
from dekrpose.evaluation.reliability import Reliability, reliability

PHOTOS = 8
"""How many of the best and how many of the worst photos are shown."""
PICTURE_SIDE = 360
"""Longer side of a picture at most, pixels."""
_MOST_NAMES = 6
_ERROR_WORDS = {
    "good": "close to its place",
    "jitter": "near its place",
    "inversion": "near the other side's keypoint",
    "swap": "near somebody else's",
    "miss": "near nobody's",
}
_WRONG_WORDS = {"miss": "missed", "inversion": "on the wrong side", "swap": "on somebody else"}


def evaluation_page(predictions: Predictions, measures: Report, *, model: str, data: str, command: str) -> str:
    """The page as text, with the command that gives the same numbers.

    The score threshold of the measures holds for the whole page. DekrPoseError if a shown photo, which is read again,
    cannot be read; ImportError if faster-coco-eval is missing.
    """
    threshold = measures.score_threshold
    best, worst = best_and_worst(mark_photos(predictions, threshold), PHOTOS)
    sections = [
        _tiles(measures),
        _measures(measures),
        f'<div class="two">{_curves(predictions)}{_reliability(reliability(predictions))}</div>',
        section("How keypoints go wrong", _errors(predictions, threshold)),
        section("Score thresholds", _thresholds(predictions, threshold)),
        section("Photos", _LEGEND),
        _photos("Best photos", best, predictions, threshold),
        _photos("Worst photos", worst, predictions, threshold),
    ]
    return html_page(model, data, command, sections)


def _tiles(measures: Report) -> str:
    values = {
        "AP": decimal(100 * measures.ap["AP"], 1),
        "AR": decimal(100 * measures.ap["AR"], 1),
        "PCK@0.2": percent(measures.pck),
        "recall": percent(measures.recall),
        "precision": percent(measures.precision),
        "false people per photo of nobody": decimal(measures.false_people, 2),
        "photos per second": decimal(measures.images_per_second, 1),
    }
    tiles = (f"<div><b>{value}</b><span>{escape(name)}</span></div>" for name, value in values.items() if value != "-")
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _measures(measures: Report) -> str:
    rows = measures.rows()
    general, by_oks = rows[: -len(measures.ap)], rows[-len(measures.ap) :]
    parts = [[row[:2] for row in by_oks if row[0].startswith(name)] for name in ("AP", "AR")]
    pair = "".join(html_table(("measure", "value"), part, "measures") for part in parts)
    note = "Of everybody whatever their score. M and L are people from 32 x 32 and from 96 x 96 pixels, S the smaller."
    if "AP_easy" in measures.ap:
        note = "Of everybody whatever their score; easy, medium and hard are photos by how crowded they are."
    averages = section("AP and AR", f'<div class="pair">{pair}</div><p class="note">{note}</p>')
    table = html_table(("measure", "value", ""), general, "measures")
    return f'<div class="two">{section("Measures", table)}{averages}</div>'


def _curves(predictions: Predictions) -> str:
    results = results_json(predictions.photos, predictions.people)
    chart = precision_recall_chart(precision_curves(predictions.dataset, results, photos=predictions.photos))
    note = "Of everybody, whatever their score; the best precision at or above each recall, 20 poses per photo."
    return section("Precision and recall", f"<figure>{chart}<figcaption>{note}</figcaption></figure>")


def _reliability(measured: Reliability) -> str:
    note = (
        "Of everybody: a pose's OKS is that with the person it fits best. "
        f"Expected calibration error {decimal(measured.calibration_error, 3)}; correlation of score and OKS "
        f"{decimal(measured.pearson, 2)}, of their ranks (which decide AP) {decimal(measured.spearman, 2)}."
    )
    return section(
        "Reliability of scores", f"<figure>{reliability_chart(measured)}<figcaption>{note}</figcaption></figure>"
    )


def _errors(predictions: Predictions, threshold: float) -> str:
    shares = keypoint_errors(predictions.photos, predictions.shown(threshold), predictions.dataset.skeleton)
    if any(math.isnan(share) for share in shares.values()):
        return "<p>No pose belongs to anybody.</p>"
    rows = (
        f'<div class="bar {kind}"><span>{kind} <small>{_ERROR_WORDS[kind]}</small></span>'
        f'<i><b style="width:{100 * share:.1f}%"></b></i><em>{percent(share)}</em></div>'
        for kind, share in shares.items()
    )
    note = "Of the labelled keypoints of people of at least 32 x 32 pixels to whom a pose belongs (OKS 0.1 or more)."
    return f'<div class="bars">{"".join(rows)}</div><p class="note">{note}</p>'


def _thresholds(predictions: Predictions, threshold: float) -> str:
    rows = sweep(predictions, sorted({*SWEEP, threshold}))
    head = ("score ≥", "poses", "PCK@0.2", "recall", "recall, small", "precision", "false people")
    body = [
        (
            *(f"{row.score_threshold:g}", f"{row.predictions}", percent(row.pck), percent(row.recall)),
            *(percent(row.recall_small), percent(row.precision), decimal(row.false_people, 3)),
        )
        for row in rows
    ]
    own = next(index for index, row in enumerate(rows) if row.score_threshold == threshold)
    note = (
        "The marked row is the threshold of this page. Recall and precision at OKS 0.5; small is below 32 x 32 pixels."
    )
    return html_table(head, body, "numbers", own) + f'<p class="note">{note}</p>'


_LEGEND = (
    '<p class="note">A pose belongs to the annotated person that it fits best, from an OKS of 0.1, best scores first. '
    "A photo's mark is the mean OKS of its annotated people, 0 for those without a pose, less one for each pose of "
    "nobody, per person: 1 is perfect. Left the predicted poses, with a red box around those of nobody; right the "
    "annotated people, with a red box around those who are missed and a grey one around those who do not count, "
    "because nobody labelled their keypoints. Blue is a person's left, amber the right.</p>"
)


def _photos(title: str, marks: Sequence[Mark], predictions: Predictions, threshold: float) -> str:
    if not marks:
        return section(title, "<p>None.</p>", "h3")
    cards = "".join(_card(mark, predictions, threshold) for mark in marks)
    return section(title, f'<div class="cards">{cards}</div>', "h3")


def _card(mark: Mark, predictions: Predictions, threshold: float) -> str:
    photo, skeleton = predictions.photos[mark.photo], predictions.dataset.skeleton
    image = predictions.dataset.read(mark.photo)
    shown = predictions.people[mark.photo].shown(threshold)
    pictures = (
        ("predicted", predicted_picture(image, shown, mark, skeleton, PICTURE_SIDE)),
        ("annotated", annotated_picture(image, photo, mark, skeleton, PICTURE_SIDE)),
    )
    name = escape(photo.file_name)
    images = "".join(
        f'<img src="{jpeg_uri(picture)}" alt="{kind} poses in {name}" '
        f'width="{picture.shape[1]}" height="{picture.shape[0]}">'
        for kind, picture in pictures
    )
    lines = "".join(f"<p>{escape(line)}</p>" for line in _words(mark))
    caption = f"<figcaption><p><b>{mark.value:.2f}</b> <code>{name}</code></p>{lines}</figcaption>"
    return f'<figure class="card"><div class="pair">{images}</div>{caption}</figure>'


def _words(mark: Mark) -> list[str]:
    """What was found and what was missed, in a few lines."""
    people, missed = len(mark.oks), sum(oks == 0 for oks in mark.oks)
    found = [oks for oks in mark.oks if oks > 0]
    lines = [counted(people, "person", "people") + " annotated" if people else "nobody annotated"]
    if found:
        mean = f"OKS {sum(found) / len(found):.2f}"
        lines[0] += f", {mean}" if people == 1 else f", {len(found)} with a pose, mean {mean}"
    if missed:
        lines.append(f"missed: {counted(missed, 'person', 'people')}")
    if mark.false:
        lines.append(f"{counted(len(mark.false), 'pose')} of nobody")
    for kind, words in _WRONG_WORDS.items():
        counts = sorted(mark.wrong[kind].items(), key=lambda item: -item[1])
        if counts:
            names = [name.replace("_", " ") + (f" ({count})" if count > 1 else "") for name, count in counts]
            more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
            lines.append(f"{words}: {', '.join(names[:_MOST_NAMES])}{more}")
    return lines
