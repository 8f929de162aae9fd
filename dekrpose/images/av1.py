"""What the AV1 streams in an AVIF file claim: decoders go by it, and not by what the container around them says."""

from __future__ import annotations

import re
from collections.abc import Iterator

_MAX_UNITS = 10_000
"""Of a stream; a picture has some, or one for each of its up to 4096 tiles."""
_MAX_PIECES = 20_000
_LONGEST_HEADER = 512
_SEQUENCE_HEADER = 1

_Pieces = tuple[tuple[int, int], ...]
"""Where a stream lies in the file: start and length of each piece."""


def stream_claims(data: bytes) -> tuple[int, bool]:
    """Pixels of all streams together, such as the cells of a grid and alpha; whether one has more than 8 bits.

    ValueError if there are more streams, or more in one of them, than a picture needs.
    """
    known: dict[_Pieces, tuple[int, bool]] = {}
    total = looked_at = 0
    for pieces in _streams(data):
        if pieces not in known:
            stream = b"".join(data[start : start + length] for start, length in pieces)
            looked_at += len(stream)
            if looked_at > 4 * len(data):
                raise ValueError("its streams overlap")
            known[pieces] = _claims(stream)
        total += known[pieces][0]
    return total, any(is_deep for _, is_deep in known.values())


def _streams(data: bytes) -> Iterator[_Pieces]:
    """Every stream of which a table says the place, wherever the table stands; of a film the first sample."""
    inside = list(_contents(data, b"idat"))
    budget = iter(range(_MAX_PIECES))
    for place in _contents(data, b"iloc"):
        yield from _items(data, place, inside, budget)
    samples = (_number(data, place + 4, 4) or _number(data, place + 12, 4) for place in _contents(data, b"stsz"))
    longest = max(samples, default=0)
    for kind, width in ((b"stco", 4), (b"co64", 8)):
        for place in _contents(data, kind):
            yield ((_number(data, place + 8, width), longest),)


def _contents(data: bytes, kind: bytes) -> Iterator[int]:
    """Where the contents of a kind of box begin."""
    for found in re.finditer(kind, data):
        size = _number(data, max(0, found.start() - 4), 4)
        if size <= len(data):
            yield found.end() + (8 if size == 1 else 0)  # the size follows


def _number(data: bytes, place: int, length: int) -> int:
    return int.from_bytes(data[place : place + length], "big")


def _items(data: bytes, place: int, inside: list[int], budget: Iterator[int]) -> Iterator[_Pieces]:
    def take(length: int) -> int:
        nonlocal place
        place += length
        return _number(data, place - length, length)

    version, sizes = take(4) >> 24, take(2)
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    number_size = 4 if version == 2 else 2
    for _ in range(take(number_size)):
        take(number_size)
        starts = inside if version and take(2) & 15 == 1 else [0]
        take(2)
        base, pieces = take(base_size), []
        for _ in range(take(2)):
            take(index_size if version else 0)
            pieces.append((base + take(offset_size), take(length_size)))
            if next(budget, None) is None:
                raise ValueError(f"its streams are in more than {_MAX_PIECES:,} pieces")
        for start in starts:
            yield tuple((start + offset, length) for offset, length in pieces)
        if place > len(data) or len(starts) > 9:
            raise ValueError("its table of streams is damaged")


def _claims(stream: bytes) -> tuple[int, bool]:
    """Pixels of the largest frame that a stream may have, and whether one has more than 8 bits."""
    place, largest, is_deep = 0, 0, False
    for _ in range(_MAX_UNITS):
        if place >= len(stream):
            return largest, is_deep
        head = stream[place]
        place += 2 if head & 4 else 1
        length = len(stream) - place
        if head & 2:
            length = shift = 0
            for byte in stream[place : place + 8]:
                place, length, shift = place + 1, length | (byte & 127) << shift, shift + 7
                if byte < 128:
                    break
        if head >> 3 & 15 == _SEQUENCE_HEADER:
            pixels, deep = _sequence(stream[place : place + min(length, _LONGEST_HEADER)])
            largest, is_deep = max(largest, pixels), is_deep or deep
        place += length
    raise ValueError(f"a stream has more than {_MAX_UNITS:,} units")


def _sequence(header: bytes) -> tuple[int, bool]:
    """Pixels of the largest frame, and whether it has more than 8 bits ("Sequence header OBU syntax" of AV1)."""
    bits, left = int.from_bytes(header.ljust(2 * _LONGEST_HEADER, b"\0"), "big"), 16 * _LONGEST_HEADER

    def take(count: int) -> int:
        nonlocal left
        left = max(0, left - count)
        return bits >> left & (1 << count) - 1

    take(4)
    is_reduced = take(1)
    if is_reduced:
        take(5)
    else:
        delay = 0
        if take(1):  # timing
            take(64)
            if take(1):
                zeros = 0
                while not take(1) and zeros < 8 * _LONGEST_HEADER:
                    zeros += 1
                take(zeros if zeros < 32 else 0)
            if take(1):
                delay = take(5) + 1
                take(42)
        has_display_delay = take(1)
        for _ in range(take(5) + 1):
            take(12)
            take(1 if take(5) > 7 else 0)
            if delay and take(1):
                take(2 * delay + 1)
            if has_display_delay and take(1):
                take(4)
    width_bits, height_bits = take(4) + 1, take(4) + 1
    pixels = (take(width_bits) + 1) * (take(height_bits) + 1)
    if not is_reduced and take(1):
        take(7)
    take(3)
    if not is_reduced:
        take(4)
        has_order = take(1)
        take(2 if has_order else 0)
        if (take(1) or take(1)) and not take(1):
            take(1)
        take(3 if has_order else 0)
    take(3)
    return pixels, bool(take(1))
