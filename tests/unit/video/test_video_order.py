"""Films that do not say when their pictures are shown: every frame once, in order, with times of the frame rate."""

from __future__ import annotations

import struct
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from dekrpose import PoseEstimator
from dekrpose.errors import ImageError
from dekrpose.video.frames import Frame, sensible_rate
from dekrpose.video.in_order import InOrder, clock_of
from dekrpose.video.opencv import open_camera
from dekrpose.video.places import Places
from dekrpose.video.sources import open_source
from dekrpose.video.stream import open_stream
from tests import video_clips as clips
from tests.small_model import write_small_model

CASES = Path(__file__).parents[2] / "cases" / "film"
RATE = Fraction(1, 25)
READERS = ["PyAV", "OpenCV"]


@pytest.fixture(params=READERS)
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "OpenCV":
        monkeypatch.setitem(sys.modules, "av", None)
    else:
        pytest.importorskip("av")
    return str(request.param)


def levels(frames: list[Frame]) -> list[int]:
    """Numbers of frames whose grey is 20 + 10 n."""
    return [round((float(np.median(frame.pixels)) - 20) / 10) for frame in frames]


def times(frames: list[Frame]) -> list[float]:
    return [frame.timestamp for frame in frames]


@pytest.mark.parametrize("name", ["x1.avi", "x2.avi", "raw.264", "late.mkv"])
def test_every_frame_comes_once_in_order_with_both_readers(name: str, reader: str) -> None:
    source = open_source(CASES / name)
    frames = list(source.frames)
    assert levels(frames) == list(range(20))
    assert [frame.index for frame in frames] == list(range(20))
    assert times(frames) == pytest.approx(clips.regular(20), abs=1e-3)
    assert source.troubles == []


MADE = [
    ("clip.avi", "libx264"), ("clip.asf", "libx264"), ("clip.mpg", "libx264"), ("clip.vob", "libx264"),
    ("clip.h264", "libx264"), ("clip.hevc", "libx265"), ("clip.avi", "mpeg4"), ("clip.asf", "mpeg4"),
    ("clip.avi", "mpeg2video"), ("clip.mpg", "mpeg2video"), ("clip.m2v", "mpeg2video"), ("clip.avi", "mpeg1video"),
    ("clip.ts", "libx264"), ("clip.nut", "libx264"), ("clip.flv", "libx264"), ("clip.mp4", "libx264"),
    ("clip.mxf", "libx264"), ("clip.mxf", "mpeg2video"),
    ("clip.avi", "libsvtav1"), ("clip.asf", "libsvtav1"), ("clip.obu", "libsvtav1"), ("clip.ivf", "libsvtav1"),
]  # fmt: skip


def write(path: Path, codec: str, **options: Any) -> Path:
    av = pytest.importorskip("av")
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    if codec == "libsvtav1":
        options["size"] = (96, 128)  # it takes no smaller ones
    return clips.write_clip(path, clips.regular(26), codec=codec, tick=RATE, **options)


@pytest.mark.parametrize(("name", "codec"), MADE)
def test_whatever_the_container(tmp_path: Path, name: str, codec: str) -> None:
    source = open_source(write(tmp_path / name, codec))
    frames = list(source.frames)
    assert [clips.number_of(frame.pixels) for frame in frames] == list(range(26))
    assert times(frames) == pytest.approx(clips.regular(26), abs=1e-3)
    assert source.troubles == []


@pytest.mark.parametrize(("name", "codec"), MADE)
@pytest.mark.parametrize("start", [0.3, 0.78])
def test_a_start_changes_no_index_and_no_time(tmp_path: Path, name: str, codec: str, start: float) -> None:
    path = write(tmp_path / name, codec, keyframes=6)
    whole, part = (list(open_source(path, start=begin).frames) for begin in (0.0, start))
    whole, part = ([frame for frame in frames if frame.timestamp >= start] for frames in (whole, part))
    assert (
        [frame.index for frame in part] == [frame.index for frame in whole] == list(range(round(start * 25 + 0.5), 26))
    )
    assert times(part) == pytest.approx(times(whole))
    assert [clips.number_of(frame.pixels) for frame in part] == [frame.index for frame in part]


def test_times_of_asf_vary_as_its_packets_do(tmp_path: Path) -> None:
    expected = clips.irregular(25)
    found = times(list(open_source(clips.write_clip(tmp_path / "clip.asf", expected)).frames))
    assert found[:20] == pytest.approx(expected[:20], abs=1e-3)  # when the last ones are shown, it does not say
    assert all(early < late for early, late in pairwise(found))


@pytest.mark.parametrize("suffix", [".mkv", ".nut", ".mp4", ".ts", ".flv"])
def test_a_film_that_starts_late_is_whole(tmp_path: Path, suffix: str) -> None:
    path = clips.write_clip(tmp_path / f"clip{suffix}", [5 + time for time in clips.regular(20)])
    source = open_source(path)
    frames = list(source.frames)
    assert times(frames) == pytest.approx(clips.regular(20), abs=1e-3)
    assert source.info.frames == pytest.approx(20, abs=2)
    assert source.info.duration == pytest.approx(0.8, abs=0.1)
    assert source.troubles == []


def test_a_film_that_starts_late_and_ends_early_says_so(tmp_path: Path) -> None:
    path = clips.write_clip(tmp_path / "clip.mkv", [5 + time for time in clips.regular(200)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = open_source(path)
    assert len(list(source.frames)) < 150
    assert any("pictures end after" in trouble for trouble in source.troubles)


def test_what_an_edit_list_cuts_is_not_missed(tmp_path: Path) -> None:
    path = clips.write_clip(tmp_path / "clip.mp4", clips.regular(20), tick=RATE)
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 12  # name, version and flags, count
    length, begin = struct.unpack(">Ii", data[at : at + 8])
    data[at : at + 8] = struct.pack(">Ii", length * 15 // 20, begin + 5 * 12800 // 25)
    path.write_bytes(data)
    source = open_source(path)
    assert [clips.number_of(frame.pixels) for frame in source.frames] == list(range(5, 20))
    assert source.troubles == []


def test_damage_in_avi_costs_the_damaged_frames_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.avi", "libx264", keyframes=6)
    clips.damage(path, [8, 9])
    frames = list(open_source(path).frames)
    assert times(frames) == pytest.approx(clips.regular(26), abs=1e-3)
    after = [frame for frame in frames if frame.index >= 18]
    assert [clips.number_of(frame.pixels) for frame in after] == list(range(18, 26))
    with pytest.raises(ImageError, match="decoded"):
        _ = [frame.pixels for frame in frames]


@pytest.mark.parametrize(
    ("scale", "rate", "fps"),
    [
        (23553, 10, 25), (2**32 - 1, 1, 25), (1001, 1, 25), (1, 10**6, 25), (0, 0, None), (1, 0, None), (0, 25, None),
        (1, 2**32 - 1, None), (1, 5000, None), (1, 25, 25), (100, 1, 0.01),
    ],
)  # fmt: skip
def test_absurd_rates_in_a_header_become_sensible(
    tmp_path: Path, reader: str, scale: int, rate: int, fps: float | None
) -> None:
    data = bytearray((CASES / "tiny_rate.avi").read_bytes())
    at = data.index(b"strh") + 28  # name, size, kind, codec, flags, priority, delay
    data[at : at + 8] = struct.pack("<II", scale, rate)
    (tmp_path / "clip.avi").write_bytes(data)
    source = open_source(tmp_path / "clip.avi")
    found = times(list(source.frames))
    assert len(found) == 8
    assert all(early < late for early, late in pairwise(found))
    assert sensible_rate(source.info.fps)
    assert source.info.tick > 0
    if fps is not None:
        assert source.info.fps == pytest.approx(fps)
        assert found == pytest.approx([number / fps for number in range(8)])


@pytest.mark.parametrize("rate", [0, -25, float("nan"), float("inf"), -float("inf"), 1e-320, 1e300, None])
def test_rates_that_cannot_be_meant(rate: float | None) -> None:
    assert not sensible_rate(rate)


STAMPS = {
    "every packet says when it is shown": ("matroska,webm", [(0, None), (80, None), (40, 0), (120, 40)], None),
    "an AVI's track in Matroska": ("matroska,webm", [(40, 0), (80, 40), (120, 80), (160, 120)], "packets"),
    "no picture moves though the decoder reorders": ("mxf", [(0, 0), (1, 1), (2, 2)], "packets"),
    "small pictures share a packet": ("mpegts", [(0, 0), (None, None), (7200, 7200)], "pictures"),
}


@pytest.mark.parametrize("kind", STAMPS)
def test_a_look_at_the_first_packets_finds_the_clock(kind: str) -> None:
    name, stamps, clock = STAMPS[kind]
    assert clock_of(name, False, True, True, stamps) == clock


def test_a_decoder_that_takes_more_packets_later_loses_nothing() -> None:
    account = InOrder(RATE, 0, RATE, False, "packets")
    picture, places = SimpleNamespace(is_corrupt=False), []
    for number in range(10):
        account.enter(number + 1, number, 1)
        if number not in (0, 5):  # it holds one picture, then two
            account.arrive(None, picture)
        places += account.settle(whole=False)
    account.end()
    account.arrive(None, picture)
    account.arrive(None, picture)
    places += account.settle(whole=True)
    assert [place.index for place in places] == list(range(10))
    assert [place.timestamp for place in places] == pytest.approx(clips.regular(10))
    assert all(place.picture is picture for place in places)


def test_joined_clocks_go_on() -> None:
    account = InOrder(RATE, 0, RATE, False, "pictures")
    for pts in (0, 1, None, 3, 500, 501, 0, None, 2):
        account.enter(pts, pts, 1)
        account.arrive(pts, SimpleNamespace(is_corrupt=False))
    found = [place.timestamp / float(RATE) for place in account.settle(whole=True)]
    assert found == pytest.approx([0, 1, 2, 3, 500, 501, 502, 503, 504])


def test_packets_without_any_time_between_others_have_their_places() -> None:
    account, found = Places(RATE, 0, RATE, False), []
    for pts in (0, 1, None, None, 4, 5):
        account.enter(pts, pts, 1)
        account.arrive(pts, object())
        found += account.settle(whole=False)
    found += account.settle(whole=True)
    assert [place.timestamp / float(RATE) for place in found] == pytest.approx([0, 1, 2, 3, 4, 5])
    assert all(place.picture is not None for place in found)


@pytest.mark.parametrize("said", [0.0, -25.0, float("nan"), float("inf"), -float("inf"), 1e-9, 1e300])
def test_whatever_opencv_says_of_a_file_and_a_camera(said: float, monkeypatch: pytest.MonkeyPatch) -> None:
    class Capture:
        def __init__(self, _: Any) -> None:
            self.left = 5

        def isOpened(self) -> bool:  # noqa: N802
            return True

        def get(self, what: int) -> float:
            return 64.0 if what in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT) else said

        def read(self) -> tuple[bool, Any]:
            self.left -= 1
            return self.left >= 0, clips.picture(self.left)

        def release(self) -> None:
            pass

    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    source = open_source(CASES / "x1.avi")
    assert times(list(source.frames)) == pytest.approx(clips.regular(5))
    assert (source.info.fps, source.info.live) == (25, False)
    camera = open_camera(0)
    assert camera.info.fps is None
    camera.close()


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf"), 1e-320])
def test_a_rate_that_is_asked_for_must_be_one(fps: float) -> None:
    estimator = SimpleNamespace(config=None, estimate_many=lambda *_, **__: [])
    with pytest.raises(ValueError, match="fps must be above 0"):
        open_stream(estimator, [], fps=fps)  # type: ignore[arg-type]


def test_strides_and_tracks_of_a_film_without_times(tmp_path: Path) -> None:
    estimator = PoseEstimator.from_pretrained(write_small_model(tmp_path / "small.safetensors"))
    found = list(estimator.estimate_video(CASES / "x2.avi", stride=3, start=0.2, end=0.6, smooth=True))
    assert [poses.index for poses in found] == [5, 8, 11, 14]
    assert [poses.timestamp for poses in found] == pytest.approx([0.2, 0.32, 0.44, 0.56])
