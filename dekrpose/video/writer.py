"""Films: pictures with their timestamps into an MP4 file, with sound where PyAV is there."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dekrpose.images import Pixels
from dekrpose.video.frames import StreamInfo, location
from dekrpose.video.header import start_ticks
from dekrpose.video.opencv import name_for_opencv
from dekrpose.video.pyav import reason
from dekrpose.video.sources import find_pyav

logger = logging.getLogger(__name__)

_ENCODERS = ("libx264", "libopenh264", "mpeg4")  # what a build of FFmpeg may have, best first
_OPTIONS = {"libx264": {"crf": "20", "preset": "veryfast", "bf": "0"}}


class FilmError(Exception):
    """Why a film cannot be written, in words."""


def open_writer(path: Path, size: tuple[int, int], info: StreamInfo, sound: tuple[str, float] | None) -> FilmWriter:
    """Start a film, with PyAV if it is there, else with OpenCV at a constant rate and without sound.

    FilmError if it cannot be written, now or later.

    Args:
        path: ends in .mp4.
        size: (height, width) of the pictures; others are fitted in, with black bars.
        info: of the source: rate, clock and shape of pixels are kept.
        sound: a file and from which of its seconds on, or None.
    """
    av = find_pyav()
    if av is None:
        return OpenCvWriter(path, size, info)
    return PyAvWriter(av, path, size, info, _open_sound(av, sound) if sound else None)


def check_film(path: Path, frames: int) -> None:
    """Open a finished film again and count its frames: not every failed write is said.

    FilmError if it cannot be opened, or has another number of frames.
    """
    av = find_pyav()
    try:
        found = _count_with_opencv(path) if av is None else _count_with_pyav(av, path)
    except (OSError, ValueError, RuntimeError) as error:
        raise FilmError(f"what was written cannot be read again ({reason(error)})") from error
    if found != frames:
        raise FilmError(f"only {found} of its {frames} frames were written")
    if _boxes_end(path) != path.stat().st_size:
        raise FilmError("its end was not written")


def _boxes_end(path: Path) -> int:
    """Where the last box of an MP4 ends (ISO 14496-12, "Object Structure"); readers look at those they need alone."""
    end = 0
    with path.open("rb") as file:
        while len(head := file.read(16)) >= 8:
            size = int.from_bytes(head[:4], "big")
            size = int.from_bytes(head[8:], "big") if size == 1 else size
            if size < 8:
                return -1
            end += size
            file.seek(end)
    return end


def _count_with_pyav(av: Any, path: Path) -> int:
    try:
        with av.open(location(str(path))) as container:
            return sum(packet.size > 0 and not packet.is_corrupt for packet in container.demux(video=0))
    except av.error.FFmpegError as error:
        raise OSError(reason(error)) from error


def _count_with_opencv(path: Path) -> int:
    capture = cv2.VideoCapture(name_for_opencv(location(str(path))))
    frames = 0
    while capture.grab():
        frames += 1
    capture.release()
    return frames


def fit(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Pixels (H, W, 3) scaled into a picture of (height, width) in their proportions; the rest is black."""
    height, width = pixels.shape[:2]
    if (height, width) == size:
        return pixels
    scale = min(size[0] / height, size[1] / width)
    inner = (max(1, round(height * scale)), max(1, round(width * scale)))
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    canvas = np.zeros((*size, 3), np.uint8)
    resized = cv2.resize(pixels, inner[::-1], interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    canvas[top : top + inner[0], left : left + inner[1]] = resized
    return canvas


def _even(pixels: Pixels) -> Pixels:
    """The last row and column again where a side is odd: colours are stored for pairs of pixels."""
    height, width = pixels.shape[:2]
    if height % 2 == width % 2 == 0:
        return pixels
    return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


class OpenCvWriter:
    """Writes (H, W, 3) uint8 RGB pictures one after the other, ``frames`` until now, without their times."""

    def __init__(self, path: Path, size: tuple[int, int], info: StreamInfo) -> None:
        self._size = size
        self.frames = 0
        place, codec = name_for_opencv(location(str(path))), cv2.VideoWriter.fourcc(*"mp4v")
        self._writer = cv2.VideoWriter(place, codec, info.fps or 25.0, (size[1] + size[1] % 2, size[0] + size[0] % 2))
        if not self._writer.isOpened():
            raise FilmError("OpenCV cannot write it; install PyAV: pip install 'dekrpose[video]'")

    def write(self, pixels: Pixels, timestamp: float, duration: float | None) -> None:
        self.frames += 1
        self._writer.write(cv2.cvtColor(_even(fit(pixels, self._size)), cv2.COLOR_RGB2BGR))

    def close(self, whole: bool) -> None:
        self._writer.release()


class _Sound:
    """The first sound track of a file, packet by packet, as it is."""

    def __init__(self, av: Any, container: Any, start: float) -> None:
        self._unreadable = (av.error.FFmpegError, OSError, ValueError)
        self._container = container
        self.stream = container.streams.audio[0]
        self._tick = Fraction(self.stream.time_base)
        self._shift = start_ticks(container, self._tick) + round(start / self._tick)
        self._earliest = self._shift if start > 0 else None  # a beginning before 0 warms the decoder up
        self._packets = container.demux(self.stream)
        self._next = self._following()

    def _following(self) -> Any | None:
        try:
            return self._next_packet()
        except self._unreadable as error:
            logger.warning("the sound ends early: %s", reason(error))
            return None

    def _next_packet(self) -> Any | None:
        for packet in self._packets:
            if not packet.size or packet.pts is None or packet.dts is None:
                continue
            if self._earliest is None or packet.pts >= self._earliest:
                packet.pts -= self._shift
                packet.dts -= self._shift
                return packet
        return None

    def until(self, seconds: float) -> Iterator[Any]:
        """Packets that begin before a time of the film."""
        while self._next is not None and self._next.pts * self._tick < seconds:
            packet, self._next = self._next, None
            yield packet
            self._next = self._following()

    def close(self) -> None:
        self._container.close()


def _open_sound(av: Any, sound: tuple[str, float]) -> _Sound | None:
    """None where there is no sound that can be copied."""
    try:
        container = av.open(location(sound[0]))
    except (av.error.FFmpegError, OSError):
        return None
    if not container.streams.audio:
        container.close()
        return None
    return _Sound(av, container, sound[1])


class PyAvWriter:
    """The same with times, in seconds from the start of the film, growing; at a ``whole`` end all sound follows."""

    def __init__(self, av: Any, path: Path, size: tuple[int, int], info: StreamInfo, sound: _Sound | None) -> None:
        self._av, self._size, self._tick, self._sound = av, size, info.tick, sound
        self._nominal = 1 / (info.fps or 25.0)
        self._last = -1
        self.frames = 0
        self._end = 0.0
        self._durations: dict[int, int] = {}
        try:
            self._container, self._video, self._audio = self._start(path, info, sound)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            if sound is None:
                raise FilmError(reason(error)) from error
            name = sound.stream.codec_context.name
            logger.warning("MP4 cannot hold the sound as it is (%s), the film goes without: %s", name, reason(error))
            sound.close()
            self._sound = None
            with self._said():
                self._container, self._video, self._audio = self._start(path, info, None)

    @contextmanager
    def _said(self) -> Iterator[None]:
        """Whatever cannot be written here, in words."""
        try:
            yield
        except (self._av.error.FFmpegError, OSError, ValueError) as error:
            raise FilmError(reason(error)) from error

    def _start(self, path: Path, info: StreamInfo, sound: _Sound | None) -> tuple[Any, Any, Any]:
        encoder = next(name for name in _ENCODERS if name in self._av.codecs_available)
        container = self._av.open(location(str(path)), "w", format="mp4")
        try:
            rate = Fraction(info.fps or 25.0).limit_denominator(1001)
            video = container.add_stream(encoder, rate=rate, options=_OPTIONS.get(encoder, {}))
            video.height, video.width = (side + side % 2 for side in self._size)
            video.pix_fmt = "yuv420p"
            video.codec_context.time_base = self._tick
            video.time_base = self._tick
            if info.pixel_aspect != 1:
                video.codec_context.sample_aspect_ratio = info.pixel_aspect
            audio = container.add_stream_from_template(sound.stream) if sound else None
            container.start_encoding()  # says now whether the container takes these streams
        except Exception:
            container.close()
            raise
        return container, video, audio

    def write(self, pixels: Pixels, timestamp: float, duration: float | None) -> None:
        self.frames += 1
        picture = self._av.VideoFrame.from_ndarray(_even(fit(pixels, self._size)), format="rgb24")
        picture.pts = self._last = max(round(timestamp / self._tick), self._last + 1)
        picture.time_base = self._tick
        shown = duration or self._nominal
        self._durations[picture.pts] = max(round(shown / self._tick), 1)
        self._end = timestamp + shown
        self._copy_sound(timestamp)
        with self._said():
            self._mux(self._video.encode(picture))

    def _mux(self, packets: Any) -> None:
        for packet in packets:
            tick = Fraction(packet.time_base)
            duration = self._durations.pop(round(packet.pts * tick / self._tick), 0)
            packet.duration = round(duration * self._tick / tick)
            self._container.mux(packet)

    def _copy_sound(self, until: float) -> None:
        if self._sound is not None:
            for packet in self._sound.until(until):
                packet.stream = self._audio
                with self._said():
                    self._container.mux(packet)

    def close(self, whole: bool) -> None:
        try:
            with self._said():
                self._mux(self._video.encode())
            self._copy_sound(float("inf") if whole else self._end)
        finally:
            if self._sound is not None:
                self._sound.close()
            with self._said():
                self._container.close()


FilmWriter = OpenCvWriter | PyAvWriter
