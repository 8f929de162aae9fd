"""Labels of other tools become one COCO keypoints file, with the same people in the same places."""

from __future__ import annotations

import html
import json
import runpy
import shutil
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest

from dekrpose.cli import main
from dekrpose.data.dataset import KeypointDataset, PhotoFiles
from dekrpose.data.importers import IMPORTERS, Wishes, read_labels
from dekrpose.data.importers.base import Files, Importer
from dekrpose.errors import DekrPoseError
from dekrpose.skeletons import COCO_17
from dekrpose.training.skeleton_file import skeleton_of

CASES = Path(__file__).parents[2] / "cases" / "imports"
TRUTH = json.loads((CASES / "truth.json").read_text())
NAMES = TRUTH["categories"][0]["keypoints"]
Capture = pytest.CaptureFixture[str]


def photos(folder: Path) -> None:
    for image in TRUTH["images"]:
        (folder / image["file_name"]).parent.mkdir(parents=True, exist_ok=True)
        size = (image["height"], image["width"], 3)
        assert cv2.imwrite(str(folder / image["file_name"]), np.full(size, 120, np.uint8))


def of_image(image: dict[str, Any]) -> list[dict[str, Any]]:
    return [person for person in TRUTH["annotations"] if person["image_id"] == image["id"]]


def triples(person: dict[str, Any]) -> list[tuple[str, float, float, int]]:
    values = person["keypoints"]
    return [(name, *values[3 * index : 3 * index + 3]) for index, name in enumerate(NAMES)]


def write_roboflow(folder: Path) -> None:
    photos(folder / "train")
    categories = [{"id": 0, "name": "birds", "supercategory": "none"}, {**TRUTH["categories"][0], "id": 1}]
    (folder / "train" / "_annotations.coco.json").write_text(json.dumps({**TRUTH, "categories": categories}))


def write_cvat_coco(folder: Path) -> None:
    photos(folder / "images" / "default")
    (folder / "annotations").mkdir()
    (folder / "annotations" / "person_keypoints_default.json").write_text(json.dumps(TRUTH))


def write_label_studio_coco(folder: Path) -> None:
    """Names of uploads and two categories, as label-studio-sdk's converter writes COCO, but with people apart."""
    photos(folder / "photos")
    images = [{**image, "file_name": f"/data/upload/3/1a2b3c4d-{image['file_name']}"} for image in TRUTH["images"]]
    (own,) = TRUTH["categories"]
    categories = [{"id": own["id"] + 1, "name": "bird"}, {**own, "name": "default", "skeleton": []}]
    (folder / "result.json").write_text(json.dumps({**TRUTH, "images": images, "categories": categories}))


def write_cvat_xml(folder: Path) -> None:
    photos(folder / "images")
    lines = ['<?xml version="1.0" encoding="utf-8"?>', "<annotations>", "<version>1.1</version>"]
    for image in TRUTH["images"]:
        size = f'width="{image["width"]}" height="{image["height"]}"'
        lines.append(f'<image id="{image["id"]}" name="{image["file_name"]}" {size}>')
        for person in of_image(image):
            lines.append('<skeleton label="bird" source="manual" z_order="0">')
            lines += [
                f'<points label="{name}" outside="{int(seen == 0)}" occluded="{int(seen == 1)}" points="{x},{y}"/>'
                for name, x, y, seen in triples(person)
            ]
            lines.append("</skeleton>")
        lines.append("</image>")
    (folder / "annotations.xml").write_text("\n".join([*lines, "</annotations>"]))


def write_label_studio(folder: Path) -> None:
    photos(folder / "photos")
    tasks = []
    for image in TRUTH["images"]:
        width, height = image["width"], image["height"]
        results: list[dict[str, Any]] = []
        for person in of_image(image):
            x, y, w, h = person["bbox"]
            box = {"x": 100 * x / width, "y": 100 * y / height, "width": 100 * w / width, "height": 100 * h / height}
            key, common = f"box{person['id']}", {"original_width": width, "original_height": height}
            value = {**box, "rotation": 0, "rectanglelabels": ["bird"]}
            results.append({**common, "id": key, "type": "rectanglelabels", "value": value})
            results += [
                {**common, "type": "keypointlabels", "parentID": key,
                 "value": {"x": 100 * px / width, "y": 100 * py / height, "width": 0.5, "keypointlabels": [name]}}
                for name, px, py, seen in triples(person) if seen
            ]  # fmt: skip
        data = {"image": f"/data/upload/3/1a2b3c4d-{image['file_name']}"}
        tasks.append({"id": image["id"], "data": data, "annotations": [{"id": 1, "result": results}]})
    (folder / "export.json").write_text(json.dumps(tasks))


def write_label_studio_min(folder: Path) -> None:
    """As label-studio-sdk's converter writes JSON-MIN; without parents, a point belongs to the box that it lies in."""
    write_label_studio(folder)
    tasks = json.loads((folder / "export.json").read_text())
    for task in tasks:
        (annotation,) = task.pop("annotations")
        task |= {**task.pop("data"), "annotator": 1, "annotation_id": 5, "lead_time": 3}
        for key in ("rectanglelabels", "keypointlabels"):
            task[key] = [each["value"] for each in annotation["result"] if each["type"] == key]
    (folder / "export.json").write_text(json.dumps(tasks))


def copied(name: str) -> Callable[[Path], None]:
    return lambda folder: shutil.copytree(CASES / name, folder, dirs_exist_ok=True) and None


SOURCES: dict[str, tuple[Callable[[Path], None], str]] = {
    "made by ultralytics": (copied("yolo"), "yolo"),
    "made by labelme": (copied("labelme"), "labelme"),
    "as Roboflow exports": (write_roboflow, "coco"),
    "as Label Studio exports COCO": (write_label_studio_coco, "coco"),
    "as CVAT exports COCO keypoints": (write_cvat_coco, "coco"),
    "as CVAT exports for images": (write_cvat_xml, "cvat"),
    "as Label Studio exports": (write_label_studio, "label-studio"),
    "as Label Studio exports JSON-MIN": (write_label_studio_min, "label-studio"),
}


def imported(source: Path, out: Path, *more: str) -> dict[str, Any]:
    assert main(["import", str(source), "--out", str(out), *more]) == 0
    content: dict[str, Any] = json.loads(out.read_text())
    return content


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("name", SOURCES)
def test_the_same_people_in_the_same_places(name: str, packed: bool, tmp_path: Path) -> None:
    write, kind = SOURCES[name]
    source = tmp_path / "source"
    source.mkdir()
    write(source)
    if packed:
        source = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", source))
    named = ["--names", *NAMES] if kind == "yolo" or kind in ("labelme", "label-studio", "cvat") else []
    content = imported(source, tmp_path / "people.json", *named)
    assert content["categories"][0]["keypoints"] == NAMES
    found = {Path(image["file_name"]).name: image for image in content["images"]}
    assert sorted(found) == ["a.jpg", "b.jpg"]
    for image in TRUTH["images"]:
        own = found[image["file_name"]]
        assert (own["width"], own["height"]) == (image["width"], image["height"])
        people = [person for person in content["annotations"] if person["image_id"] == own["id"]]
        for person, true in zip(people, of_image(image), strict=True):
            expected = np.array(true["keypoints"], float).reshape(-1, 3)
            points = np.array(person["keypoints"], float).reshape(-1, 3)
            if kind == "label-studio":  # which does not know hidden keypoints
                expected[:, 2] = 2 * (expected[:, 2] > 0)
            np.testing.assert_allclose(points, expected, atol=0.02)
            if kind != "cvat":  # whose skeletons have no box
                np.testing.assert_allclose(person["bbox"], true["bbox"], atol=0.02)
    dataset = KeypointDataset(tmp_path / "people.json", [source], skeleton_of(tmp_path / "people.json"))
    assert dataset.missing() == []
    assert dataset.read(0).shape[2] == 3
    assert skeleton_of(tmp_path / "people.json").flip_pairs == ((1, 2),)


@pytest.mark.slow
@pytest.mark.parametrize(("package", "kind"), [("ultralytics", "yolo"), ("labelme", "labelme")])
def test_what_the_packages_write_today_is_read_alike(package: str, kind: str, tmp_path: Path) -> None:
    pytest.importorskip(package, exc_type=ImportError)
    runpy.run_path(str(CASES / "make.py"))[f"make_{kind}"](tmp_path / kind)
    content = imported(tmp_path / kind, tmp_path / "new.json", "--names", *NAMES)
    assert content == imported(CASES / kind, tmp_path / "old.json", "--names", *NAMES)


def test_every_importer_keeps_the_contract() -> None:
    for importer in IMPORTERS.values():
        checked: Importer = importer
        assert checked.TITLE
        assert callable(checked.recognises)
        assert callable(checked.read)


def write_yolo(folder: Path, shape: list[int], line: str, extra: str = "") -> Path:
    photos(folder / "images" / "train")
    (folder / "labels" / "train").mkdir(parents=True)
    (folder / "labels" / "train" / "a.txt").write_text(line)
    (folder / "data.yaml").write_text(f"train: ../train/images\nkpt_shape: {shape}\n{extra}")
    return folder


def test_seventeen_points_without_names_are_cocos(tmp_path: Path, capsys: Capture) -> None:
    line = "0 0.5 0.5 0.5 0.5 " + " ".join(["0.5 0.5"] * 16 + ["0 0"])
    content = imported(write_yolo(tmp_path / "y", [17, 2], line), tmp_path / "people.json")
    assert "they are taken for COCO's" in capsys.readouterr().out
    (person,) = content["annotations"]
    assert person["num_keypoints"] == 16
    assert person["keypoints"][-3:] == [0, 0, 0]  # 0, 0 without visibility is no label
    assert skeleton_of(tmp_path / "people.json") == COCO_17
    assert len(content["images"]) == 2  # also the photo that shows nobody


def test_other_numbers_of_points_ask_for_names(tmp_path: Path, capsys: Capture) -> None:
    source = write_yolo(tmp_path / "y", [2, 3], "0 0.5 0.5 0.5 0.5 0.4 0.4 2 0.6 0.6 1", "flip_idx: [1, 0]\n")
    assert main(["import", str(source), "--out", str(tmp_path / "p.json")]) == 1
    told = capsys.readouterr().err
    assert "2 keypoints without names (flip pairs, counted from 0: [(0, 1)]); name them in order with --names" in told
    assert not (tmp_path / "p.json").exists()
    options = ["--names", "top", "bottom", "--edges", "top:bottom", "--flip-pairs", "top:bottom"]
    imported(source, tmp_path / "p.json", *options)
    skeleton = skeleton_of(tmp_path / "p.json")
    assert (skeleton.edges, skeleton.flip_pairs) == (((0, 1),), ((0, 1),))
    assert main(["import", str(source), "--out", str(tmp_path / "p.json"), "--names", "a", "b", "c"]) == 1
    assert "--names gives 3 names (a, b, c), people have 2 keypoints" in capsys.readouterr().err
    assert main(["import", str(source), "--out", str(tmp_path / "p.json"), *options[:3], "--edges", "top:bottm"]) == 1
    assert "'top:bottm'; keypoints are top, bottom" in capsys.readouterr().err


def test_a_broken_label_is_left_out_and_told_and_the_rest_goes_on(tmp_path: Path, capsys: Capture) -> None:
    source = write_yolo(tmp_path / "y", [2, 3], "0 0.5 0.5 0.5 0.5 0.4 0.4 2")
    (source / "labels" / "train" / "b.txt").write_text("0 0.5 0.5 0.5 0.5 0.4 0.4 2 0.6 0.6 1")
    words = ["import", str(source), "--out", str(tmp_path / "p.json"), "--names", "a", "b"]
    assert main(words) == 1
    assert "left out: labels/train/a.txt: line 1 has 8 numbers, expected 11 for 2 keypoints" in capsys.readouterr().err
    assert [image["file_name"] for image in json.loads((tmp_path / "p.json").read_text())["images"]] == [
        "images/train/b.jpg"
    ]


def test_photos_that_are_stored_turned(tmp_path: Path, capsys: Capture) -> None:
    """Tools show them upright; training reads them as they are stored."""
    source = write_yolo(tmp_path / "y", [1, 2], "0 0.5 0.5 0.5 0.5 0.25 0.1")
    upright = PIL.Image.fromarray(np.zeros((40, 80, 3), np.uint8))
    upright.putpixel((20, 4), (255, 255, 255))
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise when shown
    upright.transpose(PIL.Image.Transpose.ROTATE_90).save(source / "images" / "train" / "a.jpg", exif=exif, quality=100)
    content = imported(source, tmp_path / "p.json", "--names", "tip")
    assert "stored turned (EXIF): 1 photo" in capsys.readouterr().out
    image = next(image for image in content["images"] if image["file_name"].endswith("a.jpg"))
    assert (image["width"], image["height"]) == (40, 80)
    x, y, _ = content["annotations"][0]["keypoints"]
    stored = KeypointDataset(tmp_path / "p.json", [source], skeleton_of(tmp_path / "p.json")).read(0)
    brightest = np.unravel_index(stored.sum(axis=2).argmax(), stored.shape[:2])
    assert np.hypot(x - brightest[1] - 0.5, y - brightest[0] - 0.5) < 1.5


def test_parts_are_told_and_one_can_be_chosen(tmp_path: Path, capsys: Capture) -> None:
    write_roboflow(tmp_path / "r")
    shutil.copytree(tmp_path / "r" / "train", tmp_path / "r" / "valid")
    content = imported(tmp_path / "r", tmp_path / "p.json")
    assert len(content["images"]) == 4
    assert "parts: train (2 photos), val (2 photos)" in capsys.readouterr().out
    content = imported(tmp_path / "r", tmp_path / "p.json", "--split", "val")
    assert [image["file_name"] for image in content["images"]] == ["valid/a.jpg", "valid/b.jpg"]
    assert imported(tmp_path / "r", tmp_path / "p.json", "--split", "valid") == content
    assert main(["import", str(tmp_path / "r"), "--out", str(tmp_path / "p.json"), "--split", "dev"]) == 1
    assert "no part 'dev'; parts are: train, val" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["made by ultralytics", "made by labelme", "as Label Studio exports"])
@pytest.mark.parametrize("words", [["train", "--check"], ["train"], ["eval", "tiny"]])
def test_commands_that_meet_such_data_name_the_way(
    name: str, words: list[str], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write, kind = SOURCES[name]
    (tmp_path / "source").mkdir()
    write(tmp_path / "source")
    assert main([*words, "source", *(["--out", "run"] if words == ["train"] else [])]) == 1
    captured = capsys.readouterr()
    assert f"source is {IMPORTERS[kind].TITLE}" in captured.out + captured.err
    assert "dekrpose import source --out people.json" in captured.out + captured.err


def test_points_that_nobody_grouped(tmp_path: Path, capsys: Capture) -> None:
    """One person without a group is one person; two of them are told."""
    shutil.copytree(CASES / "labelme", tmp_path / "l")
    for path in (tmp_path / "l").glob("*.json"):
        content = json.loads(path.read_text())
        for shape in content["shapes"]:
            shape["group_id"] = None
        content["shapes"] = [shape for shape in content["shapes"] if shape["shape_type"] == "point"]
        path.write_text(json.dumps(content))
    assert main(["import", str(tmp_path / "l"), "--out", str(tmp_path / "p.json"), "--names", *NAMES]) == 1
    assert "a.json: beak, right_wing twice in one person" in capsys.readouterr().err
    (person,) = json.loads((tmp_path / "p.json").read_text())["annotations"]
    assert person["keypoints"] == TRUTH["annotations"][2]["keypoints"]


def shape(kind: str, label: str, *points: list[float], group: int | None = None) -> dict[str, Any]:
    return {"label": label, "points": list(points), "group_id": group, "shape_type": kind, "flags": {}}


def write_labelme(folder: Path, *shapes: dict[str, Any]) -> Path:
    photos(folder)
    (folder / "a.json").write_text(json.dumps({"shapes": shapes, "imagePath": "a.jpg"}))
    return folder


def write_studio(folder: Path, *tasks: dict[str, Any]) -> Path:
    photos(folder / "p")
    (folder / "export.json").write_text(json.dumps(tasks))
    return folder


def studio_point(*labels: str) -> dict[str, Any]:
    return {"id": "k", "type": "keypointlabels", "value": {"x": 20, "y": 20, "width": 1, "keypointlabels": labels}}


def test_pictures_that_predict_drew_are_no_photos(tmp_path: Path) -> None:
    source = write_yolo(tmp_path / "y", [1, 2], "0 0.5 0.5 0.5 0.5 0.4 0.4")
    shutil.copy(source / "images" / "train" / "a.jpg", source / "images" / "train" / "a.poses.jpg")
    content = imported(source, tmp_path / "p.json", "--names", "tip")
    assert [image["file_name"][-5:] for image in content["images"]] == ["a.jpg", "b.jpg"]


def test_loose_points_and_boxes_of_cvat(tmp_path: Path) -> None:
    """By group, by the box around them; a box without keypoints is somebody whom nobody labelled."""
    photos(tmp_path / "c")
    (tmp_path / "c" / "annotations.xml").write_text(
        '<?xml version="1.0"?><annotations><image id="0" name="a.jpg" width="64" height="48">'
        '<points label="beak" points="30,30" group_id="1"/><points label="tail" points="40,30" group_id="1"/>'
        '<box label="bird" xtl="20" ytl="20" xbr="60" ybr="40" group_id="1"/>'
        '<skeleton label="bird"><points label="beak" points="5,6"/></skeleton>'
        '<box label="bird" xtl="1" ytl="2" xbr="9" ybr="9"/>'
        '<box label="bird" xtl="50" ytl="1" xbr="60" ybr="9"/></image></annotations>'.replace(
            'width="64" height="48"', f'width="{TRUTH["images"][0]["width"]}" height="{TRUTH["images"][0]["height"]}"'
        )
    )
    content = imported(tmp_path / "c", tmp_path / "p.json")
    assert content["categories"][0]["keypoints"] == ["beak", "tail"]
    assert [(person["bbox"], person["keypoints"]) for person in content["annotations"]] == [
        ([20, 20, 40, 20], [30, 30, 2, 40, 30, 2]),
        ([1, 2, 8, 7], [5, 6, 2, 0, 0, 0]),
        ([50, 1, 10, 8], [0, 0, 0, 0, 0, 0]),
    ]


def write_cvat_skeleton(folder: Path, drawing: str, names: tuple[str, ...] = ("tail", "beak")) -> Path:
    """As CVAT 2 exports a task: the drawing of a skeleton stands in its label, with node numbers of its own."""
    photos(folder)
    image = TRUTH["images"][0]
    points = "".join(f'<points label="{name}" outside="0" points="{5 + x},6"/>' for x, name in enumerate(names))
    labels = "".join(f"<label><name>{name}</name><type>points</type><parent>bird</parent></label>" for name in names)
    (folder / "annotations.xml").write_text(
        '<?xml version="1.0"?><annotations><version>1.1</version><meta><task><labels>'
        f"<label><name>bird</name><type>skeleton</type><svg>{html.escape(drawing)}</svg></label>{labels}"
        f'</labels></task></meta><image id="0" name="a.jpg" subset="Validation" width="{image["width"]}" '
        f'height="{image["height"]}"><skeleton label="bird">{points}</skeleton></image></annotations>'
    )
    return folder


def test_skeletons_of_cvat_bring_order_and_edges(tmp_path: Path) -> None:
    """Also of keypoints that nobody labelled; a drawing that is broken brings nothing."""
    drawing = "".join(
        f'<line x1="1" y1="2" x2="3" y2="4" data-type="edge" data-node-from="{start}" data-node-to="{end}"></line>'
        for start, end in ((7, 2), (3, 7), (3, 9))
    ) + "".join(
        f'<circle r="1.5" data-type="element node" data-node-id="{node}" data-label-name="{name}"></circle>'
        for node, name in ((2, "beak"), (7, "back"), (3, "tail"))
    )
    source = write_cvat_skeleton(tmp_path / "c", drawing)
    content = imported(source, tmp_path / "p.json", "--split", "val")
    assert content["categories"][0]["keypoints"] == ["beak", "back", "tail"]
    assert content["categories"][0]["skeleton"] == [[2, 1], [3, 2]]
    assert content["annotations"][0]["keypoints"] == [6, 6, 2, 0, 0, 0, 5, 6, 2]
    category = imported(source, tmp_path / "p.json", "--names", "tail", "beak", "--edges", "tail:beak")["categories"][0]
    assert (category["keypoints"], category["skeleton"]) == (["tail", "beak"], [[1, 2]])
    category = imported(write_cvat_skeleton(tmp_path / "b", "<line"), tmp_path / "p.json")["categories"][0]
    assert (category["keypoints"], category["skeleton"]) == (["tail", "beak"], [])


def test_other_words_for_sides_ask_for_flip_pairs(tmp_path: Path, capsys: Capture) -> None:
    source = write_cvat_skeleton(tmp_path / "c", "", ("pico", "ala izq", "ala der"))
    imported(source, tmp_path / "p.json")
    assert "if ala izq and ala der change places in a mirrored photo, add --flip-pairs 'ala izq:ala der'" in (
        capsys.readouterr().out
    )
    imported(source, tmp_path / "p.json", "--flip-pairs", "ala izq:ala der")
    assert "change places" not in capsys.readouterr().out
    assert skeleton_of(tmp_path / "p.json").flip_pairs == ((1, 2),)


def test_tracks_of_cvat_for_video_say_what_to_export(tmp_path: Path, capsys: Capture) -> None:
    photos(tmp_path / "c")
    (tmp_path / "c" / "annotations.xml").write_text(
        '<?xml version="1.0"?><annotations><track id="0" label="bird"><skeleton frame="0" keyframe="1">'
        '<points label="beak" points="5,6"/></skeleton></track></annotations>'
    )
    assert main(["import", str(tmp_path / "c"), "--out", str(tmp_path / "p.json")]) == 1
    assert "is CVAT for video, whose tracks are not read; export the task as CVAT for images" in capsys.readouterr().err


@pytest.mark.parametrize("escaped", [False, True])
def test_names_in_any_script_go_through(escaped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    points = [shape("point", name, [x, 9]) for x, name in ((9, "左手"), (5, "右手"), (7, "épaule"), (8, "нос"))]
    source = tmp_path / "фото"
    photos(source)
    (source / "a.jpg").rename(source / "猫 1.jpg")
    labels = {"shapes": [*points, shape("rectangle", "человек", [1, 1], [20, 20])], "imagePath": "猫 1.jpg"}
    (source / "猫 1.json").write_text(json.dumps(labels, ensure_ascii=escaped), encoding="utf-8")
    pairs = ["--edges", "左手:нос", "--flip-pairs", "左手:右手"]
    content = imported(source, tmp_path / "люди.json", *pairs)
    assert content["images"][0]["file_name"] == "猫 1.jpg"
    skeleton = skeleton_of(tmp_path / "люди.json")
    assert skeleton.keypoints == ("左手", "右手", "épaule", "нос")
    assert skeleton.sides == ("left", "right", "middle", "middle")
    assert main(["train", "--check", str(tmp_path / "люди.json"), "--images", str(source)]) == 0
    assert (tmp_path / "люди.samples.jpg").is_file()
    assert "猫 1.jpg" in KeypointDataset(tmp_path / "люди.json", [source], skeleton).photos[0].file_name


def test_confidences_for_visibilities_are_visible_and_others_refused(tmp_path: Path, capsys: Capture) -> None:
    source = write_yolo(tmp_path / "y", [2, 3], "0 0.5 0.5 0.5 0.5 0.4 0.4 0.93 0.6 0.6 1")
    (person,) = imported(source, tmp_path / "p.json", "--names", "a", "b")["annotations"]
    assert person["keypoints"][2::3] == [2, 1]
    assert "1 visibility between 0 and 1, taken for visible" in capsys.readouterr().out
    (source / "labels" / "train" / "b.txt").write_text("\n0 0.5 0.5 0.5 0.5 0.4 0.4 7 0.6 0.6 1")
    assert main(["import", str(source), "--out", str(tmp_path / "p.json"), "--names", "a", "b"]) == 1
    assert "labels/train/b.txt: line 2: a visibility is 0 (no label), 1 (hid" in capsys.readouterr().err


def test_classes_of_yolo_are_counted_and_one_can_be_chosen(tmp_path: Path, capsys: Capture) -> None:
    lines = "0 0.5 0.5 0.5 0.5 0.4 0.4\n1 0.5 0.5 0.5 0.5 0.3 0.3\n0 0.5 0.5 0.5 0.5"
    source = write_yolo(tmp_path / "y", [1, 2], lines, "names: {0: person, 1: dog}\n")
    assert len(imported(source, tmp_path / "p.json", "--names", "tip")["annotations"]) == 3
    assert "of several classes, all taken: person 2, dog 1; --class takes one" in capsys.readouterr().out
    content = imported(source, tmp_path / "p.json", "--names", "tip", "--class", "dog")
    assert (len(content["annotations"]), content["categories"][0]["name"]) == (1, "dog")
    assert main(["import", str(source), "--out", str(tmp_path / "p.json"), "--class", "cat"]) == 1
    assert "there is no class 'cat'; the classes of data.yaml are person, dog" in capsys.readouterr().err


def test_labels_without_any_keypoint_name_the_shapes(tmp_path: Path, capsys: Capture) -> None:
    source = write_labelme(tmp_path / "l", shape("rectangle", "bird", [1, 1], [9, 9]), shape("line", "x", [1, 1]))
    assert main(["import", str(source), "--out", str(tmp_path / "p.json")]) == 1
    assert (
        "no annotation has keypoints, so there is nothing to learn; it holds 1 rectangle, 1" in capsys.readouterr().err
    )
    (source / "b.json").write_text("{")
    assert main(["import", str(source), "--out", str(tmp_path / "p.json")]) == 1
    assert "1 line; the first problem: b.json: " in capsys.readouterr().err


def test_some_of_cocos_names_stay_some_in_its_order_and_are_counted(tmp_path: Path, capsys: Capture) -> None:
    points = [shape("point", name, [9, 9]) for name in ("right_knee", "left_hip", "left_knee")]
    content = imported(write_labelme(tmp_path / "l", *points), tmp_path / "p.json")
    assert content["categories"][0]["keypoints"] == ["left_hip", "left_knee", "right_knee"]
    assert content["categories"][0]["skeleton"] == [[1, 2]]
    told = capsys.readouterr().out
    assert "1 photo, 1 person with keypoints" in told
    assert "how often each is labelled: left_hip (1), left_knee (1), right_knee (1)" in told


def test_a_box_that_is_drawn_stays_in_the_photo_and_missing_edges_are_told(tmp_path: Path, capsys: Capture) -> None:
    image = TRUTH["images"][0]
    corner = [image["width"] - 1, image["height"] - 1]
    source = write_labelme(tmp_path / "l", shape("point", "head", [1, 2]), shape("point", "tail", corner))
    (person,) = imported(source, tmp_path / "p.json")["annotations"]
    assert person["bbox"] == [0, 0, image["width"], image["height"]]
    assert "no edges, so limbs will not be drawn" in capsys.readouterr().out


def test_tasks_of_label_studio(tmp_path: Path, capsys: Capture) -> None:
    relation = {"type": "relation", "from_id": "a", "to_id": "b"}
    done = {"result": [studio_point("beak"), relation]}
    source = write_studio(
        tmp_path / "s",
        {"id": 1, "data": {"title": "sparrow 7", "img": "/data/local-files/?d=p/a.jpg"}, "annotations": [done]},
        {"id": 2, "data": {"img": "b.jpg"}, "annotations": []},
        {"id": 3, "data": {"img": "b.jpg"}, "annotations": [{**done, "was_cancelled": True}]},
    )
    assert [image["file_name"] for image in imported(source, tmp_path / "p.json")["images"]] == ["p/a.jpg"]
    assert "left out: 2 tasks that nobody annotated" in capsys.readouterr().out
    bare = {"id": 4, "data": {"img": "b.jpg"}, "annotations": [{"result": [studio_point()]}]}
    (source / "more.json").write_text(json.dumps([bare]))
    assert main(["import", str(source), "--out", str(tmp_path / "p.json")]) == 1
    assert "more.json: task 4: keypoint k has no label" in capsys.readouterr().err


def test_annotations_of_coco_that_do_not_fit(tmp_path: Path, capsys: Capture) -> None:
    write_roboflow(tmp_path / "r")
    path = tmp_path / "r" / "train" / "_annotations.coco.json"
    content = json.loads(path.read_text())
    stray = {**content["annotations"][0], "id": 99, "image_id": 77}
    path.write_text(json.dumps({**content, "annotations": [*content["annotations"], stray]}))
    words = ["import", str(tmp_path / "r"), "--out", str(tmp_path / "p.json")]
    assert main(words) == 1
    assert "images has no entry for 1 annotation, first image_id 77" in capsys.readouterr().err
    path.write_text(
        json.dumps({**content, "annotations": [*content["annotations"], {**stray, "keypoints": [1, 2, 2]}]})
    )
    assert main(words) == 1
    assert "_annotations.coco.json: annotation 99 has 1 keypoint, expected 3" in capsys.readouterr().err
    assert main([*words, "--names", "a", "b", "a"]) == 1
    assert "--names must differ, got a more than once" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "told"),
    [(value, "nose has a coordinate that is no place in a photo") for value in (float("nan"), 1e308)]
    + [(10**400, "points of 'nose' must be pairs of numbers")],
    ids=["nan", "large", "huge"],
)
def test_coordinates_that_are_no_place_in_a_photo_name_it(
    tmp_path: Path, capsys: Capture, wrong: float, told: str
) -> None:
    photos(tmp_path)
    names = [image["file_name"] for image in TRUTH["images"]]
    for name, x in zip(names, (1.0, wrong), strict=False):
        shapes = [{"label": "nose", "points": [[x, 2.0]], "shape_type": "point", "group_id": 1}]
        labels = {"shapes": shapes, "imagePath": Path(name).name}
        (tmp_path / name).with_suffix(".json").write_text(json.dumps(labels))
    assert main(["import", str(tmp_path), "--out", str(tmp_path / "p.json")]) == 1
    assert f"left out: {Path(names[1]).with_suffix('.json')}: {told}" in capsys.readouterr().err
    assert len(json.loads((tmp_path / "p.json").read_text())["annotations"]) == 1


def test_a_photo_of_which_a_line_is_broken_counts_nowhere(tmp_path: Path, capsys: Capture) -> None:
    lines = "0 0.5 0.5 0.5 0.5 0.4 0.4 0.5 0.6 0.6 1\n0 0.5"
    source = write_yolo(tmp_path / "y", [2, 3], lines)
    (source / "labels" / "train" / "b.txt").write_text("0 0.5 0.5 0.5 0.5 0.4 0.4 2 0.6 0.6 1")
    assert main(["import", str(source), "--out", str(tmp_path / "p.json"), "--names", "a", "b"]) == 1
    assert "taken for visible" not in "".join(capsys.readouterr())


def test_sources_that_hold_nothing_to_import(tmp_path: Path, capsys: Capture) -> None:
    photos(tmp_path / "only")
    assert main(["import", str(tmp_path / "only"), "--out", str(tmp_path / "p.json")]) == 1
    assert "only holds 2 .jpg, and no labels in a known format; known are YOLO-pose" in capsys.readouterr().err
    assert main(["import", str(tmp_path / "none"), "--out", str(tmp_path / "p.json")]) == 1
    assert "none does not exist" in capsys.readouterr().err
    (tmp_path / "cut.zip").write_bytes(zipfile_of(tmp_path / "only")[:-30])
    assert main(["import", str(tmp_path / "cut.zip"), "--out", str(tmp_path / "p.json")]) == 1
    assert "cut.zip is no zip file, or was cut off" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["content", "end"])
def test_a_damaged_member_of_a_zip_is_named(damage: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", '{"a": 1}')
    data = bytearray((tmp_path / "x.zip").read_bytes())
    if damage == "content":
        data[36:40] = b"\xff" * 4
    else:  # the directory says that more follows than there is
        entry = data.index(b"PK\1\2")
        data[entry + 20 : entry + 24] = (2**20).to_bytes(4, "little")
        data[36] &= ~1  # not its last block
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(DekrPoseError, match=r"a\.json cannot be read"):
        Files(tmp_path / "x.zip").read("a.json")


def zipfile_of(folder: Path) -> bytes:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.name)
    return path.read_bytes()


_LAUGHS = "a: &a [lol, lol]\n" + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefghij"))


@pytest.mark.parametrize(
    "text",
    [
        _LAUGHS + "kpt_shape: *j", _LAUGHS + "kpt_shape: [17, 3]\nnames: *j", "kpt_shape: [17, 3]\nx: " + "[" * 3000,
        "kpt_shape: [17, 3]\nx: 2001-99-99", "kpt_shape: [17, 3]\nx: !!bool y", "kpt_shape: [17, 3]\nx: " + "9" * 5000,
        "kpt_shape: [1000000000, 3]", "kpt_shape: [17, 3]\nx: " + "y" * 2**20,
    ],
    ids=lambda text: text[-20:],
)  # fmt: skip
def test_a_yaml_that_grows_or_is_none_is_refused(tmp_path: Path, text: str) -> None:
    photos(tmp_path)
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(DekrPoseError, match=r"data\.yaml") as caught:
        read_labels(Files(tmp_path), Wishes())
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("change", [{"group_id": [1]}, {"points": 5}, {"label": {}, "shape_type": []}])
def test_labels_that_are_not_as_their_format_has_them_are_left_out(tmp_path: Path, change: dict[str, Any]) -> None:
    photos(tmp_path)
    shape = {"label": "nose", "points": [[1.0, 2.0]], "shape_type": "point"}
    for image, own in zip(TRUTH["images"], [shape, {**shape, **change}], strict=False):
        text = json.dumps({"shapes": [own], "imagePath": image["file_name"]})
        (tmp_path / f"{image['id']}.json").write_text(text)
    assert main(["import", str(tmp_path), "--out", str(tmp_path / "p.json")]) in (0, 1)
    assert len(json.loads((tmp_path / "p.json").read_text())["annotations"]) == 1


def test_more_names_than_a_network_has_keypoints_are_refused(tmp_path: Path) -> None:
    photos(tmp_path)
    shapes = [{"label": str(number), "points": [[1, 2]], "shape_type": "point"} for number in range(1025)]
    (tmp_path / "a.json").write_text(json.dumps({"shapes": shapes, "imagePath": TRUTH["images"][0]["file_name"]}))
    with pytest.raises(DekrPoseError, match="1,025 names of keypoints"):
        read_labels(Files(tmp_path), Wishes())


@pytest.mark.parametrize("use", [Files, lambda place: PhotoFiles([place]).read("b.json")])
def test_a_zip_that_expands_is_refused_before_it_is_unpacked(tmp_path: Path, use: Callable[[Path], Any]) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in "ab":
            archive.writestr(f"{name}.json", bytes(20_000_000))
    with pytest.raises(DekrPoseError, match="unpacks to more than"):
        use(tmp_path / "a.zip")


def test_names_in_a_zip_may_begin_with_a_slash(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("/b//c.jpg", b"")
    assert Files(tmp_path / "a.zip").names == ["/b//c.jpg"]
