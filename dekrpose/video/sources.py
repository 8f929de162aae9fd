"""Anything that is a stream, opened by what it looks like."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from dekrpose import images
from dekrpose.images import Color
from dekrpose.video import pictures
from dekrpose.video.frames import Source, is_address
from dekrpose.video.live import newest
from dekrpose.video.opencv import open_camera, open_with_opencv
from dekrpose.video.pyav import open_pyav

_MOVING = {".gif", ".webp", ".avif"}  # images by their suffix that may be films


def find_pyav() -> Any | None:
    """The module ``av``, or None where it is not installed."""
    try:
        return import_module("av")
    except ImportError:
        return None


def open_source(source: Any, *, fps: float = 25.0, start: float = 0.0, color: Color = "rgb") -> Source:
    """Open a stream.

    Args:
        source: a file; the number of a camera; a URL (rtsp, http, ...); a folder, glob, printf pattern or list of
            image files; or an iterable of images or of pairs (seconds, image).
        fps: frames per second of what has no clock of its own: image files, and images without seconds.
        start: seconds; frames before it need not come, but they are counted.
        color: channel order of arrays in an iterable.

    Returns:
        The open source; live ones always give their newest frame.

    Raises:
        DekrPoseError: it cannot be opened.
        FileNotFoundError: there is no such file.
        TypeError: it is no stream.
    """
    if isinstance(source, int) and not isinstance(source, bool):
        return newest(open_camera(source))
    if isinstance(source, (str, os.PathLike)):
        return _open_place(os.fsdecode(source), fps, start)
    if isinstance(source, (list, tuple)) and source and all(isinstance(item, (str, os.PathLike)) for item in source):
        return pictures.open_sequence([Path(item) for item in source], fps, None)
    if isinstance(source, Iterable) and not isinstance(source, (bytes, bytearray, memoryview)):
        return pictures.open_iterable(source, fps, color)
    raise TypeError(
        "a stream is a file, a camera's number, a URL, image files (folder, glob, pattern or list), or an iterable of "
        f"frames, got {type(source).__name__}"
    )


def _open_place(place: str, fps: float, start: float) -> Source:
    sequence = pictures.find_sequence(place)
    path = Path(place)
    is_file = not is_address(place)
    if sequence is None and is_file and path.suffix.lower() in images.SUFFIXES - _MOVING:
        sequence = [path]
    if sequence is not None:
        return pictures.open_sequence(sequence, fps, place)
    if is_file and not path.exists():
        raise FileNotFoundError(f"no such video: {place!r}; relative paths start at {Path.cwd()}")
    av = find_pyav()
    opened = open_with_opencv(place) if av is None else open_pyav(av, place, start)
    return newest(opened) if opened.info.live else opened
