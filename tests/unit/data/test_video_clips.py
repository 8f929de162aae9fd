"""Made clips: their truth is exact, seeds decide them, and what is trained on is not what is measured on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dekrpose.commands.arguments import VIDEO_SETS
from dekrpose.commands.eval_video import ALL_CONDITIONS
from dekrpose.data.clips.bodies import CYCLES, MOTIONS, body
from dekrpose.data.clips.clip import SPLITS, Clip, ClipShape, camera_path, through_camera
from dekrpose.data.clips.corruption import BURST, CORRUPTIONS, corrupt
from dekrpose.data.clips.drawn import DrawnClips
from dekrpose.data.clips.figures import BACKGROUNDS, CLOTH, PATCH, draw_figure, draw_looks
from dekrpose.data.clips.photos import PhotoClips
from dekrpose.data.clips.sequences import FORMATS
from dekrpose.errors import DekrPoseError
from dekrpose.skeletons import COCO_17
from dekrpose.training.clips import CutoutClips
from tests.training_photos import made_up_dataset

SHAPE = ClipShape(frames=4, size=96)


def drawn(seed: int = 0, shape: ClipShape = SHAPE, split: str = "train", people: tuple[int, int] = (1, 3)) -> Clip:
    return DrawnClips(split, 9, people).draw(0, np.random.default_rng(seed), shape)  # type: ignore[arg-type]


def test_the_same_seed_gives_the_same_clip_and_another_seed_another() -> None:
    first, again, other = drawn(3), drawn(3), drawn(4)
    assert np.array_equal(first.frames, again.frames)
    assert np.array_equal(first.keypoints, again.keypoints)
    assert not np.array_equal(first.frames, other.frames)


def test_a_figure_is_drawn_where_its_keypoints_are() -> None:
    rng = np.random.default_rng(0)
    times = np.arange(20) * 0.1
    for motions in MOTIONS.values():
        for motion in motions.values():
            points = body(rng, times, motion, (0.7, 0.7))[int(rng.integers(20))]
            keypoints = np.array([100.0, 90.0]) + 120 * points[:, :2]
            covered = draw_figure(
                np.zeros((200, 200, 3), np.uint8), keypoints, points[:, 2], 120, draw_looks(rng, "test")
            )
            x, y = np.rint(keypoints).astype(int).T
            assert covered[y, x].all(), [
                name for name, on in zip(COCO_17.keypoints, covered[y, x], strict=True) if not on
            ]


def test_a_limb_is_centered_on_its_keypoints() -> None:
    keypoints, depth = np.full((17, 2), -500.0), np.zeros(17)
    keypoints[[11, 13, 15]] = (60.3, 20.0), (60.3, 60.0), (60.3, 100.0)
    parts = ("skin", "hair", "shirt", "trousers", "sleeve", "leg", "shoe")
    looks = {name: np.full((PATCH, PATCH, 3), 200.0) for name in parts}
    covered = draw_figure(np.zeros((140, 140, 3), np.uint8), keypoints, depth, 100, looks)
    across = np.flatnonzero(covered[60])
    assert across.mean() == pytest.approx(60.3, abs=0.51)  # the knee is in the middle of the leg
    assert len(across) == pytest.approx(2 * 4.5, abs=1.1)  # and as thick as a knee
    assert np.flatnonzero(covered[85]).mean() == pytest.approx(60.3, abs=0.51)
    assert covered[100, 60]


def test_keypoints_follow_the_camera_exactly() -> None:
    shape = ClipShape(frames=5, size=100, flip=1.0)
    matrices, mirrored = camera_path(np.random.default_rng(1), shape, np.arange(5) / 25, np.array([50.0, 40.0]), 80.0)
    assert mirrored
    still = np.zeros((5, 1, 17, 3))
    still[..., :2], still[..., 2] = (50, 40), 2
    still[:, :, 5, :2] = (53, 41)  # a left shoulder becomes a right one
    moved = through_camera(still, matrices, 100, mirrored)
    for time, matrix in enumerate(matrices):
        assert moved[time, 0, 6, :2] == pytest.approx(matrix @ (53, 41, 1), abs=1e-3)
    assert np.linalg.norm(moved[0, 0, 0, :2] - 49.5) < 1e-3  # the first frame looks where it was told to
    assert np.abs(np.diff(moved[:, 0, 0, :2], axis=0)).max() < 3  # and the drift is small and smooth


def test_what_leaves_the_frame_is_unlabelled() -> None:
    clip = drawn(5, ClipShape(frames=6, size=96, scale=(0.4, 0.4)))
    labelled = clip.keypoints[..., 2] > 0
    inside = ((clip.keypoints[..., :2] >= -0.5) & (clip.keypoints[..., :2] < 95.5)).all(-1)
    assert not (labelled & ~inside).any()
    assert not labelled.all()


def test_people_behind_others_are_hidden_but_labelled() -> None:
    seen = np.concatenate([drawn(seed, people=(3, 3)).keypoints[..., 2].ravel() for seed in range(4)])
    assert set(np.unique(seen)) <= {0, 1, 2}
    assert (seen == 1).mean() > 0.02
    assert (seen == 2).mean() > 0.4


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_corruption_spoils_short_bursts_and_leaves_the_truth(kind: str) -> None:
    clip = drawn(1, ClipShape(frames=30, size=64, strides=(1, 1)))
    worse, spoilt = corrupt(clip, kind, np.random.default_rng(2))
    again, _ = corrupt(clip, kind, np.random.default_rng(2))
    assert worse.keypoints is clip.keypoints
    assert np.array_equal(worse.frames, again.frames)
    changed = (worse.frames != clip.frames).any(axis=(1, 2, 3))
    assert not changed[~spoilt].any()
    assert changed[spoilt].all()
    edges = np.flatnonzero(np.diff(np.concatenate([[0], spoilt.astype(int), [0]]))).reshape(-1, 2)
    assert len(edges) > 1
    assert (np.diff(edges, axis=1) <= BURST[1]).all()


def test_clean_and_unknown_corruption() -> None:
    clip = drawn()
    assert corrupt(clip, "clean", np.random.default_rng(0))[0] is clip
    with pytest.raises(ValueError, match="kind must be clean or one of"):
        corrupt(clip, "melted", np.random.default_rng(0))


def test_training_and_test_share_no_motion_no_cloth_no_background() -> None:
    for table in (MOTIONS, CLOTH, BACKGROUNDS):
        train, test = (set(table[split]) for split in SPLITS)  # type: ignore[index]
        assert not train & test
        assert len(train) >= 3 <= len(test)
    swings = [{repr(motion) for motion in MOTIONS[split].values()} for split in SPLITS]
    assert not swings[0] & swings[1]
    assert CYCLES["train"] != CYCLES["test"]
    assert not np.array_equal(drawn(7, split="train").frames, drawn(7, split="test").frames)


def test_photos_are_filmed_with_their_people(tmp_path: Path) -> None:
    clips = PhotoClips(made_up_dataset(tmp_path))
    shape = ClipShape(frames=5, size=96, flip=0, rotation=0, scale=(1.2, 1.2))
    clip = clips.draw(2, np.random.default_rng(0), shape)
    assert clip.keypoints.shape == (5, 1, 17, 3)
    hits = 0
    for frame, people in zip(clip.frames, clip.keypoints, strict=True):
        x, y = np.rint(people[0, :, :2]).astype(int).clip(0, 95).T
        hits += int((np.abs(frame[y, x].astype(int) - 90).max(axis=1) > 40).sum())  # dots on grey
    assert hits > 0.9 * 5 * 17
    assert not np.array_equal(clip.keypoints[0], clip.keypoints[-1])


def test_cut_out_people_move_over_the_scene(tmp_path: Path) -> None:
    clip = CutoutClips(made_up_dataset(tmp_path)).draw(0, np.random.default_rng(1), SHAPE)
    assert 2 <= clip.keypoints.shape[1] <= 3
    way = clip.keypoints[..., :2].mean(axis=2)
    own = way[:, 1:] - way[:, :1]
    assert np.abs(own - own[:1]).max() > 0.5  # they do not go along with the photo


def test_shapes_and_splits_are_checked() -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        ClipShape(frames=0)
    with pytest.raises(ValueError, match="split must be one of"):
        DrawnClips("all", 1)  # type: ignore[arg-type]


def test_nobody_to_film_is_an_error(tmp_path: Path) -> None:
    dataset = made_up_dataset(tmp_path)
    dataset.photos = []
    with pytest.raises(DekrPoseError, match="nobody"):
        PhotoClips(dataset)


def test_the_command_names_every_corruption_and_data_set() -> None:
    assert set(ALL_CONDITIONS) == {"clean", *CORRUPTIONS}
    assert set(VIDEO_SETS) == set(FORMATS)
