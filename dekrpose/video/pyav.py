"""Files and addresses through PyAV: exact timestamps, broken frames, any codec of FFmpeg."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dekrpose.errors import DekrPoseError, without_password
from dekrpose.images import Pixels
from dekrpose.video.frames import MOST_PIXELS, Frame, Source, broken, check_frame, location
from dekrpose.video.header import Header
from dekrpose.video.in_order import InOrder, clock_of, without_doubles
from dekrpose.video.places import Place, Places

TIMEOUT = 10.0
"""Seconds that an address may stay silent."""
MOST_HELD = 32 * 1024 * 1024
"""Bytes of packets that wait until it is known from which of them on they are decoded."""
_MOST_TRIED = 100  # key frames, from the last one back; where so many are none, the others are none either
_UNREADABLE_LIMIT = 100  # errors of the container in a row after which it is given up
_OPENING = 64  # packets that show whether a file says when its pictures are shown


def open_pyav(av: Any, address: str, start: float = 0.0) -> Source:
    """Open a file or an address with PyAV's module; pictures before ``start`` seconds need not come, but are counted.

    DekrPoseError if it cannot be opened, holds no video, or one of an unknown codec.
    """
    title = without_password(address)
    options = {"rtsp_transport": "tcp"} if address.lower().startswith(("rtsp:", "rtsps:")) else {}
    try:
        container = av.open(location(address), options=options, timeout=TIMEOUT)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise DekrPoseError(
            f"cannot open {title} as a video: {reason(error)}; check that it is one and that it is whole"
        ) from error
    if not container.streams.video:
        container.close()
        raise DekrPoseError(f"{title} holds no video; pass a file with pictures in it")
    codec = container.streams.video[0].codec_context
    if codec is None:
        kind = container.format.long_name
        container.close()
        raise DekrPoseError(
            f"the pictures of {title} ({kind}) are of a codec that PyAV's FFmpeg does not know; "
            "convert the file to H.264 in MP4 with the program that made it"
        )
    try:
        check_frame(codec.width, codec.height, title)
    except DekrPoseError:
        container.close()
        raise
    codec.options = {**codec.options, "max_pixels": str(MOST_PIXELS)}  # the size may change on the way
    reader = _Reader(av, container, start)
    info = reader.header.info(address)
    return Source(info, reader.frames(info.live), container.close, reader.troubles)


def reason(error: Exception) -> str:
    """An error of FFmpeg in words, without its number and the file's name."""
    return getattr(error, "strerror", None) or str(error)


class _Reader:
    """Decodes the first video stream; lost pictures keep their place."""

    def __init__(self, av: Any, container: Any, start: float) -> None:
        self._av = av
        self._container = container
        self._stream = container.streams.video[0]
        self.header = header = Header(container)
        self._start = start
        self._places: Places | InOrder = Places(header.tick, header.origin, header.nominal, header.silent)
        self._turned: tuple[int, int] | None = None  # size of the pictures that the matrix is for
        self._matrix: NDArray[np.int32] | None = None
        self._packets_read = 0
        self.troubles: list[str] = []

    def frames(self, live: bool) -> Iterator[Frame]:
        """Every picture in the order of presentation; broken ones in their places."""
        try:
            for packet in self._from_start(self._opened(live)):
                self._decode(packet)
                yield from map(self._frame, self._places.settle(whole=False))
            yield from map(self._frame, self._places.settle(whole=True, end=self._end()))
            shortage = self.header.shortage(self._places.count, self._places.last, self._packets_read)
            self.troubles.extend([shortage] if shortage else [])
        finally:
            self._container.close()

    def _opened(self, live: bool) -> Iterator[Any]:
        """The packets, after a look at the first ones; those of live sources cannot wait."""
        packets, header = self._packets(), self.header
        opening: list[Any] = []
        try:
            for packet in islice(packets, 0 if live else _OPENING):
                opening.append(packet)
        except DekrPoseError as error:  # after what could be read
            packets = _raises(error)
        stamps = [(packet.pts, packet.dts) for packet in opening if packet.size]
        clock = clock_of(header.format, header.is_raw, not header.silent, header.delayed, stamps)
        if clock is not None:
            clock = "none" if header.is_absurd else clock
            self._places = InOrder(header.tick, header.origin, header.nominal, header.silent, clock, header.delayed)
        found = chain(opening, packets)
        return without_doubles(found) if clock == "pictures" and not live else found

    def _from_start(self, packets: Iterator[Any]) -> Iterator[Any]:
        """The packets, from the last whole key frame before the start on; those before it are only counted."""
        if isinstance(self._places, InOrder) and not self._places.skips:
            yield from packets
            return
        held: list[Any] = []
        keys: list[int] = []
        size = 0
        for packet in packets:
            time = packet.dts if packet.pts is None else packet.pts
            late = time is None or (time - self.header.origin) * self.header.tick >= self._start
            if packet.is_keyframe and not late:
                keys.append(len(held))
            held.append(packet)
            size += packet.size
            if late:
                break
            if size > MOST_HELD:
                before, held = len(held), self._skip(held, keys)
                if len(held) == before:
                    break
                keys, size = [], sum(packet.size for packet in held)
        yield from self._skip(held, keys)
        yield from packets

    def _skip(self, held: list[Any], keys: list[int]) -> list[Any]:
        """Of packets, those that are decoded."""
        begin = _last_start(self._av, self._stream, held, keys)
        if begin:
            self._places.skip([packet for packet in held[:begin] if packet.size and not packet.is_discard], held[begin])
        return held[begin:]

    def _packets(self) -> Iterator[Any]:
        """The packets; unreadable stretches of the container are skipped."""
        failures = 0
        while True:
            try:
                for packet in self._container.demux(self._stream):
                    failures = 0
                    self._packets_read += bool(packet.size) and not packet.is_discard
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
        elif not packet.size and packet.dts is not None:
            return  # an empty packet in the middle would end the decoder
        elif not packet.size:
            self._places.end()
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
        """Ticks at which the last picture ends, if none is missing."""
        places = self._places
        is_whole = isinstance(places, Places) and places.expected == self.header.promised
        return self.header.last_tick if is_whole else None


def _last_start(av: Any, stream: Any, packets: Sequence[Any], keys: Sequence[int]) -> int:
    """The number of the last packet, in the file's order, at which decoding may begin; 0 always is one.

    Not every packet that is said to be a key frame, as ``keys`` are, is one: H.264 with intra refresh says so where the
    picture begins to become whole, and AVI's of H.263 of every packet. Those are believed that make a whole picture
    alone.
    """
    tried = [key for key in keys[-_MOST_TRIED:] if key]
    return next((key for key in reversed(tried) if _is_whole(av, stream, packets[key])), 0)


def _is_whole(av: Any, stream: Any, packet: Any) -> bool:
    """Whether a decoder that has seen nothing else makes a key frame out of a packet."""
    described = stream.codec_context
    decoder = av.CodecContext.create(described.name, "r")
    decoder.extradata = described.extradata
    decoder.codec_tag = described.codec_tag
    decoder.width, decoder.height = described.width, described.height
    if described.pix_fmt is not None:
        decoder.pix_fmt = described.pix_fmt
    try:
        pictures = [*decoder.decode(packet), *decoder.decode(None)]
    except (av.error.FFmpegError, OSError, ValueError):
        return False
    return bool(pictures) and all(picture.key_frame and not picture.is_corrupt for picture in pictures)


def _raises(error: Exception) -> Iterator[Any]:
    raise error
    yield


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

    Of its (9,) a, b, u, c, d, v, x, y, w, fixed point, only the signs matter here; (H, W, 3) or (W, H, 3), contiguous.
    """
    a, b, c, d = (int(matrix[place]) for place in (0, 1, 3, 4))
    if abs(b) > abs(a):
        pixels, a, d = pixels.transpose(1, 0, 2), c, b
    if a < 0:
        pixels = pixels[:, ::-1]
    if d < 0:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
