"""Photos and people of a COCO keypoints file, read strictly: an error names file, entry and field."""

from __future__ import annotations

import logging
import shlex
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dekrpose.data.coco_fields import (
    LARGEST,
    MOST_PIXELS,
    Categories,
    Id,
    as_flag,
    as_id,
    as_number,
    as_numbers,
    as_side,
    as_triples,
    region_problem,
    same_id,
    shown,
    with_keypoints,
)
from dekrpose.data.packed import gunzip
from dekrpose.errors import DekrPoseError, counted
from dekrpose.formats import parse_json
from dekrpose.skeletons import Skeleton

logger = logging.getLogger(__name__)

AREA_OF_BOX = 0.53
"""A person's area as a share of the box, where the file does not say it: as CrowdPose is evaluated."""


@dataclass(frozen=True)
class Person:
    """One annotation.

    Attributes:
        keypoints: (K, 3) float32 x, y, visibility; image pixels; visibility 0 means unlabelled.
        box: (4,) float32 x, y, width, height; image pixels.
        area: square image pixels; 0.53 of the box where the file has none, as CrowdPose is evaluated.
        ignored: a crowd, or somebody without labelled keypoints; never a target, masked out instead.
        source: where the annotation comes from, when the file says so.
        segmentation: polygons of three corners or more, or run lengths, as in the file.
        crowd: one annotation for several people.
    """

    keypoints: NDArray[np.float32]
    box: NDArray[np.float32]
    area: float
    ignored: bool
    source: str
    segmentation: Any
    crowd: bool = False


@dataclass(frozen=True)
class Photo:
    """One image record with its people; width and height in image pixels.

    ``id`` is as in the file, a number or a text; ``crowd_index`` is CrowdPose's, NaN where the file has none.
    """

    id: Id
    file_name: str
    width: int
    height: int
    source: str
    people: tuple[Person, ...]
    crowd_index: float = float("nan")

    @property
    def labelled(self) -> list[Person]:
        """The people who count: those who are not ignored."""
        return [person for person in self.people if not person.ignored]


def read_content(path: Path) -> Mapping[str, Any]:
    """What a COCO keypoints file holds, plain or compressed with gzip; of its entries nothing is checked yet.

    DekrPoseError if it is no JSON, or ``images`` or ``annotations`` are missing or no lists.
    """
    if path.is_dir() or path.suffix.lower() in (".yaml", ".yml", ".zip", ".xml"):
        raise DekrPoseError(_foreign(path) or f"{path} is not a COCO keypoints file, .json or .json.gz")
    data = path.read_bytes()
    try:
        if data.startswith(b"\x1f\x8b"):
            data = gunzip(data)
        content = parse_json(data, not_numbers=True)  # which do no harm where nobody reads them
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise DekrPoseError(f"{path} is not a COCO keypoints file: {error}") from error
    if not isinstance(content, dict):
        why = f"{path} is not a COCO keypoints file: it is no object with images and annotations"
        raise DekrPoseError(_foreign(path) or why)
    lists = ("images", "annotations")
    missing = [field for field in lists if content.get(field) is None]
    if missing:
        raise DekrPoseError(_foreign(path) or f"{path} is not a COCO keypoints file: it lacks {', '.join(missing)}")
    for field in lists:
        if not isinstance(content[field], list):
            raise DekrPoseError(f'{path} is not a COCO keypoints file: "{field}" is no list')
    return content


def _foreign(path: Path) -> str:
    """What to do with labels in another format that can be imported; empty if they are in none of them."""
    from dekrpose.data.importers import IMPORTERS, Files, recognise

    try:
        kind = recognise(Files(path))
    except (DekrPoseError, OSError):
        return ""
    if kind is None:
        return ""
    command = f"dekrpose import {shlex.quote(str(path))} --out people.json"
    return f"{path} is {IMPORTERS[kind].TITLE}, not one COCO keypoints file; make one first: {command}"


def read_photos(path: Path, content: Mapping[str, Any], skeleton: Skeleton) -> list[Photo]:
    """The file's photos, each with its people. What is left out, it logs in one line per reason.

    Raises:
        DekrPoseError: an entry cannot be read; photos share an id; there are annotations, but none of a photo; the
            keypoints come in another order than the skeleton's.
    """
    photos = [read_photo(record, f"{path}, images[{number}]") for number, record in enumerate(content["images"])]
    by_id = {photo.id: photo for photo in photos}
    if len(by_id) < len(photos):
        twice = next(photo.id for photo in photos if by_id[photo.id] is not photo)
        raise DekrPoseError(f"{path}: two photos have the id {twice!r}, and people would be on both; give each its own")
    categories = Categories(content, path, skeleton)
    for _, names in with_keypoints(content, path):
        if names != skeleton.keypoints and sorted(names) == sorted(skeleton.keypoints):
            raise DekrPoseError(
                f"{path} has the keypoints of {skeleton.name!r} in another order ({', '.join(names[:4])}, ...): bring "
                f"them into its own ({', '.join(skeleton.keypoints[:4])}, ...)"
            )
    people: dict[Id, list[Person]] = defaultdict(list)
    lost: list[Id] = []
    for number, entry in enumerate(content["annotations"]):
        where = f"{path}, {label_of(entry, number)}"
        if not isinstance(entry, dict):
            raise DekrPoseError(f"{where} must be an object, got {shown(entry)}")
        if categories.skips(entry, where):
            continue
        image_id = as_id(_given(entry, "image_id", where))
        if image_id is None:
            raise DekrPoseError(f"{where}: image_id must be a whole number or a text, got {shown(entry['image_id'])}")
        photo_id = same_id(by_id, image_id)
        if photo_id is None:
            lost.append(image_id)
            continue
        photo = by_id[photo_id]
        people[photo_id].append(read_person(entry, (photo.width, photo.height), len(skeleton), where))
    _tell(path, categories, lost, by_id, any(people.values()))
    return [replace(photo, people=tuple(people.get(photo.id, ()))) for photo in photos]


def label_of(entry: object, number: int) -> str:
    """What messages call an annotation: by its id, else by its place in the file."""
    own = as_id(entry.get("id")) if isinstance(entry, dict) else None
    return f"annotations[{number}]" if own is None else f"annotation {shown(own)}"


def read_photo(record: object, where: str) -> Photo:
    """An image record, without people; DekrPoseError if a field cannot be read; ``where`` names the record."""
    if not isinstance(record, dict):
        raise DekrPoseError(f"{where} must be an object, got {shown(record)}")
    photo_id = as_id(_given(record, "id", where))
    if photo_id is None:
        raise DekrPoseError(f"{where}: id must be a whole number or a text, got {shown(record['id'])}")
    where = f"{where} (id {shown(photo_id)})"
    name = _given(record, "file_name", where)
    if not isinstance(name, str) or not name:
        raise DekrPoseError(f"{where}: file_name must be a text, got {shown(name)}")
    sides = [as_side(_given(record, field, where)) for field in ("width", "height")]
    width, height = (side or 0 for side in sides)
    if not 0 < width * height <= MOST_PIXELS:
        given = f"{shown(record['width'])} and {shown(record['height'])}"
        raise DekrPoseError(f"{where}: width and height must be pixels of a photo, such as 640 and 480, got {given}")
    crowd_index = record.get("crowdIndex")
    if crowd_index is not None and as_number(crowd_index) is None:
        raise DekrPoseError(f"{where}: crowdIndex must be a number, got {shown(crowd_index)}")
    crowding = float("nan") if crowd_index is None else float(crowd_index)
    return Photo(photo_id, name, width, height, _source(record), (), crowding)


def read_person(entry: Mapping[str, Any], size: tuple[float, float], keypoints: int, where: str) -> Person:
    """The person of an annotation; null is as if the field were missing. DekrPoseError if a field cannot be read.

    ``where`` names the entry in messages; ``size`` is the photo's width and height, which run lengths must have,
    infinite if not known.
    """
    points = np.asarray(_keypoints(entry, keypoints, where), np.float32).reshape(keypoints, 3)
    given = entry.get("bbox")
    box = [0.0] * 4 if given is None or given == [] else as_numbers(given)
    if box is None or len(box) != 4 or min(box[2:]) < 0:
        raise DekrPoseError(f"{where}: bbox must be x, y, width, height in image pixels, got {shown(given)}")
    area = AREA_OF_BOX * box[2] * box[3] if entry.get("area") is None else as_number(entry["area"], LARGEST**2)
    if area is None or area < 0:
        raise DekrPoseError(f"{where}: area must be square image pixels, got {shown(entry['area'])}")
    crowd = as_flag(entry.get("iscrowd"))
    if crowd is None:
        raise DekrPoseError(f"{where}: iscrowd must be 0 or 1, got {shown(entry['iscrowd'])}")
    problem = region_problem(entry.get("segmentation"), *size)
    if problem:
        raise DekrPoseError(f"{where}: segmentation cannot be read: {problem}")
    ignored = crowd or not (points[:, 2] > 0).any()
    region = _region(entry.get("segmentation"))
    return Person(points, np.asarray(box, np.float32), area, ignored, _source(entry), region, crowd)


def _keypoints(entry: Mapping[str, Any], count: int, where: str) -> list[float]:
    values = entry.get("keypoints")
    if values is None or values == []:
        return [0] * (3 * count)
    if not isinstance(values, list):
        raise DekrPoseError(f"{where}: keypoints must be a list x, y, visibility, ..., got {shown(values)}")
    if len(values) != 3 * count:
        raise DekrPoseError(f"{where} has {counted(len(values), 'keypoint number')}, expected 3 for each of {count}")
    found = as_triples(values)
    if found is None:
        wrong = next((value for value in values if as_number(value) is None), None)
        raise DekrPoseError(f"{where}: keypoints must be x, y in image pixels and visibility, got {shown(wrong)}")
    return found


def _region(shape: Any) -> Any:
    """Without polygons of fewer than three corners, which enclose nothing."""
    if not isinstance(shape, list) or all(len(polygon) >= 6 for polygon in shape):
        return shape
    return [polygon for polygon in shape if len(polygon) >= 6]


def _given(entry: Mapping[str, Any], field: str, where: str) -> Any:
    if entry.get(field) is None:
        raise DekrPoseError(f"{where} lacks {field!r}, so this is not a COCO keypoints file")
    return entry[field]


def _source(entry: Mapping[str, Any]) -> str:
    source = entry.get("source")
    return source if isinstance(source, str) else "" if source is None else shown(source)


def _tell(path: Path, categories: Categories, lost: Sequence[Id], photos: Mapping[Id, Photo], found: bool) -> None:
    """Log what was left out; DekrPoseError if no annotation belongs to a photo."""
    if categories.skipped:
        logger.warning("%s: %s", path, categories.words())
    if not lost:
        return
    ids = ", ".join(map(shown, list(photos)[:3])) or "none"
    text = f"image_id is {shown(lost[0])}, for instance, and ids of photos are {ids}"
    if not found:
        raise DekrPoseError(f"{path}: none of its annotations ({len(lost):,}) belongs to one of its photos: {text}")
    count = counted(len(lost), "annotation belongs", "annotations belong")
    logger.warning("%s: %s to none of its photos; left out: %s", path, count, text)
