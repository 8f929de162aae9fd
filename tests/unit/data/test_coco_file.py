"""Faults of COCO files: other categories, ids of two types, null, and values that are something else."""

from __future__ import annotations

import copy
import json
import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dekrpose.cli import main
from dekrpose.data.coco_fields import as_id, same_id
from dekrpose.data.dataset import KeypointDataset
from dekrpose.errors import DekrPoseError
from dekrpose.evaluation.coco_ap import coco_average_precision
from dekrpose.evaluation.evaluate import report
from dekrpose.evaluation.predictions import Prediction, Predictions, results_json
from dekrpose.skeletons import COCO_17, Skeleton
from dekrpose.training.check import check_dataset
from dekrpose.training.skeleton_file import skeleton_of
from tests.evaluation_people import human, standing, unlabelled

CASES = Path(__file__).parents[2] / "cases" / "coco"
EXAMPLES = Path(__file__).parents[3] / "examples"
PERSON = {"id": 1, "name": "person", "keypoints": list(COCO_17.keypoints)}
CAR = {"id": 3, "name": "car"}
DOG = {"id": 2, "name": "dog", "keypoints": ["nose", "tail"]}
TWO = Skeleton("two", ("a", "b"), ((0, 1),), (), (0.067, 0.067))


def people(categories: Any, *annotations: dict[str, Any], ids: tuple[Any, ...] = (1, 2)) -> dict[str, Any]:
    images = [{"id": own, "file_name": f"{n}.jpg", "width": 320, "height": 240} for n, own in enumerate(ids)]
    content = {"images": images, "annotations": list(annotations)}
    return content if categories is None else {**content, "categories": categories}


def person(**fields: Any) -> dict[str, Any]:
    return human(1, standing(60, 50), id=1, **fields)


def car(**fields: Any) -> dict[str, Any]:
    return {"id": 2, "image_id": 1, "category_id": 3, "iscrowd": 0, "bbox": [0, 0, 320, 240], "area": 76800, **fields}


def read(folder: Path, content: Any, skeleton: Skeleton = COCO_17) -> KeypointDataset:
    path = folder / "people.json"
    path.write_text(json.dumps(content))
    return KeypointDataset(path, skeleton=skeleton)


def counts(data: KeypointDataset) -> list[int]:
    return [len(photo.people) for photo in data.photos]


def kinds(folder: Path, content: Any, skeleton: Skeleton = COCO_17) -> dict[str, tuple[str, ...]]:
    path = folder / "people.json"
    path.write_text(json.dumps(content))
    found = {problem.kind: problem.examples for problem in check_dataset(path, None, skeleton)}
    return {kind: examples for kind, examples in found.items() if kind not in ("photo-missing", "photo-empty")}


def test_a_car_changes_no_measure() -> None:
    pytest.importorskip("faster_coco_eval")
    person = KeypointDataset(CASES / "person.json").photos[0].people[0]
    found = np.stack([person.keypoints[:, :2], standing(100, 100, 90)])
    measured = []
    for name in ("person", "person_and_car", "car_only", "nobody"):
        data = KeypointDataset(CASES / f"{name}.json", [EXAMPLES])
        assert not data.ignored_mask(0).any()
        prediction = Prediction.of(found, np.ones((2, 17)), [0.9, 0.8], 17)
        measured.append(report(Predictions(data, data.photos, [prediction], 1.0), 0.05).to_dict())
    assert measured[0] == measured[1]
    assert measured[2] == measured[3]
    assert (measured[0]["precision"], measured[0]["ap"]["AP"]) == (0.5, 1.0)
    assert (measured[2]["precision"], measured[2]["false_people"]) == (0.0, 2.0)


def test_skipped_annotations_are_counted_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = people([PERSON, CAR], person(), car(id=2), car(id=3), car(id=4, category_id=77))
    with caplog.at_level(logging.WARNING):
        assert counts(read(tmp_path, content)) == [1, 0]
    (line,) = caplog.messages
    assert line.endswith("3 annotations of other categories are skipped: car (2), category_id 77 (1)")
    assert kinds(tmp_path, content) == {
        "other-category": ("3 annotations of other categories are skipped: car (2), category_id 77 (1)",)
    }


def test_a_broken_car_changes_nothing_either(tmp_path: Path) -> None:
    broken = car(bbox="all", area=None, keypoints=[1], image_id=99, segmentation=7)
    assert counts(read(tmp_path, people([PERSON, CAR], person(), broken))) == [1, 0]
    assert set(kinds(tmp_path, people([PERSON, CAR], person(), broken))) == {"other-category"}


def test_unlabelled_people_and_crowds_of_the_category_stay_masked(tmp_path: Path) -> None:
    crowd = unlabelled(1, (200, 0, 40, 40), iscrowd=1)
    data = read(tmp_path, people([PERSON, CAR], person(), unlabelled(1, (0, 0, 20, 20)), crowd, car()))
    assert [own.ignored for own in data.photos[0].people] == [False, True, True]
    assert [own.crowd for own in data.photos[0].people] == [False, False, True]
    assert data.ignored_mask(0).sum() == 20 * 20 + 40 * 40


@pytest.mark.parametrize(
    ("categories", "fields", "kept"),
    [
        (None, {}, 2),  # a file that knows no categories: the car has none either
        ([], {}, 2),
        ([PERSON, CAR], {}, 2),  # no category_id: nothing speaks against it
        ([PERSON, CAR], {"category_id": None}, 2),
        (None, {"category_id": 3}, 1),  # people with keypoints are of category 1, so 3 is something else
        ([], {"category_id": 3}, 1),
        ([{"id": 1, "name": "person"}, CAR], {"category_id": 3}, 1),
        ([PERSON, CAR], {"category_id": "3"}, 1),
        ([{**PERSON, "id": "1"}, CAR], {"category_id": 3}, 1),
        ([{**PERSON, "id": "person"}, CAR], {"category_id": 3}, 0),  # then 1 is not the person either
        ([{**PERSON, "id": None}, CAR], {"category_id": 3}, 1),  # anything but the car
        ([PERSON, DOG], {"category_id": 2}, 1),
        ([PERSON, {**PERSON, "id": 3, "name": "child"}], {"category_id": 3}, 2),  # the same keypoints
    ],
)
def test_what_counts_without_and_with_several_categories(
    tmp_path: Path, categories: Any, fields: dict[str, Any], kept: int
) -> None:
    other = {key: value for key, value in car().items() if key != "category_id"}
    data = read(tmp_path, people(categories, person(), other | fields))
    assert counts(data) == [kept, 0]


def test_of_people_and_animals_those_of_the_skeleton_count(tmp_path: Path) -> None:
    dog = {"id": 5, "image_id": 2, "category_id": 2, "keypoints": [5, 5, 2, 30, 9, 2], "bbox": [4, 4, 30, 8]}
    content = people([PERSON, DOG], person(), dog)
    path = tmp_path / "people.json"
    assert counts(read(tmp_path, content)) == [1, 0]
    with pytest.raises(DekrPoseError, match=r'make a file of each, or choose by "names" in a skeleton file'):
        skeleton_of(path)
    (tmp_path / "dog.json").write_text(json.dumps({"names": DOG["keypoints"]}))
    skeleton = skeleton_of(path, tmp_path / "dog.json")
    assert (skeleton.name, skeleton.keypoints) == ("dog-2", ("nose", "tail"))
    assert counts(read(tmp_path, content, skeleton)) == [0, 1]
    assert set(kinds(tmp_path, content, skeleton)) == {"area-missing", "other-category"}


def test_all_annotations_of_another_category_leave_nobody(tmp_path: Path) -> None:
    content = people([PERSON], person(category_id=0))
    assert counts(read(tmp_path, content)) == [0, 0]
    assert set(kinds(tmp_path, content)) == {"nobody", "other-category"}


@pytest.mark.parametrize(
    ("ids", "written", "on"),
    [
        ((1, 2), "1", 0),
        (("1", "2"), 1, 0),
        ((1.0, 2.0), 1, 0),
        ((1, 2), 1.0, 0),
        (("a", "b"), "b", 1),
        (("1", 1), "1", 0),  # both are there: each is itself
        (("1", 1), 1, 1),
        ((-1, 0), "-1", 0),
    ],
)
def test_ids_of_texts_and_numbers_are_the_same_where_only_one_is_there(
    tmp_path: Path, ids: tuple[Any, ...], written: Any, on: int
) -> None:
    content = people([PERSON], {**person(), "image_id": written}, ids=ids)
    assert counts(read(tmp_path, content)) == [1 - on, on]
    assert kinds(tmp_path, content) == {}


def test_what_is_no_id_and_what_is_another() -> None:
    for value in (None, True, 1.5, float("nan"), float("inf"), "", [], {}, 2**63, 10**400):
        assert as_id(value) is None
    for other in ("01", " 1", "1.0", "+1", "1" * 5000, "one", 2, -1):
        assert same_id({1}, other) is None


def test_text_ids_stay_as_they_are_in_results_and_average_precision(tmp_path: Path) -> None:
    pytest.importorskip("faster_coco_eval")
    left, right = standing(60, 50), standing(200, 60)
    annotations = [human(own, points) for own, points in (("b", left), ("1", right), (7, left))]
    data = read(tmp_path, people([PERSON], *annotations, ids=("b", 1, "7")))
    found = [Prediction.of([points], np.ones((1, 17)), [0.9], 17) for points in (left, right, left)]
    results = results_json(data.photos, found)
    assert [result["image_id"] for result in results] == ["b", 1, "7"]
    assert coco_average_precision(data, results)["AP"] == 1
    assert coco_average_precision(data, results[1:])["AR"] == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match=r"not evaluated: \[1, '7'\]"):
        coco_average_precision(data, results, photos=data.photos[:1])


def test_annotations_of_no_photo_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = people([PERSON], person(), {**person(), "id": 9, "image_id": 77})
    with caplog.at_level(logging.WARNING):
        assert counts(read(tmp_path, content)) == [1, 0]
    assert "1 annotation belongs to none of its photos; left out: image_id is 77, for instance" in caplog.text
    assert kinds(tmp_path, content) == {"annotation-without-photo": ("annotation 9: image_id 77",)}
    with pytest.raises(DekrPoseError, match=r"none of its annotations .* image_id is 'x', .* photos are 1, 2"):
        read(tmp_path, people([PERSON], {**person(), "image_id": "x"}))


def test_photos_that_share_an_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DekrPoseError, match="two photos have the id 1"):
        read(tmp_path, people([PERSON], person(), ids=(1, 1.0)))


def test_null_is_as_if_it_were_missing(tmp_path: Path) -> None:
    optional = ("area", "iscrowd", "segmentation", "num_keypoints", "source", "bbox", "category_id", "id")
    for field in optional:
        entry = {**person(), field: None}
        without = {key: value for key, value in entry.items() if key != field}
        first, second = (read(tmp_path, people([PERSON], own)).photos[0].people[0] for own in (entry, without))
        np.testing.assert_array_equal(first.keypoints, second.keypoints)
        np.testing.assert_array_equal(first.box, second.box)
        assert replace(first, keypoints=None, box=None) == replace(second, keypoints=None, box=None)  # type: ignore[arg-type]
    assert KeypointDataset(CASES / "area_null.json", skeleton=TWO).photos[0].people[0].area == pytest.approx(
        0.53 * 4000
    )
    assert read(tmp_path, people([PERSON], {**person(), "keypoints": None})).photos[0].people[0].ignored
    assert read(tmp_path, {**people(None, person()), "categories": None}).photos[0].people


def test_keypoints_of_null_are_not_labelled(tmp_path: Path) -> None:
    entry = person()
    entry["keypoints"][:6] = [None, None, None, None, None, 0]
    entry["num_keypoints"] = 15
    (own,) = read(tmp_path, people([PERSON], entry)).photos[0].people
    np.testing.assert_array_equal(own.keypoints[:2], np.zeros((2, 3)))
    assert kinds(tmp_path, people([PERSON], entry)) == {}


def set_in(*path: Any) -> Callable[[dict[str, Any], Any], None]:
    def change(content: dict[str, Any], value: Any) -> None:
        target: Any = content
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value

    return change


PHOTO, ENTRY = ("images", 0), ("annotations", 0)


@pytest.mark.parametrize(
    ("path", "value", "words", "kind"),
    [
        ((*PHOTO, "width"), None, r"images\[0\] \(id 1\) lacks 'width'", "photo-entry"),
        ((*PHOTO, "width"), "wide", r"images\[0\] \(id 1\): width and height must be .* 'wide' and 240", "photo-entry"),
        ((*PHOTO, "height"), 10**9, "width and height must be pixels", "photo-entry"),
        ((*PHOTO, "height"), -240, "got 320 and -240", "photo-entry"),
        ((*PHOTO, "width"), 0.5, "got 0.5 and 240", "photo-entry"),
        ((*PHOTO, "id"), [1], r"images\[0\]: id must be .* got \[1\]", "photo-entry"),
        ((*PHOTO, "id"), None, r"images\[0\] lacks 'id'", "photo-entry"),
        ((*PHOTO, "file_name"), 7, "file_name must be a text, got 7", "photo-entry"),
        ((*PHOTO, "crowdIndex"), "x", "crowdIndex must be a number, got 'x'", "photo-entry"),
        (PHOTO, "0.jpg", r"images\[0\] must be an object, got '0.jpg'", "photo-entry"),
        (ENTRY, None, r"annotations\[0\] must be an object, got None", "annotation-entry"),
        ((*ENTRY, "image_id"), None, "annotation 1 lacks 'image_id'", "annotation-entry"),
        ((*ENTRY, "image_id"), [1], r"annotation 1: image_id must be .* got \[1\]", "annotation-entry"),
        ((*ENTRY, "category_id"), {}, "annotation 1: category_id must be", "annotation-entry"),
        ((*ENTRY, "iscrowd"), "no", "annotation 1: iscrowd must be 0 or 1, got 'no'", "annotation-entry"),
        ((*ENTRY, "area"), "large", "annotation 1: area must be square image pixels, got 'large'", "area-impossible"),
        ((*ENTRY, "area"), float("nan"), "area must be .* got nan", "area-impossible"),
        ((*ENTRY, "area"), 10**400, "area must be", "area-impossible"),
        ((*ENTRY, "area"), -5, "area must be .* got -5", "area-impossible"),
        ((*ENTRY, "bbox"), [1, 2], r"annotation 1: bbox must be x, y, width, height .* \[1, 2\]", "box-impossible"),
        ((*ENTRY, "bbox"), [1, 2, -3, 4], "bbox must be", "box-impossible"),
        ((*ENTRY, "bbox"), [1, 2, None, 4], "bbox must be", "box-impossible"),
        ((*ENTRY, "bbox"), "1 2 3 4", "bbox must be", "box-impossible"),
        ((*ENTRY, "keypoints", 3), None, "annotation 1: keypoints must be x, y .* got None", "keypoint-value"),
        ((*ENTRY, "keypoints", 3), float("nan"), "keypoints must be .* got nan", "keypoint-value"),
        ((*ENTRY, "keypoints", 3), 1e300, r"keypoints must be .* got 1e\+300", "keypoint-value"),
        ((*ENTRY, "keypoints", 3), 10**400, "keypoints must be", "keypoint-value"),
        ((*ENTRY, "keypoints", 3), "9", "keypoints must be .* got '9'", "keypoint-value"),
        ((*ENTRY, "keypoints", 3), True, "keypoints must be .* got True", "keypoint-value"),
        ((*ENTRY, "keypoints"), {}, "keypoints must be a list", "keypoint-count"),
        ((*ENTRY, "keypoints"), [1, 2, 2], "has 3 keypoint numbers, expected 3 for each of 17", "keypoint-count"),
        ((*ENTRY, "segmentation"), [[1, 1, 9, 1, 9]], r"annotation 1: segmentation .* is no polygon", "segmentation"),
        ((*ENTRY, "segmentation"), ["éé"], "'éé' is no polygon", "segmentation"),
        ((*ENTRY, "segmentation"), [1, 1, 9, 1, 9, 9], "1 is no polygon", "segmentation"),
        ((*ENTRY, "segmentation"), [None], "None is no polygon", "segmentation"),
        ((*ENTRY, "segmentation"), [[None] * 6], "is no polygon", "segmentation"),
        ((*ENTRY, "segmentation"), "PP1", "'PP1' is neither polygons nor run lengths", "segmentation"),
        ((*ENTRY, "segmentation"), {"counts": "PP1"}, "run lengths of size None", "segmentation"),
        ((*ENTRY, "segmentation"), {"counts": [5], "size": [240, 320]}, "do not add up to", "segmentation"),
        ((*ENTRY, "segmentation"), {"counts": [76799, 0.5, 0.5], "size": [240, 320]}, "do not add", "segmentation"),
        ((*ENTRY, "segmentation"), {"counts": [76800], "size": [320, 240]}, "of size", "segmentation"),
        (("categories", 0, "id"), [1], r"categories\[0\]: id must be a whole number or a text", "file"),
        (("categories", 0, "keypoints"), [1, 2], "must name keypoints by a list of texts", "file"),
        (("categories",), "person", "must be a list of objects", "file"),
        (("images",), {"0": 1}, '"images" is no list', "file"),
        (("annotations",), None, "it lacks annotations", "file"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("labelled", [True, False])
def test_an_error_names_file_entry_and_field(
    tmp_path: Path, path: tuple[Any, ...], value: Any, words: str, kind: str, labelled: bool
) -> None:
    content = people([copy.deepcopy(PERSON), CAR], person())
    if not labelled:
        content["annotations"][0]["keypoints"][2::3] = [0] * 17
        content["annotations"][0]["num_keypoints"] = 0
    set_in(*path)(content, value)
    with pytest.raises(DekrPoseError, match=words) as caught:
        read(tmp_path, content)
    assert str(tmp_path / "people.json") in str(caught.value)
    assert kind in kinds(tmp_path, content)


def test_compressed_run_lengths_are_masked_by_their_box(tmp_path: Path) -> None:
    region = unlabelled(1, (10, 10, 30, 20), iscrowd=1, segmentation={"size": [240, 320], "counts": "PPYo0"})
    assert read(tmp_path, people([PERSON], region)).ignored_mask(0).sum() == 30 * 20


def test_boxes_outside_the_photo_and_flat_polygons_mask_nothing(tmp_path: Path) -> None:
    outside = [unlabelled(1, (-90, -90, 40, 40)), unlabelled(1, (400, 10, 40, 40))]
    data = read(tmp_path, people([PERSON], *outside, unlabelled(1, (0, 0, 0, 0), segmentation=[[], [1, 1, 9, 9]])))
    assert not data.ignored_mask(0).any()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"[" * 100_000, "nested deeper than 100 levels"),
        (b'{"images": ' + b"[" * 300 + b"]" * 300 + b', "annotations": []}', "nested deeper than 100 levels"),
        (b'{"images": [], "images": [], "annotations": []}', "has the key 'images' twice"),
        (b'{"images": [], "annotations": [], "x": "\xff\xfe"}', "can't decode byte 0xff"),
        (b"null", "no object with images and annotations"),
        (b'"people"', "no object with images and annotations"),
        (b"7", "no object with images and annotations"),
        (b"NaN", "no object with images and annotations"),
    ],
    ids=lambda value: value[:16] if isinstance(value, bytes) else "",
)
def test_what_is_no_json_of_ours_is_refused_by_every_reader(tmp_path: Path, data: bytes, words: str) -> None:
    path, sound = tmp_path / "people.json", tmp_path / "sound.json"
    path.write_bytes(data)
    sound.write_text(json.dumps(people([PERSON])))
    for reader in (KeypointDataset, skeleton_of):
        with pytest.raises(DekrPoseError, match=words):
            reader(path)
    with pytest.raises(DekrPoseError, match=r"people\.json"):
        skeleton_of(sound, path)
    (problem,) = check_dataset(path, None, COCO_17)
    assert problem.kind == "file"


@pytest.mark.skipif(not hasattr(sys, "get_int_max_str_digits"), reason="this Python reads numbers of any length")
def test_a_number_of_thousands_of_digits_is_refused_in_our_words(tmp_path: Path) -> None:
    (tmp_path / "people.json").write_text('{"images": [], "annotations": [], "x": ' + "9" * 5000 + "}")
    with pytest.raises(DekrPoseError, match="a whole number of thousands of digits"):
        KeypointDataset(tmp_path / "people.json")


def test_training_on_nobody_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", str(CASES / "car_only.json"), "--images", str(EXAMPLES), "--out", str(tmp_path / "run")]
    assert main(arguments) == 1
    assert "there is nobody to learn from" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*arguments, "--check"]) == 1
    printed = capsys.readouterr()
    assert "nobody" in printed.out
    assert "car (1)" in printed.out
    assert "there is nobody to learn from" in printed.err


def test_a_region_that_cannot_be_read_is_in_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = CASES.parent / "json" / "check_10.json"
    assert main(["train", "--check", str(case), "--images", str(tmp_path)]) == 1
    assert "annotation 0 in 0.jpg: 'ééééé' is no polygon" in capsys.readouterr().out


def test_a_file_that_cannot_be_read_is_in_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, data, words in (
        ("deep.json", b"[" * 100_000, "nested deeper than 100 levels"),
        ("two.json", json.dumps(people([PERSON, DOG])).encode(), "have different keypoints"),
    ):
        (tmp_path / name).write_bytes(data)
        assert main(["train", "--check", str(tmp_path / name)]) == 1
        printed = capsys.readouterr().out
        assert "error    file, 1 time" in printed
        assert words in printed


@pytest.mark.parametrize("name", ["ids_of_two_types", "area_null"])
def test_these_are_checked_and_read(tmp_path: Path, name: str) -> None:
    for photo in ("a.jpg", "b.jpg"):
        (tmp_path / photo).write_bytes((CASES / "a.jpg").read_bytes())
    data = KeypointDataset(CASES / f"{name}.json", [tmp_path], TWO)
    assert all(not own.ignored for photo in data.photos for own in photo.people)
    assert all(photo.people for photo in data.photos)
    assert main(["train", "--check", f"{CASES / name}.json", "--images", str(tmp_path), "--out", str(tmp_path)]) == 0
    assert (tmp_path / f"{name}.samples.jpg").is_file()
