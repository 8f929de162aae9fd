"""MPEG program streams, where pictures share packets with each other: every frame once, at its time."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dekrpose.video.in_order import without_doubles
from dekrpose.video.sources import open_source
from tests import video_clips as clips

av = pytest.importorskip("av")
PYRAMID = {"bf": "3", "x264-params": "b-adapt=0:scenecut=0:b-pyramid=2"}


def write(path: Path, codec: str, bit_rate: int, options: dict[str, str], count: int) -> Path:
    """A film of moving noise: its pictures end anywhere in their packets."""
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    noise = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=25, options={"threads": "1", **options})
        video.width, video.height, video.pix_fmt, video.bit_rate = 128, 96, "yuv420p", bit_rate
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(np.roll(noise, 3 * number, axis=1) // 2, format="rgb24")
            frame.pts, frame.time_base = number, clips.RATE
            container.mux(video.encode(frame))
        container.mux(video.encode())
    return path


@pytest.mark.parametrize("bit_rate", [140_000, 300_000])
@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("clip.mpg", "mpeg1video", {"bf": "2"}),
        ("clip.mpg", "mpeg2video", {"bf": "2"}),
        ("clip.mpg", "mpeg4", {"bf": "2"}),
        ("clip.mpg", "mpeg4", {}),
        ("clip.vob", "mpeg2video", {"bf": "2"}),
        ("clip.vob", "libx264", PYRAMID),
        ("clip.mpg", "libx264", {"bf": "0"}),
    ],
)
def test_pictures_that_end_in_the_packet_of_others(
    tmp_path: Path, name: str, codec: str, options: dict[str, str], bit_rate: int
) -> None:
    source = open_source(write(tmp_path / name, codec, bit_rate, options, 120))
    assert [frame.timestamp for frame in source.frames] == pytest.approx(clips.regular(120), abs=1e-3)
    assert source.troubles == []


def test_pictures_of_a_few_bytes_share_a_packet(tmp_path: Path) -> None:
    path = clips.write_clip(tmp_path / "clip.mpg", clips.regular(60), codec="mpeg4", tick=clips.RATE)
    assert [frame.timestamp for frame in open_source(path).frames] == pytest.approx(clips.regular(60), abs=1e-3)


def test_the_picture_that_begins_in_a_packet_has_its_time() -> None:
    stamps = [5, 6, 6, None, None, 9, 9, 9, 10]
    packets = [SimpleNamespace(pts=stamp) for stamp in stamps]
    assert [packet.pts for packet in without_doubles(packets)] == [5, None, 6, None, None, None, None, 9, 10]
    assert list(without_doubles([])) == []
