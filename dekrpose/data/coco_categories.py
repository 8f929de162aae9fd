"""The categories of a COCO keypoints file: whose keypoints are meant, and which annotations are of something else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dekrpose.data.coco_fields import Id, as_id, as_name, as_number, same_id, shown
from dekrpose.errors import DekrPoseError
from dekrpose.skeletons import CROWDPOSE_14, Skeleton

_CROWDPOSE_AS_PUBLISHED = (*CROWDPOSE_14.keypoints[:12], "head", "neck")


def read_categories(content: Mapping[str, Any], path: Path) -> list[Mapping[str, Any]]:
    """The file's categories; empty if it has none.

    Raises:
        DekrPoseError: they are no list of objects.
    """
    categories = content.get("categories")
    if categories is None:
        return []
    if not isinstance(categories, list) or not all(isinstance(category, dict) for category in categories):
        raise DekrPoseError(f'"categories" of {path} must be a list of objects')
    return categories


def keypoint_names(values: object, where: str) -> tuple[str, ...] | None:
    """Names of keypoints, CrowdPose's by our names; None if there are none.

    Raises:
        DekrPoseError: they are no list of different texts.
    """
    if not values:
        return None
    if not isinstance(values, list) or not all(isinstance(value, str) and value for value in values):
        raise DekrPoseError(f"{where} must name keypoints by a list of texts, got {shown(values)}")
    twice = sorted(name for name, count in Counter(values).items() if count > 1)
    if twice:
        raise DekrPoseError(f"{where} name keypoints twice: {', '.join(twice)}")
    return CROWDPOSE_14.keypoints if tuple(values) == _CROWDPOSE_AS_PUBLISHED else tuple(values)


def with_keypoints(content: Mapping[str, Any], path: Path) -> list[tuple[Mapping[str, Any], tuple[str, ...]]]:
    """The categories that name keypoints, and their names.

    Raises:
        DekrPoseError: as ``read_categories`` and ``keypoint_names``.
    """
    named = [
        (category, keypoint_names(category.get("keypoints"), f"categories of {path}"))
        for category in read_categories(content, path)
    ]
    return [(category, names) for category, names in named if names is not None]


class Categories:
    """Which annotations count, and how many of other categories are skipped.

    The categories that name the skeleton's keypoints count; where none does, those that name as many, else those that
    name any. In a file whose categories name no keypoints, or that has none, the categories of annotations with
    labelled keypoints count. An annotation without ``category_id`` always counts.

    Args:
        content: of the file.
        path: of the file, for messages.
        skeleton: what the keypoints should be.

    Raises:
        DekrPoseError: the categories cannot be read.
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
        """Whether an annotation is of another category; those are counted.

        Raises:
            DekrPoseError: its ``category_id`` is neither a number nor a text; ``where`` names the annotation.
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
        start = f"{count:,} annotation{'s' * (count != 1)} of other categories {'is' if count == 1 else 'are'} skipped"
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
