"""labelme: a JSON file per photo, whose shapes are points, boxes and polygons with ``group_id`` for who is who."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from typing import Any

from dekrpose.data.importers.base import Box, Files, Labelled, Labels, People, Point, Wishes, by_names, group
from dekrpose.errors import UNREADABLE, DekrPoseError

TITLE = "labelme"
_LOOKED_AT = 20


def recognises(files: Files) -> bool:
    """By one of the first JSON files, with ``shapes`` and ``imagePath``."""
    return any(_is_labelme(files.json(name)) for name in islice(files.ending(".json"), _LOOKED_AT))


def read(files: Files, wishes: Wishes) -> Labels:
    """See ``Importer``. Photos without a JSON file are nobody's and left out: labelme writes none for them."""
    found: list[tuple[Labelled, People]] = []
    problems, category, kinds = [], "person", Counter[str]()
    for name in files.ending(".json"):
        try:
            content = json.loads(files.text(name))
            if not _is_labelme(content):
                continue
            photo = files.find(str(content["imagePath"]), name)
            if photo is None:
                raise DekrPoseError(f"its photo {content['imagePath']} is nowhere here")
            size = (content.get("imageWidth"), content.get("imageHeight"))
            whole = (size[0], size[1]) if isinstance(size[0], int) and isinstance(size[1], int) else None
            points, boxes, category = _shapes(content["shapes"], category)
            kinds.update(str(shape.get("shape_type")) for shape in content["shapes"])
            found.append((Labelled(photo, [], whole), group(points, boxes)))
        except UNREADABLE as error:
            problems.append(f"{name}: {error}")
    return by_names(found, wishes, category=category, problems=problems, shapes=kinds)


def _is_labelme(content: object) -> bool:
    return isinstance(content, dict) and isinstance(content.get("shapes"), list) and "imagePath" in content


def _shapes(shapes: list[Any], category: str) -> tuple[list[tuple[Any, Point]], list[tuple[Any, Box]], str]:
    """Points are keypoints; boxes and polygons are people, also those whose keypoints nobody labelled."""
    points: list[tuple[Any, Point]] = []
    boxes: list[tuple[Any, Box]] = []
    for shape in shapes:
        if not isinstance(shape, dict):
            raise DekrPoseError(f"a shape must be an object, got {shape!r}")
        label, kind, corners = str(shape.get("label")), shape.get("shape_type"), _corners(shape)
        if kind == "point":
            flags = shape.get("flags") or {}
            hidden = any(flags.get(word) for word in ("occluded", "hidden")) if isinstance(flags, dict) else False
            points.append((shape.get("group_id"), (label, *corners[0], 1 if hidden else 2)))
        elif kind in ("rectangle", "polygon") and len(corners) > 1:
            columns, rows = zip(*corners, strict=True)
            box = (min(columns), min(rows), max(columns) - min(columns), max(rows) - min(rows))
            boxes.append((shape.get("group_id"), box))
            category = label
    return points, boxes, category


def _corners(shape: dict[str, Any]) -> list[tuple[float, float]]:
    try:
        corners = [(float(x), float(y)) for x, y in shape["points"]]
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise DekrPoseError(f"points of {shape.get('label')!r} must be pairs of numbers") from error
    if not corners:
        raise DekrPoseError(f"{shape.get('label')!r} has no points")
    return corners
