"""What a pickle says, looked at before it is unpickled: what would take any time or memory is refused."""

from __future__ import annotations

import pickle
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dekrpose.errors import CheckpointError

_LEGACY_PICKLES = 5  # magic number, protocol, system, content, keys of the storages
_MAX_DEPTH = 20
"""Of tuples in tuples: the hash of a deeper one overruns the stack."""
_MAX_REPEATED = 10_000_000
"""Things that are mentioned again: a tuple of twice the same tuple, and so on, doubles with every byte."""
_MAX_NAME = 1000
_HUNGRY = {f"{module} {name}" for module in ("builtins", "__builtin__") for name in ("bytearray", "set")}
"""torch calls these with any number or list."""
_EXHAUSTED = "pickle exhausted before seeing STOP"

Opcode = tuple[pickletools.OpcodeInfo, Any, int | None]
_Size = list[int]
"""Of an object: how many others are in it, and how deep it nests tuples."""


def opcodes(path: Path) -> Iterator[Iterator[Opcode]]:
    """The opcodes of every pickle in a PyTorch file, read without unpickling."""
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"  # as torch decides; an archive may follow other things
    if is_zip:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.filename.lower().endswith("data.pkl"):  # as torch looks for it
                    yield pickletools.genops(archive.read(member))
    else:
        with path.open("rb") as file:
            for _ in range(_LEGACY_PICKLES):
                yield pickletools.genops(file)


def check_opcodes(path: Path) -> None:
    """Refuse pickles that would end the process, or take any time or memory, although they build plain values only.

    Raises:
        CheckpointError: it wants too much.
        UnpicklingError: it asks for what weights do not need, or is damaged in a way that torch may not notice.
    """
    try:
        for pickled in opcodes(path):
            _check(pickled)
    except ValueError as error:
        if str(error) != _EXHAUSTED:  # torch says that it is cut off
            raise pickle.UnpicklingError("damaged") from error


def _check(pickled: Iterator[Opcode]) -> None:
    stack: list[_Size | None] = []  # None is a mark
    memo: dict[int, _Size] = {}
    repeated, first = 0, ""
    for opcode, argument, _ in pickled:
        name = opcode.name
        if name == "GLOBAL":
            first = first or argument
            _check_global(argument, first)
        if "PUT" in name or name == "MEMOIZE":
            place = len(memo) if name == "MEMOIZE" else argument
            memo[place] = (stack[-1] if stack else None) or [1, 0]
            continue
        if "GET" in name:
            size = memo.get(argument, [1, 0])
            repeated += size[0]
            stack.append(size)
        else:
            _step(opcode, stack)
        top = stack[-1] if stack else None
        if repeated > _MAX_REPEATED or (top and top[1] > _MAX_DEPTH):
            raise CheckpointError(
                "refused: its pickle nests or repeats more than weights do; let whoever made it save "
                "model.state_dict() alone"
            )


def _step(opcode: pickletools.OpcodeInfo, stack: list[_Size | None]) -> None:
    """What an opcode takes from the stack and puts there."""
    if opcode.name == "MARK":
        stack.append(None)
        return
    taken: list[_Size] = []
    fixed = len(opcode.stack_before)
    if pickletools.markobject in opcode.stack_before:
        fixed = opcode.stack_before.index(pickletools.markobject)
        while stack and (size := stack.pop()) is not None:
            taken.append(size)
    below = [stack.pop() or [1, 0] for _ in range(min(fixed, len(stack)))][::-1]
    total, deepest = 1 + sum(size[0] for size in taken + below), max((size[1] for size in taken + below), default=0)
    if opcode.name in ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD") and below:
        below[0][0] = total  # the same object, wherever it is mentioned
        stack.append(below[0])
    elif opcode.stack_after:
        nests = "TUPLE" in opcode.name
        is_call = opcode.name in ("REDUCE", "NEWOBJ")
        stack.extend([total, deepest + nests if nests or is_call else 0] for _ in opcode.stack_after)


def _check_global(argument: str, first: str) -> None:
    if len(argument) > _MAX_NAME:
        raise CheckpointError(f"refused: its pickle asks for a name of {len(argument):,} letters")
    if argument in _HUNGRY:
        wanted = first if first.startswith("torch.nn.modules.") else argument  # a whole module has sets
        raise pickle.UnpicklingError(f"Unsupported class {wanted.replace(' ', '.')}")
