from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dekrpose.evaluation.charts import precision_recall_chart, reliability_chart
from dekrpose.evaluation.errors import Mark, best_and_worst, mark_photos
from dekrpose.evaluation.evaluate import report
from dekrpose.evaluation.page import evaluation_page
from dekrpose.evaluation.page_frame import STYLE
from dekrpose.evaluation.predictions import Prediction, Predictions
from dekrpose.evaluation.reliability import reliability_of
from dekrpose.formats import write_whole
from dekrpose.skeletons import COCO_17
from tests.evaluation_people import dataset, hide, human, standing, unlabelled

LEFT, RIGHT, FAR = standing(60, 50), standing(200, 60), standing(600, 50)
NAMES = ["good.png", "a <b>&amp;.png", "nobody.png", "empty.png"]
VOID = {"meta", "img", "br"}
Pose = tuple[NDArray[np.float32], float]


def made_up(folder: Path) -> Predictions:
    """One photo all right; one with a wrong wrist, somebody missed and a pose of nobody; nobody with a pose; nobody."""
    for name in NAMES:
        Image.new("RGB", (320, 240), (90, 110, 90)).save(folder / name)
    annotations = [human(1, LEFT), human(2, LEFT), human(2, RIGHT), unlabelled(2, (0.0, 150.0, 50.0, 80.0))]
    data = dataset(folder, NAMES, annotations)
    wrong = LEFT.copy()
    wrong[9] += 60
    on_ignored = standing(25, 150, 80)
    people: list[list[Pose]] = [
        [(LEFT, 0.9)],
        [(wrong, 0.8), (FAR, 0.4), (on_ignored, 0.3), (RIGHT, 0.01)],
        [(FAR, 0.3)],
        [],
    ]
    found = [Prediction.of([p for p, _ in here], np.ones((len(here), 17)), [s for _, s in here], 17) for here in people]
    return Predictions(data, data.photos, found, 1.0)


class Reader(HTMLParser):
    """Checks that tags are closed, and collects what is there."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.tags: list[str] = []
        self.words = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture
def page(tmp_path: Path) -> str:
    pytest.importorskip("faster_coco_eval")
    predictions = made_up(tmp_path)
    measures = report(predictions, 0.05)
    return evaluation_page(predictions, measures, model="my <model>", data="people.json", command="dekrpose eval x")


def test_marks_by_hand(tmp_path: Path) -> None:
    good, poor, nobody, empty = mark_photos(made_up(tmp_path), 0.05)
    assert (good.oks, good.false, good.value) == ((pytest.approx(1),), (), pytest.approx(1))
    assert poor.oks == (pytest.approx(16 / 17), 0.0)
    assert poor.false == (1,), "the pose on the ignored person does not count"
    assert poor.value == pytest.approx((16 / 17 - 1) / 2)
    assert poor.wrong == {"inversion": {}, "swap": {}, "miss": {"left_wrist": 1}}
    assert (nobody.oks, nobody.false, nobody.value) == ((), (0,), -1)
    assert (empty.oks, empty.false, empty.value) == ((), (), 0)
    everybody = mark_photos(made_up(tmp_path), 0)[1]
    assert everybody.oks == (pytest.approx(16 / 17), pytest.approx(1))


def test_keypoints_without_labels_are_not_wrong(tmp_path: Path) -> None:
    data = dataset(tmp_path, ["a.jpg"], [hide(human(1, LEFT), 9)])
    wrong = LEFT.copy()
    wrong[9] += 60
    found = Predictions(data, data.photos, [Prediction.of([wrong], np.ones((1, 17)), [0.9], 17)], 1.0)
    assert mark_photos(found, 0)[0].wrong["miss"] == {}


def test_best_and_worst_have_no_photo_in_common() -> None:
    marks = [Mark(0, (0.5,), (), {}), Mark(1, (0.9,), (), {}), Mark(2, (0.9, 0.9), (), {}), Mark(3, (), (0,), {})]
    marks += [Mark(4, (), (), {}), Mark(5, (0.0,), (), {})]
    best, worst = best_and_worst(marks, 8)
    assert [mark.photo for mark in best] == [2, 1, 0]
    assert [mark.photo for mark in worst] == [3, 5]
    assert [[mark.photo for mark in part] for part in best_and_worst(marks, 1)] == [[2], [3]]
    assert best_and_worst(marks[:1], 8) == ([marks[0]], [])
    assert best_and_worst([], 8) == ([], [])


def test_the_page_needs_nothing_else(page: str) -> None:
    reader = Reader(page)
    assert not {"script", "link", "iframe", "object"} & set(reader.tags)
    sources = [value for name, value in reader.attributes if name in ("src", "href", "srcset", "xlink:href")]
    assert len(sources) == 6
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert "url(" not in page
    assert "@import" not in page
    assert "http" not in page


def test_crowdpose_pages_have_its_classes(tmp_path: Path) -> None:
    pytest.importorskip("faster_coco_eval")
    predictions = made_up(tmp_path)
    measures = report(predictions, 0.05)
    classes = replace(measures, ap={"AP": 0.5, "AP_easy": 0.625, "AP_medium": float("nan"), "AR": 0.75})
    words = Reader(evaluation_page(predictions, classes, model="m", data="d", command="c")).words
    assert "AP_easy62.5AP_medium-" in words
    assert "how crowded" in words


def test_names_are_escaped(page: str) -> None:
    words = Reader(page).words
    assert "my <model>" in words
    assert "a <b>&amp;.png" in words


def test_the_page_says_what_was_missed(page: str) -> None:
    words = Reader(page).words
    for part in (
        *("missed: 1 person", "missed: left wrist", "1 pose of nobody", "nobody annotated"),
        *("2 people annotated, 1 with a pose, mean OKS 0.94", "Reliability of scores", "PCK@0.2", "0.075", "jitter"),
    ):
        assert part in words, part
    assert page.index("Best photos") < page.index("good.png") < page.index("Worst photos") < page.index("nobody.png")
    assert page.count("class=own") == 1


def test_pictures_are_small_and_show_poses_and_red_boxes(tmp_path: Path, page: str) -> None:
    pictures = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).astype(int)
        for data in re.findall(r"base64,([^\"]+)", page)
    ]
    assert all(max(picture.shape) <= 360 for picture in pictures)
    red = [bool((np.abs(picture - (255, 64, 64)).max(axis=2) < 40).any()) for picture in pictures]
    # all right, then a pose of nobody and somebody missed, then nobody with a pose: predicted and annotated of each
    assert red == [False, False, True, True, True, False]
    assert all((np.abs(picture - picture[0, 0]).max(axis=2) > 60).any() for picture in pictures[:2])


def test_large_photos_are_shrunk(tmp_path: Path) -> None:
    from dekrpose.evaluation.pictures import annotated_picture, predicted_picture

    data = dataset(tmp_path, ["a.png"], [human(1, standing(500, 100, 800))])
    image = np.full((1000, 2000, 3), 128, np.uint8)
    found = Predictions(data, data.photos, [Prediction.of([standing(500, 100, 800)], np.ones((1, 17)), [1], 17)], 1.0)
    (mark,) = mark_photos(found, 0)
    annotated = annotated_picture(image, data.photos[0], mark, COCO_17, 100)
    predicted = predicted_picture(image, found.people[0], mark, COCO_17, 100)
    assert annotated.shape == (50, 100, 3)
    np.testing.assert_array_equal(annotated, predicted)
    drawn = np.argwhere((annotated != 128).any(axis=2)).mean(axis=0)
    np.testing.assert_allclose(drawn, [25, 25], atol=5)
    assert (image == 128).all()


def test_nobody_predicted_still_makes_a_page(tmp_path: Path) -> None:
    pytest.importorskip("faster_coco_eval")
    predictions = made_up(tmp_path)
    nobody = Predictions(predictions.dataset, predictions.photos, [Prediction.of([], [], [], 17)] * 4, 1.0)
    reader = Reader(evaluation_page(nobody, report(nobody, 0.05), model="m", data="d", command="c"))
    assert "No pose belongs to anybody" in reader.words
    assert "missed: 2 people" in reader.words
    assert "nan" not in reader.words


def test_charts_are_well_formed_and_inside_their_frame() -> None:
    rng = np.random.default_rng(0)
    curves = np.sort(rng.uniform(size=(10, 101)))[:, ::-1]
    charts = [
        *(precision_recall_chart(curves), precision_recall_chart(np.full((10, 101), np.nan))),
        *(reliability_chart(reliability_of(rng.uniform(-0.2, 1.4, 50), rng.uniform(size=50))),),
        *(reliability_chart(reliability_of(np.zeros(0), np.zeros(0))),),
    ]
    for chart in charts:
        root = ElementTree.fromstring(chart)
        assert "nan" not in chart
        for line in root.iter("polyline"):
            points = [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
            assert all(40 <= x <= 400 and 0 <= y <= 300 for x, y in points)
        used = {name for element in root.iter() for name in element.attrib.get("class", "").split()} - {"key", "chart"}
        assert all(f".{name}" in STYLE for name in used)


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "page.html"
    write_whole(path, "first")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        write_whole(path, "second")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]
