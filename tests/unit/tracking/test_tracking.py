from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from dekrpose.results import Poses
from dekrpose.skeletons import COCO_17, CROWDPOSE_14
from dekrpose.tracking.tracker import Tracker, TrackerSettings
from tests.evaluation_people import standing

RATE = 30.0


def frame(*people: NDArray[np.float32], score: float | Sequence[float] = 0.8) -> Poses:
    """Poses with these people, all keypoints seen equally well."""
    scores = np.broadcast_to(np.asarray(score, np.float32), len(people))
    return Poses(
        keypoints=np.stack(people) if people else np.zeros((0, 17, 2)),
        keypoint_scores=np.repeat(scores[:, None], 17, axis=1),
        scores=scores,
        skeleton=COCO_17,
        image_size=(300, 1000),
    )


def ids(poses: Poses) -> list[int]:
    assert poses.track_ids is not None
    return [int(identity) for identity in poses.track_ids]


def follow(tracker: Tracker, frames: Sequence[Poses], start: float = 0.0, rate: float = RATE) -> list[list[int]]:
    return [ids(tracker.update(poses, start + number / rate)) for number, poses in enumerate(frames)]


def test_nobody_is_a_normal_answer() -> None:
    tracker = Tracker()
    assert follow(tracker, [frame()] * 3) == [[], [], []]
    assert tracker.update(frame(), 1.0).track_ids is not None


def test_everything_but_the_identities_stays_as_it_was() -> None:
    poses = frame(standing(50, 50), standing(300, 50))
    tracked = Tracker().update(poses, 0.0)
    np.testing.assert_array_equal(tracked.keypoints, poses.keypoints)
    assert poses.track_ids is None
    assert ids(tracked) == [1, 2]


def test_identities_follow_people_whatever_their_order() -> None:
    rows = [[standing(50 + 4 * t, 50), standing(600 - 4 * t, 60, 120)] for t in range(20)]
    tracker = Tracker()
    for t, row in enumerate(rows):
        order = [0, 1] if t % 2 == 0 else [1, 0]
        assert ids(tracker.update(frame(*[row[i] for i in order]), t / RATE)) == [order[0] + 1, order[1] + 1]


def test_two_people_cross_and_the_farther_one_is_hidden_for_a_while() -> None:
    tracker = Tracker()
    for t in range(100):
        near, far = standing(100 + 5 * t, 50, 150), standing(600 - 5 * t, 60, 110)
        hidden = abs(near[:, 0].mean() - far[:, 0].mean()) < 70
        found = ids(tracker.update(frame(near) if hidden else frame(near, far), t / RATE))
        assert found == ([1] if hidden else [1, 2]), t


def test_who_comes_back_shortly_is_the_same_and_who_comes_back_late_is_new() -> None:
    for away, expected in ((15, 1), (90, 2)):
        tracker = Tracker()
        follow(tracker, [frame(standing(100, 50))] * 10)
        follow(tracker, [frame()] * away, start=10 / RATE)
        back = follow(tracker, [frame(standing(104, 50))] * 5, start=(10 + away) / RATE)
        assert back[-1] == [expected]


def test_somebody_new_gets_a_new_identity_and_the_others_keep_theirs() -> None:
    tracker = Tracker()
    follow(tracker, [frame(standing(100, 50))] * 5)
    found = follow(tracker, [frame(standing(100, 50), standing(500, 50))] * 5, start=5 / RATE)
    assert found[0] == [1, 2]  # clearly seen: at once


def test_a_newcomer_where_somebody_is_missing_elsewhere_waits_for_the_fourth_frame() -> None:
    tracker = Tracker()
    follow(tracker, [frame(standing(100, 50))] * 5)
    found = follow(tracker, [frame(standing(500, 50))] * 5, start=5 / RATE)
    assert found == [[-1], [-1], [-1], [2], [2]]


def test_who_comes_back_from_an_unexpected_place_is_recognised_before_getting_a_new_identity() -> None:
    def found(settings: TrackerSettings | None = None) -> list[list[int]]:
        tracker = Tracker(settings)
        follow(tracker, [frame(standing(100 + 4 * t, 50)) for t in range(20)])
        follow(tracker, [frame()] * 15, start=20 / RATE)
        return follow(tracker, [frame(standing(155 - 4 * t, 50)) for t in range(6)], start=35 / RATE)

    assert found() == [[-1], [-1], [-1], [1], [1], [1]]  # turned round out of sight
    assert found(TrackerSettings(newcomer_floor=-7.0))[-1] == [2]


def test_a_faint_ghost_of_one_frame_gets_no_identity_and_uses_none_up() -> None:
    tracker = Tracker()
    person, ghost = standing(100, 50), standing(600, 100)
    assert follow(tracker, [frame(person), frame(person, ghost, score=[0.8, 0.3]), frame(person)]) == [
        [1],
        [1, -1],
        [1],
    ]
    assert follow(tracker, [frame(person, standing(800, 50))], start=3 / RATE) == [[1, 2]]


def test_a_faint_sight_continues_a_track_but_starts_none() -> None:
    tracker = Tracker()
    both = [standing(100, 50), standing(400, 50)]
    follow(tracker, [frame(*both)] * 5)
    assert follow(tracker, [frame(*both, score=[0.8, 0.1])] * 5, start=5 / RATE) == [[1, 2]] * 5
    fresh = Tracker()
    assert follow(fresh, [frame(*both, score=[0.8, 0.1])] * 10) == [[1, -1]] * 10


def test_a_double_of_somebody_starts_no_track() -> None:
    person = standing(100, 50)
    found = follow(Tracker(), [frame(person, person + np.float32(2), score=[0.8, 0.75])] * 8)
    assert found == [[1, -1]] * 8


@pytest.mark.parametrize("scale", [0.1, 1.0])
def test_scores_count_by_what_is_typical_in_the_stream(scale: float) -> None:
    found = follow(Tracker(), [frame(standing(100, 50), standing(400, 50), score=[0.8 * scale, 0.6 * scale])] * 3)
    assert found == [[1, 2]] * 3


@pytest.mark.parametrize("rate", [5.0, 10.0, 60.0])
def test_time_is_that_of_the_timestamps(rate: float) -> None:
    speed = 150.0  # image pixels a second
    frames = [
        frame(standing(50 + speed * t / rate, 50), standing(900 - speed * t / rate, 90)) for t in range(int(3 * rate))
    ]
    assert follow(Tracker(), frames, rate=rate)[-1] == [1, 2]


def test_uneven_frames_do_not_confuse() -> None:
    tracker, time = Tracker(), 0.0
    for gap in [1 / 30, 1 / 30, 0.2, 1 / 60, 0.3, 1 / 30, 0.25] * 4:
        time += gap
        found = ids(tracker.update(frame(standing(100 + 100 * time, 50), standing(900 - 100 * time, 50)), time))
    assert found == [1, 2]


def test_a_long_gap_in_time_ends_all_tracks() -> None:
    tracker = Tracker()
    follow(tracker, [frame(standing(100, 50))] * 5)
    assert ids(tracker.update(frame(standing(100, 50)), 60.0)) == [2]


def test_a_timestamp_before_the_last_one_starts_anew() -> None:
    tracker = Tracker()
    follow(tracker, [frame(standing(100, 50))] * 5, start=10.0)
    assert ids(tracker.update(frame(standing(100, 50)), 0.0)) == [2]


def test_reset_forgets_people_but_never_gives_an_identity_twice() -> None:
    tracker = Tracker()
    follow(tracker, [frame(standing(100, 50))] * 5)
    tracker.reset()
    assert ids(tracker.update(frame(standing(100, 50)), 1.0)) == [2]


def test_the_state_goes_through_json_at_any_time() -> None:
    frames = [frame(standing(50 + 4 * t, 50), standing(600 - 4 * t, 60, 120)) for t in range(12)]
    frames[5] = frame(standing(70, 50))
    plain, stored = Tracker(TrackerSettings(max_gap=1.0)), Tracker(TrackerSettings(max_gap=1.0))
    for t, poses in enumerate(frames):
        stored = Tracker.from_dict(json.loads(json.dumps(stored.to_dict())))
        assert ids(stored.update(poses, t / RATE)) == ids(plain.update(poses, t / RATE))
    assert stored.settings == plain.settings


@pytest.mark.parametrize("values", [{}, {"format": "dekrpose.tracker", "version": 1}])
def test_a_damaged_state_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Tracker.from_dict(values)


def test_two_trackers_share_nothing() -> None:
    first, second = Tracker(), Tracker()
    follow(first, [frame(standing(100, 50), standing(400, 50))] * 3)
    assert ids(second.update(frame(standing(400, 50)), 0.0)) == [1]


def test_keypoints_that_are_not_numbers_are_no_obstacle() -> None:
    broken = standing(100, 50)
    broken[3] = np.nan
    assert follow(Tracker(), [frame(broken)] * 3) == [[1]] * 3


def test_the_timestamp_of_the_poses_is_enough_and_none_at_all_is_refused() -> None:
    poses = frame(standing(100, 50))
    with pytest.raises(ValueError, match="finite seconds"):
        Tracker().update(poses)
    with pytest.raises(ValueError, match="finite seconds"):
        Tracker().update(poses, float("nan"))


def test_another_skeleton_is_refused() -> None:
    tracker = Tracker()
    tracker.update(frame(standing(100, 50)), 0.0)
    with pytest.raises(ValueError, match="coco-17"):
        tracker.update(Poses.nobody(CROWDPOSE_14, (300, 1000)), 0.1)


@pytest.mark.parametrize("settings", [{"strong": 2}, {"max_gap": -1}, {"confirm_hits": 0}])
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        TrackerSettings(**settings)  # type: ignore[arg-type]
