from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dekrpose.results import Poses
from dekrpose.skeletons import COCO_17
from dekrpose.tracking.smoothing import Smoother, SmootherSettings
from tests.evaluation_people import standing

RATE = 30.0


def frame(keypoints: NDArray[Any], ids: Any = (1,), keypoint_scores: Any = 0.8) -> Poses:
    points = np.asarray(keypoints, np.float32).reshape(-1, 17, 2)
    return Poses(
        keypoints=points,
        keypoint_scores=np.broadcast_to(np.asarray(keypoint_scores, np.float32), points.shape[:2]),
        scores=np.full(len(points), 0.8),
        skeleton=COCO_17,
        image_size=(300, 1000),
        track_ids=None if ids is None else np.array(ids, np.int64),
    )


def run(smoother: Smoother, paths: NDArray[Any], rate: float = RATE, start: float = 0.0) -> NDArray[np.float32]:
    """(F, 17, 2) of one person."""
    return np.stack([smoother.update(frame(p), start + t / rate).keypoints[0] for t, p in enumerate(paths)])


def test_what_stands_still_stays_where_it_is() -> None:
    still = np.repeat(standing(100, 50)[None], 20, axis=0)
    np.testing.assert_allclose(run(Smoother(), still), still, atol=1e-3)


def test_somebody_new_comes_out_as_found() -> None:
    poses = frame([standing(100, 50), standing(300, 50)], ids=(4, 7))
    np.testing.assert_array_equal(Smoother().update(poses, 0.0).keypoints, poses.keypoints)


def test_nobody_is_a_normal_answer() -> None:
    assert len(Smoother().update(frame(np.zeros((0, 17, 2)), ids=None), 0.0)) == 0
    assert len(Smoother().update(frame(np.zeros((0, 17, 2)), ids=()), 0.0)) == 0


def test_jitter_is_less_than_half() -> None:
    noisy = standing(100, 50)[None] + np.random.default_rng(0).normal(0, 2, (200, 17, 2))
    bends = [np.abs(np.diff(path[10:], 2, axis=0)).mean() for path in (run(Smoother(), noisy), noisy)]
    assert bends[0] < 0.5 * bends[1]


def test_a_step_is_followed_within_a_few_frames() -> None:
    before, after = standing(100, 50), standing(160, 50)
    moved = run(Smoother(), np.stack([before] * 10 + [after] * 10))
    np.testing.assert_allclose(moved[14], after, atol=0.05 * 60)


def test_a_limb_that_jumps_is_followed_within_a_few_frames() -> None:
    before = standing(100, 50)
    after = before.copy()
    after[9] += 40
    moved = run(Smoother(), np.stack([before] * 10 + [after] * 12))
    np.testing.assert_allclose(moved[19, 9], after[9], atol=4)
    np.testing.assert_allclose(moved[:, 15], np.repeat(before[None, 15], 22, axis=0), atol=6)


def test_steady_motion_lags_less_than_a_frame() -> None:
    speed = 5.0
    walk = np.stack([standing(100 + speed * t, 50) for t in range(60)])
    behind = walk[30:, :, 0] - run(Smoother(), walk)[30:, :, 0]
    assert (np.abs(behind) < speed).all()


@pytest.mark.parametrize("scale", [0.25, 4.0])
def test_people_near_and_far_are_treated_alike(scale: float) -> None:
    path = standing(100, 50)[None] + np.random.default_rng(1).normal(0, 3, (30, 17, 2)).cumsum(axis=0)
    np.testing.assert_allclose(run(Smoother(), scale * path), scale * run(Smoother(), path), rtol=1e-3)


def test_badly_seen_keypoints_do_not_yank_and_go_along_with_the_body() -> None:
    scores = np.full((1, 17), 0.8)
    scores[0, 9] = 0.05
    smoother = Smoother()
    for t in range(10):
        smoother.update(frame(standing(100 + 3 * t, 50)), t / RATE)
    for t in range(10, 15):
        body = standing(100 + 3 * t, 50)
        wild = body.copy()
        wild[9] += 80
        smoothed = smoother.update(frame(wild, keypoint_scores=scores), t / RATE).keypoints[0]
        assert np.linalg.norm(smoothed[9] - body[9]) < 16


def test_a_keypoint_that_is_not_a_number_takes_the_expected_place() -> None:
    smoother = Smoother()
    smoother.update(frame(standing(100, 50)), 0.0)
    broken = standing(100, 50)
    broken[5] = np.nan
    smoothed = smoother.update(frame(broken), 1 / RATE).keypoints[0]
    np.testing.assert_allclose(smoothed[5], standing(100, 50)[5], atol=1e-3)
    assert np.isnan(Smoother().update(frame(broken), 0.0).keypoints[0, 5]).all()


def test_a_gap_starts_anew() -> None:
    smoother = Smoother()
    run(smoother, np.repeat(standing(100, 50)[None], 10, axis=0))
    late = frame(standing(300, 50))
    np.testing.assert_array_equal(smoother.update(late, 5.0).keypoints, late.keypoints)


def test_a_timestamp_before_the_last_one_starts_anew() -> None:
    smoother = Smoother()
    run(smoother, np.repeat(standing(100, 50)[None], 10, axis=0), start=9.0)
    early = frame(standing(300, 50))
    np.testing.assert_array_equal(smoother.update(early, 0.0).keypoints, early.keypoints)


def test_frame_rate_changes_little_about_what_comes_out() -> None:
    def walk(rate: float) -> NDArray[np.float32]:
        times = np.arange(0, 2, 1 / rate)
        path = np.stack([standing(100 + 80 * np.sin(3 * time), 50) for time in times])
        return run(Smoother(), path, rate)

    np.testing.assert_allclose(walk(30.0)[::1][30:60:3], walk(60.0)[60:120:6], atol=6)


def test_people_are_smoothed_apart_and_whatever_their_order() -> None:
    random = np.random.default_rng(2)
    first, second = (standing(x, 50)[None] + random.normal(0, 3, (20, 17, 2)) for x in (100, 500))
    both, alone = Smoother(), Smoother()
    for t in range(20):
        pair = [first[t], second[t]] if t % 2 else [second[t], first[t]]
        found = both.update(frame(np.stack(pair), ids=(1, 2) if t % 2 else (2, 1)), t / RATE)
        expected = alone.update(frame(second[t], ids=(2,)), t / RATE)
        np.testing.assert_allclose(found.keypoints[1 if t % 2 else 0], expected.keypoints[0], atol=1e-3)


def test_people_without_an_identity_come_out_as_found() -> None:
    smoother = Smoother()
    for t, x in enumerate((100, 150, 120)):
        poses = frame([standing(x, 50), standing(500, 50)], ids=(-1, 3))
        np.testing.assert_array_equal(smoother.update(poses, t / RATE).keypoints[0], poses.keypoints[0])


def test_the_state_goes_through_json_at_any_time() -> None:
    noisy = standing(100, 50)[None] + np.random.default_rng(3).normal(0, 2, (10, 17, 2))
    plain, stored = Smoother(), Smoother()
    for t, path in enumerate(noisy):
        stored = Smoother.from_dict(json.loads(json.dumps(stored.to_dict())))
        time = t / RATE
        np.testing.assert_array_equal(
            stored.update(frame(path), time).keypoints, plain.update(frame(path), time).keypoints
        )


def test_misuse_is_explained() -> None:
    with pytest.raises(ValueError, match=r"Tracker\(\)"):
        Smoother().update(frame(standing(100, 50), ids=None), 0.0)
    with pytest.raises(ValueError, match="one person a frame"):
        Smoother().update(frame([standing(100, 50)] * 2, ids=(1, 1)), 0.0)
    with pytest.raises(ValueError, match="finite seconds"):
        Smoother().update(frame(standing(100, 50)))
    with pytest.raises(ValueError, match="min_cutoff"):
        SmootherSettings(min_cutoff=0)
    with pytest.raises(ValueError, match="expected"):
        Smoother.from_dict({})
