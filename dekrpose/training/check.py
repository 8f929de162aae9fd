"""The check of a data file before it is trained on: nothing that is broken stops it."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import cv2

from dekrpose.data.coco_fields import Categories, Id, as_id, as_side, same_id, shown, with_keypoints
from dekrpose.data.coco_file import Photo, label_of, read_content, read_photo
from dekrpose.data.dataset import PhotoFiles
from dekrpose.errors import DekrPoseError
from dekrpose.progress import Bar
from dekrpose.skeletons import Skeleton
from dekrpose.training.check_people import PeopleCheck, PhotoInfo
from dekrpose.training.check_report import Findings, Problem

_READ_ERRORS = (DekrPoseError, OSError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error, cv2.error)


@dataclass(frozen=True)
class _Stored:
    """What a photo's file turned out to be: its size and pixels, or the problem and an example of it."""

    size: tuple[int, int] | None = None
    digest: bytes = b""
    problem: tuple[str, str] = ("", "")


def check_dataset(
    path: Path, places: Sequence[Path] | None, skeleton: Skeleton, *, progress: bool = False
) -> list[Problem]:
    """Look for everything in ``KINDS`` in a COCO keypoints file and its photos, each of which is read.

    Photos lie in ``places``, folders, ``.tar`` or ``.zip`` files, None or nothing being the folder of ``path``;
    ``skeleton_of`` reads what the keypoints should be from the file. One problem per kind that was found, worst first;
    empty if all is well.
    """
    findings = Findings()
    try:
        content = read_content(path)
    except (DekrPoseError, OSError) as error:
        findings.add("file", str(error))
        return findings.problems()
    categories = _check_categories(content, path, skeleton, findings)
    records, photos = _photo_records(content["images"], findings)
    stored = _read_photos([record.file_name for record in records], places or [path.parent], findings, progress)
    photos |= {record.id: _photo(record, stored, findings) for record in records}
    _check_annotations(content["annotations"], photos, skeleton, categories, findings)
    return findings.problems()


def _check_categories(
    content: Mapping[str, Any], path: Path, skeleton: Skeleton, findings: Findings
) -> Categories | None:
    """What tells people from other things; None if the categories cannot be read."""
    try:
        named = [names for _, names in with_keypoints(content, path)]
        categories = Categories(content, path, skeleton)
    except DekrPoseError as error:
        findings.add("file", str(error))
        return None
    if named and skeleton.keypoints not in named:
        findings.add("names", f"file: {', '.join(named[0])}; {skeleton.name}: {', '.join(skeleton.keypoints)}")
    return categories


def _photo_records(entries: Sequence[object], findings: Findings) -> tuple[list[Photo], dict[Id, PhotoInfo]]:
    """The records that can be used, and what is left of the others that have an id."""
    records: dict[Id, Photo] = {}
    broken: dict[Id, PhotoInfo] = {}
    names: set[str] = set()
    for position, entry in enumerate(entries):
        where = f"images[{position}]"
        if not isinstance(entry, dict):
            findings.add("photo-entry", f"{where} is no object")
            continue
        wrong = _wrong_fields(entry)
        photo_id = as_id(entry.get("id"))
        try:
            photo = read_photo(entry, where)
        except DekrPoseError as error:
            values = ", ".join(f"{field} {shown(entry.get(field))}" for field in wrong)
            findings.add("photo-entry", f"{where}: {values}" if wrong else str(error))
            if photo_id is not None:
                broken[photo_id] = PhotoInfo(where, inf, inf)
            continue
        if photo.id in records:
            findings.add("photo-id-twice", f"{photo.id}: {photo.file_name}")
        if photo.file_name in names:
            findings.add("file-name-twice", photo.file_name)
        names.add(photo.file_name)
        records.setdefault(photo.id, photo)
    return list(records.values()), broken


def _wrong_fields(entry: Mapping[str, Any]) -> list[str]:
    """Fields of a photo record that cannot be used."""
    wrong = [] if as_id(entry.get("id")) is not None else ["id"]
    wrong += [field for field in ("width", "height") if as_side(entry.get(field)) is None]
    return wrong if isinstance(entry.get("file_name"), str) and entry["file_name"] else [*wrong, "file_name"]


def _read_photos(
    names: Sequence[str], places: Sequence[Path], findings: Findings, progress: bool
) -> dict[str, _Stored]:
    """Read every photo once and report on the files alone; empty if there is no place to look."""
    try:
        files = PhotoFiles(places)
    except (DekrPoseError, OSError) as error:
        findings.add("place", str(error))
        return {}
    unique = list(dict.fromkeys(names))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        results = pool.map(lambda name: _read_photo(files, name), unique)
        bar = Bar(results, desc="reading photos", total=len(unique), unit="photo", show=progress)
        stored = dict(zip(unique, bar, strict=True))
    first: dict[bytes, str] = {}
    for name, photo in stored.items():
        if photo.size is None:
            findings.add(*photo.problem)
        elif first.setdefault(photo.digest, name) != name:
            findings.add("same-photo", f"{name} is as {first[photo.digest]}")
    return stored


def _read_photo(files: PhotoFiles, name: str) -> _Stored:
    try:
        if name not in files:
            return _Stored(problem=("photo-missing", name))
        image = files.read(name)
    except _READ_ERRORS as error:
        text = str(error)
        return _Stored(problem=("photo-unreadable", text if name in text else f"{name}: {text}"))
    height, width = image.shape[:2]
    digest = hashlib.blake2b(image.tobytes(), digest_size=16, key=f"{width} x {height}".encode()).digest()
    return _Stored((width, height), digest)


def _photo(record: Photo, stored: Mapping[str, _Stored], findings: Findings) -> PhotoInfo:
    """The photo as people are compared with it: in its true size where that is known."""
    name, stated = record.file_name, (record.width, record.height)
    actual = stored[name].size if name in stored else None
    if actual is not None and actual != stated:
        turned = ", on its side" if actual == stated[::-1] else ""
        findings.add("photo-size", f"{name}: stated {stated[0]} x {stated[1]}, is {actual[0]} x {actual[1]}{turned}")
    return PhotoInfo(name, *(actual or stated), record.id)


def _check_annotations(
    entries: Sequence[object],
    photos: Mapping[Id, PhotoInfo],
    skeleton: Skeleton,
    categories: Categories | None,
    findings: Findings,
) -> None:
    people = PeopleCheck(skeleton, findings)
    ids: set[Id] = set()
    populated: set[Id] = set()
    for position, entry in enumerate(entries):
        label = label_of(entry, position)
        if not isinstance(entry, dict):
            findings.add("annotation-entry", f"{label} is no object")
            continue
        try:
            if categories is not None and categories.skips(entry, label):
                continue
        except DekrPoseError as error:
            findings.add("annotation-entry", str(error))
            continue
        own_id, image_id = as_id(entry.get("id")), as_id(entry.get("image_id"))
        if image_id is None:
            findings.add("annotation-entry", f"{label}: image_id {shown(entry.get('image_id'))}")
            continue
        if own_id in ids:
            findings.add("annotation-id-twice", label)
        if own_id is not None:
            ids.add(own_id)
        photo_id = same_id(photos, image_id)
        if photo_id is None:
            findings.add("annotation-without-photo", f"{label}: image_id {shown(image_id)}")
            photo = PhotoInfo("", inf, inf, image_id)
        else:
            photo = photos[photo_id]
            label = f"{label} in {photo.name}"
            populated.add(photo_id)
        people.look_at(entry, photo, label)
    people.finish()
    for photo_id, photo in photos.items():
        if photo_id not in populated and photo.width < inf:
            findings.add("photo-empty", photo.name)
    if categories is not None and categories.skipped:
        findings.add("other-category", categories.words())
