from __future__ import annotations

import io
import pickle
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dekrpose.results import Poses
from dekrpose.skeletons import COCO_17, CROWDPOSE_14


def people(count: int = 3, **fields: Any) -> Poses:
    """People of 20 by 40 pixels, 50 pixels apart, with scores 0.9, 0.7, 0.5."""
    shape = np.linspace((0, 0), (20, 40), 17)
    values: dict[str, Any] = {
        "keypoints": shape + np.arange(count)[:, None, None] * [50, 0] + [10, 10],
        "keypoint_scores": np.full((count, 17), 0.8),
        "scores": 0.9 - 0.2 * np.arange(count),
        "skeleton": COCO_17,
        "image_size": (100, 200),
    }
    return Poses(**{**values, **fields})


def test_people_are_filtered_by_score_box_area_and_a_question_of_ones_own() -> None:
    poses = people(track_ids=[4, 5, 6])
    assert poses.filter(score=0.7).track_ids.tolist() == [4, 5]  # type: ignore[union-attr]
    assert poses.filter(box=(55, 0, 100, 100)).track_ids.tolist() == [5]  # type: ignore[union-attr]
    assert len(poses.filter(area=800)) == 3
    assert len(poses.filter(area=801)) == 0
    assert poses.filter(lambda person: person.track_id == 6)[0].track_id == 6
    assert poses.filter(score=0.6, box=(0, 0, 30, 100)).scores.tolist() == [np.float32(0.9)]
    assert len(poses.filter()) == 3
    assert len(poses[:0].filter(lambda person: True, keypoints="nose", score=0.5)) == 0


def test_people_are_filtered_by_the_keypoints_that_are_seen() -> None:
    scores = np.full((3, 17), 0.8)
    scores[0, 9], scores[1, 9:] = 0.05, 0.3
    poses = people(keypoint_scores=scores)
    assert len(poses.filter(keypoints="left_wrist")) == 2
    assert len(poses.filter(keypoints=["left_wrist", "nose"], keypoint_score=0.5)) == 1
    assert len(poses.filter(keypoints=17)) == 2
    assert len(poses.filter(keypoints=10, keypoint_score=0.5)) == 2
    with pytest.raises(KeyError, match="left_wrist"):
        poses.filter(keypoints="left_hand")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"score": "high"}, "score must be a finite number, got 'high'"),
        ({"score": 80}, "score must be a number of at most 1"),
        ({"box": (50, 0, 10, 100)}, "not x, y, width, height"),
        ({"box": 1}, "box must be x0, y0, x1, y1"),
        ({"box": "5000"}, "box must be x0, y0, x1, y1"),
        ({"keypoint_score": 0.5}, "name the keypoints"),
    ],
)
def test_filters_that_cannot_be_used_say_so(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        people().filter(**options)


def test_results_of_one_image_are_joined() -> None:
    first = people(2, source="a.jpg", timing={"read": 1.0, "network": 5.0})
    second = people(1, track_ids=[7], timing={"network": 4.0})
    both = first + second
    assert (len(both), both.source, both.timing) == (3, "a.jpg", {"network": 9.0, "read": 1.0})
    assert both.track_ids is not None
    assert both.track_ids.tolist() == [-1, -1, 7]
    assert Poses.concat([first, second, Poses.nobody(COCO_17, (100, 200))]).allclose(both)
    assert (first + first).track_ids is None


def test_what_cannot_be_joined_is_said() -> None:
    with pytest.raises(ValueError, match=r"one skeleton and size, got coco-17 \(100, 200\) and coco-17 \(50, 200\)"):
        people() + people(image_size=(50, 200))
    with pytest.raises(ValueError, match="crowdpose-14"):
        people() + Poses.nobody(CROWDPOSE_14, (100, 200))
    with pytest.raises(ValueError, match="at least one result"):
        Poses.concat([])
    with pytest.raises(TypeError):
        people() + 1  # type: ignore[operator]


def test_results_are_close_up_to_rounding() -> None:
    poses = people()
    moved = replace(poses, keypoints=poses.keypoints + np.float32(0.5))
    assert poses.allclose(replace(poses, keypoints=poses.keypoints + np.float32(1e-4), source="other"))
    assert not poses.allclose(moved)
    assert poses.allclose(moved, pixels=0.6)
    assert not poses.allclose(poses[::-1])
    assert not poses.allclose(poses[:2])
    assert not poses.allclose(replace(poses, track_ids=[1, 2, 3]))
    nan = replace(poses, keypoints=np.full((3, 17, 2), np.nan))
    assert nan.allclose(nan)


def test_areas_are_those_of_the_boxes() -> None:
    np.testing.assert_allclose(people().areas, [800, 800, 800])
    assert people(0).areas.shape == (0,)


def test_nobody_is_empty_and_the_old_name_warns() -> None:
    nobody = Poses.nobody(COCO_17, (4, 4))
    assert nobody.is_empty
    assert not people().is_empty
    with pytest.warns(DeprecationWarning, match=r"Poses\.nobody"):
        old = Poses.empty(COCO_17, (4, 4), error="broken")
    assert (len(old), old.error) == (0, "broken")
    with pytest.warns(DeprecationWarning, match=r"is_empty"):
        assert not people().empty
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        repr(nobody)


def test_a_result_travels_without_its_photo_and_stays_read_only() -> None:
    poses = people(image=np.zeros((100, 200, 3), np.uint8))
    small = pickle.dumps(poses.without_image())
    assert len(small) < 5_000 < len(pickle.dumps(poses))
    back = pickle.loads(small)
    assert back.allclose(poses)
    assert back.image is None
    with pytest.raises(ValueError, match="read-only"):
        back.keypoints[...] = 0


@pytest.mark.parametrize("kind", [str, Path])
def test_json_is_read_from_a_path(tmp_path: Path, kind: Any) -> None:
    path = tmp_path / "deep" / "er" / "out.json"
    people().save(path)
    assert Poses.from_json(kind(path)).allclose(people())
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"out\.json: expected a JSON object"):
        Poses.from_json(kind(path))
    with pytest.raises(FileNotFoundError):
        Poses.from_json(kind(tmp_path / "missing.json"))


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "out.json").mkdir()
    with pytest.raises(OSError, match=r"'[^']*/out\.json'$"):
        people().save(tmp_path / "out.json")
    with pytest.raises(ValueError, match=r"/out\.gif'"):
        people().save(tmp_path / "out.gif")
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_json_is_read_from_an_open_file_and_other_text_is_named() -> None:
    text = people().to_json()
    assert Poses.from_json(io.StringIO(text)).allclose(people())
    assert Poses.from_json(io.BytesIO(text.encode())).allclose(people())
    with pytest.raises(ValueError, match=r"neither JSON nor a path that ends in \.json: 'missing\.txt'"):
        Poses.from_json("missing.txt")


def test_pictures_are_saved_on_a_photo_that_is_handed_over(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (100, 200, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    expected = people().draw(pixels)
    for image in (pixels, Image.fromarray(pixels), tmp_path / "photo.png"):
        np.testing.assert_array_equal(people().draw(image), expected)
        people().save(tmp_path / "out.png", image)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out.png")), expected)
    people().save(tmp_path / "out.png", np.ascontiguousarray(pixels[..., ::-1]), color="bgr")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out.png")), expected)
    np.testing.assert_array_equal(people().draw(Image.fromarray(pixels), color="bgr"), expected[..., ::-1])
    with pytest.raises(ValueError, match="options of pictures have no effect: image"):
        people().save(tmp_path / "out.json", pixels)
    with pytest.raises(ValueError, match=r"np\.dstack"):
        people().draw(pixels[..., 0])


def test_a_person_is_cut_out_of_a_pillow_image_and_other_things_are_refused() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (100, 200, 3)).astype(np.uint8)
    person = people()[0]
    np.testing.assert_array_equal(person.crop(Image.fromarray(pixels)), person.crop(pixels))
    for other in (5, "photo.jpg"):
        with pytest.raises(TypeError, match="or a Pillow image, got"):
            person.crop(other)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="margin must be at least 0"):
        person.crop(pixels, margin=-0.1)


def test_arguments_of_the_wrong_kind_say_what_is_expected() -> None:
    with pytest.raises(TypeError, match=r"filter\(score=0\.2\)"):
        people().filter(0.2)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="skeleton must be a Skeleton"):
        Poses.nobody("coco", (10, 10))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="between must be two keypoints"):
        people()[0].angle("left_knee", between="nose")  # type: ignore[arg-type]
    for labels in (True, False):
        with pytest.raises(ValueError, match="labels must be among"):
            people().draw(background="white", labels=labels)  # type: ignore[arg-type]
