"""What a container that PyAV opened says about its pictures, as far as it can be believed."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from dekrpose.video.frames import TICKS, StreamInfo, is_address, sensible_rate

_HIDES_NOTHING = ("h264", "hevc")  # every packet is a picture that is shown: one that does not come out is lost
_NO_TIMESTAMPS = 0x80  # FFmpeg's AVFMT_NOTIMESTAMPS
_MICROSECOND = Fraction(1, 1_000_000)


def start_ticks(container: Any, tick: Fraction) -> int:
    """Where the clock of a container begins, in ticks of one of its streams.

    Sound may begin a little before 0, to warm its decoder up; that is not when the film begins.
    """
    begin = Fraction(container.start_time or 0) * _MICROSECOND
    if begin < 0:
        pictures = container.streams.video[0]
        begin = min(Fraction(0), (pictures.start_time or 0) * Fraction(pictures.time_base))
    return round(begin / tick)


class Header:
    """Facts of the first video stream.

    Attributes:
        format: name of the container's format.
        is_raw: whether it is a stream without a container, and so without times.
        silent: whether a packet may show nothing without being broken; if not, its time alone says when it is shown.
        delayed: whether the decoder takes more than one packet before it gives the first picture.
        tick: seconds per tick of the clock.
        origin: ticks at which time is 0.
        rate: frames per second, or None.
        nominal: seconds per picture.
        is_absurd: whether a file that has its times from its frame rate has one that cannot be meant.
        promised: how many frames it says that it has; 0 is none of its business.
    """

    def __init__(self, container: Any) -> None:
        self._container = container
        self._stream = container.streams.video[0]
        codec = self._stream.codec_context
        self.format: str = container.format.name
        self.is_raw = bool(container.format.flags & _NO_TIMESTAMPS)
        self.silent = codec.name not in _HIDES_NOTHING
        self.delayed = bool(codec.has_b_frames)
        self.tick = Fraction(self._stream.time_base)
        self.origin = start_ticks(container, self.tick)
        # FFmpeg says 25 of all raw streams, also of those that say theirs
        rates = [*([codec.framerate] if self.is_raw else []), self._stream.average_rate]
        self.rate = next((Fraction(rate) for rate in rates if sensible_rate(rate)), None)
        self.nominal = 1 / (self.rate or Fraction(25))
        self.is_absurd = self.rate is None and self.format == "avi"
        self.promised = int(self._stream.frames)

    @property
    def ends(self) -> Fraction | None:
        """Seconds from the start at which the pictures end; of raw streams it is only guessed."""
        stream, begin = self._stream, self.origin * self.tick
        if self.is_raw:
            return None
        if stream.duration:
            return Fraction((stream.start_time or 0) + stream.duration) * self.tick - begin
        ends = Fraction(max(self._container.duration or 0, 0)) * _MICROSECOND
        return (ends - begin if ends > begin else ends) or None  # Matroska and others count from 0, not from the start

    @property
    def last_tick(self) -> int | None:
        """Ticks at which the last picture ends: packets know the time to the next decoding only."""
        stream = self._stream
        return int((stream.start_time or 0) + stream.duration) if stream.duration else None

    def info(self, name: str) -> StreamInfo:
        """All of it for those who use the stream."""
        stream, rate, seconds, aspect = self._stream, self.rate, self.ends, self._stream.sample_aspect_ratio
        if rate is None and sensible_rate(stream.guessed_rate):
            rate = Fraction(stream.guessed_rate)
        if seconds and stream.start_time:
            seconds = max(seconds - (stream.start_time - self.origin) * self.tick, self.tick)
        frames = self.promised or (round(seconds * rate) if seconds and rate else None)
        if self.is_absurd:
            rate, seconds = 1 / self.nominal, frames * self.nominal if frames else None
        return StreamInfo(
            name=name,
            live=seconds is None and is_address(name) and (self._container.size or 0) <= 0,
            frames=frames or None,
            duration=float(seconds) if seconds else None,
            fps=float(rate) if rate else None,
            tick=TICKS if self.is_absurd else self.tick,
            pixel_aspect=Fraction(aspect) if aspect and aspect > 0 else Fraction(1),  # 0 is unknown
        )

    def shortage(self, count: int, last: float, packets: int) -> str | None:
        """What is missing of what was promised; its count includes empty packets and what an edit list cuts.

        ``count`` is of frames, broken ones too, ``last`` seconds of the last one, ``packets`` those that were not
        empty.
        """
        ends = None if self.is_absurd else self.ends
        if self.promised:
            is_short = not ends or last + 1.5 * self.nominal < ends or count < packets
            if count < self.promised and is_short:
                return f"it says that it has {self.promised} frames, only {count} are there"
        elif ends:
            slack = 0.1 * float(ends) if self._container.streams.audio else 0.0  # sound may go on for a while
            if last + 1 + slack < ends:
                return f"it says that it lasts {float(ends):.1f} s, pictures end after {last:.1f} s"
        return None
