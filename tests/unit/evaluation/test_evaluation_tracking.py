from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dekrpose.cli import main
from dekrpose.data.clips.walkers_seen import LONG_OCCLUSION, make_clip
from dekrpose.evaluation.tracking import (
    IouTracker,
    box_overlaps,
    identity_metrics,
    motion_metrics,
    similarities_of,
    trajectories,
)
from dekrpose.tracking.tracker import Tracker

PAIR = np.eye(2)


def test_perfect_identities() -> None:
    metrics = identity_metrics([PAIR] * 4, [np.array([5, 9])] * 4, np.ones((4, 2), bool))
    assert (metrics.switches, metrics.mota, metrics.idf1) == (0, 1.0, 1.0)


def test_two_people_who_change_identities_halfway() -> None:
    ids = [np.array([1, 2])] * 2 + [np.array([2, 1])] * 2
    metrics = identity_metrics([PAIR] * 4, ids, np.ones((4, 2), bool))
    assert metrics.switches == 2
    assert metrics.mota == 1 - 2 / 8
    assert metrics.idf1 == 0.5  # whichever of the two identities is called right
    assert metrics.switches_per_500 == 125


def test_a_new_identity_after_a_gap_is_a_switch_and_the_gap_none_where_the_truth_has_nobody() -> None:
    present = np.array([[True], [False], [True]])
    ids = [np.array([1]), np.zeros(0, np.int64), np.array([2])]
    metrics = identity_metrics([np.ones((1, 1)), np.zeros((0, 1)), np.ones((1, 1))], ids, present)
    assert (metrics.person_frames, metrics.missed, metrics.false, metrics.switches) == (2, 0, 0, 1)
    assert metrics.idf1 == 2 * 1 / (2 + 2)


def test_misses_false_people_and_people_without_identity() -> None:
    likeness = np.array([[0.9, 0.0], [0.3, 0.2], [0.0, 0.9]])
    metrics = identity_metrics([likeness], [np.array([1, 2, -1])], np.ones((1, 2), bool))
    assert (metrics.missed, metrics.false, metrics.found) == (1, 1, 2)
    assert metrics.mota == 1 - 2 / 2


def test_a_pair_stays_a_pair_while_it_is_similar_enough() -> None:
    swapped = np.array([[0.6, 0.9], [0.9, 0.6]])
    metrics = identity_metrics([PAIR, swapped], [np.array([1, 2])] * 2, np.ones((2, 2), bool))
    assert metrics.switches == 0


def wave(frames: int, per_frame: int = 1) -> np.ndarray:
    """(F, 1, 17, 2) one person who swings, sampled several times a frame."""
    times = np.arange(frames)[:, None] / per_frame
    phases = np.linspace(0, 1, 17)[None]
    return np.stack([50 * np.sin(0.2 * times + phases), 20 * np.cos(0.13 * times + phases)], axis=2)[:, None]


@pytest.mark.parametrize("lag", [0.0, 0.5, 1.0, 2.3])
def test_lag_is_measured_below_a_frame(lag: float) -> None:
    fine = wave(2000, 10)
    truth = fine[100:1900:10]
    start = round(100 - 10 * lag)
    found = fine[start : start + 1800 : 10]
    assert motion_metrics(found, truth, np.full((180, 1), 100.0)).lag == pytest.approx(lag, abs=0.1)


def test_jitter_and_error_by_hand() -> None:
    truth = wave(60)
    found = truth.copy()
    found[::2, ..., 0] += 1.0  # to and fro by 1 % of the size: each second difference is off by 2
    metrics = motion_metrics(found, truth, np.full((60, 1), 100.0))
    assert metrics.jitter == pytest.approx(2.0)
    assert metrics.error == pytest.approx(0.5)


def test_motion_needs_somebody_for_long_enough() -> None:
    with pytest.raises(ValueError, match="consecutive"):
        motion_metrics(np.full((50, 1, 17, 2), np.nan), wave(50), np.ones((50, 1)))


def test_overlaps_of_boxes() -> None:
    boxes = np.array([[0.0, 0, 2, 2], [1, 0, 3, 2], [5, 5, 5, 5]])
    np.testing.assert_allclose(box_overlaps(boxes[:1], boxes), [[1, 1 / 3, 0]])


@pytest.mark.slow
def test_made_clips_keep_their_promise_and_a_seed_its_clip() -> None:
    clip, again = make_clip(1, frames=700), make_clip(1, frames=700)
    assert clip.occlusions().min() >= 3
    assert LONG_OCCLUSION >= 10
    assert not (clip.hidden & clip.visible).any()
    for first, second in zip(clip.detections, again.detections, strict=True):
        np.testing.assert_array_equal(first.keypoints, second.keypoints)
        assert np.all(np.diff(first.scores) <= 0)
    bones = np.linalg.norm(np.diff(clip.keypoints[:, :, [11, 13]], axis=2), axis=3)
    assert (bones > 1).all()


def test_a_clip_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="longer"):
        make_clip(0, people=2, frames=20)


@pytest.mark.slow
def test_people_who_cross_keep_identities_that_boxes_lose() -> None:
    clip = make_clip(7, frames=500, least_occlusions=1)
    likeness = similarities_of(clip.detections, clip.keypoints, clip.sizes)
    results = []
    for tracker in (Tracker(), IouTracker()):
        ids = [tracker.update(poses, poses.timestamp or 0.0).track_ids for poses in clip.detections]
        results.append(identity_metrics(likeness, ids, clip.visible))  # type: ignore[arg-type]
    assert results[0].switches * 5 < results[1].switches
    assert results[0].idf1 > results[1].idf1
    found = trajectories(clip.detections, likeness, clip.keypoints.shape)
    assert np.isfinite(found).all(axis=(2, 3)).sum() > 0.9 * clip.visible.sum()


@pytest.mark.slow
def test_the_command_prints_and_writes_its_measures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "tracking.json"
    arguments = ["eval-tracking", "--seeds", "1", "--frames", "700", "--cost-frames", "3", "--json", str(target)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "ID switches" in printed
    assert "with 20 people" in printed
    measures = json.loads(target.read_text())
    assert measures["walking"]["smoothed"]["jitter"] < 0.5 * measures["walking"]["as found"]["jitter"]
    assert measures["walking"]["smoothed"]["lag"] < 1
