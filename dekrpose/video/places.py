"""The account of a file's packets: every one has its place in time, whether a picture comes out of it or not."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any


@dataclass(frozen=True)
class Place:
    """What is shown at one time: a picture as the decoder gave it, or the reason why there is none.

    ``index`` is the number in the order of presentation, from 0, ``timestamp`` seconds from the start.
    """

    index: int
    timestamp: float
    duration: float | None
    picture: Any | None
    reason: str


class Places:
    """Packets go in as they lie in the file, pictures as the decoder gives them; places come out as they are shown.

    Decoders leave damaged pictures out, or give them too early or too late, so places follow the packets. Where a
    file's clock jumps back, as in files that were joined, time goes on.

    Args:
        tick: seconds per tick of the file's clock.
        origin: ticks at which time is 0.
        nominal: seconds per picture, where the clock says nothing.
        silent: whether a packet may show nothing without being broken.
    """

    def __init__(self, tick: Fraction, origin: int, nominal: Fraction, silent: bool) -> None:
        self._tick, self._nominal, self._silent = tick, nominal, silent
        self.count = 0
        self.last = -1.0
        self._shift = -origin  # from the file's clock to ours, ticks
        self._decoded_until: int | None = None  # ours
        self._settled: int | None = None  # ours
        self._key: int | None = None  # ours: the key frame at which decoding begins later than the file
        self._waiting: list[tuple[int, int, int]] = []  # heap of (our ticks, file's ticks, duration)
        self._ours: dict[int, int] = {}  # file's ticks of what waits to ours
        self._reasons: dict[int, str] = {}  # by our ticks
        self._ready: list[tuple[int, int, Any]] = []  # heap of (our ticks, order of arrival, picture)
        self._arrivals = itertools.count()

    def enter(self, pts: int | None, dts: int | None, duration: int) -> None:
        """A packet goes to the decoder; all in ticks of the file's clock."""
        step = max(round(self._nominal / self._tick), 1)
        if pts is None and dts is None and self._decoded_until is not None:
            pts = self._furthest(self._decoded_until) + step - self._shift
            self._decoded_until += step
        elif dts is not None:
            if self._decoded_until is not None and dts + self._shift < self._decoded_until:
                self._shift = self._furthest(self._decoded_until) + step - (dts if pts is None else pts)
            self._decoded_until = dts + self._shift
        pts = dts if pts is None else pts
        if pts is not None:
            self._ours[pts] = pts + self._shift
            heapq.heappush(self._waiting, (pts + self._shift, pts, duration))

    def _furthest(self, decoded_until: int) -> int:
        return max([decoded_until, *(waiting for waiting, _, _ in self._waiting)])

    def skip(self, packets: Sequence[Any], key: Any) -> None:
        """Packets that are not decoded are only counted; so are pictures before the key frame that lean on them."""
        self.count += len(packets)
        self._key = None if key.pts is None else key.pts + self._shift

    def end(self) -> None:
        """No packet comes any more."""

    def fail(self, pts: int | None, reason: str) -> None:
        """A packet cannot be decoded."""
        if pts in self._ours:
            self._reasons[self._ours[pts]] = reason

    def arrive(self, pts: int | None, picture: Any) -> None:
        """A picture comes out of the decoder; one without a time is taken for the first that is missing."""
        if pts is None and self._waiting:
            ours: int | None = self._waiting[0][0]
        else:
            ours = None if pts is None else self._ours.get(pts, pts + self._shift)
        if ours is None:
            ours = (self._settled or 0) + max(round(self._nominal / self._tick), 1) if self.count else 0
        heapq.heappush(self._ready, (ours, next(self._arrivals), picture))

    @property
    def expected(self) -> int:
        """How many places there are, if no more packets come."""
        return self.count + len(self._waiting)

    def settle(self, whole: bool, end: int | None = None) -> Iterator[Place]:
        """The places before which nothing can come any more; ``whole``: there are no more packets.

        ``end``: ticks of the file's clock at which the very last picture ends, if that is known.
        """
        limit = None if whole else self._decoded_until  # no packet that comes later is shown earlier than it is decoded
        while self._ready and (limit is None or self._ready[0][0] <= limit):
            ours, _, picture = heapq.heappop(self._ready)
            yield from self._lost(ours)
            waits = bool(self._waiting) and self._waiting[0][0] == ours
            if not waits and self._settled is not None and ours <= self._settled:
                continue  # it comes too late: its place is gone
            duration = self._leave()[2] if waits else 0
            if end is not None and not self._waiting:
                duration = max(end + self._shift - ours, 1)
            yield self._place(ours, duration, picture, "")
        if whole:
            yield from self._lost(None)

    def _lost(self, before: int | None) -> Iterator[Place]:
        """Packets that are shown before our ticks (None: all) and gave no picture."""
        while self._waiting and (before is None or self._waiting[0][0] < before):
            ours, _, duration = self._leave()
            reason = self._reasons.pop(ours, None)
            if reason is None and self._silent and self._key is not None and ours < self._key:
                self.count += 1
            elif reason is not None or not self._silent:
                yield self._place(ours, duration, None, reason or "the decoder gave no picture")

    def _leave(self) -> tuple[int, int, int]:
        entry = heapq.heappop(self._waiting)
        if self._ours.get(entry[1]) == entry[0]:
            del self._ours[entry[1]]
        return entry

    def _place(self, ours: int, duration: int, picture: Any | None, reason: str) -> Place:
        self._settled = ours
        timestamp = float(ours * self._tick)
        if timestamp <= self.last:
            timestamp = self.last + float(self._nominal)
        self.last = timestamp
        self.count += 1
        return Place(self.count - 1, timestamp, float(duration * self._tick) or None, picture, reason)
