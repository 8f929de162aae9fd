"""Values and categories of a COCO keypoints file: what can be used of what the file has, None for what cannot."""

from __future__ import annotations

import math
import re
import reprlib
from collections import Counter
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from dekrpose.errors import DekrPoseError, counted
from dekrpose.skeletons import CROWDPOSE_14, Skeleton

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
    """Why a ``segmentation``, polygons or run lengths, cannot be read; empty if it can, or if there is none.

    Width and height of the photo are image pixels; infinite where they are not known.
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


_CROWDPOSE_AS_PUBLISHED = (*CROWDPOSE_14.keypoints[:12], "head", "neck")


def read_categories(content: Mapping[str, Any], path: Path) -> list[Mapping[str, Any]]:
    """The file's categories; empty if it has none; DekrPoseError if they are no list of objects."""
    categories = content.get("categories")
    if categories is None:
        return []
    if not isinstance(categories, list) or not all(isinstance(category, dict) for category in categories):
        raise DekrPoseError(f'"categories" of {path} must be a list of objects')
    return categories


def keypoint_names(values: object, where: str) -> tuple[str, ...] | None:
    """Names of keypoints, CrowdPose's by our names; None if there are none, DekrPoseError if they are no such list."""
    if not values:
        return None
    if not isinstance(values, list) or not all(isinstance(value, str) and value for value in values):
        raise DekrPoseError(f"{where} must name keypoints by a list of texts, got {shown(values)}")
    twice = sorted(name for name, count in Counter(values).items() if count > 1)
    if twice:
        raise DekrPoseError(f"{where} name keypoints twice: {', '.join(twice)}")
    return CROWDPOSE_14.keypoints if tuple(values) == _CROWDPOSE_AS_PUBLISHED else tuple(values)


def with_keypoints(content: Mapping[str, Any], path: Path) -> list[tuple[Mapping[str, Any], tuple[str, ...]]]:
    """The categories that name keypoints, and their names; DekrPoseError if either cannot be read."""
    named = [
        (category, keypoint_names(category.get("keypoints"), f"categories of {path}"))
        for category in read_categories(content, path)
    ]
    return [(category, names) for category, names in named if names is not None]


class Categories:
    """Which annotations count, and how many of other categories are skipped.

    The categories that name the skeleton's keypoints count; where none does, those that name as many, else those that
    name any. In a file whose categories name no keypoints, or that has none, the categories of annotations with
    labelled keypoints count. An annotation without ``category_id`` always counts. DekrPoseError, which names ``path``,
    if the categories of ``content`` cannot be read.
    """

    def __init__(self, content: Mapping[str, Any], path: Path, skeleton: Skeleton) -> None:
        listed = read_categories(content, path)
        self._names: dict[Id, str] = {}
        for number, category in enumerate(listed):
            category_id = as_id(category.get("id"))
            if category_id is None and category.get("id") is not None:
                given = shown(category["id"])
                raise DekrPoseError(f"{path}, categories[{number}]: id must be a whole number or a text, got {given}")
            if category_id is not None:
                self._names.setdefault(category_id, as_name(category.get("name")))
        self._own, self._others = self._split(content, path, skeleton)
        self.skipped: Counter[str] = Counter()

    def skips(self, entry: Mapping[str, Any], where: str) -> bool:
        """Whether an annotation, which ``where`` names, is of another category; those are counted.

        DekrPoseError if its ``category_id`` is neither a number nor a text.
        """
        given = entry.get("category_id")
        if given is None:
            return False
        category = as_id(given)
        if category is None:
            raise DekrPoseError(f"{where}: category_id must be a whole number or a text, got {shown(given)}")
        if self._own is None:
            other = same_id(self._others, category) is not None
        else:
            other = same_id(self._own, category) is None
        if other:
            known = same_id(self._names, category)
            self.skipped[f"category_id {shown(given)}" if known is None else self._names[known]] += 1
        return other

    def words(self) -> str:
        """What was skipped, such as "3 annotations of other categories are skipped: car (2), dog (1)"."""
        count = self.skipped.total()
        kinds = [f"{name} ({number:,})" for name, number in self.skipped.most_common(5)]
        more = ["..."] if len(self.skipped) > 5 else []
        start = f"{counted(count, 'annotation')} of other categories {'is' if count == 1 else 'are'} skipped"
        return f"{start}: {', '.join(kinds + more)}"

    def _split(self, content: Mapping[str, Any], path: Path, skeleton: Skeleton) -> tuple[set[Id] | None, set[Id]]:
        """Ids that count, None if one of these categories has no id; then all count but those that are listed."""
        named = with_keypoints(content, path)
        if not named:
            used = _labelled_categories(content["annotations"])
            return used or None, set()
        best = max(_likeness(names, skeleton) for _, names in named)
        own = [as_id(category.get("id")) for category, names in named if _likeness(names, skeleton) == best]
        ids = {category for category in own if category is not None}
        return None if None in own else ids, set(self._names) - ids


def _likeness(names: tuple[str, ...], skeleton: Skeleton) -> int:
    return 2 if names == skeleton.keypoints else int(len(names) == len(skeleton))


def _labelled_categories(entries: list[Any]) -> set[Id]:
    """The categories of the annotations that have a labelled keypoint."""
    found: set[Id] = set()
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("keypoints"), list):
            continue
        category = as_id(entry.get("category_id"))
        if category is not None and any((as_number(value) or 0) > 0 for value in entry["keypoints"][2::3]):
            found.add(category)
    return found
