"""Which images are meant: files, folders and globs, or several images in memory."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from typing import Any, TypeVar

from dekrpose.errors import without_password

_NAMES = "avif bmp dib gif heic heif jfif jp2 jpe jpeg jpg pbm pgm png pnm ppm tif tiff webp"
SUFFIXES = frozenset(f".{name}" for name in _NAMES.split())
"""File names that ``find_images`` takes for images in folders and globs."""


def find_images(patterns: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    """List the image files that paths, folders and globs name.

    Args:
        patterns: one or several. A file is taken as it is; of a folder (not its subfolders) and a glob,
            where ``**`` stands for any subfolders, the files with an image's suffix that are not hidden. Pictures
            that ``dekrpose predict`` drew, such as a.poses.jpg, are left out where their photo is found too.

    Returns:
        In the order of the patterns, sorted within each, none twice.

    Raises:
        FileNotFoundError: a pattern names no image.
    """
    found: dict[Path, None] = {}
    for pattern in [patterns] if isinstance(patterns, (str, os.PathLike)) else patterns:
        path = Path(pattern)
        try:
            is_file = path.is_file()
        except OSError as error:  # a mistyped URL of any length, say
            error.filename = without_password(os.fspath(pattern))
            raise
        if is_file:
            found[path] = None
            continue
        # glob, because the ** of pathlib skips files before Python 3.13
        names = path.iterdir() if path.is_dir() else map(Path, glob.glob(os.fspath(pattern), recursive=True))  # noqa: PTH207
        images = [name for name in names if name.suffix.lower() in SUFFIXES and name.name[0] != "." and name.is_file()]
        if not images:
            raise FileNotFoundError(_nothing_found(os.fspath(pattern)))
        found.update(dict.fromkeys(without_drawn(sorted(images))))
    return list(found)


AnyPath = TypeVar("AnyPath", bound=PurePath)


def without_drawn(paths: Sequence[AnyPath]) -> list[AnyPath]:
    """Leave out pictures that ``dekrpose predict`` drew, named as a.poses.jpg, beside the photo that they show."""
    photos = {(path.parent, path.stem) for path in paths}
    drawn = {path for path in paths if path.stem.endswith(".poses")}
    return [
        path for path in paths if path not in drawn or (path.parent, path.stem.removesuffix(".poses")) not in photos
    ]


def _nothing_found(pattern: str) -> str:
    here = f"relative paths start at {Path.cwd()}"
    pattern = without_password(pattern)
    if Path(pattern).is_dir():
        below = Path(pattern, "**", "*.jpg")
        empty = f"no image found: {pattern!r} is a folder without images; its subfolders are not looked into"
        return (
            f"{empty}, a glob such as {str(below)!r} does that"
            if any(map(Path.is_dir, Path(pattern).iterdir()))
            else empty
        )
    if glob.has_magic(pattern):
        return f"no image found: {pattern!r} matches nothing; {here}"
    return f"no image found: {pattern!r} does not exist; {here}"


def several_images(images: Any) -> Iterable[Any]:
    """What is meant by several images: a text or path as what it names, never letter by letter; all else as it is.

    Args:
        images: an iterable of images, or a folder, glob, file or URL.

    Raises:
        FileNotFoundError: the folder or glob names no image.
        TypeError: it is a single image, or nothing that has items.
    """
    if isinstance(images, (str, os.PathLike)):
        return [images] if re.match(r"https?://", os.fspath(images), re.IGNORECASE) else find_images(images)
    single = isinstance(images, (bytes, bytearray, memoryview)) or hasattr(images, "read") or hasattr(images, "getexif")
    if single or getattr(images, "ndim", 1) in (2, 3) or not isinstance(images, Iterable):
        raise TypeError(
            f"several images are a list or another iterable, a folder or a glob, got a single {type(images).__name__}; "
            "pass [image], or use estimate"
        )
    return images
