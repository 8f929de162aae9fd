"""Without PyAV whole films are not called short, and short ones are: OpenCV's number of frames may be a guess."""

from __future__ import annotations

import sys
from itertools import accumulate, cycle, islice
from pathlib import Path

import pytest

from dekrpose.video.sources import open_source
from tests import video_clips as clips

TIMES = [0.0, *accumulate(islice(cycle([0.04, 0.04, 0.08, 0.033, 0.2]), 59))]  # its average is slower than its rate


def read(path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, list[str]]:
    """How many frames OpenCV gives, and what is said of the film."""
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "av", None)
        source = open_source(path)
        return sum(1 for _ in source.frames), source.troubles


@pytest.mark.parametrize("suffix", [".mkv", ".flv", ".ts", ".asf", ".mpg", ".mp4", ".mov"])
@pytest.mark.parametrize("late", [0, 7])
def test_a_whole_film_of_a_variable_rate(
    tmp_path: Path, suffix: str, late: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = clips.write_clip(tmp_path / f"clip{suffix}", [late + time for time in TIMES])
    assert read(path, monkeypatch) == (60, [])


def test_a_whole_film_in_fragments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = clips.write_clip(tmp_path / "clip.mp4", TIMES, movflags="frag_keyframe+empty_moov")
    assert read(path, monkeypatch) == (60, [])


@pytest.mark.parametrize(
    ("name", "said"), [("clip.mp4", "has 200 frames, only"), ("clip.mkv", "lasts 8.0 s, pictures end after")]
)
def test_a_film_that_ends_early(tmp_path: Path, name: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = clips.write_clip(tmp_path / name, clips.regular(200), movflags="faststart" if name == "clip.mp4" else "")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    frames, troubles = read(path, monkeypatch)
    assert 0 < frames < 190
    assert said in troubles[0]
