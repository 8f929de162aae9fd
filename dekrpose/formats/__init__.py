"""Files written whole, JSON read strictly; beside it, the formats that ``Poses`` is turned into, one topic a file."""

from __future__ import annotations

import json
import reprlib
import sys
import uuid
from collections import Counter
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

_DEEPEST = 100  # levels of JSON; Python's own functions stop somewhere below 1000
_CONTAINERS = {dict, list}


def json_text(value: Any) -> str:
    """JSON for people to read too; numbers must be finite."""
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all: under a temporary name in the same folder, then renamed.

    Raises:
        OSError: it cannot be written; the error names ``path``, not the temporary file.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    except OSError as error:
        if error.errno is None:
            raise
        raise type(error)(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def parse_json(data: str | bytes, *, not_numbers: bool = False) -> Any:
    """JSON without what readers disagree on.

    Args:
        data: a text, or its bytes (UTF-8, or any other that JSON may have).
        not_numbers: let NaN and Infinity through, which Python writes and JSON does not have.

    Raises:
        ValueError: it is no JSON, is nested deeper than 100 levels, or names a key of an object twice.
    """
    if not data or data.isspace():
        raise ValueError("it is empty, expected JSON")
    try:
        value = json.loads(data, object_pairs_hook=_object, parse_constant=None if not_numbers else _refuse)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {_DEEPEST} levels") from None
    except ValueError as error:
        if "set_int_max_str_digits" in str(error):  # Python's own advice, which is no use here
            raise ValueError("it holds a whole number of thousands of digits") from None
        raise
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(_DEEPEST):
        parts = [part.values() if isinstance(part, dict) else part for part in level]
        parts = [part for part in parts if not _CONTAINERS.isdisjoint(map(type, part))]  # most hold numbers alone
        level = [child for part in parts for child in part if isinstance(child, (dict, list))]
    if level:
        raise ValueError(f"it is nested deeper than {_DEEPEST} levels")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"an object has the key {reprlib.repr(twice)} twice")
    return values


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number in JSON; write null")


def field_of(values: Any, name: str, where: str) -> Any:
    """One field of an object; ValueError if it is none, or lacks the field."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{where} must be an object, got {reprlib.repr(values)}")
    if name not in values:
        raise ValueError(f"{where} lacks {name!r}")
    return values[name]


def whole_number(value: Any, label: str, low: int, high: int) -> int:
    """A whole number from ``low`` to below ``high``, else ValueError."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= int(value) < high:
        raise ValueError(f"{label} must be a whole number from {low} to {high - 1}, got {reprlib.repr(value)}")
    return int(value)


def finite_number(value: Any, label: str, most: float = sys.float_info.max) -> float:
    """A number from -``most`` to ``most``, else ValueError."""
    number = float(value) if isinstance(value, np.floating) else value
    if isinstance(number, bool) or not isinstance(number, Real) or not -most <= number <= most:  # type: ignore[operator]
        limit = f"number up to {most:.1e}" if most < sys.float_info.max else "finite number"
        raise ValueError(f"{label} must be a {limit}, got {reprlib.repr(value)}")
    return float(value)
