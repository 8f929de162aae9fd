"""The account of a file that does not say when its pictures are shown: the order is the decoder's."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any, Literal

from dekrpose.video.places import Place

Clock = Literal["pictures", "packets", "none"]
_JUMP = 1  # seconds back that are a new beginning, as in files that were joined, and no rounding
_LOST = "the decoder gave no picture"


def clock_of(
    name: str, is_raw: bool, is_late: bool, delayed: bool, stamps: Sequence[tuple[int | None, int | None]]
) -> Clock | None:
    """Which clock a file without times of presentation goes by.

    AVI, ASF and raw streams know when packets are decoded at best, and FFmpeg guesses the rest, wrongly where H.264 has
    B-frames. So does Matroska for tracks that came from AVI: the guess is the time of the next packet. Where the
    decoder reorders, not all pictures are shown when they are decoded: a container that says so guesses, as MXF does.
    Program streams stamp only the first picture that begins in a packet of theirs, and FFmpeg guesses the others.

    Args:
        name, is_raw: of the container's format, and whether it has no times at all.
        is_late: whether FFmpeg cannot tell from a packet when its picture is shown, as for H.264.
        delayed: whether the decoder takes more than one packet before it gives the first picture.
        stamps: times of presentation and of decoding of the first packets.

    Returns:
        "packets": their times of decoding; "pictures": the times that some of them have; None: every packet says when
            it is shown.
    """
    if is_raw or name in ("avi", "asf", "asf_o"):
        return "packets"
    if (name == "mpeg" and (is_late or delayed)) or any(shown is None for shown, _ in stamps):
        return "pictures"
    if len(stamps) > 1 and delayed and all(shown == decoded for shown, decoded in stamps):
        return "packets"
    guessed = len(stamps) > 1 and all(shown == decoded for (shown, _), (_, decoded) in pairwise(stamps))
    return "packets" if guessed and name.startswith("matroska") else None


def without_doubles(packets: Iterable[Any]) -> Iterator[Any]:
    """Of packets that follow each other at the same time, the last alone keeps it.

    FFmpeg gives the time of the picture that begins in a program stream's packet also to the one that ends in it.
    """
    before = None
    for packet in packets:
        if before is not None:
            if before.pts == packet.pts:
                before.pts = None
            yield before
        before = packet
    if before is not None:
        yield before


class InOrder:
    """Packets go in, pictures come as the decoder gives them, and places leave in that order; see also ``Places``.

    Where packets are found broken, and only then, a packet without a picture is a lost one: else the decoder just takes
    more of them before it gives the first.

    Args:
        clock: "packets": the time of the nth picture is when the nth packet is decoded; "pictures": it is the picture's
            own, where it has one; "none": it is the frame rate's.
        delayed: whether the decoder reorders; if not, a picture has its packet's time, however many packets it holds.
    """

    def __init__(
        self, tick: Fraction, origin: int, nominal: Fraction, silent: bool, clock: Clock, delayed: bool = True
    ) -> None:
        self._tick, self._origin, self._nominal, self._silent, self._clock = tick, origin, nominal, silent, clock
        self._delayed = delayed
        self.count = 0
        self._last: Fraction | None = None
        self._packets = 0  # that went in or were skipped
        self._first: Fraction | None = None  # seconds of the file's clock at which its first packet is decoded
        self._opening = Fraction(0)  # our seconds of the first picture
        self._shift: Fraction | None = None  # from the file's clock to ours, seconds
        self._lag: int | None = None  # packets that the decoder takes before it gives the first picture
        self._clocks: deque[Fraction | None] = deque()  # seconds of packets, from number self._clocks_from on
        self._clocks_from = 0
        self._durations: deque[Fraction] = deque()
        self._lost: deque[tuple[int, str]] = deque()  # number and reason
        self._damaged = self._ends = False
        self._done: list[Place] = []

    @property
    def last(self) -> float:
        """Seconds of the last place, -1 before the first one."""
        return -1.0 if self._last is None else float(self._last)

    @property
    def skips(self) -> bool:
        """Whether decoding may begin later than the file: where pictures leave the decoder as they go in."""
        return self._clock == "packets" and not self._delayed

    def skip(self, packets: Sequence[Any], key: Any) -> None:
        """Packets that are not decoded are only counted, those before a key frame."""
        if packets:
            self._decoded(packets[0].pts, packets[0].dts, packets[0].duration or 0)
        self.count += len(packets)
        self._packets += len(packets)
        self._clocks_from += len(packets)

    def enter(self, pts: int | None, dts: int | None, duration: int) -> None:
        """A packet goes to the decoder; all in ticks of the file's clock."""
        self._clocks.append(self._decoded(pts, dts, duration))
        self._durations.append(duration * self._tick)
        self._packets += 1

    def _decoded(self, pts: int | None, dts: int | None, duration: int) -> Fraction | None:
        """When a packet is decoded: seconds of the file's clock."""
        if self._packets or self._clock != "packets" or dts is None:
            return None if dts is None else dts * self._tick
        step = duration or round(self._nominal / self._tick)
        if pts is not None and (pts - dts) * self._tick > _JUMP and pts - dts > 2 * step:
            dts = pts - step  # FFmpeg says 0 where it does not know when the first one is decoded
        self._first = dts * self._tick
        self._opening = max((dts - self._origin) * self._tick, Fraction(0))
        return self._first

    def end(self) -> None:
        """No packet comes any more, only pictures that the decoder still holds."""
        self._ends = True

    def fail(self, pts: int | None, reason: str) -> None:
        """The last packet cannot be decoded."""
        self._damaged = True
        if not self._ends:
            self._lost.append((self._packets - 1, reason))

    def arrive(self, pts: int | None, picture: Any) -> None:
        """A picture comes out of the decoder."""
        self._damaged |= bool(picture.is_corrupt)
        if self._lag is None:
            self._lag = max(self._packets - 1 - self.count - len(self._lost), 0)
        elif self._damaged and not self._silent and not self._ends:
            missing = self._packets - 1 - self._lag - self.count - len(self._lost)
            self._lost.extend([(self._packets - 2, _LOST)] * missing)
        while self._lost and self._lost[0][0] <= self.count:
            self._place(None, None, self._lost.popleft()[1])
        self._place(pts, picture, "")

    def settle(self, whole: bool, end: int | None = None) -> Iterator[Place]:
        """The places that are known; ``whole``: there are no more packets."""
        if whole:
            for _, reason in self._lost:
                self._place(None, None, reason)
            self._lost.clear()
            while self._damaged and not self._silent and self.count < self._packets:
                self._place(None, None, _LOST)
        done, self._done = self._done, []
        yield from done

    def _place(self, pts: int | None, picture: Any | None, reason: str) -> None:
        duration = self._durations.popleft() if self._durations and self._clock != "none" else Fraction(0)
        step = duration if duration and self._clock == "pictures" else self._nominal
        expected = self._opening if self._last is None else self._last + step
        stamp = self._stamp(pts, picture is None)
        self._last = expected if stamp is None else self._on_time(stamp, expected)
        self._done.append(Place(self.count, float(self._last), float(duration) or None, picture, reason))
        self.count += 1

    def _on_time(self, stamp: Fraction, expected: Fraction) -> Fraction:
        """Our time of a stamp of the file's clock, both in seconds; time goes on where that clock stands or jumps."""
        if self._shift is None and self._clock == "pictures":
            self._shift = max(-self._origin * self._tick, -stamp)
        elif self._shift is None:
            first = stamp if self.count == 0 or self._first is None else self._first
            self._shift = self._opening - first
        time = stamp + self._shift
        if self._last is not None and time < self._last - _JUMP:
            self._shift += expected - time
        return time if self._last is None or time > self._last else expected

    def _stamp(self, pts: int | None, is_lost: bool) -> Fraction | None:
        if self._clock == "pictures":
            return None if pts is None else pts * self._tick
        if self._clock == "packets" and self._silent and not self._delayed and pts is not None:
            return pts * self._tick
        number = self.count + (self._lag or 0)
        if self._silent and not is_lost:  # each picture comes right after its packet, or after the next one
            number = self._packets - (0 if self._ends else 1)
        while self._clocks and self._clocks_from < number:
            self._clocks.popleft()
            self._clocks_from += 1
        return self._clocks[0] if self._clocks and self._clock == "packets" else None
