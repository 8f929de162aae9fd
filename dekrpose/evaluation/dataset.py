"""COCO-format keypoint files and their photos, in folders, tar or zip files."""

from __future__ import annotations

import gzip
import json
import tarfile
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dekrpose.errors import DekrPoseError, ImageError
from dekrpose.skeletons import COCO_17, Skeleton


@dataclass(frozen=True)
class Person:
    """One annotation.

    Attributes:
        keypoints: (K, 3) float32 x, y, visibility; image pixels; visibility 0 means unlabelled.
        box: (4,) float32 x, y, width, height; image pixels.
        area: square image pixels.
        ignored: a crowd, or somebody without labelled keypoints; never a target, masked out instead.
        source: where the annotation comes from, when the file says so.
        segmentation: polygons or uncompressed run lengths, as in the file.
    """

    keypoints: NDArray[np.float32]
    box: NDArray[np.float32]
    area: float
    ignored: bool
    source: str
    segmentation: Any


@dataclass(frozen=True)
class Photo:
    """One image record with its people; width and height in image pixels."""

    id: int
    file_name: str
    width: int
    height: int
    source: str
    people: tuple[Person, ...]


class KeypointDataset:
    """Photos and people of a COCO keypoints file.

    Args:
        annotations: ``.json`` or ``.json.gz``.
        images: folders, ``.tar`` or ``.zip`` files that hold the photos; by default the folder of ``annotations``.
        skeleton: what the channels mean; COCO's 17 keypoints by default.

    Raises:
        DekrPoseError: the file is no COCO keypoints file, fits another skeleton, or a photo is nowhere to be found.
    """

    def __init__(
        self, annotations: str | Path, images: Sequence[str | Path] | None = None, skeleton: Skeleton = COCO_17
    ) -> None:
        self.path = Path(annotations)
        self.skeleton = skeleton
        self.content = _read_json(self.path)
        self.photos = _photos(self.path, self.content, len(skeleton))
        self._files = PhotoFiles(images or [self.path.parent])

    def __len__(self) -> int:
        return len(self.photos)

    def read(self, index: int) -> NDArray[np.uint8]:
        """The photo as (H, W, 3) uint8 RGB, without EXIF rotation, as the annotations expect."""
        return self._files.read(self.photos[index].file_name)

    def ignored_mask(self, index: int) -> NDArray[np.bool_]:
        """(H, W) True inside crowds and unlabelled people: no heatmap loss there."""
        photo = self.photos[index]
        mask = np.zeros((photo.height, photo.width), np.uint8)
        for person in photo.people:
            if person.ignored:
                _fill(mask, person)
        return mask.astype(bool)


class PhotoFiles:
    """Reads photos by name from folders, tar and zip files; the first place that has a name wins."""

    def __init__(self, places: Iterable[str | Path]) -> None:
        self._readers: dict[str, Callable[[], bytes]] = {}
        self._folders: list[Path] = []
        for place in map(Path, places):
            if place.is_dir():
                self._folders.append(place)
            elif tarfile.is_tarfile(place):
                self._add_tar(place)
            elif zipfile.is_zipfile(place):
                self._add_zip(place)
            else:
                raise DekrPoseError(f"images must be a folder, a .tar or a .zip file, got {place}")

    def read(self, name: str) -> NDArray[np.uint8]:
        """The photo called ``name`` as (H, W, 3) uint8 RGB."""
        if name in self._readers:
            data = self._readers[name]()
        else:
            path = next((folder / name for folder in self._folders if (folder / name).is_file()), None)
            if path is None:
                raise DekrPoseError(f"photo {name} of the annotations is in none of the given places")
            data = path.read_bytes()
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if image is None:
            raise ImageError(f"{name} is not a readable image")
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)

    def _add_tar(self, path: Path) -> None:
        with tarfile.open(path, "r:") as archive:
            for member in archive.getmembers():
                if member.isfile():
                    self._readers.setdefault(
                        member.name.removeprefix("./"), _slice_reader(path, member.offset_data, member.size)
                    )

    def _add_zip(self, path: Path) -> None:
        archive = zipfile.ZipFile(path)
        for name in archive.namelist():
            self._readers.setdefault(name, lambda name=name: archive.read(name))  # type: ignore[misc]


def _slice_reader(path: Path, offset: int, size: int) -> Callable[[], bytes]:
    def read() -> bytes:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    return read


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as file:
            content = json.load(file)
    except (json.JSONDecodeError, UnicodeDecodeError, gzip.BadGzipFile) as error:
        raise DekrPoseError(f"{path} is not a COCO keypoints file: {error}") from error
    missing = {"images", "annotations"} - set(content) if isinstance(content, dict) else {"images", "annotations"}
    if missing:
        raise DekrPoseError(f"{path} is not a COCO keypoints file: it lacks {', '.join(sorted(missing))}")
    return content  # type: ignore[no-any-return]


def _photos(path: Path, content: Mapping[str, Any], keypoints: int) -> list[Photo]:
    people: dict[int, list[Person]] = defaultdict(list)
    for entry in content["annotations"]:
        people[entry["image_id"]].append(_person(path, entry, keypoints))
    return [
        Photo(
            id=int(record["id"]),
            file_name=str(record["file_name"]),
            width=int(record["width"]),
            height=int(record["height"]),
            source=str(record.get("source", "")),
            people=tuple(people[record["id"]]),
        )
        for record in content["images"]
    ]


def _person(path: Path, entry: Mapping[str, Any], keypoints: int) -> Person:
    values = np.asarray(entry.get("keypoints") or [0] * (3 * keypoints), np.float32)
    if values.size != 3 * keypoints:
        raise DekrPoseError(
            f"annotation {entry.get('id')} of {path} has {values.size} keypoint numbers; "
            f"{keypoints} keypoints need {3 * keypoints}"
        )
    points = values.reshape(keypoints, 3)
    return Person(
        keypoints=points,
        box=np.asarray(entry.get("bbox", (0, 0, 0, 0)), np.float32),
        area=float(entry.get("area", 0.0)),
        ignored=bool(entry.get("iscrowd", 0)) or not (points[:, 2] > 0).any(),
        source=str(entry.get("source", "")),
        segmentation=entry.get("segmentation"),
    )


def _fill(mask: NDArray[np.uint8], person: Person) -> None:
    """Set a person's region: its polygons, its uncompressed run lengths, else its box."""
    shape = person.segmentation
    if isinstance(shape, list) and shape:
        cv2.fillPoly(mask, [np.asarray(polygon, np.float32).reshape(-1, 2).round().astype(np.int32) for polygon in shape], 1)
    elif isinstance(shape, dict) and isinstance(shape.get("counts"), list):
        values = np.arange(len(shape["counts"])) % 2  # runs of zeros and ones in turn, column by column
        region = np.repeat(values, shape["counts"]).reshape(shape["size"][1], shape["size"][0]).T
        mask[region > 0] = 1
    else:
        x, y, width, height = person.box
        mask[max(int(y), 0) : int(np.ceil(y + height)), max(int(x), 0) : int(np.ceil(x + width))] = 1
