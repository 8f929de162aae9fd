"""What a pickle says, looked at before it is unpickled: what would take any time or memory is refused."""

from __future__ import annotations

import pickle
import pickletools
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dekrpose.errors import CheckpointError

_LEGACY_PICKLES = 5  # magic number, protocol, system, content, keys of the storages
_MAX_DEPTH = 20
"""Of tuples in tuples: the hash of a deeper one overruns the stack."""
_MAX_REPEATED = 10_000_000
"""Things that are mentioned again: a tuple of twice the same tuple, and so on, doubles with every byte."""
_MAX_NAME = 1000
_MAX_ARGUMENTS = 200
"""Things in what a function is called with; a tensor has some 30. A dict, which is filled by itself, may have more."""
_MAX_ODD_KEYS = 64
"""Keys of dicts that are neither text nor short numbers: their hashes can be made to collide."""
_BYTES_PER_OPCODE, _USUAL_OPCODES = 64, 200_000
"""A tensor of a file has some 30 opcodes; small files with very many take long."""
_HUNGRY = {f"{module} {name}" for module in ("builtins", "__builtin__") for name in ("bytearray", "set")}
"""torch calls these with any number or list."""
_COLLECTIONS = {"collections OrderedDict", "collections Counter"}
"""What torch takes of them."""
_TOO_MUCH = (
    "refused: its pickle nests, repeats or holds more than weights do; save the weights alone, "
    'torch.save(model.state_dict(), "weights.pth"), or ask whoever made it to'
)
_EXHAUSTED = "pickle exhausted before seeing STOP"

Opcode = tuple[pickletools.OpcodeInfo, Any, int | None]


@dataclass(slots=True)
class _Thing:
    """An object on the pickle's stack.

    Args:
        count: of other things in it, and itself.
        depth: of tuples in it.
        label: a text's beginning, a global's name, "{}" of a dict, "0" of a short number; of a tuple its last one's.
        length: of a text.
        is_mentioned: again, from the memo.
    """

    count: int = 1
    depth: int = 0
    label: str = ""
    length: int = 0
    is_mentioned: bool = False


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
    most = _USUAL_OPCODES + path.stat().st_size // _BYTES_PER_OPCODE
    try:
        for pickled in opcodes(path):
            most -= _check(pickled, most)
    except ValueError as error:
        if str(error) != _EXHAUSTED:  # torch says that it is cut off
            raise pickle.UnpicklingError("damaged") from error


def _check(pickled: Iterator[Opcode], most: int) -> int:
    """How many opcodes there are."""
    stack: list[_Thing | None] = []  # None is a mark
    memo: dict[int, _Thing] = {}
    number, repeated, odd_keys, first = 0, 0, 0, ""
    for number, (opcode, argument, _) in enumerate(pickled):
        name = opcode.name
        if name == "GLOBAL":
            first = first or argument
            _check_global(argument, first)
        if "PUT" in name or name == "MEMOIZE":
            place = len(memo) if name == "MEMOIZE" else argument
            memo[place] = (stack[-1] if stack else None) or _Thing()
            continue
        if "GET" in name:
            thing = memo.get(argument) or _Thing()
            thing.is_mentioned = True
            repeated += thing.count + thing.length // 16
            stack.append(thing)
        else:
            odd_keys += _step(opcode, argument, stack)
        top = stack[-1] if stack else None
        if repeated > _MAX_REPEATED or odd_keys > _MAX_ODD_KEYS or number > most or (top and top.depth > _MAX_DEPTH):
            raise CheckpointError(_TOO_MUCH)
    return number


def _step(opcode: pickletools.OpcodeInfo, argument: Any, stack: list[_Thing | None]) -> int:
    """What an opcode takes from the stack and puts there; how many odd keys it gives to dicts."""
    name = opcode.name
    if name == "MARK":
        stack.append(None)
        return 0
    taken: list[_Thing] = []
    fixed = len(opcode.stack_before)
    if pickletools.markobject in opcode.stack_before:
        fixed = opcode.stack_before.index(pickletools.markobject)
        while stack and (thing := stack.pop()) is not None:
            taken.append(thing)
    below = [stack.pop() or _Thing() for _ in range(min(fixed, len(stack)))][::-1]
    inner = taken + below
    total, deepest = 1 + sum(thing.count for thing in inner), max((thing.depth for thing in inner), default=0)
    is_call = name in ("REDUCE", "NEWOBJ")
    if (is_call or name == "BUILD") and len(below) == 2:
        _check_call(*below)
    if name in ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD") and below:
        if below[0].is_mentioned:  # whatever holds it has grown, too
            raise CheckpointError(_TOO_MUCH)
        below[0].count = total  # the same object, wherever it is mentioned
        stack.append(below[0])
    elif opcode.stack_after:
        is_tuple = "TUPLE" in name
        label, length = _label(name, argument), len(argument) if isinstance(argument, str | bytes) else 0
        if is_tuple:
            label = (taken[:1] or below[-1:] or [_Thing()])[0].label
        depth = deepest + is_tuple if is_tuple or is_call else 0
        stack.extend(_Thing(total, depth, label, length) for _ in opcode.stack_after)
    keys = below[1:2] if name == "SETITEM" else taken[1::2] if name in ("SETITEMS", "DICT") else []
    return sum(not key.label or key.depth > 0 for key in keys)


def _label(name: str, argument: Any) -> str:
    if isinstance(argument, str):
        return argument[:_MAX_NAME] or '""'
    if "DICT" in name:
        return "{}"
    is_short = isinstance(argument, float) or (isinstance(argument, int) and argument.bit_length() < 64)
    return "0" if "INT" in name or is_short else ""


def _check_call(function: _Thing, given: _Thing) -> None:
    """Refuse what would be called with very much, or makes text of any length into bytes."""
    most = 1 if function.label.startswith("collections ") else _MAX_ARGUMENTS
    if given.count > most and given.label != "{}":
        raise CheckpointError(_TOO_MUCH)
    if function.label == "_codecs encode" and given.label not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("damaged")


def _check_global(argument: str, first: str) -> None:
    if len(argument) > _MAX_NAME:
        raise CheckpointError(f"refused: its pickle asks for a name of {len(argument):,} letters")
    if argument.startswith("collections ") and argument not in _COLLECTIONS:
        raise pickle.UnpicklingError(f"Unsupported class {argument.replace(' ', '.')}")
    if argument in _HUNGRY:
        if first.startswith("torch.nn.modules."):  # a whole module has sets
            raise pickle.UnpicklingError(f"Unsupported class {first.replace(' ', '.')}")
        raise CheckpointError(
            f"refused: it holds a Python {argument.split()[1]}, which weights do not need; let whoever made it save "
            "model.state_dict() alone, or a list in its place"
        )
