"""What a kind of hostile input is, and the damage that all kinds share."""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
SECRET = "hunter2"
"""Stands in files that are no checkpoints; no message may quote it."""
EXTREMES = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Args:
        make: an input from random numbers.
        prepare: loads what is needed, and gives the function that uses an input.
        harmless: an input that is answered.
        documented: errors that may come.
        count: inputs that SECURITY.md speaks of.
        seconds, mebibytes: what using one may take.
        secret: text that no message may hold.
    """

    make: Callable[[random.Random], bytes]
    prepare: Callable[[], Callable[[bytes], Any]]
    harmless: Callable[[], bytes]
    documented: tuple[type[Exception], ...]
    count: int
    seconds: float
    mebibytes: float
    secret: str = "\0"


def damaged(data: bytes, dice: random.Random, fields: tuple[int, ...] = ()) -> bytes:
    """Some bytes, with some damage; ``fields`` are numbers in it that matter, such as its size in pixels."""
    content = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 3, 6))):
        if not content:
            break
        # headers are at the beginning, directories at the end
        near = min(len(content), 1 << dice.randrange(5, 20))
        place = dice.randrange(near) if dice.random() < 0.7 else len(content) - 1 - dice.randrange(near)
        form = dice.choice(("<H", ">H", "<I", ">I"))
        value = dice.choice(EXTREMES) & (2 ** (8 * struct.calcsize(form)) - 1)
        what = dice.randrange(8)
        if what == 0:
            content[place] ^= 1 << dice.randrange(8)
        elif what == 1:
            content[place : place + struct.calcsize(form)] = struct.pack(form, value)
        elif what == 2:
            del content[place:]
        elif what == 3:
            del content[place : place + dice.randrange(1, 64)]
        elif what == 4:
            content[place:place] = content[: dice.randrange(1, 512)]
        elif what == 5:
            content[place:place] = dice.randbytes(dice.randrange(1, 64))
        elif what == 6:
            content[place : place + 16] = bytes([dice.choice((0, 255))]) * 16
        elif fields:
            old = struct.pack(form, dice.choice(fields))
            content = bytearray(bytes(content).replace(old, struct.pack(form, value), dice.choice((1, -1))))
    return bytes(content)


PLANTED: tuple[Any, ...] = (
    None, True, 0, -1, 0.5, 10**5, 2**63, 10**400, 1e308, float("nan"), float("inf"), "", "1", "-1", "x" * 300, [],
    [[]], [1, 2, 3], {}, {"a": 1}, "\ud800",
)  # fmt: skip


def planted(content: Any, dice: random.Random) -> Any:
    """A JSON value with something else in one of its places."""
    if isinstance(content, dict) and content and dice.random() < 0.9:
        key = dice.choice(list(content))
        if dice.random() < 0.05:
            return {name: value for name, value in content.items() if name != key}
        return {**content, key: planted(content[key], dice)}
    if isinstance(content, list) and content and dice.random() < 0.7:
        index = dice.randrange(len(content))
        return [*content[:index], planted(content[index], dice), *content[index + 1 :]]
    if dice.random() < 0.02:
        return list(itertools.accumulate(range(50), lambda inner, _: [inner], initial=[]))[-1]
    return dice.choice(PLANTED)
