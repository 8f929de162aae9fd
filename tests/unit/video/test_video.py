"""estimate_video: which frames get poses, in which order, with which errors, and what is held meanwhile."""

from __future__ import annotations

import logging
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dekrpose import DekrPoseError, PoseEstimator, Poses
from dekrpose.errors import ImageError
from dekrpose.video import sources
from dekrpose.video.frames import Frame
from tests import video_clips as clips
from tests.small_model import write_small_model


@pytest.fixture(scope="module")
def estimator(tmp_path_factory: pytest.TempPathFactory) -> PoseEstimator:
    return PoseEstimator.from_pretrained(write_small_model(tmp_path_factory.mktemp("model") / "small.safetensors"))


def pictures(count: int) -> Iterator[NDArray[np.uint8]]:
    return (clips.picture(number) for number in range(count))


def assert_same(one: Poses, other: Poses) -> None:
    np.testing.assert_allclose(one.keypoints, other.keypoints, atol=1e-3)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)


def test_a_stream_gives_what_estimate_gives(estimator: PoseEstimator) -> None:
    for number, poses in enumerate(estimator.estimate_video(pictures(3), score_threshold=0)):
        assert (poses.index, poses.timestamp, poses.image, poses.error) == (number, number / 25, None, None)
        assert_same(poses, estimator.estimate(clips.picture(number), score_threshold=0))


def test_batches_change_nothing(estimator: PoseEstimator, tmp_path: Path) -> None:
    path = clips.write_clip(tmp_path / "clip.mp4", clips.irregular(13))
    single = list(estimator.estimate_video(path, batch_size=1, score_threshold=0))
    batched = list(estimator.estimate_video(path, batch_size=5, score_threshold=0))
    assert len(single) == len(batched) == 13
    for one, other in zip(single, batched, strict=True):
        assert (one.index, one.timestamp, one.source) == (other.index, other.timestamp, str(path))
        assert_same(one, other)


def test_stride_start_and_end(estimator: PoseEstimator, tmp_path: Path) -> None:
    path = clips.write_clip(tmp_path / "clip.mp4", clips.regular(20))
    section = {"start": 0.2, "end": 0.6, "stride": 3}
    for source in (path, pictures(20)):
        found = list(estimator.estimate_video(source, **section))  # type: ignore[arg-type]
        assert [poses.index for poses in found] == [5, 8, 11, 14]
        assert [poses.timestamp for poses in found] == pytest.approx([0.2, 0.32, 0.44, 0.56])


def test_broken_frames_are_reported_and_skipped(estimator: PoseEstimator, tmp_path: Path) -> None:
    path = clips.write_clip(tmp_path / "clip.mp4", clips.regular(30))
    clips.damage(path, range(20, 22))
    found = list(estimator.estimate_video(path))
    assert [poses.index for poses in found] == list(range(30))
    broken = [poses for poses in found if poses.error is not None]
    assert 0 < len(broken) < 12
    assert all(len(poses) == 0 and poses.timestamp is not None for poses in broken)
    stream = estimator.estimate_video(path, on_error="raise")
    seen: list[Poses] = []
    with pytest.raises(ImageError, match=r"decoded|damaged"):
        seen.extend(stream)
    assert [poses.index for poses in seen] == list(range(broken[0].index or 0))


def test_an_iterator_that_fails_loses_nothing_before(estimator: PoseEstimator) -> None:
    def failing() -> Iterator[NDArray[np.uint8]]:
        yield from pictures(3)
        raise RuntimeError("the owner's own")

    found = []
    with pytest.raises(RuntimeError, match="the owner's own"):
        found.extend(estimator.estimate_video(failing(), batch_size=8))
    stream = estimator.estimate_video(failing(), batch_size=8)
    assert [next(stream).index for _ in range(3)] == [0, 1, 2]


def test_the_size_of_frames_may_change(estimator: PoseEstimator) -> None:
    frames = [clips.picture(0), clips.picture(1, (96, 60)), clips.picture(2)]
    sizes = [poses.image_size for poses in estimator.estimate_video(frames, track=True)]
    assert sizes == [clips.SIZE, (96, 60), clips.SIZE]


def test_tracking_and_smoothing_give_identities(estimator: PoseEstimator) -> None:
    for options in ({"track": True}, {"smooth": True}):
        found = list(estimator.estimate_video(pictures(6), score_threshold=0, **options))
        assert all(poses.track_ids is not None and len(poses.track_ids) == len(poses) for poses in found)
    (plain,) = estimator.estimate_video(pictures(1))
    assert plain.track_ids is None


def test_frames_are_let_go(estimator: PoseEstimator, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: weakref.WeakSet[Frame] = weakref.WeakSet()

    class Watched(Frame):
        def __init__(self, *fields: Any) -> None:
            super().__init__(*fields)
            alive.add(self)

    monkeypatch.setattr(sources, "Frame", Watched)
    most = max(len(alive) for _ in estimator.estimate_video(pictures(40), batch_size=4))
    assert 4 <= most <= 5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stride": 0}, "stride must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"on_error": "ignore"}, "on_error"),
        ({"start": 2, "end": 1}, "start and end"),
        ({"start": -1}, "start and end"),
        ({"fps": 0}, "fps must be above 0"),
        ({"max_people": 0}, "max_people"),
    ],
)
def test_wrong_options_are_said_before_anything_is_opened(
    estimator: PoseEstimator, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        estimator.estimate_video("nowhere.mp4", **options)


def test_unknown_options_are_refused(estimator: PoseEstimator) -> None:
    with pytest.raises(TypeError, match="colour"):
        estimator.estimate_video("nowhere.mp4", colour="bgr")


def test_the_source_is_opened_at_once(estimator: PoseEstimator) -> None:
    with pytest.raises(FileNotFoundError, match="no such video"):
        estimator.estimate_video("nowhere.mp4")
    with pytest.raises(DekrPoseError, match="no camera 97"):
        estimator.estimate_video(97)


def test_closing_closes_the_callers_generator(estimator: PoseEstimator) -> None:
    closed = []

    def frames() -> Iterator[NDArray[np.uint8]]:
        try:
            yield from pictures(100)
        finally:
            closed.append(True)

    with estimator.estimate_video(frames()) as stream:
        next(stream)
    assert closed == [True]
    assert list(stream) == []


def test_an_early_end_is_logged_and_told(
    estimator: PoseEstimator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = clips.write_clip(tmp_path / "clip.mp4", clips.regular(60), movflags="faststart")
    clips.cut(path, 40)
    with caplog.at_level(logging.WARNING):
        stream = estimator.estimate_video(path)
        assert 35 < len(list(stream)) <= 40
    assert "60 frames" in caplog.text
    assert stream.troubles


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads resident memory from Linux")
def test_memory_stays_flat(estimator: PoseEstimator, tmp_path: Path) -> None:
    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

    path = clips.write_clip(tmp_path / "clip.mp4", clips.regular(1500), size=(360, 640))
    early = 0.0
    for poses in estimator.estimate_video(path, stride=5, track=True, smooth=True):
        if poses.index == 500:
            early = resident()
    assert poses.index == 1495
    assert resident() - early < 50


@pytest.mark.slow
def test_pyav_is_not_imported_with_the_package() -> None:
    code = "import sys, dekrpose; dekrpose.PoseEstimator; assert 'av' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
