"""COCO keypoints as tools export them: Roboflow (train/_annotations.coco.json), CVAT, Label Studio; also in a zip."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from dekrpose.data.coco_fields import (
    LARGEST,
    as_id,
    as_name,
    as_number,
    as_numbers,
    as_triples,
    keypoint_names,
    region_problem,
    shown,
)  # fmt: skip
from dekrpose.data.importers.base import Files, Human, Labelled, Labels, Pairs, Wishes
from dekrpose.errors import DekrPoseError, counted

TITLE = "a COCO keypoints export (Roboflow, CVAT, Label Studio)"


def recognises(files: Files) -> bool:
    """By a JSON file with ``images`` and ``annotations``, some of them with keypoints."""
    return any(True for _ in _contents(files))


def read(files: Files, wishes: Wishes) -> Labels:
    """See ``Importer``."""
    labels = Labels([], 0)
    for name, content in _contents(files):
        found = _skeletons(content, name)
        before = len(labels.photos)
        _photos(files, name, content, labels)
        if len(labels.photos) == before:
            continue
        for names, edges, category in found:
            if labels.names is None:
                labels.names, labels.edges, labels.category = names, edges, category
            elif names != labels.names:
                raise DekrPoseError(
                    f"{name} has other keypoints ({', '.join(names)}) than those before ({', '.join(labels.names)}); "
                    "import them one by one"
                )
    labels.count = len(labels.names or ()) or labels.count
    short = {len(human.keypoints) for photo in labels.photos for human in photo.people} - {0, labels.count}
    if short:
        raise DekrPoseError(f"people have {labels.count} and {min(short)} keypoints; a network learns one skeleton")
    for photo in labels.photos:
        for human in photo.people:
            human.keypoints = human.keypoints or [(0.0, 0.0, 0)] * labels.count
    return labels


def _contents(files: Files) -> Iterator[tuple[str, dict[str, Any]]]:
    """The JSON files that say where keypoints are."""
    for name in files.ending(".json"):
        content = files.json(name)
        if not isinstance(content, dict) or not isinstance(content.get("images"), list):
            continue
        entries = content.get("annotations")
        if isinstance(entries, list) and (
            any(isinstance(entry, dict) and entry.get("keypoints") for entry in entries)
            or any(each.get("keypoints") for each in _categories(content))
        ):
            yield name, content


def _categories(content: dict[str, Any]) -> list[dict[str, Any]]:
    listed = content.get("categories")
    return [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []


def _skeletons(content: dict[str, Any], name: str) -> list[tuple[tuple[str, ...], Pairs, str]]:
    found = []
    for category in _categories(content):
        names = keypoint_names(category.get("keypoints"), f"categories of {name}")
        if names is not None:
            numbers = range(1, len(names) + 1)
            listed = category.get("skeleton")
            lines = listed if isinstance(listed, list) else []
            pairs = [pair for pair in lines if isinstance(pair, list) and len(pair) == 2]
            edges = tuple((a - 1, b - 1) for a, b in pairs if a in numbers and b in numbers)
            found.append((names, edges, as_name(category.get("name") or "person")))
    return found


def _photos(files: Files, name: str, content: dict[str, Any], labels: Labels) -> None:
    """Add the photos of one file, with their people; those without any too, which show nobody."""
    split = _split(name)
    people: dict[str, list[Human]] = {}
    counts = {as_id(each.get("id")): len(each["keypoints"]) for each in _categories(content) if each.get("keypoints")}
    with_names = list(counts)
    for entry in content["annotations"]:
        if not isinstance(entry, dict):
            continue
        category = as_id(entry.get("category_id", with_names[0] if with_names else None))
        if with_names and category not in with_names:
            continue
        place = f"{name}: annotation {shown(entry.get('id'))}"
        try:
            human = _human(entry)
        except DekrPoseError as error:
            labels.problems.append(f"{place}: {error}")
            continue
        if human.keypoints:
            expected = counts.setdefault(category, len(human.keypoints))
            if len(human.keypoints) != expected:
                raise DekrPoseError(f"{place} has {counted(len(human.keypoints), 'keypoint')}, expected {expected}")
        people.setdefault(str(entry.get("image_id")), []).append(human)
    labels.count = max([labels.count, *counts.values()])
    listed = {str(record.get("id")) for record in content["images"] if isinstance(record, dict)}
    lost = [image for image in people if image not in listed]
    if lost:
        strange = counted(sum(len(people[image]) for image in lost), "annotation")
        labels.problems.append(f"{name}: images has no entry for {strange}, first image_id {lost[0]}")
    for record in content["images"]:
        wanted = record.get("file_name") if isinstance(record, dict) else None
        photo = files.find(wanted, name, split) if isinstance(wanted, str) else None
        if photo is None:
            labels.problems.append(f"{name}: there is no photo {shown(wanted)}")
            continue
        width, height = record.get("width"), record.get("height")
        size = (width, height) if isinstance(width, int) and isinstance(height, int) else None
        labels.photos.append(Labelled(photo, people.get(str(record.get("id")), []), size, split))


def _split(name: str) -> str:
    """train of train/_annotations.coco.json and of annotations/person_keypoints_train2017.json."""
    path = PurePosixPath(name)
    words = [*path.parts[:-1], *path.stem.replace("-", "_").split("_")]
    for word in words:
        for split in ("train", "valid", "val", "test"):
            if word == split or word.removesuffix("2017") == split or word.removesuffix("2014") == split:
                return split
    return ""


def _human(entry: dict[str, Any]) -> Human:
    values = as_triples(entry.get("keypoints") or [])
    box = as_numbers(entry.get("bbox") or [])
    if values is None or len(values) % 3:
        raise DekrPoseError(f"keypoints must be x, y, visibility, ..., got {shown(entry.get('keypoints'))}")
    if box is None or len(box) not in (0, 4):
        raise DekrPoseError(f"bbox must be x, y, width, height, got {shown(entry.get('bbox'))}")
    points = [(float(x), float(y), int(seen)) for x, y, seen in zip(*[iter(values)] * 3, strict=True)]
    more = {key: entry[key] for key in ("area", "segmentation", "iscrowd") if entry.get(key)}
    if as_number(entry.get("area", 0), LARGEST**2) is None or region_problem(entry.get("segmentation")):
        raise DekrPoseError("area must be square image pixels, and segmentation polygons or run lengths")
    return Human(points, (box[0], box[1], box[2], box[3]) if box else None, more)
