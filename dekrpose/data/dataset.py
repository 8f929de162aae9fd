"""COCO-format keypoint files and their photos, in folders, tar or zip files."""

from __future__ import annotations

import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from functools import cached_property, lru_cache, partial
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dekrpose.data.coco_file import Person, Photo, read_content, read_photos
from dekrpose.data.packed import check_unpacked
from dekrpose.errors import DekrPoseError
from dekrpose.images import FILE_LIMIT, decode
from dekrpose.skeletons import COCO_17, Skeleton

__all__ = ["KeypointDataset", "Person", "Photo", "PhotoFiles", "read_content"]


class KeypointDataset:
    """Photos and people of a COCO keypoints file.

    Args:
        annotations: ``.json``, plain or compressed with gzip.
        images: folders, ``.tar`` or ``.zip`` files that hold the photos; by default the folder of ``annotations``.
        skeleton: what the channels mean; COCO's 17 keypoints by default.

    Photos are looked for when they are read; ``missing`` says beforehand which are nowhere. Annotations of categories
    without keypoints, and those that belong to no photo, are left out; a warning in the log counts them.

    Raises:
        DekrPoseError: the file is no COCO keypoints file, an entry cannot be read, no annotation belongs to a photo,
            the file fits another skeleton, or ``images`` are nothing that holds photos.
        OSError: the file cannot be read.
    """

    def __init__(
        self, annotations: str | Path, images: Sequence[str | Path] | None = None, skeleton: Skeleton = COCO_17
    ) -> None:
        self.path = Path(annotations)
        self.skeleton = skeleton
        self.content = read_content(self.path)
        self.photos = read_photos(self.path, self.content, skeleton)
        self._files = PhotoFiles(images or [self.path.parent])

    def __len__(self) -> int:
        return len(self.photos)

    def read(self, index: int) -> NDArray[np.uint8]:
        """The photo as (H, W, 3) uint8 RGB, without EXIF rotation, as the annotations expect.

        DekrPoseError if it is nowhere to be found; ``ImageError`` if it is no image.
        """
        photo = self.photos[index]
        pixels = self._files.read(photo.file_name)
        if pixels.shape[:2] != (photo.height, photo.width):
            raise DekrPoseError(
                f"{photo.file_name} has {pixels.shape[1]} x {pixels.shape[0]} pixels, but {self.path.name} says "
                f"{photo.width} x {photo.height}: keypoints would lie in the wrong places; `dekrpose train DATA "
                "--check` lists all such photos (they are read without their EXIF rotation)"
            )
        return pixels

    def missing(self) -> list[str]:
        """Names of the photos that none of the given places has."""
        return [photo.file_name for photo in self.photos if photo.file_name not in self._files]

    def thinned(self, limit: int | None) -> KeypointDataset:
        """Up to ``limit`` of the photos, evenly spread: files often hold one source after another.

        ValueError if it is below 1.
        """
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be at least 1 photo, got {limit}")
        fewer, count = copy(self), len(self.photos)
        kept = min(limit or count, count)
        fewer.photos = [self.photos[count * place // kept] for place in range(kept)]
        return fewer

    def ignored_mask(self, index: int) -> NDArray[np.bool_]:
        """(H, W) True inside crowds and unlabelled people: no heatmap loss there."""
        return ignored_mask(self.photos[index])


def ignored_mask(photo: Photo) -> NDArray[np.bool_]:
    """(H, W) True inside a photo's crowds and unlabelled people."""
    mask = np.zeros((photo.height, photo.width), np.uint8)
    for person in photo.people:
        if person.ignored:
            _fill(mask, person)
    return mask.astype(bool)


_MOST_FILES = 500_000
"""Looked at in subfolders, which may be those of a whole disk."""
_BROKEN = (OSError, EOFError, RuntimeError, NotImplementedError, ValueError, zipfile.BadZipFile, zlib.error)
"""What a damaged or encrypted archive raises."""


class PhotoFiles:
    """Reads photos by name from folders, tar and zip files; archives come before folders, earlier before later.

    A photo that none of them has by its very name is the only one whose path ends with that name, in any subfolder.
    It holds names and positions only, never an open file, so that loader processes can be given a copy. DekrPoseError
    if a place is neither a folder nor a tar (uncompressed) or zip file.
    """

    def __init__(self, places: Iterable[str | Path]) -> None:
        self._members: dict[str, Callable[[], bytes]] = {}
        self._folders: list[Path] = []
        for place in map(Path, places):
            if place.is_dir():
                self._folders.append(place)
            elif place.is_file() and tarfile.is_tarfile(place):
                self._add(_tar_members(place))
            elif place.is_file() and zipfile.is_zipfile(place):
                self._add({name: partial(_read_zip, place, name) for name in _zip_names(place) if name[-1:] != "/"})
            else:
                problem = "which is none of these" if place.exists() else "which does not exist"
                raise DekrPoseError(f"images must be a folder, a .tar or a .zip file, got {place}, {problem}")

    def __contains__(self, name: str) -> bool:
        return self._reader(name) is not None

    def read(self, name: str) -> NDArray[np.uint8]:
        """The photo called ``name`` as (H, W, 3) uint8 RGB, without EXIF rotation.

        DekrPoseError if no place has it; ``ImageError`` if it is no image.
        """
        read_bytes = self._reader(name)
        if read_bytes is None:
            alike = sorted(path for path, _ in self._alike(name))
            example = f"; several are called so in subfolders: {', '.join(alike[:3])}; name one" if alike else ""
            if self._members and not alike:
                example = f"; the archives hold names such as {next(iter(self._members))!r}"
            raise DekrPoseError(f"photo {name!r} of the annotations is in none of the given places{example}")
        try:
            data = read_bytes()
        except _BROKEN as error:
            place = f" in {read_bytes.args[0]}" if isinstance(read_bytes, partial) else ""
            raise DekrPoseError(f"photo {name!r}{place} cannot be read ({error}); make or copy it again") from error
        return decode(data, name, exif=False)

    def _add(self, members: Mapping[str, Callable[[], bytes]]) -> None:
        for name, member in members.items():
            self._members.setdefault(name.removeprefix("./"), member)

    def _reader(self, name: str) -> Callable[[], bytes] | None:
        if name in self._members:
            return self._members[name]
        path = next((folder / name for folder in self._folders if _is_file(folder / name)), None)
        if path is not None:
            return path.read_bytes
        alike = self._alike(name)
        return alike[0][1] if len(alike) == 1 else None

    def _alike(self, name: str) -> list[tuple[str, Callable[[], bytes]]]:
        """Whole paths and readers of the photos whose paths end with a name; not of others' namesakes."""
        parts = parts_of(name)
        same = self._by_last_part.get(parts[-1], {}) if parts else {}
        return [each for each in same.items() if ends_with(each[0], parts)]

    @cached_property
    def _by_last_part(self) -> dict[str, dict[str, Callable[[], bytes]]]:
        walks = (os.walk(folder.resolve()) for folder in self._folders)
        paths = (Path(top, name) for walk in walks for top, _, names in walk for name in names)
        readers = {path.as_posix(): path.read_bytes for path in islice(paths, _MOST_FILES)}
        found: dict[str, dict[str, Callable[[], bytes]]] = {}
        for name, reader in {**self._members, **readers}.items():
            found.setdefault(name.rsplit("/", 1)[-1], {})[name] = reader
        return found


def parts_of(path: str) -> list[str]:
    """Folders and name of a path, without dots."""
    return [part for part in path.replace("\\", "/").split("/") if part not in ("", ".", "..")]


def ends_with(path: str, parts: Sequence[str]) -> bool:
    """Whether a path's last folders and its name are these."""
    return f"/{path}".endswith("/" + "/".join(parts))


def _check_size(size: int) -> None:
    if size > FILE_LIMIT:
        raise ValueError(f"it has {size:,} bytes, and a photo may have {FILE_LIMIT:,}")


def _read_tar(path: Path, offset: int, size: int) -> bytes:
    _check_size(size)
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(size)
    if len(data) < size:
        raise EOFError("the archive ends within it")
    return data


def _read_zip(path: Path, name: str) -> bytes:
    archive = _open_zip(path, os.getpid())
    member = archive.getinfo(name)
    _check_size(member.file_size)
    check_unpacked(member.compress_size, member.file_size)
    return archive.read(name)


@lru_cache(maxsize=16)
def _open_zip(path: Path, process: int) -> zipfile.ZipFile:
    """One open file per process: processes that share one would move each other's position."""
    return zipfile.ZipFile(path)


def _zip_names(path: Path) -> list[str]:
    try:
        return _open_zip(path, os.getpid()).namelist()
    except _BROKEN as error:
        raise DekrPoseError(f"{path} is a damaged zip file ({error}); make or copy it again") from error


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have: too long, or with a null character
        return False


def _tar_members(path: Path) -> dict[str, Callable[[], bytes]]:
    try:
        with tarfile.open(path, "r:") as archive:
            return {
                member.name: partial(_read_tar, path, member.offset_data, member.size)
                for member in archive.getmembers()
                if member.isfile()
            }
    except tarfile.ReadError as error:
        with path.open("rb") as file:
            packed = file.read(6).startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"))
        if packed:
            raise DekrPoseError(f"{path} is compressed; photos are read from an uncompressed tar") from error
        raise DekrPoseError(f"{path} is a damaged tar file ({error}); make or copy it again") from error


def _fill(mask: NDArray[np.uint8], person: Person) -> None:
    """Set a person's region: its polygons, its uncompressed run lengths, else its box."""
    shape = person.segmentation
    if isinstance(shape, list) and shape:
        polygons = [np.asarray(polygon, np.float32).reshape(-1, 2).round().astype(np.int32) for polygon in shape]
        cv2.fillPoly(mask, polygons, 1)
    elif isinstance(shape, dict) and isinstance(shape["counts"], list):
        values = np.arange(len(shape["counts"])) % 2  # runs of zeros and ones in turn, column by column
        mask[np.repeat(values, shape["counts"]).reshape(mask.shape[::-1]).T > 0] = 1
    else:
        x, y, width, height = person.box.tolist()
        left, top, right, bottom = (max(int(side), 0) for side in (x, y, np.ceil(x + width), np.ceil(y + height)))
        mask[top:bottom, left:right] = 1
