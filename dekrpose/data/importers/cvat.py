"""CVAT for images 1.1: annotations.xml with skeletons, or loose points and boxes, also in the zip that CVAT makes."""

from __future__ import annotations

from collections import Counter
from typing import Any
from xml.etree import ElementTree

from dekrpose.data.importers.base import Box, Files, Labelled, Labels, People, Point, Wishes, by_names, group, inside
from dekrpose.errors import UNREADABLE, DekrPoseError

TITLE = "CVAT for images (XML)"
_START = 1000


def recognises(files: Files) -> bool:
    """By an XML file of ``annotations``."""
    return any(_text(files, name) for name in files.ending(".xml"))


def read(files: Files, wishes: Wishes) -> Labels:
    """See ``Importer``."""
    found: list[tuple[Labelled, People]] = []
    problems: list[str] = []
    declared, joined = list[str](), list[tuple[str, str]]()
    category, kinds = "person", Counter[str]()
    for name in files.ending(".xml"):
        text = _text(files, name)
        if not text:
            continue
        try:
            root = ElementTree.fromstring(text)
        except ElementTree.ParseError as error:
            raise DekrPoseError(f"{name} is no XML: {error}") from error
        if root.find("track") is not None:
            raise DekrPoseError(
                f"{name} is CVAT for video, whose tracks are not read; export the task as CVAT for images 1.1 or COCO "
                "Keypoints 1.0, with the images"
            )
        names, pairs = _declared(root)
        declared, joined = declared + names, joined + pairs
        for image in root.iter("image"):
            wanted, split = image.get("name", ""), (image.get("subset") or "").lower()
            photo = files.find(wanted, name, split)
            if photo is None:
                problems.append(f"{name}: there is no photo {wanted}")
                continue
            try:
                people = _people(image)
                size = (int(image.get("width", 0)), int(image.get("height", 0)))
            except UNREADABLE as error:
                problems.append(f"{name}: {wanted}: {error}")
                continue
            kinds.update(each.tag for each in image)
            category = next(
                (each.get("label", category) for tag in ("skeleton", "box") for each in image.iter(tag)), category
            )
            found.append((Labelled(photo, [], size, "" if split == "default" else split), people))
    return by_names(found, wishes, declared, joined, category=category, problems=problems, shapes=kinds)


def _declared(root: Any) -> tuple[list[str], list[tuple[str, str]]]:
    """Keypoints and edges of the skeletons in use: CVAT keeps a drawing (SVG) of its nodes and lines with each."""
    used = {skeleton.get("label") for skeleton in root.iter("skeleton")}
    names, joined = list[str](), list[tuple[str, str]]()
    for label in root.iter("label"):
        if label.findtext("name") not in used or label.find("svg") is None:
            continue
        try:
            drawing = ElementTree.fromstring(f"<svg>{label.findtext('svg')}</svg>")
        except ElementTree.ParseError:
            continue
        nodes = {each.get("data-node-id"): each.get("data-label-name", "") for each in drawing.iter("circle")}
        lines = [(each.get("data-node-from"), each.get("data-node-to")) for each in drawing.iter("line")]
        names += filter(None, nodes.values())
        joined += [(nodes[start], nodes[end]) for start, end in lines if nodes.get(start) and nodes.get(end)]
    return names, joined


def _text(files: Files, name: str) -> str:
    """An XML file of CVAT; empty if it is another's."""
    try:
        text = files.text(name)
    except DekrPoseError:
        return ""
    return text if "<annotations>" in text[:_START] else ""


def _people(image: Any) -> People:
    """Skeletons, and loose points and boxes by group or place; boxes without keypoints are people, too."""
    boxes: list[tuple[Any, Box]] = []
    for index, each in enumerate(image.findall("box")):
        left, top, right, bottom = (float(each.get(side)) for side in ("xtl", "ytl", "xbr", "ybr"))
        boxes.append((_group(each) or ("box", index), (left, top, right - left, bottom - top)))
    free = dict(boxes)
    points: list[tuple[Any, Point]] = []
    for index, skeleton in enumerate(image.findall("skeleton")):
        own = [point for each in skeleton.iter("points") for point in _points(each)]
        around = [key for key, box in free.items() if all(inside(box, point) for point in own)]
        key = _group(skeleton) or (around[0] if len(around) == 1 else ("skeleton", index))
        free.pop(key, None)
        points += [(key, point) for point in own]
    points += [(_group(each), point) for each in image.findall("points") for point in _points(each)]
    return group(points, boxes)


def _group(shape: Any) -> str | None:
    """CVAT counts groups from 1; 0 is none."""
    return shape.get("group_id") if shape.get("group_id") != "0" else None


def _points(shape: Any) -> list[Point]:
    """Outside is not labelled, occluded is hidden."""
    pairs = [] if shape.get("outside") == "1" else shape.get("points", "").split(";")
    places = [[float(value) for value in pair.split(",")] for pair in pairs]
    return [(shape.get("label", ""), x, y, 1 if shape.get("occluded") == "1" else 2) for x, y in places]
