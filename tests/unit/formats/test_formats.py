"""Formats of others: what is written, and that the packages read it where they are installed."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dekrpose.results import Poses
from dekrpose.skeletons import COCO_17, CROWDPOSE_14, Skeleton


def people(count: int = 2, skeleton: Skeleton = COCO_17, **fields: Any) -> Poses:
    rng = np.random.default_rng(5)
    values: dict[str, Any] = {
        "keypoints": rng.uniform(10, 60, (count, len(skeleton), 2)) + np.arange(count)[:, None, None] * [40, 0],
        "keypoint_scores": rng.uniform(0.3, 0.9, (count, len(skeleton))),
        "scores": np.linspace(0.9, 0.5, count),
        "skeleton": skeleton,
        "image_size": (120, 160),
    }
    return Poses(**{**values, **fields})


@pytest.mark.parametrize("skeleton", [COCO_17, CROWDPOSE_14])
def test_csv_has_a_row_per_person_with_every_number(skeleton: Skeleton) -> None:
    poses = people(skeleton=skeleton, source="a, b.jpg", index=3, timestamp=0.5, track_ids=[7, 8])
    rows = list(csv.DictReader(io.StringIO(poses.to_csv())))
    assert [(row["source"], row["index"], row["timestamp"], row["track_id"]) for row in rows] == [
        ("a, b.jpg", "3", "0.5", "7"),
        ("a, b.jpg", "3", "0.5", "8"),
    ]
    for row, person in zip(rows, poses, strict=True):
        assert np.float32(row["score"]) == np.float32(person.score)
        np.testing.assert_array_equal([np.float32(row[name]) for name in ("x0", "y0", "x1", "y1")], person.box)
        for name, keypoint in zip(skeleton.keypoints, person, strict=True):
            assert tuple(np.float32(row[f"{name}_{what}"]) for what in ("x", "y", "score")) == keypoint


def test_csv_of_several_results_is_one_table_and_what_is_unknown_is_empty() -> None:
    keypoints = people().keypoints.copy()
    keypoints[0, 0] = np.nan
    first = people(keypoints=keypoints)
    text = first.to_csv() + people(1).to_csv(header=False) + people(0).to_csv(header=False)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["person"] for row in rows] == ["0", "1", "0"]
    assert (rows[0]["nose_x"], rows[0]["source"], rows[0]["track_id"]) == ("", "", "")


def test_csv_is_saved(tmp_path: Path) -> None:
    people().save(tmp_path / "new" / "out.csv")
    assert (tmp_path / "new" / "out.csv").read_text(encoding="utf-8") == people().to_csv()
    with pytest.raises(ValueError, match="options of pictures have no effect: boxes"):
        people().save(tmp_path / "out.csv", boxes=True)


def test_pandas_reads_csv_and_gives_poses_back() -> None:
    pandas = pytest.importorskip("pandas")
    poses = people(3, track_ids=[7, 8, 9])
    assert list(pandas.read_csv(io.StringIO(poses.to_csv())).track_id) == [7, 8, 9]
    back = Poses.from_pandas(poses.to_pandas(), skeleton=COCO_17, image_size=(120, 160), source="a.jpg")
    assert back.allclose(poses, pixels=0, scores=0)
    assert back.source == "a.jpg"
    text = poses.to_pandas().to_csv(index=False)
    read = pandas.read_csv(io.StringIO(text))
    assert Poses.from_pandas(read, skeleton=COCO_17, image_size=(120, 160)).allclose(poses)
    assert Poses.from_pandas(poses[:0].to_pandas(), skeleton=COCO_17, image_size=(120, 160)).is_empty


def test_a_part_of_a_table_is_a_part_of_the_poses() -> None:
    pytest.importorskip("pandas")
    poses = people(3)
    table = poses.to_pandas()
    table = table[(table.person_score < 0.8) & (table.keypoint != "nose")].sample(frac=1, random_state=0)
    back = Poses.from_pandas(table, skeleton=COCO_17, image_size=(120, 160))
    assert sorted(back.scores.tolist()) == sorted(poses.scores[1:].tolist())
    assert np.isnan(back["nose"][:, 0]).all()
    assert (back["nose"][:, 2] == 0).all()


def test_tables_that_are_no_poses_are_refused() -> None:
    pandas = pytest.importorskip("pandas")
    table = people().to_pandas()
    wrong = {
        r"lacks the columns \['score'\]": table.drop(columns="score"),
        r"no keypoints \['tail'\]": table.replace({"keypoint": {"nose": "tail"}}),
        "comes twice": pandas.concat([table, table]),
        "person_score differs": table.assign(person_score=range(len(table))),
    }
    for words, own in wrong.items():
        with pytest.raises(ValueError, match=words):
            Poses.from_pandas(own, skeleton=COCO_17, image_size=(120, 160))


def test_yolo_labels_are_shares_of_the_image_and_leave_out_what_is_not_seen() -> None:
    keypoints, scores = people(1).keypoints.copy(), people(1).keypoint_scores.copy()
    keypoints[0, 9], scores[0, 10] = (500, 50), 0.001
    poses = people(1, keypoints=keypoints, keypoint_scores=scores)
    (line,) = poses.to_yolo(class_id=3).splitlines()
    values = np.array(line.split(), float)
    assert (values[0], len(values)) == (3, 5 + 3 * 17)
    x0, y0, x1, y1 = poses.boxes[0] / [160, 120, 160, 120]
    np.testing.assert_allclose(values[1:5], [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], atol=1e-5)
    points = values[5:].reshape(17, 3)
    assert points[[9, 10]].tolist() == [[0, 0, 0], [0, 0, 0]]
    np.testing.assert_allclose(points[0], [keypoints[0, 0, 0] / 160, keypoints[0, 0, 1] / 120, 2], atol=1e-5)
    assert poses[:0].to_yolo() == ""
    outside = people(1, keypoints=keypoints + 1000)
    assert outside.to_yolo() == ""


def test_yolo_predictions_have_scores() -> None:
    values = np.array(people(1).to_yolo(scores=True).split(), float)
    assert len(values) == 5 + 3 * 17 + 1
    assert values[-1] == pytest.approx(0.9)
    np.testing.assert_allclose(values[5:-1].reshape(17, 3)[:, 2], people(1).keypoint_scores[0], atol=1e-5)


def test_ultralytics_reads_yolo_labels(tmp_path: Path) -> None:
    data = pytest.importorskip("ultralytics.data.utils")
    Image.fromarray(np.zeros((120, 160, 3), np.uint8)).save(tmp_path / "a.jpg")
    (tmp_path / "a.txt").write_text(people().to_yolo())
    read = data.verify_image_label((str(tmp_path / "a.jpg"), str(tmp_path / "a.txt"), "", True, 1, 17, 3, False))
    assert read[9] == ""  # no complaints
    np.testing.assert_allclose(read[4][..., :2] * [160, 120], people().keypoints, atol=1e-3)


def test_coco_evaluation_reads_results() -> None:
    coco = pytest.importorskip("faster_coco_eval")
    person = {"id": 1, "name": "person", "keypoints": list(COCO_17.keypoints), "skeleton": []}
    truth = coco.COCO({"images": [{"id": 7, "width": 160, "height": 120}], "annotations": [], "categories": [person]})
    read = truth.loadRes(json.loads(json.dumps(people().to_coco(7))))
    for annotation, own in zip(read.loadAnns(read.getAnnIds()), people(), strict=True):
        np.testing.assert_allclose(np.reshape(annotation["keypoints"], (17, 3)), np.array(list(own)), rtol=1e-6)


def test_transformers_people_are_tensors_as_vitpose_gives_them() -> None:
    poses = people()
    first, second = poses.to_transformers()
    assert set(first) == {"keypoints", "scores", "labels", "bbox"}
    np.testing.assert_array_equal(second["keypoints"].numpy(), poses.keypoints[1])
    np.testing.assert_array_equal(second["bbox"].numpy(), poses.boxes[1])
    assert first["labels"].tolist() == list(range(17))
    first["keypoints"][:] = 0
    assert poses.keypoints.min() > 0
    assert poses[:0].to_transformers() == []


def test_supervision_reads_both_and_draws_them() -> None:
    supervision = pytest.importorskip("supervision")
    scores = people().keypoint_scores.copy()
    scores[0, 3] = 0.001
    poses = replace(people(track_ids=[7, 8]), keypoint_scores=scores)
    own = poses.to_supervision()
    np.testing.assert_array_equal(own.xy, poses.keypoints)
    confidence = getattr(own, "keypoint_confidence", None)
    np.testing.assert_array_equal(own.confidence if confidence is None else confidence, scores)
    assert own.data["tracker_id"].tolist() == [7, 8]
    if getattr(own, "visible", None) is not None:
        assert own.visible.sum() == 2 * 17 - 1
        np.testing.assert_array_equal(own.detection_confidence, poses.scores)
    drawn = supervision.VertexAnnotator(radius=2).annotate(np.zeros((120, 160, 3), np.uint8), own)
    assert drawn.any()
    if hasattr(supervision.KeyPoints, "from_transformers"):
        read = supervision.KeyPoints.from_transformers(poses.to_transformers())
        np.testing.assert_array_equal(read.xy, poses.keypoints)
