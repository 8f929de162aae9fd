from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dekrpose.results import Poses
from dekrpose.skeletons import COCO_17, CROWDPOSE_14, Skeleton

CHAIN = Skeleton("finger", ("root", "middle", "tip"), ((0, 1), (1, 2)), (), (0.05, 0.05, 0.05))


def poses(keypoints: Any, skeleton: Skeleton = COCO_17, scores: Any = 0.8, **fields: Any) -> Poses:
    points = np.asarray(keypoints, np.float32)
    return Poses(
        keypoints=points,
        keypoint_scores=np.broadcast_to(np.float32(scores), points.shape[:2]),
        scores=np.full(len(points), 0.5),
        skeleton=skeleton,
        **{"image_size": (200, 200), **fields},
    )


def body(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(20, 120, (17, 2)).astype(np.float32)


def test_angles_are_in_degrees_of_the_points_as_placed() -> None:
    points = body()
    for name, place in {"left_shoulder": (50, 50), "left_elbow": (50, 80), "left_wrist": (80, 80)}.items():
        points[COCO_17.index(name)] = place
    person = poses([points])[0]
    assert person.angle("left_elbow") == pytest.approx(90)
    assert person.angle("left_elbow", between=("left_shoulder", "left_shoulder")) == pytest.approx(0)
    points[COCO_17.index("left_wrist")] = (50, 130)
    assert poses([points])[0].angle("left_elbow") == pytest.approx(180)
    points[COCO_17.index("left_wrist")] = points[COCO_17.index("left_elbow")]
    assert np.isnan(poses([points])[0].angle("left_elbow"))


@pytest.mark.parametrize("skeleton", [COCO_17, CROWDPOSE_14])
def test_every_person_has_the_angles_of_the_joints(skeleton: Skeleton) -> None:
    result = poses(np.random.default_rng(1).uniform(0, 99, (3, len(skeleton), 2)), skeleton)
    angles = result.joint_angles()
    joints = {f"{side}_{joint}" for side in ("left", "right") for joint in ("elbow", "knee", "shoulder", "hip")}
    assert set(angles) >= joints
    for joint, values in angles.items():
        np.testing.assert_allclose(values, [person.angle(joint) for person in result])
        assert ((values >= 0) & (values <= 180)).all()
    assert all(values.shape == (0,) for values in result[:0].joint_angles().values())


def test_joints_of_other_skeletons_have_two_edges() -> None:
    finger = poses([[(0, 0), (10, 0), (10, 10)]], CHAIN)[0]
    assert finger.angle("middle") == pytest.approx(90)
    with pytest.raises(ValueError, match=r"'tip' is no joint \(middle\); say between which"):
        finger.angle("tip")
    with pytest.raises(KeyError, match="middle"):
        finger.angle("elbow")


def test_normalized_poses_do_not_depend_on_place_and_size() -> None:
    points = body()
    shapes = poses([points, points * 0.5 + (30, 7)]).normalized()
    np.testing.assert_allclose(shapes[0], shapes[1], atol=1e-5)
    np.testing.assert_allclose(shapes[0].mean(axis=0), 0, atol=1e-6)
    assert np.sqrt((shapes[0] ** 2).sum(axis=1).mean()) == pytest.approx(1)
    assert np.isnan(poses(np.full((1, 17, 2), 5.0)).normalized()).all()


def test_a_wild_guess_does_not_change_the_origin_and_the_unit() -> None:
    wild, scores = body(), np.full((1, 17), 0.8)
    wild[0], scores[0, 0] = (5000, 5000), 0.01
    plain = poses([body()], scores=scores).normalized()
    np.testing.assert_allclose(poses([wild], scores=scores).normalized()[:, 1:], plain[:, 1:])


def test_similarity_compares_shapes_or_places() -> None:
    points = body()
    same, elsewhere, other = poses([points, points * 1.5 + 20, body(9)])
    assert same.similarity(same) == 1
    assert same.similarity(elsewhere) == pytest.approx(1, abs=1e-4)
    assert same.similarity(elsewhere, aligned=False) < 0.5
    assert same.similarity(other) < 0.5
    near = poses([points + np.float32(1)])[0]
    assert 0.9 < same.similarity(near, aligned=False) < 1
    assert same.similarity(other) == pytest.approx(other.similarity(same))


def test_similarity_needs_common_keypoints_and_one_skeleton() -> None:
    first, second = np.full(17, 0.01), np.full(17, 0.01)
    first[:5], second[5:9] = 0.8, 0.8
    one, other = poses([body(), body()], scores=np.stack([first, second]))
    assert one.similarity(other) == 0
    with pytest.raises(ValueError, match="crowdpose-14"):
        one.similarity(poses(np.zeros((1, 14, 2)), CROWDPOSE_14)[0])


def test_a_person_is_cut_out_of_the_photo() -> None:
    image = np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype(np.uint8)
    points = np.full((17, 2), 60.0)
    points[0], points[16] = (50, 40), (90, 120)
    person = poses([points], image=image)[0]
    np.testing.assert_array_equal(person.crop(margin=0), image[40:121, 50:91])
    assert person.crop().shape == (97, 57, 3)
    np.testing.assert_array_equal(poses([points])[0].crop(image), person.crop())
    assert person.crop(margin=9).shape == (200, 200, 3)
    assert not np.shares_memory(person.crop(), image)


def test_what_cannot_be_cut_out_is_said() -> None:
    person = poses([body()])[0]
    with pytest.raises(ValueError, match=r"person\.crop\(image\)"):
        person.crop()
    with pytest.raises(ValueError, match=r"\(200, 200\) \(height, width\), got \(100, 200\)"):
        person.crop(np.zeros((100, 200, 3), np.uint8))
    with pytest.raises(ValueError, match="outside of the image"):
        poses([body() + 500])[0].crop(np.zeros((200, 200, 3), np.uint8))


def test_a_person_is_a_dictionary_as_in_that_of_all() -> None:
    result = poses([body(), body(3)], track_ids=[4, 5])
    assert [person.to_dict() for person in result] == result.to_dict()["people"]
