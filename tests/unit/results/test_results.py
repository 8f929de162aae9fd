from __future__ import annotations

import json
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dekrpose.formats.others import BODY_25
from dekrpose.results import Keypoint, Poses
from dekrpose.skeletons import COCO_17, CROWDPOSE_14, Skeleton

CASES = Path(__file__).parents[2] / "cases" / "json"

NO_FACE = Skeleton("hook", ("tip", "bend"), ((0, 1),), (), (0.05, 0.05))


def make_poses(count: int = 2, skeleton: Skeleton = COCO_17, **fields: Any) -> Poses:
    """People side by side in an image of 120 by 160 pixels; every number differs."""
    rng = np.random.default_rng(5)
    channels = len(skeleton)
    keypoints = rng.uniform(10, 60, (count, channels, 2)) + np.arange(count)[:, None, None] * [40, 0]
    values: dict[str, Any] = {
        "keypoints": keypoints,
        "keypoint_scores": rng.uniform(0.3, 0.9, (count, channels)),
        "scores": np.linspace(0.9, 0.5, count),
        "skeleton": skeleton,
        "image_size": (120, 160),
    }
    return Poses(**{**values, **fields})


def photo() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (120, 160, 3)).astype(np.uint8)


def test_sides_of_half_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match="image must have the shape"):
        Poses.nobody(COCO_17, (40.5, 30.5), image=np.zeros((40, 30, 3), np.uint8))  # type: ignore[arg-type]


def test_a_keypoint_is_found_by_name_and_by_channel() -> None:
    poses = make_poses()
    wrist = poses[0]["left_wrist"]
    assert isinstance(wrist, Keypoint)
    assert wrist == poses[0][9]
    assert wrist.x == poses.keypoints[0, 9, 0]
    assert wrist.y == poses.keypoints[0, 9, 1]
    assert wrist.score == poses.keypoint_scores[0, 9]
    assert list(poses[0])[9] == wrist


def test_an_unknown_keypoint_name_lists_the_names() -> None:
    with pytest.raises(KeyError, match="left_wrist"):
        make_poses()[0]["left_hand"]


def test_a_person_carries_score_box_and_track() -> None:
    person = make_poses(track_ids=[7, 9])[-1]
    assert (person.score, person.track_id, len(person)) == (pytest.approx(0.5), 9, 17)
    assert person.box.shape == (4,)
    assert "track_id=9" in repr(person)


def test_people_are_iterated_in_order_and_end() -> None:
    assert [person.score for person in make_poses(3)] == pytest.approx([0.9, 0.7, 0.5])
    with pytest.raises(IndexError):
        make_poses(3)[3]


@pytest.mark.parametrize("which", [slice(1, None), [1, 2], np.array([1, 2]), [False, True, True]])
def test_slices_indices_and_masks_select_people(which: Any) -> None:
    poses = make_poses(3, track_ids=[4, 5, 6], source="a.jpg", timing={"decode": 1.5})
    selected = poses[which]
    np.testing.assert_array_equal(selected.keypoints, poses.keypoints[1:])
    np.testing.assert_array_equal(selected.boxes, poses.boxes[1:])
    np.testing.assert_array_equal(selected.track_ids, [5, 6])
    assert (selected.source, selected.timing) == ("a.jpg", {"decode": 1.5})


def test_selecting_nobody_is_empty() -> None:
    for which in ([], slice(0, 0), np.zeros(2, bool)):
        assert len(make_poses()[which]) == 0


def test_a_keypoint_name_is_that_keypoint_of_everyone() -> None:
    poses = make_poses(3)
    wrists = poses["left_wrist"]
    assert (wrists.shape, wrists.dtype) == ((3, 3), np.float32)
    assert [tuple(row) for row in wrists.tolist()] == [person["left_wrist"] for person in poses]
    assert poses[:0]["left_wrist"].shape == (0, 3)
    with pytest.raises(KeyError, match="left_wrist"):
        poses["left_hand"]
    with pytest.raises(TypeError, match="name of a keypoint"):
        poses[1.5]  # type: ignore[call-overload]


def test_results_share_no_memory_with_the_caller_and_are_read_only() -> None:
    keypoints = np.ones((1, 17, 2), np.float32)
    image = np.zeros((120, 160, 3), np.uint8)
    poses = make_poses(1, keypoints=keypoints, image=image)
    keypoints[:] = 5
    image[:] = 5
    assert poses.keypoints.max() == 1
    assert poses.image is not None
    assert poses.image.max() == 0
    for array in (poses.keypoints, poses.keypoint_scores, poses.scores, poses.boxes, poses.image):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    assert keypoints.flags.writeable


def test_a_read_only_image_is_not_copied() -> None:
    image = photo()
    image.flags.writeable = False
    assert np.shares_memory(make_poses(image=image).image, image)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("keypoints", np.zeros((2, 14, 2))),
        ("keypoints", np.zeros((2, 17, 3))),
        ("keypoint_scores", np.zeros((1, 17))),
        ("scores", np.zeros((2, 1))),
        ("track_ids", [1, 2, 3]),
        ("image", np.zeros((160, 120, 3), np.uint8)),
        ("image", np.zeros((120, 160, 3), np.float32)),
    ],
)
def test_shapes_that_do_not_fit_raise(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        make_poses(**{field: value})


def test_keypoints_are_never_clipped_but_boxes_end_at_the_image() -> None:
    keypoints = np.full((1, 17, 2), 50.0)
    keypoints[0, 15] = (60, 200)
    keypoints[0, 0] = (-20, 10)
    poses = make_poses(1, keypoints=keypoints)
    assert poses[0]["left_ankle"][:2] == (60, 200)
    np.testing.assert_array_equal(poses.boxes, [[0, 10, 60, 120]])


def test_a_wild_guess_without_score_does_not_widen_the_box() -> None:
    keypoints = np.full((1, 17, 2), 50.0)
    keypoints[0, 3], keypoints[0, 4] = (20, 30), (150, 110)
    scores = np.full((1, 17), 0.4)
    scores[0, 4] = 0.03
    np.testing.assert_array_equal(make_poses(1, keypoints=keypoints, keypoint_scores=scores).boxes, [[20, 30, 50, 50]])


def test_boxes_use_all_keypoints_when_no_scores_are_known() -> None:
    poses = make_poses(1, keypoint_scores=np.zeros((1, 17)))
    low, high = poses.keypoints[0].min(axis=0), poses.keypoints[0].max(axis=0)
    np.testing.assert_array_equal(poses.boxes, [[*low, *high]])


def test_boxes_survive_keypoints_that_are_not_numbers() -> None:
    keypoints = np.full((2, 17, 2), np.nan)
    keypoints[0, :2] = [(10, 20), (30, 40)]
    np.testing.assert_array_equal(make_poses(2, keypoints=keypoints).boxes, [[10, 20, 30, 40], [0, 0, 0, 0]])


def test_repr_is_one_short_line() -> None:
    text = repr(make_poses(30, source="a.jpg"))
    assert len(text) < 160
    assert "\n" not in text
    assert "30 people" in text
    assert "a.jpg" in text
    assert "nobody" in repr(Poses.nobody(COCO_17, (4, 4)))
    assert "broken" in repr(Poses.nobody(COCO_17, (4, 4), error="broken"))


def test_html_shows_the_photo_or_a_table_and_escapes_names() -> None:
    shown = make_poses(image=photo(), source="<b>.jpg")._repr_html_()
    assert 'src="data:image/jpeg;base64,' in shown
    assert "&lt;b&gt;.jpg" in shown
    assert "<table>" in make_poses()._repr_html_()
    assert "nobody" in Poses.nobody(COCO_17, (4, 4))._repr_html_()


def test_html_of_a_large_photo_is_small() -> None:
    image = np.zeros((1200, 1600, 3), np.uint8)
    assert len(make_poses(image=image, image_size=(1200, 1600))._repr_html_()) < 100_000


def test_drawing_needs_an_image() -> None:
    with pytest.raises(ValueError, match=r"draw\(image\)"):
        make_poses().draw()


def test_the_kept_and_a_given_image_are_drawn_alike() -> None:
    image = photo()
    drawn = make_poses(image=image).draw()
    np.testing.assert_array_equal(make_poses().draw(image), drawn)
    assert not np.array_equal(drawn, image)
    np.testing.assert_array_equal(make_poses(image=image).draw(color="bgr"), drawn[..., ::-1])


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".png", ".webp"])
def test_photos_are_saved_by_suffix(tmp_path: Path, suffix: str) -> None:
    poses = make_poses(image=photo())
    path = tmp_path / f"out{suffix}"
    poses.save(path)
    with Image.open(path) as saved:
        assert saved.size == (160, 120)
        if suffix == ".png":
            np.testing.assert_array_equal(np.asarray(saved), poses.draw())
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_saved_without_an_image(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    make_poses().save(str(path))
    assert len(Poses.from_json(path.read_text(encoding="utf-8"))) == 2


def test_other_suffixes_and_missing_images_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.json"):
        make_poses(image=photo()).save(tmp_path / "out.gif")
    with pytest.raises(ValueError, match="image"):
        make_poses().save(tmp_path / "out.png")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.json"
    path.write_text("old")

    def fail(self: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        make_poses().save(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("skeleton", [COCO_17, CROWDPOSE_14, NO_FACE])
def test_json_gives_back_the_same_poses(skeleton: Skeleton) -> None:
    poses = make_poses(
        skeleton=skeleton, track_ids=[3, 1], timing={"network": 12.25}, source="ä.jpg", index=4, timestamp=0.5
    )
    back = Poses.from_json(poses.to_json())
    for name in ("keypoints", "keypoint_scores", "scores", "boxes", "track_ids"):
        np.testing.assert_array_equal(getattr(back, name), getattr(poses, name))
    for name in ("skeleton", "image_size", "timing", "source", "index", "timestamp", "error"):
        assert getattr(back, name) == getattr(poses, name)


def test_json_is_plain_and_names_its_keypoints() -> None:
    values = make_poses().to_dict()
    assert json.loads(json.dumps(values)) == values
    assert set(values["people"][0]["keypoints"]) == set(COCO_17.keypoints)
    assert values["image_size"] == {"height": 120, "width": 160}


def test_json_of_keypoints_that_are_not_numbers_stays_valid() -> None:
    keypoints = np.full((1, 17, 2), np.nan)
    back = Poses.from_json(make_poses(1, keypoints=keypoints).to_json())
    assert np.isnan(back.keypoints).all()


@pytest.mark.parametrize("text", ["[]", "{}", '{"format": "dekrpose.poses", "version": 99}'])
def test_foreign_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"dekrpose\.poses"):
        Poses.from_json(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "it is empty"),
        ("[" * 100_000, "nested deeper than 100 levels"),
        ('{"a": ' * 100_000, "nested deeper than 100 levels"),
        ('{"format": "dekrpose.poses", "format": "dekrpose.poses", "version": 1}', "has the key 'format' twice"),
        (b'{"format": "\xff\xfe"}', "can't decode byte 0xff"),
        ('{"format": NaN}', "NaN is no number in JSON"),
        ("7", "got int"),
        ("null", "got NoneType"),
        (
            (CASES / "poses_1.json").read_bytes(),
            r"'left_ankle' of people\[0\] must be a number up to 3.4e\+38, got 1000",
        ),
        ((CASES / "poses_2.json").read_bytes(), r"timing_ms must be an object, got \[None"),
    ],
    ids=lambda value: value[:8] if isinstance(value, str) else "",
)
def test_what_is_wrong_with_json_is_said(text: str | bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Poses.from_json(text)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("people", {}, "people must be a list"),
        ("people", [None], r"people\[0\] must be an object, got None"),
        ("skeleton", [], "skeleton must be an object"),
        ("image_size", [512, 512], "image_size must be an object"),
        ("image_size", {"height": 1.5, "width": 2}, "image_size must be a whole number .* got 1.5"),
        ("timing_ms", {"network": None}, "timing_ms of 'network' must be a finite number"),
        ("timing_ms", {"network": 10**400}, "timing_ms of 'network' must be a finite number"),
        ("source", 7, "source must be a text or null, got 7"),
        ("index", "first", "index must be a whole number"),
        ("timestamp", float("inf"), "timestamp must be a finite number"),
    ],
)
def test_damaged_fields_are_named(field: str, value: object, words: str) -> None:
    with pytest.raises(ValueError, match=f"incomplete or damaged: {words}"):
        Poses.from_dict({**make_poses().to_dict(), field: value})


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("score", "high", r"score of people\[1\] must be a number"),
        ("score", 1e39, r"score of people\[1\] must be a number up to 3.4e\+38, got 1e\+39"),
        ("track_id", 1.5, r"track_id of people\[1\] must be a whole number"),
        ("track_id", 2**63, r"track_id of people\[1\] must be a whole number"),
        ("keypoints", [], r"keypoints of people\[1\] must be an object"),
    ],
)
def test_damaged_people_are_named(field: str, value: object, words: str) -> None:
    values = make_poses().to_dict()
    values["people"][1][field] = value
    with pytest.raises(ValueError, match=words):
        Poses.from_dict(values)
    values = make_poses().to_dict()
    values["people"][1]["keypoints"]["nose"] = [1, 2]
    with pytest.raises(ValueError, match=r"'nose' of people\[1\] must be x, y, score, got \[1, 2\]"):
        Poses.from_dict(values)


def test_numbers_of_numpy_are_numbers() -> None:
    values = make_poses(index=3, timestamp=0.5).to_dict() | {"index": np.int64(3), "timestamp": np.float32(0.5)}
    assert (Poses.from_dict(values).index, Poses.from_dict(values).timestamp) == (3, 0.5)


def test_other_formats_have_no_nan() -> None:
    poses = make_poses()
    keypoints, keypoint_scores, scores = (
        np.array(own) for own in (poses.keypoints, poses.keypoint_scores, poses.scores)
    )
    wrist, shoulder, nose = (COCO_17.index(name) for name in ("left_wrist", "left_shoulder", "nose"))
    keypoints[0, wrist, 0], keypoints[0, shoulder, 1], keypoint_scores[0, nose] = np.nan, np.inf, np.nan
    scores[1] = -np.inf
    broken = replace(poses, keypoints=keypoints, keypoint_scores=keypoint_scores, scores=scores)
    first, second = broken.to_coco("7")
    json.dumps([first, second], allow_nan=False)
    triples = np.array(first["keypoints"]).reshape(17, 3)
    expected = np.concatenate([poses.keypoints[0], poses.keypoint_scores[0, :, None]], axis=1)
    expected[[wrist, shoulder, nose]] = 0
    np.testing.assert_array_equal(triples, expected)
    assert (first["image_id"], first["score"], second["score"]) == ("7", float(poses.scores[0]), 0.0)
    assert second == {**poses.to_coco("7")[1], "score": 0.0}
    written = broken.to_openpose()
    json.dumps(written, allow_nan=False)
    body = np.array(written["people"][0]["pose_keypoints_2d"]).reshape(25, 3)
    names = [name for name in BODY_25 if name is not None]
    empty = {names[row] for row in range(len(names)) if not body[row].any()}
    assert empty == {"left_wrist", "left_shoulder", "nose", "neck"}
    assert written["people"][1] == poses.to_openpose()["people"][1]


def test_damaged_json_names_what_is_missing() -> None:
    values = make_poses().to_dict()
    del values["people"][1]["keypoints"]["nose"]
    with pytest.raises(ValueError, match="nose"):
        Poses.from_dict(values)


def test_coco_results_are_flat_plain_numbers() -> None:
    poses = make_poses()
    results = poses.to_coco(785)
    assert [result["score"] for result in results] == poses.scores.tolist()
    first = results[0]
    assert (first["image_id"], first["category_id"], len(first["keypoints"])) == (785, 1, 51)
    assert all(type(value) is float for value in [*first["keypoints"], first["score"]])
    assert first["keypoints"][27:30] == list(poses[0]["left_wrist"])
    assert len(make_poses(skeleton=CROWDPOSE_14).to_coco(1)[0]["keypoints"]) == 42


def test_openpose_puts_keypoints_into_body_25_order() -> None:
    poses = make_poses()
    written = poses.to_openpose()
    body = np.array(written["people"][1]["pose_keypoints_2d"]).reshape(25, 3)
    np.testing.assert_allclose(body[7], poses[1]["left_wrist"])
    left, right = poses[1]["left_shoulder"], poses[1]["right_shoulder"]
    np.testing.assert_allclose(body[1, :2], [(left.x + right.x) / 2, (left.y + right.y) / 2])
    assert body[1, 2] == min(left.score, right.score)
    assert not body[19:].any()
    assert json.loads(json.dumps(written)) == written


def test_openpose_takes_a_neck_of_the_skeletons_own() -> None:
    poses = make_poses(skeleton=CROWDPOSE_14)
    body = np.array(poses.to_openpose()["people"][0]["pose_keypoints_2d"]).reshape(25, 3)
    np.testing.assert_allclose(body[1], poses[0]["neck"])
    assert not body[0].any()


def test_openpose_refuses_a_skeleton_without_any_of_its_keypoints() -> None:
    with pytest.raises(ValueError, match="hook"):
        make_poses(skeleton=NO_FACE).to_openpose()


def test_pandas_has_one_row_per_keypoint() -> None:
    poses = make_poses()
    table = poses.to_pandas()
    assert list(table.columns) == ["person", "keypoint", "x", "y", "score", "person_score"]
    row = table[(table.person == 1) & (table.keypoint == "left_wrist")].iloc[0]
    assert (row.x, row.y, row.score) == poses[1]["left_wrist"]
    assert list(make_poses(track_ids=[8, 9]).to_pandas()["track_id"].unique()) == [8, 9]
    empty = poses[:0].to_pandas()
    assert len(empty) == 0
    assert list(empty.columns) == list(table.columns)


def test_supervision_takes_the_keypoints() -> None:
    poses = make_poses()
    converted = poses.to_supervision()
    np.testing.assert_array_equal(converted.xy, poses.keypoints)
    assert len(poses[:0].to_supervision()) == 0


def test_plot_draws_into_the_given_axes() -> None:
    import matplotlib as mpl

    mpl.use("agg")
    ax = make_poses(image=photo()).plot()
    np.testing.assert_array_equal(ax.images[0].get_array(), make_poses(image=photo()).draw())
    assert make_poses(image=photo()).plot(ax) is ax


@pytest.mark.parametrize(
    ("module", "method", "line"),
    [
        ("pandas", "to_pandas", r"Pandas is missing; run: pip install 'dekrpose\[pandas\]'"),
        ("supervision", "to_supervision", r"Supervision is missing; run: pip install 'dekrpose\[supervision\]'"),
        ("matplotlib", "plot", r"Matplotlib is missing; run: pip install 'dekrpose\[notebook\]'"),
    ],
)
def test_a_missing_extra_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, module: str, method: str, line: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=line):
        getattr(make_poses(image=photo()), method)()


@pytest.mark.parametrize("skeleton", [COCO_17, CROWDPOSE_14])
def test_nobody_is_a_normal_answer_everywhere(skeleton: Skeleton, tmp_path: Path) -> None:
    image = photo()
    poses = Poses.nobody(skeleton, (120, 160), image=image, source="a.jpg")
    assert (len(poses), list(poses), poses.to_coco(1)) == (0, [], [])
    assert poses.boxes.shape == (0, 4)
    assert poses.keypoints.shape == (0, len(skeleton), 2)
    assert poses.to_openpose()["people"] == []
    np.testing.assert_array_equal(poses.draw(), image)
    back = Poses.from_json(poses.to_json())
    assert (back.keypoints.shape, back.source, back.skeleton) == (poses.keypoints.shape, "a.jpg", skeleton)
    poses.save(tmp_path / "nobody.png")
    assert "nobody" in poses._repr_html_()


def test_poses_travel_between_processes_and_can_be_changed_by_copy() -> None:
    poses = make_poses(timing={"decode": 1.0})
    back = pickle.loads(pickle.dumps(poses))
    np.testing.assert_array_equal(back.keypoints, poses.keypoints)
    tracked = replace(poses, track_ids=np.array([1, 2]))
    assert (tracked[1].track_id, poses.track_ids) == (2, None)
