"""Colours, boxes, labels, names, blurred faces, backgrounds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dekrpose.draw import draw_poses, marks
from dekrpose.draw.colors import looks, rgb, set_apart
from dekrpose.results import Poses
from dekrpose.skeletons import COCO_17, CROWDPOSE_14, Skeleton

FIGURE = np.array(
    [
        (0.50, 0.06), (0.52, 0.04), (0.48, 0.04), (0.54, 0.05), (0.46, 0.05), (0.60, 0.20), (0.40, 0.20),
        (0.68, 0.36), (0.31, 0.35), (0.72, 0.50), (0.25, 0.48), (0.56, 0.52), (0.44, 0.52),
        (0.60, 0.74), (0.41, 0.75), (0.63, 0.96), (0.36, 0.95),
    ]
)  # fmt: skip
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def people(count: int = 2, size: float = 90, **fields: Any) -> Poses:
    """Side by side, ``size`` pixels high, in an image of 100 by 200 pixels."""
    values: dict[str, Any] = {
        "keypoints": FIGURE * size + np.arange(count)[:, None, None] * [100, 0] + [5, 5],
        "keypoint_scores": np.full((count, 17), 0.8),
        "scores": 0.9 - 0.5 * np.arange(count),
        "skeleton": COCO_17,
        "image_size": (100, 200),
    }
    return Poses(**{**values, **fields})


def grey(value: int = 128) -> np.ndarray:
    return np.full((100, 200, 3), value, np.uint8)


def at(picture: np.ndarray, poses: Poses, person: int, keypoint: str) -> tuple[int, ...]:
    x, y, _ = poses[person][keypoint]
    return tuple(picture[round(y), round(x)].tolist())


def test_one_colour_a_palette_and_sides_of_ones_own() -> None:
    poses = people()
    one = draw_poses(grey(), poses, colors="lime")
    assert {at(one, poses, person, "left_knee") for person in (0, 1)} == {GREEN}
    palette = draw_poses(grey(), poses, colors=["#f00", BLUE])
    assert [at(palette, poses, person, "right_knee") for person in (0, 1)] == [RED, BLUE]
    sides = draw_poses(grey(), poses, colors={"left": RED, "right": "lime"})
    assert [at(sides, poses, 1, f"{side}_knee") for side in ("left", "right")] == [RED, GREEN]
    bgr = draw_poses(grey(), poses, colors=["#f00", BLUE], color="bgr")
    np.testing.assert_array_equal(bgr[..., ::-1], palette)


def test_identities_have_colours_of_ones_own() -> None:
    poses = people(track_ids=[7, 2])
    drawn = draw_poses(grey(), poses, colors={7: RED}, color_by="identity", labels=())
    assert at(drawn, poses, 0, "left_knee") == RED
    assert looks(poses, "person", {7: RED}) == looks(poses, "identity", {7: RED})
    with pytest.raises(ValueError, match="track=True"):
        draw_poses(grey(), people(), color_by="identity")
    assert looks(people(0), "identity", None) == []


def test_scores_go_from_violet_to_yellow_or_along_a_ramp_of_ones_own() -> None:
    low, high = (look.own for look in looks(people(scores=[0, 1]), "score", None))
    assert low[2] > 200 > low[1]
    assert high[0] > 200 > 100 > high[2]
    (middle,) = looks(people(1, scores=[0.5]), "score", ["black", "#646464"])
    assert middle.own == (50, 50, 50)
    assert looks(people(1, scores=[np.nan]), "score", [RED, BLUE])[0].own == RED


@pytest.mark.parametrize("color", ["reddish", (1, 2), (1, 2, 300), 7, (1.5, 2, 3), None, {"left": RED}])
def test_what_is_no_colour_is_said(color: Any) -> None:
    with pytest.raises(ValueError, match="a colour is a name such as 'orange'"):
        rgb(color)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"color_by": "side", "colors": ["red", "blue"]}, "colors is a dict"),
        ({"color_by": "person", "colors": {"left": "red"}}, "color_by='side'"),
        ({"colors": {"top": "red"}}, "'left', 'right', 'middle'"),
        ({"colors": []}, "colors is empty"),
        ({"labels": "age"}, "labels must be among"),
        ({"keypoint_threshold": "0.5"}, "keypoint_threshold must be at most 1, got '0.5'"),
        ({"keypoint_threshold": 50}, "keypoint_threshold must be at most 1, got 50"),
        ({"thickness": "2"}, "thickness must be above 0"),
    ],
)
def test_options_that_cannot_be_used_are_said(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        draw_poses(grey(), people(), **options)


def test_unknown_options_raise() -> None:
    with pytest.raises(TypeError, match="no such option: colour"):
        draw_poses(grey(), people(), colour="red")  # type: ignore[call-arg]


@pytest.mark.parametrize("ground", [(20, 110, 200), (48, 168, 255), (255, 176, 32), (240, 240, 236), (10, 10, 10)])
def test_built_in_colours_stand_out_from_any_ground_and_ones_own_stay(ground: tuple[int, int, int]) -> None:
    poses = people(1)
    (look,) = looks(poses, "side", None)
    for color in set_apart(look, np.tile(np.array(ground, float), (3, 1))).sides.values():
        assert np.linalg.norm(np.array(color) - ground) > 85
    photo = np.full((100, 200, 3), ground, np.uint8)
    drawn = draw_poses(photo, poses, colors={"left": BLUE})
    assert at(drawn, poses, 0, "left_knee") == BLUE


@pytest.mark.parametrize("size", [12, 20, 30])
def test_very_small_people_are_drawn_over_a_ground_of_their_colour(size: int) -> None:
    photo = np.full((100, 200, 3), (48, 168, 255), np.uint8)
    drawn = draw_poses(photo, people(1, size)).astype(int)
    contrast = np.abs(drawn - photo).max(axis=2)
    assert (contrast > 60).sum() > 2 * size


def test_boxes_are_drawn_around_people_and_inside_the_image() -> None:
    poses = people(1)
    drawn = draw_poses(grey(), poses, boxes=True, colors="red")
    x0, y0, x1, y1 = poses.boxes[0].round().astype(int)
    redness = drawn[..., 0].astype(int) - drawn[..., 1]
    assert all(redness[y - 1 : y + 2, (x0 + x1) // 2 + 5].max() > 120 for y in (y0, y1))
    cut = people(1, keypoints=FIGURE[None] * 400 - 150)
    drawn = draw_poses(grey(), cut, boxes=True, colors="red").astype(int)
    red = drawn[..., 0] - drawn[..., 1] > 100
    assert red[:, :2].any()
    assert red[-2:].any()
    outside = people(1, keypoints=FIGURE[None] * 90 + 1000)
    np.testing.assert_array_equal(draw_poses(grey(), outside, boxes=True, labels="score"), grey())


def test_identities_are_written_beside_people_and_scores_if_wanted() -> None:
    tracked, plain = people(track_ids=[7, -1]), people()
    without = draw_poses(grey(), tracked, labels=())
    by_default = draw_poses(grey(), tracked)
    changed = (by_default != without).any(axis=2)
    assert changed[:, :100].any()
    assert not changed[:, 100:].any()  # -1 is nobody's name
    np.testing.assert_array_equal(by_default, draw_poses(grey(), tracked, labels="identity"))
    np.testing.assert_array_equal(draw_poses(grey(), plain), draw_poses(grey(), plain, labels=["identity"]))
    scores = draw_poses(grey(), plain, labels="score")
    assert (scores != draw_poses(grey(), plain)).any(axis=2)[:, 100:].any()
    assert not np.array_equal(draw_poses(grey(), tracked, labels=["identity", "score"]), by_default)


def test_identities_leave_heads_free_and_touch_boxes() -> None:
    poses = people(1, 300, track_ids=[1], image_size=(360, 360)).filter(lambda person: True)
    low = replace(poses, keypoints=poses.keypoints + np.array([0, 50]))
    black = np.zeros((360, 360, 3), np.uint8)
    for boxes, gap in ((False, 20), (True, 0)):
        options: Any = {"boxes": boxes, "thickness": 1}
        plate = (draw_poses(black, low, **options) != draw_poses(black, low, labels=(), **options)).any(axis=(1, 2))
        assert 0 <= low.boxes[0, 1] - gap - np.flatnonzero(plate).max() < 4


def test_labels_may_be_texts_of_ones_own() -> None:
    poses = people(track_ids=[7, 8])
    names = {7: "Änne", 8: ""}
    drawn = draw_poses(grey(), poses, labels=lambda person: names[person.track_id])
    changed = (drawn != draw_poses(grey(), poses, labels=())).any(axis=2)
    assert changed[:, :100].any()
    assert not changed[:, 100:].any()


def test_labels_of_a_crowd_do_not_cover_each_other_and_stay_inside() -> None:
    crowd = people(6, 40, keypoints=FIGURE * 40 + np.arange(6)[:, None, None] * [12, 0], track_ids=range(6))
    plates = draw_poses(grey(), crowd, colors=[(200 + own, 0, 0) for own in range(6)])
    without = draw_poses(grey(), crowd, colors=[(200 + own, 0, 0) for own in range(6)], labels=())
    changed = (plates != without).any(axis=2)
    one = draw_poses(grey(), crowd[:1], colors="red")
    alone = (one != draw_poses(grey(), crowd[:1], colors="red", labels=())).any(axis=2)
    assert changed.sum() > 5 * alone.sum()


def test_names_in_letters_that_no_font_has_lose_accents_or_are_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "_FONTS", ("no-such-font.ttf",))
    marks.legible.cache_clear()
    marks._best_font.cache_clear()
    assert [marks.legible(name, "9") for name in ("left_wrist", "épaule", "左手")] == ["left_wrist", "epaule", "9"]
    names = tuple({"left_wrist": "左手", "nose": "épaule"}.get(name, name) for name in COCO_17.keypoints)
    instead = tuple({"左手": "9", "épaule": "epaule"}.get(name, name) for name in names)
    drawn, expected = (
        draw_poses(
            np.zeros((400, 400, 3), np.uint8), people(1, 380, image_size=(400, 400), skeleton=skeleton), names=True
        )
        for skeleton in (replace(COCO_17, keypoints=each) for each in (names, instead))
    )
    np.testing.assert_array_equal(drawn, expected)
    assert marks.letters("手", 9).shape == marks.letters("\\u624b", 9).shape
    marks.legible.cache_clear()
    marks._best_font.cache_clear()


def test_names_of_the_drawn_keypoints_are_written_beside_people_who_are_large_enough() -> None:
    image = np.full((300, 300, 3), 128, np.uint8)

    def written(size: float, count: int) -> int:
        scores = np.where(np.arange(17) >= 17 - count, 0.8, 0.0)[None]
        poses = people(1, size, keypoint_scores=scores, image_size=(300, 300))
        return int((draw_poses(image, poses, names=True) != draw_poses(image, poses)).any(axis=2).sum())

    assert written(280, 17) > written(280, 6) > 500
    assert written(60, 17) == 0


@pytest.mark.parametrize("skeleton", [COCO_17, CROWDPOSE_14])
def test_faces_are_blurred_beyond_recognition_and_the_rest_is_not(skeleton: Skeleton) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (100, 200, 3)).astype(np.uint8)
    points = FIGURE * 90 + 5
    if skeleton is CROWDPOSE_14:
        points = np.concatenate([points[5:], [[50, 5], [50, 20]]])
    fields = {"keypoints": points[None], "keypoint_scores": np.full((1, len(skeleton)), 0.8), "skeleton": skeleton}
    poses = people(1, **fields, scores=[0.5])
    blurred = draw_poses(photo, poses, blur_faces=True, keypoint_threshold=1)
    head = slice(6, 13), slice(46, 54)
    assert np.abs(np.diff(blurred[head].astype(int), axis=1)).mean() < 15
    np.testing.assert_array_equal(blurred[40:], photo[40:])
    assert blurred.astype(int)[head].std() < photo.astype(int)[head].std() / 3


def test_faces_that_were_hardly_seen_are_blurred_too() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (100, 200, 3)).astype(np.uint8)
    scores = np.full((1, 17), 0.8)
    scores[0, :5] = 0.001
    blurred = draw_poses(photo, people(1, keypoint_scores=scores), blur_faces=True, keypoint_threshold=1)
    assert (blurred != photo).any()
    cut = people(1, keypoints=FIGURE[None] * 90 - [0, 500])
    np.testing.assert_array_equal(draw_poses(photo, cut, blur_faces=True), photo)


def test_a_skeleton_without_a_head_has_no_face_to_blur() -> None:
    hand = Skeleton("hand", ("wrist", "tip"), ((0, 1),), (), (0.05, 0.05))
    poses = people(1, keypoints=np.ones((1, 2, 2)), keypoint_scores=np.ones((1, 2)), skeleton=hand)
    with pytest.raises(ValueError, match="blur_faces needs keypoints of the head"):
        draw_poses(grey(), poses, blur_faces=True)


def test_a_background_takes_the_place_of_the_photo() -> None:
    poses = people(1)
    drawn = poses.draw(background="white")
    assert (drawn[:, 150:] == 255).all()
    assert (drawn != 255).any()
    np.testing.assert_array_equal(draw_poses(grey(), poses, background=(255, 255, 255)), drawn)
    red = poses.draw(background="red", color="bgr")
    assert red[50, 190].tolist() == [0, 0, 255]
    with pytest.raises(ValueError, match="background='white'"):
        draw_poses(None, poses)
