"""The check of data files: each planted fault is found, as itself and nothing else, and nothing stops the check."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dekrpose.skeletons import COCO_17, Skeleton
from dekrpose.training.check import check_dataset
from dekrpose.training.check_report import EXAMPLES, KINDS, report, to_json
from tests.evaluation_people import hide, human, standing, unlabelled

WIDTH, HEIGHT = 80, 60
DOCUMENT = Path(__file__).parents[3] / "docs" / "data.md"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four photos that differ, and two that can be planted."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("0.png", "1.png", "2.png", "3.png"):
        cv2.imwrite(str(folder / name), rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8))
    (folder / "same.png").write_bytes((folder / "1.png").read_bytes())
    (folder / "broken.png").write_bytes((folder / "1.png").read_bytes()[:200])
    return folder


def sound() -> dict[str, Any]:
    """A file without faults: photos 0 to 3 with a person each, on photo 3 also a crowd and somebody unlabelled."""
    people = [human(photo, standing(30 + photo, 3, 50), id=photo) for photo in range(4)]
    runs = {"size": [HEIGHT, WIDTH], "counts": [WIDTH * HEIGHT - 7, 7]}
    people.append(unlabelled(3, (1, 1, 10, 20), id=4, iscrowd=1, segmentation=runs))
    people.append(unlabelled(3, (1, 1, 10, 20), id=5, segmentation=[[1, 1, 9, 1, 9, 9]]))
    return {
        "images": [{"id": n, "file_name": f"{n}.png", "width": WIDTH, "height": HEIGHT} for n in range(4)],
        "annotations": people,
        "categories": [{"id": 1, "name": "person", "keypoints": list(COCO_17.keypoints)}],
    }


def checked(photos: Path, content: Any, skeleton: Skeleton = COCO_17) -> dict[str, tuple[int, tuple[str, ...]]]:
    """Count and examples of each kind that the check finds."""
    path = photos.parent / "people.json"
    path.write_text(json.dumps(content))
    return {problem.kind: (problem.count, problem.examples) for problem in check_dataset(path, [photos], skeleton)}


def person(content: dict[str, Any], **fields: Any) -> None:
    """Change the first annotation."""
    content["annotations"][0] |= fields


def keypoint(content: dict[str, Any], index: int, value: Any) -> None:
    content["annotations"][0]["keypoints"][index] = value


def photo(content: dict[str, Any], **fields: Any) -> None:
    content["images"][0] |= fields


def without(content: dict[str, Any], field: str) -> None:
    del content["annotations"][0][field]


def add_photo(content: dict[str, Any], name: str, number: int = 9) -> None:
    content["images"].append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT})
    content["annotations"].append(human(9, standing(40, 3, 50), id=99))


PLANTED: list[tuple[str, Callable[[dict[str, Any]], Any], str]] = [
    ("file", lambda content: content.pop("annotations"), "lacks annotations"),
    ("file", lambda content: content.update(images={"0": "0.png"}), "is no list"),
    ("file", lambda content: content.update(categories=[1]), "list of objects"),
    ("names", lambda content: content["categories"][0].update(keypoints=["a", "b"]), "file: a, b; coco-17: nose"),
    ("photo-entry", lambda content: content["images"].append("photo"), "images[4] is no object"),
    ("photo-entry", lambda content: photo(content, width="wide"), "images[0]: width 'wide'"),
    ("photo-entry", lambda content: photo(content, file_name=None), "images[0]: file_name None"),
    ("photo-id-twice", lambda content: add_photo_twice(content), "0: 1.png"),
    ("photo-missing", lambda content: add_photo(content, "elsewhere/1.png"), "elsewhere/1.png"),
    ("photo-unreadable", lambda content: add_photo(content, "broken.png"), "broken.png is broken or cut off"),
    ("photo-size", lambda content: photo(content, width=81), "0.png: stated 81 x 60, is 80 x 60"),
    ("photo-size", lambda content: photo(content, width=60, height=80), "on its side"),
    ("annotation-entry", lambda content: content["annotations"].append(None), "annotations[6] is no object"),
    ("annotation-entry", lambda content: content["annotations"].append({"id": 7}), "annotation 7: image_id None"),
    ("annotation-id-twice", lambda content: person(content, id=1), "annotation 1"),
    ("annotation-without-photo", lambda content: content["annotations"][-1].update(image_id=8), "image_id 8"),
    ("keypoint-count", lambda content: person(content, keypoints=[1, 1, 2]), "annotation 0 in 0.png: 3 numbers"),
    ("keypoint-count", lambda content: person(content, keypoints="none"), "no list"),
    ("keypoint-value", lambda content: keypoint(content, 4, None), "annotation 0 in 0.png: None"),
    ("keypoint-value", lambda content: keypoint(content, 4, float("nan")), "nan"),
    ("visibility", lambda content: keypoint(content, 2, 0.7), "0.7"),
    ("box-impossible", lambda content: person(content, bbox=[20, 3, 0, 49]), "[20, 3, 0, 49]"),
    ("box-impossible", lambda content: person(content, bbox=[20, 3, -20, 49]), "-20"),
    ("box-impossible", lambda content: person(content, bbox=[20, 3, 20]), "[20, 3, 20]"),
    ("area-impossible", lambda content: person(content, area=0), "0 in a box of"),
    ("area-impossible", lambda content: person(content, area=WIDTH * HEIGHT), "4800 in a box of"),
    ("area-impossible", lambda content: person(content, area="large"), "'large'"),
    ("segmentation", lambda content: content["annotations"][5].update(segmentation=[[1, 1, 9]]), "is no polygon"),
    ("segmentation", lambda content: content["annotations"][5].update(segmentation="all"), "neither"),
    ("segmentation", lambda content: content["annotations"][4]["segmentation"].update(size=[1, 1]), "of size [1, 1]"),
    ("segmentation", lambda content: content["annotations"][4]["segmentation"].update(counts=[7]), "do not add up"),
    ("segmentation", lambda content: content["annotations"][4]["segmentation"].update(counts=None), "None are no run"),
    ("file-name-twice", lambda content: add_photo(content, "1.png"), "1.png"),
    ("same-photo", lambda content: add_photo(content, "same.png"), "same.png is as 1.png"),
    ("same-person", lambda content: content["annotations"].append(content["annotations"][1] | {"id": 7}),
     "annotation 7 in 1.png is as annotation 1 in 1.png"),
    ("keypoint-outside", lambda content: keypoint(content, 0, -3), "nose at -3, 5.5 in 80 x 60"),
    ("box-missing", lambda content: without(content, "bbox"), "annotation 0 in 0.png"),
    ("box-outside", lambda content: person(content, bbox=[20, 3, 80, 50]), "20, 3, 80, 50 in 80 x 60"),
    ("box-elsewhere", lambda content: person(content, bbox=[50, 3, 20, 49]), "17 of 17 keypoints are far"),
    ("area-missing", lambda content: without(content, "area"), "annotation 0 in 0.png"),
    ("num-keypoints", lambda content: person(content, num_keypoints=16), "says 16, 17 are labelled"),
    ("annotation-entry", lambda content: person(content, iscrowd="no"), "iscrowd must be 0 or 1, got 'no'"),
    ("photo-entry", lambda content: photo(content, crowdIndex="x"), "images[0] (id 0): crowdIndex must be a number"),
    ("segmentation", lambda content: person(content, segmentation=["éé"]), "annotation 0 in 0.png: 'éé' is no polygon"),
    ("nobody", lambda content: [hide_all(entry) for entry in content["annotations"]], "no annotation has a labelled"),
    ("other-category", lambda content: content["annotations"].append({"id": 7, "category_id": 3}), "category_id 3 (1)"),
    ("photo-empty", lambda content: content["annotations"].pop(0), "0.png"),
]  # fmt: skip


def hide_all(entry: dict[str, Any]) -> None:
    entry |= {"keypoints": [0] * 51, "num_keypoints": 0}


def add_photo_twice(content: dict[str, Any]) -> None:
    content["images"].append(content["images"][1] | {"id": 0})
    content["images"].pop(1)
    content["annotations"] = [entry | {"image_id": entry["image_id"] % 4 or 0} for entry in content["annotations"]]
    content["annotations"].pop(1)


def test_a_sound_file_has_no_problems(photos: Path) -> None:
    assert checked(photos, sound()) == {}
    assert report([]) == "No problems found."


@pytest.mark.parametrize(
    ("kind", "plant", "example"), PLANTED, ids=[f"{kind}-{n}" for n, (kind, *_) in enumerate(PLANTED)]
)
def test_a_planted_fault_is_found_and_nothing_else(
    photos: Path, kind: str, plant: Callable[[dict[str, Any]], Any], example: str
) -> None:
    content = sound()
    plant(content)
    found = checked(photos, content)
    assert list(found) == [kind]
    count, examples = found[kind]
    assert count == 1
    assert example in examples[0]


def test_every_kind_is_planted_and_documented() -> None:
    others = {"place", "sides-exchanged", "side-without-pair"}
    assert {kind for kind, *_ in PLANTED} | others == KINDS.keys()
    text = DOCUMENT.read_text(encoding="utf-8")
    assert [kind for kind in KINDS if f"`{kind}`" not in text] == []


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "people.json"
    for content in (None, b"{", b"\x1f\x8b none"):
        if content:
            path.write_bytes(content)
        (problem,) = check_dataset(path, None, COCO_17)
        assert (problem.kind, problem.severity) == ("file", "error")


def test_a_place_that_is_none_does_not_hide_the_rest(photos: Path) -> None:
    content = sound()
    person(content, area=0)
    path = photos.parent / "people.json"
    path.write_text(json.dumps(content))
    kinds = [problem.kind for problem in check_dataset(path, [photos / "nowhere"], COCO_17)]
    assert kinds == ["place", "area-impossible"]


def test_sides_that_are_exchanged_for_most_people(photos: Path) -> None:
    def crowd(exchanged: int) -> dict[str, Any]:
        content = sound()
        mirror = np.array([-1, 1], np.float32)
        for number in range(30):
            person = standing(0, 3, 40) * (mirror if number < exchanged else 1) + np.float32([30 + number, 0])
            content["annotations"].append(human(number % 3, person.astype(np.float32), id=100 + number))
        return content

    assert checked(photos, crowd(15)) == {}
    count, examples = checked(photos, crowd(28))["sides-exchanged"]
    assert count == len(COCO_17.flip_pairs)
    assert examples[0] == "left_eye and right_eye: 82 % of 34 people"


def test_a_side_without_its_partner(photos: Path) -> None:
    skeleton = replace(COCO_17, flip_pairs=COCO_17.flip_pairs[1:])
    assert checked(photos, sound(), skeleton) == {"side-without-pair": (2, ("left_eye", "right_eye"))}


def test_unlabelled_keypoints_may_be_anywhere(photos: Path) -> None:
    content = sound()
    content["annotations"][0] = hide(content["annotations"][0], 0) | {"num_keypoints": 16}
    content["annotations"][0]["keypoints"][:3] = [-1, -1, 0]
    assert checked(photos, content) == {}


def test_many_faults_are_counted_and_the_first_shown(photos: Path) -> None:
    content = sound()
    content["annotations"] += [{"id": 100 + number, "image_id": 77} for number in range(1200)]
    path = photos.parent / "people.json"
    path.write_text(json.dumps(content))
    problems = check_dataset(path, [photos], COCO_17)
    assert [problem.kind for problem in problems] == ["annotation-without-photo", "box-missing", "area-missing"]
    text = report(problems)
    assert text.startswith(
        "Kinds of problems: 1 error, 2 warnings.\n\nerror    annotation-without-photo, 1,200 times\n"
    )
    assert f"and {1200 - EXAMPLES:,} more" in text
    values = json.loads(to_json(problems))
    assert (values["errors"], values["warnings"], values["hints"]) == (1, 2, 0)
    assert values["problems"][0]["examples"][0] == "annotation 100: image_id 77"


GARBAGE = (
    None, True, -1, 0.5, 10**400, float("inf"), float("nan"), "x", "", "\0", "a" * 300, [], {}, [None], [[1]],
    [[[1, 2]]], {"size": "x"}, {"size": [1, 2], "counts": [0.5]}, [1e308] * 4, [1e308] * 51, [float("nan")] * 51,
)  # fmt: skip


def test_no_garbage_stops_the_check(tmp_path: Path) -> None:
    photos = tmp_path / "nothing"
    photos.mkdir()
    content = sound()
    for part in ("images", "annotations", "categories"):
        for key in [None, *content[part][0]]:
            for value in GARBAGE:
                planted = copy.deepcopy(content)
                if key is None:
                    planted[part][0] = value
                else:
                    planted[part][0][key] = value
                found = checked(photos, planted)
                assert all(count > 0 for count, _ in found.values())
