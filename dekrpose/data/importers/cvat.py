"""CVAT for images 1.1: annotations.xml with skeletons, also in the zip that CVAT makes."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from dekrpose.data.importers.base import Files, Human, Labelled, Labels, Point, Wishes, arranged, in_order
from dekrpose.errors import DekrPoseError

TITLE = "CVAT for images (XML)"
_START = 1000


def recognises(files: Files) -> bool:
    """By an XML file of ``annotations``."""
    return any(_is_cvat(files, name) for name in files.ending(".xml"))


def read(files: Files, wishes: Wishes) -> Labels:
    """See ``Importer``."""
    found: list[tuple[str, tuple[int, int] | None, list[list[Point]], str]] = []
    problems: list[str] = []
    category = "person"
    for name in files.ending(".xml"):
        if not _is_cvat(files, name):
            continue
        try:
            root = ElementTree.fromstring(files.text(name))
        except ElementTree.ParseError as error:
            raise DekrPoseError(f"{name} is no XML: {error}") from error
        for image in root.iter("image"):
            wanted, split = image.get("name", ""), (image.get("subset") or "").lower()
            photo = files.find(wanted, name, split)
            if photo is None:
                problems.append(f"{name}: there is no photo {wanted}")
                continue
            try:
                people = [_points(skeleton) for skeleton in image.iter("skeleton")]
                size = (int(image.get("width", 0)), int(image.get("height", 0)))
            except ValueError as error:
                problems.append(f"{name}: {wanted}: {error}")
                continue
            category = next((each.get("label", category) for each in image.iter("skeleton")), category)
            found.append((photo, size, people, "" if split == "default" else split))
    names = in_order([point[0] for _, _, people, _ in found for points in people for point in points], wishes)
    photos = [
        Labelled(photo, [Human(arranged(points, names)) for points in people], size, split)
        for photo, size, people, split in found
    ]
    return Labels(photos, len(names), names, category=category, problems=problems)


def _is_cvat(files: Files, name: str) -> bool:
    try:
        start = files.text(name)[:_START]
    except DekrPoseError:
        return False
    return "<annotations>" in start


def _points(skeleton: Any) -> list[Point]:
    """Of a skeleton: outside is not labelled, occluded is hidden."""
    points: list[Point] = []
    for each in skeleton.iter("points"):
        x, y = (float(value) for value in each.get("points", "").split(";")[0].split(","))
        if each.get("outside") != "1":
            points.append((each.get("label", ""), x, y, 1 if each.get("occluded") == "1" else 2))
    return points
