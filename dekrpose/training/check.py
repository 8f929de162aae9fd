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
from tqdm import tqdm

from dekrpose.errors import DekrPoseError
from dekrpose.evaluation.dataset import PhotoFiles, read_content
from dekrpose.skeletons import Skeleton
from dekrpose.training.check_people import PeopleCheck, PhotoInfo
from dekrpose.training.check_report import Findings, Problem
from dekrpose.training.skeleton_file import category_names

_READ_ERRORS = (DekrPoseError, OSError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error, cv2.error)


@dataclass(frozen=True)
class _Stored:
    """What a photo's file turned out to be: its size and pixels, or why not."""

    size: tuple[int, int] | None = None
    digest: bytes = b""
    problem: str = ""
    missing: bool = False


def check_dataset(
    path: Path, places: Sequence[Path] | None, skeleton: Skeleton, *, progress: bool = False
) -> list[Problem]:
    """Look for everything in ``KINDS`` in a COCO keypoints file and its photos, each of which is read.

    Args:
        path: ``.json`` or ``.json.gz``.
        places: folders, ``.tar`` or ``.zip`` files with the photos; None or nothing means the folder of ``path``.
        skeleton: what the keypoints should be; ``skeleton_of`` reads it from the file.
        progress: show a bar while photos are read.

    Returns:
        One problem per kind that was found, worst first; empty if all is well.
    """
    findings = Findings()
    try:
        content = read_content(path)
        for field in ("images", "annotations"):
            if not isinstance(content[field], list):
                raise DekrPoseError(f'"{field}" of {path} is no list')
    except (DekrPoseError, OSError) as error:
        findings.add("file", str(error))
        return findings.problems()
    _check_names(content, path, skeleton, findings)
    records, photos = _photo_records(content["images"], findings)
    stored = _read_photos([record["file_name"] for record in records], places or [path.parent], findings, progress)
    photos |= {record["id"]: _photo(record, stored, findings) for record in records}
    _check_annotations(content["annotations"], photos, skeleton, findings)
    return findings.problems()


def _check_names(content: Mapping[str, Any], path: Path, skeleton: Skeleton, findings: Findings) -> None:
    try:
        names = category_names(content, path)
    except DekrPoseError as error:
        findings.add("file", str(error))
        return
    if names is not None and names != skeleton.keypoints:
        findings.add("names", f"file: {', '.join(names)}; {skeleton.name}: {', '.join(skeleton.keypoints)}")


def _photo_records(
    entries: Sequence[object], findings: Findings
) -> tuple[list[Mapping[str, Any]], dict[int, PhotoInfo]]:
    """The records that can be used, and what is left of the others that have an id."""
    records: dict[int, Mapping[str, Any]] = {}
    broken: dict[int, PhotoInfo] = {}
    names: set[str] = set()
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict):
            findings.add("photo-entry", f"images[{position}] is no object")
            continue
        wrong = [field for field in ("id", "width", "height") if not _whole(entry.get(field), field != "id")]
        if not isinstance(entry.get("file_name"), str) or not entry["file_name"]:
            wrong.append("file_name")
        if wrong:
            values = ", ".join(f"{field} {entry.get(field)!r:.40}" for field in wrong)
            findings.add("photo-entry", f"images[{position}]: {values}")
            if "id" not in wrong:
                broken[entry["id"]] = PhotoInfo(f"images[{position}]", inf, inf)
            continue
        if entry["id"] in records:
            findings.add("photo-id-twice", f"{entry['id']}: {entry['file_name']}")
        if entry["file_name"] in names:
            findings.add("file-name-twice", entry["file_name"])
        names.add(entry["file_name"])
        records.setdefault(entry["id"], entry)
    return list(records.values()), broken


def _whole(value: object, positive: bool) -> bool:
    return type(value) is int and abs(value) < 2**63 and (value > 0 or not positive)


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
        bar = tqdm(results, desc="reading photos", total=len(unique), unit="photo", disable=not progress)
        stored = dict(zip(unique, bar, strict=True))
    first: dict[bytes, str] = {}
    for name, photo in stored.items():
        if photo.missing:
            findings.add("photo-missing", name)
        elif photo.problem:
            findings.add("photo-unreadable", photo.problem)
        elif first.setdefault(photo.digest, name) != name:
            findings.add("same-photo", f"{name} is as {first[photo.digest]}")
    return stored


def _read_photo(files: PhotoFiles, name: str) -> _Stored:
    try:
        if name not in files:
            return _Stored(missing=True)
        image = files.read(name)
    except _READ_ERRORS as error:
        text = str(error)
        return _Stored(problem=text if name in text else f"{name}: {text}")
    height, width = image.shape[:2]
    digest = hashlib.blake2b(image.tobytes(), digest_size=16, key=f"{width} x {height}".encode()).digest()
    return _Stored((width, height), digest)


def _photo(record: Mapping[str, Any], stored: Mapping[str, _Stored], findings: Findings) -> PhotoInfo:
    """The photo as people are compared with it: in its true size where that is known."""
    name, stated = record["file_name"], (record["width"], record["height"])
    actual = stored[name].size if name in stored else None
    if actual is not None and actual != stated:
        turned = ", on its side" if actual == stated[::-1] else ""
        findings.add("photo-size", f"{name}: stated {stated[0]} x {stated[1]}, is {actual[0]} x {actual[1]}{turned}")
    return PhotoInfo(name, *(actual or stated))


def _check_annotations(
    entries: Sequence[object], photos: Mapping[int, PhotoInfo], skeleton: Skeleton, findings: Findings
) -> None:
    people = PeopleCheck(skeleton, findings)
    ids: set[object] = set()
    populated: set[object] = set()
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict):
            findings.add("annotation-entry", f"annotations[{position}] is no object")
            continue
        named = type(entry.get("id")) is int
        label = f"annotation {entry['id']}" if named else f"annotations[{position}]"
        image_id = entry.get("image_id")
        if not _whole(image_id, False):
            findings.add("annotation-entry", f"{label}: image_id {image_id!r:.40}")
            continue
        if named and entry["id"] in ids:
            findings.add("annotation-id-twice", label)
        if named:
            ids.add(entry["id"])
        photo = photos.get(entry["image_id"])
        if photo is None:
            findings.add("annotation-without-photo", f"{label}: image_id {image_id}")
            photo = PhotoInfo("", inf, inf)
        else:
            label = f"{label} in {photo.name}"
        populated.add(image_id)
        people.look_at(entry, photo, label)
    people.finish()
    for image_id, photo in photos.items():
        if image_id not in populated and photo.width < inf:
            findings.add("photo-empty", photo.name)
