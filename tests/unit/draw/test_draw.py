from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dekrpose.draw import draw_poses, keypoint_alphas
from dekrpose.results import Poses
from dekrpose.skeletons import COCO_17, CROWDPOSE_14, Skeleton

FIGURE = np.array(
    [
        (0.50, 0.06), (0.52, 0.04), (0.48, 0.04), (0.54, 0.05), (0.46, 0.05), (0.60, 0.20), (0.40, 0.20),
        (0.68, 0.36), (0.31, 0.35), (0.72, 0.50), (0.25, 0.48), (0.56, 0.52), (0.44, 0.52),
        (0.60, 0.74), (0.41, 0.75), (0.63, 0.96), (0.36, 0.95),
    ]
)  # fmt: skip
LINE = Skeleton("line", ("left_a", "right_b"), ((0, 1),), ((0, 1),), (0.05, 0.05))
GREY = 128


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def people(keypoints: Any, image_size: tuple[int, int], skeleton: Skeleton = COCO_17, scores: Any = 0.8) -> Poses:
    points = np.asarray(keypoints, np.float32)
    keypoint_scores = np.broadcast_to(np.asarray(scores, np.float32), points.shape[:2])
    return Poses(
        keypoints=points,
        keypoint_scores=keypoint_scores,
        scores=keypoint_scores.mean(axis=1),
        skeleton=skeleton,
        image_size=image_size,
    )


def changed(drawn: np.ndarray) -> np.ndarray:
    return (drawn != GREY).any(axis=2)


def line(start: tuple[float, float], end: tuple[float, float], scores: Any = 0.8) -> np.ndarray:
    image = grey(100, 200)
    return draw_poses(image, people([[start, end]], (100, 200), LINE, [scores]))


def test_the_given_image_is_not_changed() -> None:
    image = grey(100, 100)
    drawn = draw_poses(image, people([FIGURE * 90], (100, 100)))
    assert (image == GREY).all()
    assert not np.shares_memory(image, drawn)
    assert (drawn.shape, drawn.dtype) == ((100, 100, 3), np.uint8)


def test_views_and_read_only_images_are_drawn_alike() -> None:
    image = np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype(np.uint8)
    poses = people([FIGURE * 90], (100, 100))
    plain = draw_poses(np.ascontiguousarray(image[::2, ::2]), poses)
    view = image[::2, ::2]
    view.flags.writeable = False
    np.testing.assert_array_equal(draw_poses(view, poses), plain)


@pytest.mark.parametrize("size", [(64, 64), (480, 640), (1500, 2000)])
@pytest.mark.parametrize("share", [0.1, 0.9])
@pytest.mark.parametrize("skeleton", [COCO_17, CROWDPOSE_14])
def test_pixels_change_at_the_limbs_and_nowhere_far_from_them(
    size: tuple[int, int], share: float, skeleton: Skeleton
) -> None:
    height = size[0] * share
    points = (FIGURE[: len(skeleton)] - 0.5) * height + [size[1] / 2, size[0] / 2]
    drawn = changed(draw_poses(grey(*size), people([points], size, skeleton)))
    middle = points[list(skeleton.edges[-1])].mean(axis=0).round().astype(int)
    assert drawn[middle[1], middle[0]]
    margin = 3 + 0.04 * height
    rows, columns = np.nonzero(drawn)
    assert columns.min() > points[:, 0].min() - margin
    assert columns.max() < points[:, 0].max() + margin
    assert rows.min() > points[:, 1].min() - margin
    assert rows.max() < points[:, 1].max() + margin
    assert drawn.mean() < 0.35


@pytest.mark.parametrize("far", [230.0, 5000.0, 1e9])
def test_a_limb_to_a_keypoint_outside_fades_before_the_border(far: float) -> None:
    drawn = line((150, 50), (far, 50))
    contrast = np.abs(drawn[50].astype(int) - GREY).max(axis=1)
    assert contrast[150] > 60
    assert contrast[-2:].max() <= 12
    assert not changed(drawn)[:, :140].any()


def test_limbs_between_keypoints_outside_are_not_drawn() -> None:
    assert not changed(line((-20, 50), (220, 50))).any()


def test_someone_outside_altogether_changes_nothing() -> None:
    drawn = draw_poses(grey(100, 100), people([FIGURE * 90 + 500, FIGURE * 90 - 500], (100, 100)))
    assert not changed(drawn).any()


def test_a_keypoint_with_next_to_no_score_takes_its_limb_away() -> None:
    drawn = changed(line((40, 50), (160, 50), scores=[0.8, 0.01]))
    assert drawn[50, 40]
    assert not drawn[:, 60:].any()


def test_a_limb_is_fainter_towards_the_less_certain_keypoint() -> None:
    drawn = line((40, 50), (160, 50), scores=[0.8, 0.15]).astype(int)
    contrast = np.abs(drawn[50] - GREY).sum(axis=1)
    assert contrast[70] > contrast[100] > contrast[130] > 0


def test_low_scores_of_one_person_count_relative_to_that_persons_best() -> None:
    alphas = keypoint_alphas(np.array([[0.9, 0.2, 0.05], [0.2, 0.2, 0.05]]))
    assert alphas[0, 0] == 1
    assert 0 < alphas[0, 1] < alphas[1, 1] == 1
    assert alphas[0, 2] == 0 < alphas[1, 2]


def test_people_with_weak_scores_are_still_drawn_clearly() -> None:
    assert keypoint_alphas(np.full((1, 17), 0.05)).min() > 0.5
    assert keypoint_alphas(np.full((1, 17), 0.005)).max() == 0


def test_a_threshold_draws_every_keypoint_that_reaches_it() -> None:
    alphas = keypoint_alphas(np.array([[0.9, 0.3, 0.02, 0.0]]), threshold=0.02)
    assert (alphas > 0).tolist() == [[True, True, True, False]]
    assert (keypoint_alphas(np.array([[0.9, 0.0]]), threshold=0) > 0).all()


def test_missing_numbers_are_not_drawn() -> None:
    points = (FIGURE * 90).copy()
    points[9] = np.nan
    scores = np.full((1, 17), 0.8)
    scores[0, 10] = np.nan
    draw_poses(grey(100, 100), people([points], (100, 100), scores=scores))
    assert not changed(line((np.nan, 50), (np.nan, 50))).any()
    assert changed(line((40, 50), (np.nan, np.nan)))[50, 40]


def test_keypoints_in_one_place_draw_a_dot() -> None:
    drawn = changed(line((50, 50), (50, 50)))
    assert drawn[50, 50]
    assert drawn.sum() < 60


def test_the_nearer_person_is_on_top() -> None:
    size = (200, 200)
    near = people([FIGURE * 180 + [20, 10]], size)
    far = people([FIGURE * 60 + [75, 20]], size)
    both = people(np.concatenate([near.keypoints, far.keypoints]), size)
    reverse = people(np.concatenate([far.keypoints, near.keypoints]), size)
    drawn = draw_poses(grey(*size), both)
    np.testing.assert_array_equal(drawn, draw_poses(grey(*size), reverse))
    np.testing.assert_array_equal(drawn, draw_poses(draw_poses(grey(*size), far), near))


def test_left_and_right_differ_in_colour_and_blue_is_left() -> None:
    poses = people([FIGURE * 400], (420, 420))
    drawn = draw_poses(grey(420, 420), poses).astype(int)
    (x, y), (other_x, other_y) = poses.keypoints[0, [9, 10]].round().astype(int)
    left, right = drawn[y, x], drawn[other_y, other_x]
    assert left[2] > left[0] + 100
    assert right[0] > right[2] + 100


def test_bgr_images_come_back_as_bgr() -> None:
    image = np.random.default_rng(0).integers(0, 256, (100, 100, 3)).astype(np.uint8)
    poses = people([FIGURE * 90], (100, 100))
    np.testing.assert_array_equal(draw_poses(image[..., ::-1], poses, color="bgr")[..., ::-1], draw_poses(image, poses))


def test_colour_by_person_follows_the_track_and_not_the_order() -> None:
    keypoints = np.stack([FIGURE * 90, FIGURE * 90 + [100, 0]]).astype(np.float32)
    scores = np.full((2, 17), 0.8, np.float32)

    def drawn(order: list[int], track_ids: list[int]) -> np.ndarray:
        poses = Poses(
            keypoints=keypoints[order],
            keypoint_scores=scores,
            scores=scores[:, 0],
            skeleton=COCO_17,
            image_size=(100, 200),
            track_ids=np.array(track_ids),
        )
        by_default = draw_poses(grey(100, 200), poses)
        np.testing.assert_array_equal(by_default, draw_poses(grey(100, 200), poses, color_by="person"))
        assert not np.array_equal(by_default, draw_poses(grey(100, 200), poses, color_by="side"))
        return by_default

    np.testing.assert_array_equal(drawn([0, 1], [3, 5]), drawn([1, 0], [5, 3]))
    assert not np.array_equal(drawn([0, 1], [3, 5]), drawn([0, 1], [5, 3]))


def test_people_without_an_identity_yet_are_grey() -> None:
    poses = replace(people([FIGURE * 90], (100, 100)), track_ids=np.array([-1]))
    drawn = draw_poses(grey(100, 100), poses)
    assert (np.ptp(drawn, axis=2) == 0).all()
    assert changed(drawn).any()


def test_poses_without_identities_are_drawn_by_side() -> None:
    poses = people([FIGURE * 90], (100, 100))
    np.testing.assert_array_equal(draw_poses(grey(100, 100), poses), draw_poses(grey(100, 100), poses, color_by="side"))


def test_thickness_is_in_image_pixels() -> None:
    poses = people([[(30, 50), (170, 50)]], (100, 200), LINE)
    for thickness in (2, 10, 20):
        drawn = draw_poses(grey(100, 200), poses, thickness=thickness)
        bright = (drawn[:, 100].max(axis=1) > 180).sum()
        assert abs(bright - thickness) <= 1


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (np.zeros((100, 100), np.uint8), {}, "uint8"),
        (np.zeros((100, 100, 4), np.uint8), {}, "alpha"),
        (np.zeros((100, 100, 3), np.float32), {}, "float32"),
        (np.zeros((50, 100, 3), np.uint8), {}, r"\(50, 100\)"),
        ("photo.jpg", {}, "str"),
        (grey(100, 100), {"color": "hsv"}, "color"),
        (grey(100, 100), {"color_by": "mood"}, "color_by"),
        (grey(100, 100), {"thickness": 0}, "thickness"),
    ],
)
def test_wrong_input_says_what_was_expected(image: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_poses(image, people([FIGURE * 90], (100, 100)), **options)


def test_nobody_leaves_the_image_as_it_is() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    np.testing.assert_array_equal(draw_poses(image, Poses.nobody(COCO_17, (64, 64))), image)


def test_pixels_away_from_people_keep_every_value() -> None:
    image = np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (256, 1, 3))
    drawn = draw_poses(image, people([FIGURE * 200 + [20, 20]], (256, 256)))
    same = (drawn == image).all(axis=2)
    assert same.mean() > 0.75
    assert same[100, 125]


def test_looks_leave_out_ear_to_shoulder_and_join_the_head_by_a_neck() -> None:
    points = np.full((17, 2), -500.0)
    for name, place in {"nose": (100, 40), "left_ear": (130, 40), "left_shoulder": (150, 120)}.items():
        points[COCO_17.index(name)] = place
    without_neck = changed(draw_poses(grey(200, 200), people([points], (200, 200))))
    assert not without_neck[80, 120:160].any()
    points[COCO_17.index("right_shoulder")] = (50, 120)
    with_neck = changed(draw_poses(grey(200, 200), people([points], (200, 200))))
    assert with_neck[80, 95:105].any()
