"""Every kind of source: which frames come, when, which way up, and what happens to broken ones."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dekrpose import DekrPoseError
from dekrpose.errors import ImageError
from dekrpose.video import frames as frames_module
from dekrpose.video.frames import Frame
from dekrpose.video.pyav import turn
from dekrpose.video.sources import open_source
from tests import video_clips as clips
from tests.file_server import serve


@pytest.fixture
def without_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)


def read(source: Any, **options: Any) -> list[Frame]:
    return list(open_source(source, **options).frames)


def numbers(frames: list[Frame]) -> list[int]:
    return [clips.number_of(frame.pixels) for frame in frames]


def is_broken(frame: Frame) -> bool:
    try:
        return frame.pixels is None
    except ImageError:
        return True


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_timestamps_of_a_variable_rate_come_from_the_container(tmp_path: Path, suffix: str) -> None:
    times = clips.irregular(25)
    frames = read(clips.write_clip(tmp_path / f"clip{suffix}", times))
    assert [frame.timestamp for frame in frames] == pytest.approx(times, abs=1e-4)
    assert [frame.index for frame in frames] == list(range(25))
    assert numbers(frames) == list(range(25))


def test_what_a_file_says_about_itself(tmp_path: Path) -> None:
    source = open_source(clips.write_clip(tmp_path / "clip.mp4", clips.regular(20)))
    assert (source.info.live, source.info.frames, source.info.fps) == (False, 20, 25)
    assert source.info.duration == pytest.approx(0.8)
    source.close()


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("start", [0.01, 0.4, 0.5, 0.78])
def test_a_start_skips_frames_but_counts_them(tmp_path: Path, suffix: str, start: float) -> None:
    path = clips.write_clip(tmp_path / f"clip{suffix}", clips.regular(20), keyframes=6)
    frames = [frame for frame in read(path, start=start) if frame.timestamp >= start]
    expected = [number for number in range(20) if number / 25 >= start]
    assert [frame.index for frame in frames] == expected
    assert numbers(frames) == expected


QUARTERS = {
    "as it is": ((1, 0, 0, 1), False, (False, False)),
    "right": ((0, 1, -1, 0), True, (False, True)),
    "half": ((-1, 0, 0, -1), False, (True, True)),
    "left": ((0, -1, 1, 0), True, (True, False)),
}
MIRRORS = {
    "mirrored": ((-1, 0, 0, 1), False, (False, True)),
    "upside down": ((1, 0, 0, -1), False, (True, False)),
    "transposed": ((0, 1, 1, 0), True, (False, False)),
    "transposed the other way": ((0, -1, -1, 0), True, (True, True)),
}


@pytest.mark.parametrize("turned", QUARTERS)
def test_pictures_are_upright_with_and_without_pyav(
    tmp_path: Path, turned: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix, swapped, corner = QUARTERS[turned]
    path = clips.write_clip(tmp_path / "clip.mp4", clips.regular(3))
    clips.set_matrix(path, matrix)
    for module in (sys.modules["av"], None):
        monkeypatch.setitem(sys.modules, "av", module)
        pixels = read(path)[0].pixels
        assert pixels.shape[:2] == (clips.SIZE[::-1] if swapped else clips.SIZE)
        assert clips.corner_of(pixels) == corner


@pytest.mark.parametrize("turned", MIRRORS)
def test_display_matrices_may_mirror(turned: str) -> None:
    (a, b, c, d), swapped, corner = MIRRORS[turned]
    matrix = np.array([a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30], np.int32)
    pixels = turn(clips.picture(0), matrix)
    assert pixels.shape[:2] == (clips.SIZE[::-1] if swapped else clips.SIZE)
    assert clips.corner_of(pixels) == corner


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_broken_frames_keep_their_place(tmp_path: Path, codec: str) -> None:
    path = clips.write_clip(tmp_path / "clip.mp4", clips.regular(40), codec=codec)
    clips.damage(path, range(20, 24))
    frames = read(path)
    assert [frame.index for frame in frames] == list(range(40))
    assert [frame.timestamp for frame in frames] == pytest.approx(clips.regular(40), abs=1e-4)
    broken = [frame.index for frame in frames if is_broken(frame)]
    assert broken
    assert set(broken) <= set(range(18, 30))  # until the next key frame, and B-frames before the first
    whole = [frame for frame in frames if frame.index < 18 or frame.index >= 30]
    assert numbers(whole) == [frame.index % 28 for frame in whole]
    with pytest.raises(ImageError, match=r"decoded|damaged"):
        _ = frames[broken[0]].pixels


def test_an_unknown_codec_is_said(tmp_path: Path) -> None:
    path = clips.write_clip(tmp_path / "clip.avi", clips.regular(5), codec="mpeg4")
    path.write_bytes(path.read_bytes().replace(b"FMP4", b"Qx9z"))
    with pytest.raises(DekrPoseError, match=r"clip\.avi \(AVI.*codec.*convert"):
        open_source(path)


@pytest.mark.parametrize("suffix", [".mkv", ".ts"])
def test_a_container_that_is_damaged_itself(tmp_path: Path, suffix: str) -> None:
    path = clips.write_clip(tmp_path / f"clip{suffix}", clips.regular(200))
    data = bytearray(path.read_bytes())
    middle = slice(len(data) // 2, len(data) // 2 + len(data) // 20)
    data[middle] = np.random.default_rng(0).bytes(len(data[middle]))
    path.write_bytes(data)
    source = open_source(path)
    frames = list(source.frames)
    assert all(early.timestamp < late.timestamp for early, late in pairwise(frames))
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert len(frames) > 150 or source.troubles


def test_a_file_that_ends_early_says_so(tmp_path: Path) -> None:
    path = clips.write_clip(tmp_path / "clip.mp4", clips.regular(60), movflags="faststart")
    clips.cut(path, 40)
    source = open_source(path)
    frames = list(source.frames)
    assert 35 < len(frames) <= 40
    assert any("60 frames" in trouble for trouble in source.troubles)


def test_the_resolution_may_change_in_a_file_and_time_goes_on(tmp_path: Path) -> None:
    first = clips.write_clip(tmp_path / "first.ts", clips.regular(10))
    second = clips.write_clip(tmp_path / "second.ts", clips.regular(10), size=(96, 80))
    (tmp_path / "both.ts").write_bytes(first.read_bytes() + second.read_bytes())
    frames = [frame for frame in read(tmp_path / "both.ts") if not is_broken(frame)]
    assert [frame.pixels.shape[:2] for frame in frames] == [clips.SIZE] * 10 + [(96, 80)] * 10
    times = [frame.timestamp for frame in frames]
    assert all(early < late for early, late in pairwise(times))


def test_pictures_are_freed_without_the_collector(tmp_path: Path) -> None:
    path = clips.write_clip(tmp_path / "clip.mp4", clips.regular(30))
    gc.collect()
    gc.disable()
    try:
        for frame in open_source(path).frames:
            assert frame.pixels.shape == (*clips.SIZE, 3)
        assert sum(type(thing).__name__ == "VideoFrame" for thing in gc.get_objects()) <= 3
    finally:
        gc.enable()


def test_opencv_reads_files_where_pyav_is_missing(tmp_path: Path, without_pyav: None) -> None:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 20, clips.SIZE[::-1])
    for number in range(12):
        writer.write(clips.picture(number))
    writer.release()
    source = open_source(path)
    frames = list(source.frames)
    assert numbers(frames) == list(range(12))
    assert [frame.timestamp for frame in frames] == pytest.approx(clips.regular(12, 20), abs=1e-3)
    assert (source.info.frames, source.info.fps, source.troubles) == (12, 20, [])


def odd_name(kind: str) -> str:
    """A file's name that looks like a protocol, or is no UTF-8."""
    name = {"a time": "2024-05-01T10:30:45.mp4", "a protocol": "http:clip.mp4", "no UTF-8": os.fsdecode(b"caf\xe9.mp4")}
    return name[kind]


@pytest.mark.skipif(sys.platform != "linux", reason="such names are for file systems that take any bytes")
@pytest.mark.parametrize("kind", ["a time", "a protocol", "no UTF-8"])
def test_a_file_is_a_file_whatever_its_name(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = odd_name(kind)
    clips.write_clip(tmp_path / "clip.mp4", clips.regular(5)).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for module in (sys.modules["av"], None):
        monkeypatch.setitem(sys.modules, "av", module)
        source = open_source(name)
        assert numbers(list(source.frames)) == list(range(5))
        assert (source.info.name, source.info.live) == (name, False)


def test_a_file_behind_an_address_is_a_file(tmp_path: Path) -> None:
    clip = clips.write_clip(tmp_path / "clip.mp4", clips.regular(15), movflags="faststart")
    with serve() as server:
        server.files["clip.mp4"] = clip.read_bytes()
        source = open_source(f"{server.address}/clip.mp4")
        assert not source.info.live
        assert numbers(list(source.frames)) == list(range(15))
        server.files["clip.h264"] = clips.write_clip(tmp_path / "clip.h264", clips.regular(15)).read_bytes()
        raw = open_source(f"{server.address}/clip.h264")  # which does not say how long it lasts
        assert not raw.info.live
        assert numbers(list(raw.frames)) == list(range(15))
        with pytest.raises(DekrPoseError, match=r"cannot open http.*nothing\.mp4"):
            open_source(f"{server.address}/nothing.mp4")


@pytest.mark.parametrize("module", ["av", None])
def test_enormous_frames_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str | None
) -> None:
    monkeypatch.setitem(sys.modules, "av", sys.modules["av"] if module else None)
    monkeypatch.setattr(frames_module, "MOST_PIXELS", 48 * 64 - 1)
    clip = clips.write_clip(tmp_path / "clip.mp4", clips.regular(5))
    with pytest.raises(DekrPoseError, match=r"64 x 48 pixels, more than"):
        open_source(clip)


@pytest.mark.parametrize("module", ["av", None])
def test_no_message_holds_a_password(monkeypatch: pytest.MonkeyPatch, module: str | None) -> None:
    monkeypatch.setitem(sys.modules, "av", sys.modules["av"] if module else None)
    with pytest.raises(DekrPoseError, match="open http://127") as caught:
        open_source("http://name:secret@127.0.0.1:9/live")
    assert "secret" not in str(caught.value)


def write_pictures(folder: Path, names: list[str]) -> Path:
    folder.mkdir()
    for number, name in enumerate(names):
        cv2.imwrite(str(folder / name), clips.picture(number))
    return folder


def test_folders_and_globs_of_pictures_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "frames", ["frame8.png", "frame9.png", "frame10.png", "frame11.png"])
    for source in (folder, str(folder / "*.png"), sorted(folder.glob("*1*.png"))):
        frames = read(source, fps=10)
        assert numbers(frames) == ([2, 3] if isinstance(source, list) else [0, 1, 2, 3])
        assert [frame.timestamp for frame in frames] == pytest.approx(clips.regular(len(frames), 10))


def test_a_pattern_of_pictures_keeps_the_place_of_missing_ones(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "100%", ["a_0007.png", "a_0008.png", "a_0010.png", "a_11.png"])
    frames = read(str(folder / "a_%04d.png"))
    assert [frame.index for frame in frames] == [0, 1, 2, 3]
    assert numbers([frames[0], frames[1], frames[3]]) == [0, 1, 2]
    with pytest.raises(FileNotFoundError, match="a_0009"):
        _ = frames[2].pixels
    with pytest.raises(FileNotFoundError, match="b_"):
        open_source(str(folder / "b_%d.png"))


def test_pictures_of_a_sequence_may_differ_in_size(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "frames", ["1.png"])
    cv2.imwrite(str(folder / "2.png"), clips.picture(1, (30, 90)))
    assert [frame.pixels.shape[:2] for frame in read(folder)] == [clips.SIZE, (30, 90)]


def test_frames_in_one_reused_array_do_not_change_afterwards() -> None:
    def camera() -> Iterator[NDArray[np.uint8]]:
        pixels = np.empty((*clips.SIZE, 3), np.uint8)
        for number in range(4):
            pixels[:] = clips.picture(number)
            yield pixels

    frames = read(camera(), fps=50)
    assert numbers(frames) == [0, 1, 2, 3]
    assert [frame.timestamp for frame in frames] == pytest.approx(clips.regular(4, 50))


def test_frames_may_bring_their_time_and_their_order_of_colours() -> None:
    blue = np.zeros((*clips.SIZE, 3), np.uint8)
    blue[..., 0] = 200
    frames = read([(0.5, blue), (0.75, blue)], color="bgr")
    assert [frame.timestamp for frame in frames] == [0.5, 0.75]
    assert frames[0].pixels[0, 0].tolist() == [0, 0, 200]


def test_a_frame_that_is_no_image_is_broken() -> None:
    frames = read([clips.picture(0), np.zeros((4, 4), np.float32), clips.picture(2)])
    assert [is_broken(frame) for frame in frames] == [False, True, False]


@pytest.mark.parametrize("items", [[(0.2, clips.picture(0)), (0.1, clips.picture(1))], [(clips.picture(0), 0.1)]])
def test_pairs_must_be_seconds_and_images_in_order(items: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"timestamps must grow|pair \(seconds, image\)"):
        read(items)


def test_sources_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    for module in (sys.modules.get("av"), None):
        monkeypatch.setitem(sys.modules, "av", module)
        with pytest.raises(DekrPoseError, match=r"cannot open .*text\.mp4"):
            open_source(text)
    with pytest.raises(FileNotFoundError, match=r"no such video: 'nowhere\.mp4'"):
        open_source("nowhere.mp4")
    with pytest.raises(FileNotFoundError, match="no image found"):
        open_source(tmp_path)
    with pytest.raises(TypeError, match="got float"):
        open_source(0.5)
    with pytest.raises(TypeError, match="got bytes"):
        open_source(b"film")


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile {}\n",
        " <?xml version='1.0'?><!-- {} --><MPD/>",
    ],
)
@pytest.mark.parametrize("suffix", [".m3u8", ".mp4"])
@pytest.mark.parametrize("reader", ["PyAV", "OpenCV"])
def test_a_file_that_names_others_opens_none_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, suffix: str, reader: str
) -> None:
    clips.write_clip(tmp_path / "private.ts", clips.regular(12))
    path = tmp_path / f"upload{suffix}"
    path.write_text(text.format("private.ts"))
    if reader == "OpenCV":
        monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(DekrPoseError, match="playlist"):
        open_source(path)
