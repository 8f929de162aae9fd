"""What every reader of a stream gives: frames, one by one; of live sources the newest, which a thread reads."""

from __future__ import annotations

import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

from dekrpose.errors import DekrPoseError, ImageError, without_password
from dekrpose.images import Pixels

TICKS = Fraction(1, 90_000)
"""Seconds per tick of sources that do not say theirs."""

SLOWEST, FASTEST = 0.01, 100_000
"""Frames per second beyond which a header is not believed."""
MOST_PIXELS = 2**25
"""Of a frame (8K has 33 million): decoders hold up to 17 of them."""
_PLAYLIST = re.compile(rb"#EXTM3U|ffconcat|(?:\xef\xbb\xbf)?\s*(?:<|$)")
"""How files begin that FFmpeg may take for lists of files: HLS, its own, and the XML of DASH and IMF."""
_WAKE = 0.2  # seconds: waiting without end cannot be interrupted everywhere
_JOIN = 2.0  # seconds that closing waits for a reader that hangs in its driver


@dataclass(eq=False)
class Frame:
    """One picture of a stream.

    Args:
        index: its number in the source, from 0; live sources count the frames that were dropped, too.
        timestamp: seconds from the start of the source.
        read: makes the pixels, (H, W, 3) uint8 RGB, upright; raises ImageError or OSError for a broken frame.
        duration: seconds that it is shown, where the source says so.
    """

    index: int
    timestamp: float
    read: Callable[[], Pixels]
    duration: float | None = None

    @cached_property
    def pixels(self) -> Pixels:
        """What ``read`` gives, made once."""
        return self.read()


def broken(index: int, timestamp: float, reason: str, duration: float | None = None) -> Frame:
    """A frame that has a place in the stream and no pixels."""

    def read() -> Pixels:
        raise ImageError(reason)

    return Frame(index, timestamp, read, duration)


@dataclass(frozen=True)
class StreamInfo:
    """What a source says about itself; it may be wrong.

    Args:
        name: path or address; None for frames in memory.
        live: frames come in their own time, whether they are wanted or not.
        frames: how many, if that is known.
        duration: seconds, if that is known.
        fps: frames per second on average, if that is known.
        tick: timestamps are multiples of this many seconds.
        pixel_aspect: width over height of one pixel, as pictures are stored.
    """

    name: str | None = None
    live: bool = False
    frames: int | None = None
    duration: float | None = None
    fps: float | None = None
    tick: Fraction = TICKS
    pixel_aspect: Fraction = Fraction(1)

    @property
    def title(self) -> str | None:
        """The name for messages and answers: an address without a password."""
        return None if self.name is None else without_password(self.name)


@dataclass(eq=False)
class Source:
    """An open stream.

    Args:
        info: what it says about itself.
        frames: the frames; they are read when they are asked for.
        close: ends reading; may be called twice, and from the thread that reads only.
        cancel: asks a reader that waits for its camera to end; any thread may.
        troubles: what went wrong with the source as a whole, in words, as it is found.
        dropped: live sources: how many frames came while nobody was ready for them, until now.
    """

    info: StreamInfo
    frames: Iterator[Frame]
    close: Callable[[], None]
    troubles: list[str] = field(default_factory=list)
    dropped: Callable[[], int] = lambda: 0
    cancel: Callable[[], None] = lambda: None


def sensible_rate(value: Any) -> bool:
    """Whether frames per second can be meant: damaged headers hold anything, also infinity and NaN."""
    return value is not None and math.isfinite(value) and SLOWEST <= float(value) <= FASTEST


def is_address(place: str) -> bool:
    """Whether a place is a URL; a file of that name is a file."""
    return "://" in place and not os.path.isfile(place)  # noqa: PTH113 - of long ones, Path raises


def check_frame(width: float, height: float, title: str) -> None:
    """Refuse a film before its frames are decoded; DekrPoseError if they are too large."""
    if width * height > MOST_PIXELS:
        raise DekrPoseError(
            f"the frames of {title} have {width:.0f} x {height:.0f} pixels, more than the {MOST_PIXELS / 1e6:.1f} "
            "million that are read; make it smaller first"
        )


def location(place: str) -> str:
    """What names a place beyond doubt: the colon of a bare file name looks like the end of a protocol's.

    DekrPoseError if it is a file that only names others, which FFmpeg would open wherever they lie.
    """
    if is_address(place):
        return place
    if os.path.isfile(place):  # noqa: PTH113 - of long ones, Path raises
        with open(place, "rb") as file:  # noqa: PTH123
            if _PLAYLIST.match(file.read(4096)):
                raise DekrPoseError(
                    f"{place} is a playlist, which names other files, and only those at an address are read; pass the "
                    "film, or the playlist's address"
                )
    return str(Path(place).absolute())


@dataclass(eq=False)
class _Slot:
    """Where the thread leaves the newest frame."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    frame: Frame | None = None
    dropped: int = 0
    stop: bool = False
    ended: bool = False
    error: Exception | None = None


def newest(source: Source) -> Source:
    """The same source, of which always the newest frame is taken; timestamps are when frames arrive.

    The thread ends with the source, or when ``close`` is called; it holds nothing that keeps its user alive.
    """
    slot = _Slot()
    thread = threading.Thread(target=_pump, args=(source, slot), name="dekrpose live source", daemon=True)
    thread.start()

    def close() -> None:
        with slot.changed:
            slot.stop = True
            slot.changed.notify_all()
        source.cancel()
        if thread is not threading.current_thread():
            thread.join(_JOIN)

    return Source(source.info, _take(slot), close, source.troubles, lambda: slot.dropped)


def _pump(source: Source, slot: _Slot) -> None:
    frames: Any = source.frames
    began = None
    try:
        for frame in frames:
            now = time.monotonic()
            began = now if began is None else began
            with slot.changed:
                if slot.stop:
                    break
                slot.dropped += slot.frame is not None
                slot.frame = replace(frame, timestamp=now - began)
                slot.changed.notify_all()
    except Exception as error:
        slot.error = error
    finally:
        # here, because a capture must not be closed while another thread reads from it
        getattr(frames, "close", lambda: None)()
        source.close()
        with slot.changed:
            slot.ended = True
            slot.changed.notify_all()


def _take(slot: _Slot) -> Iterator[Frame]:
    while True:
        with slot.changed:
            while slot.frame is None and not slot.ended and not slot.stop:
                slot.changed.wait(_WAKE)
            frame, slot.frame = slot.frame, None
        if frame is not None and not slot.stop:
            yield frame
        elif slot.error is not None:
            raise slot.error
        else:
            return
