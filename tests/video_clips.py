"""Short clips that say in their brightness which frame is which."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

SIZE = (48, 64)
RATE = Fraction(1, 25)
"""Seconds per picture of a regular clip."""
_STEP = 7
_LEVELS = 28


def picture(number: int, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """(H, W, 3): a grey that tells the number, modulo 28, and a bright upper left corner that tells what is up."""
    pixels = np.full((*size, 3), 20 + _STEP * (number % _LEVELS), np.uint8)
    pixels[: size[0] // 3, : size[1] // 3] = 255
    return pixels


def number_of(pixels: NDArray[np.uint8]) -> int:
    """The number of a picture, modulo 28, whichever side is up."""
    return round((float(np.median(pixels)) - 20) / _STEP)


def corner_of(pixels: NDArray[np.uint8]) -> tuple[bool, bool]:
    """Whether the bright corner is below, and whether it is on the right."""
    bright = pixels.mean(axis=2) > 235
    rows, columns = np.nonzero(bright)
    return bool(rows.mean() > pixels.shape[0] / 2), bool(columns.mean() > pixels.shape[1] / 2)


def regular(count: int, fps: int = 25) -> list[float]:
    """Timestamps of a constant rate."""
    return [number / fps for number in range(count)]


def irregular(count: int) -> list[float]:
    """Timestamps of a camera that slows down now and then; milliseconds."""
    steps = np.random.default_rng(0).choice([20, 40, 110], count)
    return [int(time) / 1000 for time in np.cumsum(steps) - steps[0]]


def write_clip(
    path: Path,
    times: Sequence[float],
    *,
    size: tuple[int, int] = SIZE,
    codec: str = "libx264",
    keyframes: int = 10,
    sound: bool = False,
    tick: Fraction = Fraction(1, 1000),
    movflags: str = "",
    options: Mapping[str, str] | None = None,
) -> Path:
    """Write a clip of ``picture``s with PyAV, B-frames included, and a tone if sound is wanted."""
    av = pytest.importorskip("av")
    options = ({"g": str(keyframes), "threads": "1"} if codec != "mjpeg" else {}) | dict(options or {})
    with av.open(str(path), "w", options={"movflags": movflags} if movflags else {}) as container:
        video = container.add_stream(codec, rate=25, options=options)
        video.height, video.width = size
        video.bit_rate = 2_000_000  # brightness must survive
        video.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        video.codec_context.time_base = tick
        audio = container.add_stream("aac", rate=44100, layout="mono") if sound else None
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(number, size), format="rgb24")
            frame.pts, frame.time_base = round(time / tick), tick
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if audio is not None:
            for frame in _tone(av, times[-1]):
                container.mux(audio.encode(frame))
            container.mux(audio.encode())
    return path


def _tone(av: Any, seconds: float) -> Iterator[Any]:
    samples = (8000 * np.sin(np.arange(round(seconds * 44100)) / 16)).astype(np.int16)
    for start in range(0, len(samples), 1024):
        frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="s16", layout="mono")
        frame.rate, frame.pts = 44100, start
        yield frame


def set_matrix(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Write a, b, c, d of the display matrix into an MP4's track header."""
    data = bytearray(path.read_bytes())
    a, b, c, d = (np.int32(value << 16) for value in matrix)
    at = data.index(b"tkhd") + 44  # name, version and flags, times, number, duration, layer, group, volume
    data[at : at + 36] = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], ">i4").tobytes()
    path.write_bytes(data)


def _places(path: Path) -> list[tuple[int, int]]:
    """Position and size of every packet of pictures, in the order of the file."""
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


def damage(path: Path, packets: Iterable[int]) -> None:
    """Overwrite packets of a clip, by their numbers in the order of the file, with noise."""
    places = _places(path)
    data = bytearray(path.read_bytes())
    noise = np.random.default_rng(0)
    for position, size in (places[number] for number in packets):
        data[position : position + size] = noise.bytes(size)
    path.write_bytes(data)


def cut(path: Path, packets: int) -> None:
    """End a clip that was written with movflags="faststart" after some packets."""
    path.write_bytes(path.read_bytes()[: _places(path)[packets][0]])


def times_of(path: Path) -> list[float]:
    """When the pictures of a file are shown, seconds, decoded by PyAV."""
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        return [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]


def length_of(path: Path) -> float:
    """Seconds that the video stream of a file lasts, as it says itself."""
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return float(stream.duration * stream.time_base)


def sound_of(path: Path) -> list[bytes]:
    """The packets of a file's sound, as they are."""
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]
