"""Files and addresses through PyAV: exact timestamps, broken frames, any codec of FFmpeg."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dekrpose.errors import DekrPoseError
from dekrpose.images import Pixels
from dekrpose.video.frames import Frame, Source, StreamInfo, broken, rational
from dekrpose.video.places import Place, Places

TIMEOUT = 10.0
"""Seconds that an address may stay silent."""
_HIDES_NOTHING = ("h264", "hevc")  # every packet is a picture that is shown: one that does not come out is lost
_UNREADABLE_LIMIT = 100  # errors of the container in a row after which it is given up
_MICROSECOND = Fraction(1, 1_000_000)


def open_pyav(av: Any, address: str, start: float = 0.0) -> Source:
    """Open a file or an address.

    Args:
        av: the module.
        address: path or URL.
        start: seconds; pictures before it need not come, but are counted.

    Raises:
        DekrPoseError: it cannot be opened, or holds no video.
    """
    options = {"rtsp_transport": "tcp"} if address.lower().startswith(("rtsp:", "rtsps:")) else {}
    try:
        container = av.open(address, options=options, timeout=TIMEOUT)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise DekrPoseError(
            f"cannot open {address} as a video: {reason(error)}; check that it is one and that it is whole"
        ) from error
    if not container.streams.video:
        container.close()
        raise DekrPoseError(f"{address} holds no video; pass a file with pictures in it")
    reader = _Reader(av, container, start)
    return Source(reader.info(address), reader.frames(), container.close, reader.troubles)


def start_ticks(container: Any, tick: Fraction) -> int:
    """Where the clock of a container begins, in ticks of one of its streams.

    Sound may begin a little before 0, to warm its decoder up; that is not when the film begins.
    """
    begin = Fraction(container.start_time or 0) * _MICROSECOND
    if begin < 0:
        pictures = container.streams.video[0]
        begin = min(Fraction(0), (pictures.start_time or 0) * Fraction(pictures.time_base))
    return round(begin / tick)


def reason(error: Exception) -> str:
    """An error of FFmpeg in words, without its number and the file's name."""
    return getattr(error, "strerror", None) or str(error)


class _Reader:
    """Decodes the first video stream; lost pictures keep their place."""

    def __init__(self, av: Any, container: Any, start: float) -> None:
        self._av = av
        self._container = container
        self._stream = container.streams.video[0]
        self._tick = Fraction(self._stream.time_base)
        self._origin = start_ticks(container, self._tick)
        self._start = start
        nominal = 1 / (rational(self._stream.average_rate) or Fraction(25))
        silent = self._stream.codec_context.name not in _HIDES_NOTHING
        self._places = Places(self._tick, self._origin, nominal, silent)
        self._turned: tuple[int, int] | None = None  # size of the pictures that the matrix is for
        self._matrix: NDArray[np.int32] | None = None
        self.troubles: list[str] = []

    def info(self, name: str) -> StreamInfo:
        """What the container says."""
        stream, container = self._stream, self._container
        seconds = stream.duration * self._tick if stream.duration else None
        if seconds is None and container.duration:
            seconds = container.duration * _MICROSECOND
        rate = rational(stream.average_rate) or rational(stream.guessed_rate)
        frames = stream.frames or (round(seconds * rate) if seconds and rate else None)
        return StreamInfo(
            name=name,
            live=seconds is None and "://" in name,
            frames=frames,
            duration=float(seconds) if seconds else None,
            fps=float(rate) if rate else None,
            tick=self._tick,
            pixel_aspect=rational(stream.sample_aspect_ratio) or Fraction(1),
        )

    def frames(self) -> Iterator[Frame]:
        """Every picture in the order of presentation; broken ones in their places."""
        try:
            for packet in self._from_start():
                self._decode(packet)
                yield from map(self._frame, self._places.settle(whole=False))
            yield from map(self._frame, self._places.settle(whole=True, end=self._end()))
            self._compare()
        finally:
            self._container.close()

    def _from_start(self) -> Iterator[Any]:
        """The packets, from the last key frame before the start on; those before it are only counted."""
        group: list[Any] = []
        packets = self._packets()
        for packet in packets:
            time = packet.dts if packet.pts is None else packet.pts
            late = time is None or (time - self._origin) * self._tick >= self._start
            if packet.is_keyframe and not late:
                self._places.count += sum(not held.is_discard for held in group)
                group = []
            group.append(packet)
            if late:
                break
        yield from group
        yield from packets

    def _packets(self) -> Iterator[Any]:
        """The packets; unreadable stretches of the container are skipped."""
        failures = 0
        while True:
            try:
                for packet in self._container.demux(self._stream):
                    failures = 0
                    yield packet
                return
            except self._av.error.InvalidDataError as error:
                failures += 1
                if failures == _UNREADABLE_LIMIT:
                    self.troubles.append(f"reading was given up: {reason(error)}")
                    return
            except self._av.error.FFmpegError as error:
                raise DekrPoseError(f"reading stopped: {reason(error)}") from error

    def _decode(self, packet: Any) -> None:
        if packet.size and not packet.is_discard:
            self._places.enter(packet.pts, packet.dts, packet.duration or 0)
        try:
            for picture in self._stream.decode(packet):
                self._places.arrive(picture.pts, picture)
        except self._av.error.EOFError:
            return
        except self._av.error.FFmpegError as error:
            self._places.fail(packet.dts if packet.pts is None else packet.pts, reason(error))

    def _frame(self, place: Place) -> Frame:
        picture = place.picture
        if picture is None or picture.is_corrupt:
            words = f"the frame cannot be decoded: {place.reason}" if picture is None else "the frame is damaged"
            return broken(place.index, place.timestamp, words, place.duration)
        if (picture.width, picture.height) != self._turned:
            # not for each: PyAV's side data and its picture hold each other, and only the collector frees both
            self._turned, self._matrix = (picture.width, picture.height), _matrix(picture)
        return Frame(place.index, place.timestamp, partial(_upright, picture, self._matrix), place.duration)

    def _end(self) -> int | None:
        """Ticks at which the last picture ends: packets know the time to the next decoding only."""
        stream = self._stream
        if not stream.duration or self._places.expected != stream.frames:
            return None
        return int((stream.start_time or 0) + stream.duration)

    def _compare(self) -> None:
        """Note an end that came before the container said."""
        promised, seconds = self._stream.frames, float((self._container.duration or 0) * _MICROSECOND)
        if promised:
            if self._places.count < promised:
                self.troubles.append(f"it says that it has {promised} frames, only {self._places.count} are there")
            return
        slack = 0.1 * seconds if self._container.streams.audio else 0.0  # sound may go on for a while
        if self._places.last + 1 + slack < seconds:
            self.troubles.append(f"it says that it lasts {seconds:.1f} s, pictures end after {self._places.last:.1f} s")


def _matrix(picture: Any) -> NDArray[np.int32] | None:
    """The display matrix (9,) that comes with a picture, if any."""
    for data in picture.side_data:
        if getattr(data.type, "name", "") == "DISPLAYMATRIX":
            return np.array(np.frombuffer(data, np.int32))
    return None


def _upright(picture: Any, matrix: NDArray[np.int32] | None) -> Pixels:
    pixels = np.asarray(picture.to_ndarray(format="rgb24"), np.uint8)
    return pixels if matrix is None else turn(pixels, matrix)


def turn(pixels: Pixels, matrix: NDArray[np.int32]) -> Pixels:
    """Apply a display matrix (ISO 14496-12, "Track Header Box"): x' = ax + cy, y' = bx + dy, in quarter turns.

    Args:
        pixels: (H, W, 3).
        matrix: (9,) a, b, u, c, d, v, x, y, w; fixed point, of which only the signs matter here.

    Returns:
        (H, W, 3) or (W, H, 3), contiguous.
    """
    a, b, c, d = (int(matrix[place]) for place in (0, 1, 3, 4))
    if abs(b) > abs(a):
        pixels, a, d = pixels.transpose(1, 0, 2), c, b
    if a < 0:
        pixels = pixels[:, ::-1]
    if d < 0:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
