"""Single values of a COCO keypoints file: what can be used of what the file has, None for what cannot."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Container
from typing import Any

Id = int | str

LARGEST = 1e7
"""Coordinates and lengths beyond it, image pixels, are no places in a photo."""
LARGEST_SIDE, MOST_PIXELS = 2**20, 2**30
"""Of a photo: OpenCV reads none that is larger."""

_WHOLE_TEXT = re.compile(r"0|-?[1-9][0-9]{0,18}")
_NUMBERS = {int, float}
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60
_SHORT.maxlevel = 3


def as_id(value: object) -> Id | None:
    """A whole number of 64 bits or a text that is not empty; 7.0 is 7."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and abs(value) < 2**63 else None


def same_id(known: Container[Id], wanted: Id) -> Id | None:
    """An id as those who are known have it: 7 and "7" are the same where only one of them is known; None for none."""
    if wanted in known:
        return wanted
    if isinstance(wanted, int):
        other: Id | None = str(wanted)
    else:
        other = int(wanted) if _WHOLE_TEXT.fullmatch(wanted) else None
    return other if other is not None and other in known else None


def as_side(value: object) -> int | None:
    """Width or height of a photo: a whole number from 1 to ``LARGEST_SIDE``."""
    number = as_number(value, LARGEST_SIDE)
    return int(number) if number is not None and number >= 1 and number.is_integer() else None


def as_number(value: object, largest: float = LARGEST) -> float | None:
    """A number from -``largest`` to ``largest``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if -largest <= value <= largest else None


def as_numbers(values: object, largest: float = LARGEST) -> list[float] | None:
    """A list of numbers from -``largest`` to ``largest``."""
    if not isinstance(values, list) or not _NUMBERS.issuperset(map(type, values)):
        return None
    if values and not (-largest <= min(values) and max(values) <= largest and math.isfinite(sum(values))):
        return None  # the sum finds a NaN that least and greatest value hide
    return values


def as_flag(value: object) -> bool | None:
    """0 or 1, false or true; missing is false."""
    return bool(value) if value is None or (type(value) in (bool, int, float) and value in (0, 1)) else None


def as_triples(values: object) -> list[float] | None:
    """Keypoints x, y, visibility, ...; a whole triple of null, or null, null, 0, is 0, 0, 0: not labelled."""
    if isinstance(values, list) and None in values:
        values = [0 if value is None and _unlabelled(values, index) else value for index, value in enumerate(values)]
    return as_numbers(values)


def _unlabelled(values: list[Any], index: int) -> bool:
    start = index - index % 3
    x, y, visibility = (*values[start : start + 3], 1, 1, 1)[:3]
    return x is None and y is None and (visibility is None or as_number(visibility) == 0)


def region_problem(shape: object, width: float = math.inf, height: float = math.inf) -> str:
    """Why a ``segmentation`` cannot be read; empty if it can, or if there is none.

    Args:
        shape: polygons, run lengths, or None.
        width, height: of the photo, image pixels; infinite where they are not known.
    """
    if shape is None or shape == []:
        return ""
    if isinstance(shape, list):
        for polygon in shape:
            corners = as_numbers(polygon)
            if corners is None or len(corners) % 2:
                return f"{shown(polygon)} is no polygon x, y, x, y, x, y, ..."
        return ""
    if not isinstance(shape, dict):
        return f"{shown(shape)} is neither polygons nor run lengths"
    size, runs = as_numbers(shape.get("size")), shape.get("counts")
    if size is None or len(size) != 2 or (width < math.inf and size != [height, width]):
        return f"run lengths of size {shown(shape.get('size'))}, height and width are {height:g}, {width:g}"
    if isinstance(runs, str):
        return ""
    if not isinstance(runs, list):
        return f"{shown(runs)} are no run lengths"
    whole = all(type(run) is int and run >= 0 for run in runs)
    return "" if whole and sum(runs) == size[0] * size[1] else f"run lengths do not add up to {shown(shape['size'])}"


def as_name(value: object) -> str:
    """A name for a message: a short text as it is."""
    return value if isinstance(value, str) and 0 < len(value) <= 60 and value.isprintable() else shown(value)


def shown(value: object) -> str:
    """A value for a message, cut short; of any depth and length."""
    text = str(value) if type(value) is int and abs(value) < 2**63 else _SHORT.repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
