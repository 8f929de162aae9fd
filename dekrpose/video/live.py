"""Live sources: a thread reads as fast as frames come, and only the newest one is kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from dekrpose.video.frames import Frame, Source

_WAKE = 0.2  # seconds: waiting without end cannot be interrupted everywhere
_JOIN = 2.0  # seconds that closing waits for a reader that hangs in its driver


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
