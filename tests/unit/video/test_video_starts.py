"""A later start gives the pictures, numbers and times that the whole film has, whatever packets say of themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dekrpose.video import pyav
from dekrpose.video.frames import Frame
from dekrpose.video.places import Places
from dekrpose.video.sources import open_source
from tests import video_clips as clips

av = pytest.importorskip("av")
REFRESHING = {"bf": "2", "x264-params": "intra-refresh=1:keyint=12:b-adapt=0:scenecut=0"}
SIZE = (96, 128)  # H.263 knows few sizes


def write(path: Path, codec: str, options: dict[str, str]) -> Path:
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    return clips.write_clip(path, clips.regular(28), size=SIZE, codec=codec, tick=clips.RATE, options=options)


def read(path: Path, start: float) -> list[Frame]:
    return [frame for frame in open_source(path, start=start).frames if frame.timestamp >= start]


@pytest.mark.parametrize("start", [0.3, 0.6, 0.78])
@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("clip.mp4", "libx264", REFRESHING),
        ("clip.mkv", "libx264", REFRESHING),
        ("clip.ts", "libx264", REFRESHING),
        ("clip.avi", "h263", {}),
        ("clip.mkv", "libx264", {"x264-params": "open-gop=1:keyint=8:b-adapt=0:scenecut=0"}),
    ],
)
def test_key_frames_that_are_none_or_half_of_one(
    tmp_path: Path, name: str, codec: str, options: dict[str, str], start: float
) -> None:
    path = write(tmp_path / name, codec, options)
    whole, frames = read(path, 0.0), read(path, start)
    assert [frame.index for frame in frames] == list(range(round(start * 25 + 0.49), 28))
    assert [clips.number_of(frame.pixels) for frame in whole] == list(range(28))
    assert all(np.array_equal(frame.pixels, whole[frame.index].pixels) for frame in frames)
    assert [frame.timestamp for frame in frames] == pytest.approx([frame.index / 25 for frame in frames], abs=1e-3)


@pytest.mark.parametrize("held", [0, 2000, 10**9])
@pytest.mark.parametrize(("options", "skips"), [({}, True), (REFRESHING, False)])
def test_what_waits_is_bounded(
    tmp_path: Path, held: int, options: dict[str, str], skips: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    skipped: list[int] = []
    skip = Places.skip

    def noted(places: Places, packets: Any, key: Any) -> None:
        skipped.append(len(packets))
        skip(places, packets, key)

    monkeypatch.setattr(Places, "skip", noted)
    monkeypatch.setattr(pyav, "MOST_HELD", held)
    frames = read(write(tmp_path / "clip.mp4", "libx264", options), 0.9)
    assert [clips.number_of(frame.pixels) for frame in frames] == list(range(23, 28))
    assert [frame.index for frame in frames] == list(range(23, 28))
    assert sum(skipped) == (20 if skips and held else 0)
