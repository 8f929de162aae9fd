"""dekrpose video and webcam: the film, the lines, and what is left when something stops them."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dekrpose import Poses
from dekrpose.cli import main
from dekrpose.video import outputs, writer
from dekrpose.video.writer import fit
from tests import video_clips as clips
from tests.small_model import write_small_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_small_model(tmp_path_factory.mktemp("model") / "small.safetensors"))


@pytest.fixture
def without_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def frames_of(path: Path) -> list[Any]:
    """Pictures of a film, as OpenCV reads them."""
    capture, found = cv2.VideoCapture(str(path)), []
    while True:
        there, picture = capture.read()
        if not there:
            return found
        found.append(picture)


def nothing_else(folder: Path, *names: str) -> bool:
    return sorted(path.name for path in folder.iterdir()) == sorted(names)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_the_film_has_the_frames_times_and_sound_of_its_source(tmp_path: Path, model: str, suffix: str) -> None:
    times = clips.irregular(25)
    path = clips.write_clip(tmp_path / f"clip{suffix}", times, sound=True)
    assert main(["video", str(path), "--model", model, "--track"]) == 0
    film = tmp_path / "clip.poses.mp4"
    assert clips.times_of(film) == pytest.approx(times, abs=1e-3)
    assert clips.sound_of(film) == clips.sound_of(path)
    if suffix == ".mp4":
        assert clips.length_of(film) == pytest.approx(clips.length_of(path), abs=1e-3)
    lines = lines_of(tmp_path / "clip.poses.jsonl")
    assert [line["index"] for line in lines] == list(range(25))
    assert [line["timestamp"] for line in lines] == pytest.approx(times, abs=1e-3)
    assert nothing_else(tmp_path, path.name, "clip.poses.mp4", "clip.poses.jsonl")


def test_a_line_says_who_is_where(tmp_path: Path, model: str) -> None:
    path = clips.write_clip(tmp_path / "clip.mp4", clips.regular(4))
    assert main(["video", str(path), "--model", model, "--score-threshold", "0", "--smooth"]) == 0
    for line in lines_of(tmp_path / "clip.poses.jsonl"):
        assert line["error"] is None
        assert line["image_size"] == {"height": clips.SIZE[0], "width": clips.SIZE[1]}
        for person in line["people"]:
            assert len(person["keypoints"]) == 17
            assert len(person["keypoints"]["nose"]) == 3
            assert isinstance(person["track_id"], int)
            assert 0 <= person["score"] <= 1


def test_frames_of_nobody_have_their_lines(tmp_path: Path, model: str) -> None:
    path = clips.write_clip(tmp_path / "clip.mp4", clips.regular(6))
    assert main(["video", str(path), "--model", model, "--score-threshold", "1"]) == 0
    lines = lines_of(tmp_path / "clip.poses.jsonl")
    assert [(line["index"], line["people"]) for line in lines] == [(number, []) for number in range(6)]


def test_between_strides_the_film_goes_on(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn: list[int | None] = []

    def draw(self: Poses, image: Any, **_: Any) -> Any:
        drawn.append(self.index)
        return image

    monkeypatch.setattr(Poses, "draw", draw)
    path = clips.write_clip(tmp_path / "clip.mp4", clips.regular(10))
    assert main(["video", str(path), "--model", model, "--stride", "4"]) == 0
    assert drawn == [0, 0, 0, 0, 4, 4, 4, 4, 8, 8]
    film = tmp_path / "clip.poses.mp4"
    assert [clips.number_of(picture) for picture in frames_of(film)] == list(range(10))
    assert clips.length_of(film) == pytest.approx(clips.length_of(path))
    assert [line["index"] for line in lines_of(tmp_path / "clip.poses.jsonl")] == [0, 4, 8]
    assert "10 frames, 3 of them looked at" in capsys.readouterr().out


def test_a_section_starts_its_film_at_zero(tmp_path: Path, model: str) -> None:
    path = clips.write_clip(tmp_path / "clip.mp4", clips.regular(50), sound=True)
    assert (
        main(["video", str(path), "--model", model, "--start", "1", "--end", "1.5", "--out", str(tmp_path / "o")]) == 0
    )
    film = tmp_path / "o" / "clip.poses.mp4"
    assert clips.times_of(film) == pytest.approx([number / 25 for number in range(13)], abs=1e-3)
    assert [line["index"] for line in lines_of(tmp_path / "o" / "clip.poses.jsonl")] == list(range(25, 38))
    assert len(clips.sound_of(film)) < 0.6 * len(clips.sound_of(path))


def test_the_film_is_upright(tmp_path: Path, model: str) -> None:
    path = clips.write_clip(tmp_path / "clip.mp4", clips.regular(3))
    clips.set_matrix(path, (0, 1, -1, 0))
    assert main(["video", str(path), "--model", model, "--score-threshold", "1"]) == 0
    picture = frames_of(tmp_path / "clip.poses.mp4")[0]
    assert picture.shape[:2] == clips.SIZE[::-1]
    assert clips.corner_of(picture) == (False, True)


def test_broken_frames_show_the_last_picture_and_say_why(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = clips.write_clip(tmp_path / "clip.mp4", clips.regular(40))
    clips.damage(path, [0, *range(20, 24)])
    assert main(["video", str(path), "--model", model]) == 1
    assert "frames broken" in capsys.readouterr().out
    film = tmp_path / "clip.poses.mp4"
    assert clips.times_of(film) == pytest.approx(clips.regular(40), abs=1e-3)
    errors = [line for line in lines_of(tmp_path / "clip.poses.jsonl") if line["error"]]
    assert errors[0]["index"] == 0
    assert all(line["people"] == [] for line in errors)


def test_pictures_of_other_sizes_are_fitted_in(tmp_path: Path, model: str) -> None:
    folder = tmp_path / "shots"
    folder.mkdir()
    for number, size in enumerate([(47, 63), (30, 90), (47, 63)]):
        cv2.imwrite(str(folder / f"{number}.png"), clips.picture(number, size))
    assert main(["video", str(folder), "--model", model, "--fps", "10"]) == 0
    film = tmp_path / "shots.poses.mp4"
    assert [picture.shape[:2] for picture in frames_of(film)] == [(48, 64)] * 3
    assert clips.times_of(film) == pytest.approx([0, 0.1, 0.2], abs=1e-3)
    fitted = fit(clips.picture(5, (30, 90)), (60, 60))
    assert (fitted[:19] == 0).all()
    assert (fitted[41:] == 0).all()
    assert (fitted[21:39] > 0).all()


def test_without_pyav_a_film_comes_out_too(
    tmp_path: Path, model: str, without_pyav: None, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "shots"
    folder.mkdir()
    for number in range(8):
        cv2.imwrite(str(folder / f"{number}.png"), clips.picture(number))
    assert main(["video", str(folder / "%d.png"), "--model", model, "--score-threshold", "1"]) == 0
    film = folder / "shots.poses.mp4"
    assert [clips.number_of(picture) for picture in frames_of(film)] == list(range(8))
    assert cv2.VideoCapture(str(film)).get(cv2.CAP_PROP_FPS) == pytest.approx(25)
    assert main(["video", str(film), "--model", model, "--sound"]) == 1
    assert "pip install 'dekrpose[video]'" in capsys.readouterr().err


def test_lines_alone_and_films_without_sound(tmp_path: Path, model: str) -> None:
    path = clips.write_clip(tmp_path / "clip.mp4", clips.regular(10), sound=True)
    assert main(["video", str(path), "--model", model, "--no-video", "--stride", "3"]) == 0
    assert nothing_else(tmp_path, "clip.mp4", "clip.poses.jsonl")
    assert len(lines_of(tmp_path / "clip.poses.jsonl")) == 4
    assert main(["video", str(path), "--model", model, "--no-sound"]) == 0
    with pytest.raises(IndexError):
        clips.sound_of(tmp_path / "clip.poses.mp4")


def test_progress_says_how_fast_and_how_long(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dekrpose.progress.SECONDS", 0.0)
    path = clips.write_clip(tmp_path / "clip.mp4", clips.regular(10))
    assert main(["video", str(path), "--model", model, "--no-video"]) == 0
    said = capsys.readouterr()
    assert "of 10 frames" in said.err
    assert "frame/s" in said.err
    assert "10 frames" in said.out


def test_sources_that_cannot_be_read_leave_nothing(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    assert main(["video", str(tmp_path / "text.mp4"), "--model", model]) == 1
    assert "cannot open" in capsys.readouterr().err
    path = clips.write_clip(tmp_path / "clip.mp4", clips.regular(5))
    assert main(["video", str(path), "--model", model, "--start", "9"]) == 1
    assert "gave no frames" in capsys.readouterr().err
    assert nothing_else(tmp_path, "text.mp4", "clip.mp4")


def test_an_error_in_the_middle_keeps_what_was_done(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(self: Poses, image: Any, **_: Any) -> Any:
        if self.index == 5:
            raise OSError("no space left on device")
        return image

    monkeypatch.setattr(Poses, "draw", draw)
    path = clips.write_clip(tmp_path / "clip.mp4", clips.regular(20))
    assert main(["video", str(path), "--model", model]) == 1
    assert len(frames_of(tmp_path / "clip.poses.mp4")) == 5
    assert len(lines_of(tmp_path / "clip.poses.jsonl")) == 6
    assert nothing_else(tmp_path, "clip.mp4", "clip.poses.mp4", "clip.poses.jsonl")


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Writing more than these bytes into one file fails, as on a full disk."""
    resource = pytest.importorskip("resource", reason="Windows has no limit on the size of files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("reader", ["PyAV", "OpenCV"])
def test_a_film_that_cannot_be_written_whole_gets_no_name(
    tmp_path: Path, model: str, reader: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = clips.write_clip(tmp_path / "clip.mp4", clips.regular(20))
    noise = np.random.default_rng(0)
    monkeypatch.setattr(Poses, "draw", lambda *_, **__: noise.integers(0, 256, (*clips.SIZE, 3), np.uint8))
    if reader == "OpenCV":
        monkeypatch.setitem(sys.modules, "av", None)
    film, lines = tmp_path / "clip.poses.mp4", tmp_path / "clip.poses.jsonl"
    options = ["video", str(path), "--model", model, "--score-threshold", "1"]
    assert main(options) == 0
    size = film.stat().st_size
    film.write_bytes(b"the older one")
    for limit in (size // 2, size - 100, size - 1):  # pictures, the index at the end, or its very last byte
        noise = np.random.default_rng(0)
        capsys.readouterr()
        with files_up_to(limit):
            assert main(options) == 1
        said = capsys.readouterr().err
        assert f"dekrpose: cannot write {film}: " in said
        assert "The older clip.poses.mp4 stays as it was" in said
        assert film.read_bytes() == b"the older one"
        assert len(lines_of(lines)) > 0
        assert nothing_else(tmp_path, path.name, film.name, lines.name)
    noise = np.random.default_rng(0)
    with files_up_to(size):
        assert main(options) == 0
    assert len(frames_of(film)) == 20


@pytest.mark.parametrize("reader", ["PyAV", "OpenCV"])
def test_a_film_is_counted_before_it_gets_its_name(
    tmp_path: Path, model: str, reader: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = clips.write_clip(tmp_path / "clip.mp4", clips.regular(20))
    if reader == "OpenCV":
        monkeypatch.setitem(sys.modules, "av", None)
    kind = {"PyAV": "PyAvWriter", "OpenCV": "OpenCvWriter"}[reader]
    close = getattr(writer, kind).close

    def close_and_lose(self: Any, whole: bool) -> None:
        close(self, whole)
        self.frames += 3

    monkeypatch.setattr(getattr(writer, kind), "close", close_and_lose)
    assert main(["video", str(path), "--model", model]) == 1
    assert "only 20 of its 23 frames were written" in capsys.readouterr().err
    assert nothing_else(tmp_path, "clip.mp4", "clip.poses.jsonl")


def test_lines_that_cannot_be_written_leave_the_older_ones(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: Poses) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(outputs, "line_of", fail)
    path = clips.write_clip(tmp_path / "clip.mp4", clips.regular(5))
    assert main(["video", str(path), "--model", model]) == 1
    assert "clip.poses.jsonl: No space left on device" in capsys.readouterr().err
    assert nothing_else(tmp_path, "clip.mp4", "clip.poses.jsonl")


@pytest.mark.skipif(sys.platform != "linux", reason="such names are for file systems that take any bytes")
@pytest.mark.parametrize("name", [os.fsdecode(b"caf\xe9"), "caf\u00e9", "2024-05-01T10:30:45"])
@pytest.mark.parametrize("reader", ["PyAV", "OpenCV"])
def test_names_that_the_terminal_lacks_or_that_look_like_protocols(
    tmp_path: Path, model: str, name: str, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips.write_clip(tmp_path / "clip.mp4", clips.regular(4), sound=True).rename(tmp_path / f"{name}.mp4")
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.chdir(tmp_path)
    if reader == "OpenCV":
        monkeypatch.setitem(sys.modules, "av", None)
    assert main(["video", f"{name}.mp4", "--model", model]) == 0
    terminal.flush()
    assert b"4 frames" in terminal.buffer.getvalue()  # type: ignore[attr-defined]
    assert nothing_else(tmp_path, f"{name}.mp4", f"{name}.poses.mp4", f"{name}.poses.jsonl")


def test_lines_are_json_whatever_the_names_of_their_frames(tmp_path: Path, model: str) -> None:
    folder = tmp_path / "shots"
    folder.mkdir()
    (folder / os.fsdecode(b"0-caf\xe9.png")).write_bytes(b"no picture")
    cv2.imwrite(str(folder / "1.png"), clips.picture(1))
    assert main(["video", str(folder), "--model", model]) == 1
    first, second = lines_of(tmp_path / "shots.poses.jsonl")
    assert "0-caf\udce9.png" in first["error"]
    assert second["error"] is None


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to another process")
def test_ctrl_c_leaves_a_film_that_plays_and_whole_lines(tmp_path: Path, model: str) -> None:
    path = clips.write_clip(tmp_path / "clip.mp4", clips.regular(3000), size=(480, 640), sound=True)
    command = [sys.executable, "-m", "dekrpose", "video", str(path), "--model", model, "--batch-size", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    deadline = time.monotonic() + 300
    while not any(hidden.stat().st_size > 0 for hidden in tmp_path.glob(".clip.poses.*.jsonl")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "stopped, so this is only a part" in said
    assert "Traceback" not in errors
    lines = lines_of(tmp_path / "clip.poses.jsonl")
    assert 0 < len(lines) < 3000
    film = tmp_path / "clip.poses.mp4"
    assert clips.times_of(film) == pytest.approx(clips.regular(len(lines)), abs=1e-3)
    assert 0 < len(clips.sound_of(film)) < len(clips.sound_of(path))
    assert nothing_else(tmp_path, "clip.mp4", "clip.poses.mp4", "clip.poses.jsonl")


def test_a_webcam_needs_a_screen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert main(["webcam"]) == 1
    assert "there is no screen here" in capsys.readouterr().err
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:                           NONE\n")
    assert main(["webcam"]) == 1
    assert "this OpenCV was built without windows" in capsys.readouterr().err


class Capture:
    """A camera that goes away after some pictures."""

    pictures = 50

    def __init__(self, _: int) -> None:
        self.number = -1

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def get(self, _: int) -> float:
        return 30.0

    def read(self) -> tuple[bool, Any]:
        self.number += 1
        time.sleep(0.002)
        return self.number < self.pictures, clips.picture(self.number % 28)

    def release(self) -> None:
        pass


@pytest.mark.parametrize("key", [ord("q"), 27])
def test_a_key_ends_the_webcam(model: str, monkeypatch: pytest.MonkeyPatch, key: int) -> None:
    shown: list[Any] = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(Capture, "pictures", 50_000)  # more than a slow machine leaves out before the third look
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "GUI: QT5")
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    monkeypatch.setattr(cv2, "imshow", lambda _, picture: shown.append(picture))
    monkeypatch.setattr(cv2, "waitKey", lambda _: key if len(shown) == 3 else -1)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: 1.0)
    for name in ("namedWindow", "setWindowTitle", "destroyAllWindows"):
        monkeypatch.setattr(cv2, name, lambda *_: None)
    assert main(["webcam", "--model", model, "--mirror", "--score-threshold", "1"]) == 0
    assert len(shown) == 3
    assert clips.corner_of(shown[0]) == (False, True)
    assert np.asarray(shown[0]).shape == (*clips.SIZE, 3)


def test_a_camera_that_goes_away_is_said(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("dekrpose.video.opencv._PAUSE", 0.0)
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "GUI: QT5")
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: 1.0)
    monkeypatch.setattr(cv2, "waitKey", lambda _: -1)
    for name in ("imshow", "namedWindow", "setWindowTitle", "destroyAllWindows"):
        monkeypatch.setattr(cv2, name, lambda *_: None)
    assert main(["webcam", "--model", model]) == 1
    assert "camera 0 ended: the camera gives no pictures any more" in capsys.readouterr().err
