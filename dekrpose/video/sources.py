"""Anything that is a stream, opened by what it looks like; image sequences, and frames that somebody else makes."""

from __future__ import annotations

import functools
import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from numbers import Real
from pathlib import Path
from typing import Any

from dekrpose import images
from dekrpose.errors import ImageError
from dekrpose.images import Color, Pixels
from dekrpose.video.frames import Frame, Source, StreamInfo, broken, is_address, newest
from dekrpose.video.opencv import open_camera, open_with_opencv
from dekrpose.video.pyav import open_pyav

_PRINTF = re.compile(r"%0?\d*d")
_MOVING = {".gif", ".webp", ".avif"}  # images by their suffix that may be films


def find_sequence(place: str) -> list[Path] | None:
    """The pictures that a folder, a glob or a printf pattern names, by the numbers in their names; None if it is none.

    A pattern ("frames/%04d.png") names its missing numbers, too: reading them fails, and what comes later keeps its
    time. FileNotFoundError if there is no picture.
    """
    path = Path(place)
    if "://" in place or path.is_file():
        return None
    if _PRINTF.search(path.name) and not path.is_dir():
        return _numbered(path)
    return sorted(images.find_images(place), key=_numbers) if path.is_dir() or glob.has_magic(place) else None


def _numbers(path: Path) -> tuple[tuple[int, str], ...]:
    """Sorts frame2 before frame10."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(path)))


def _numbered(pattern: Path) -> list[Path]:
    match = _PRINTF.search(pattern.name)
    assert match is not None
    before, after = map(re.escape, (pattern.name[: match.start()], pattern.name[match.end() :]))
    names = [path.name for path in pattern.parent.iterdir()] if pattern.parent.is_dir() else []
    found = [re.fullmatch(f"{before}(\\d+){after}", name) for name in names]
    numbers = {int(hit[1]) for hit in found if hit}

    def path_of(number: int) -> Path:
        return pattern.with_name(_PRINTF.sub(lambda digits: digits[0] % number, pattern.name, count=1))

    numbers = {number for number in numbers if path_of(number).is_file()}
    if not numbers:
        raise FileNotFoundError(f"no image found: {str(pattern)!r}; relative paths start at {Path.cwd()}")
    return [path_of(number) for number in range(min(numbers), max(numbers) + 1)]


def open_sequence(paths: Sequence[Path], fps: float, name: str | None) -> Source:
    """Image files as a stream of a constant rate."""
    info = StreamInfo(name=name, frames=len(paths), duration=len(paths) / fps, fps=fps)
    frames = (Frame(index, index / fps, functools.partial(_load, path), 1 / fps) for index, path in enumerate(paths))
    return Source(info, frames, lambda: None)


def _load(path: Path) -> Pixels:
    return images.load(path)[0]


def open_iterable(items: Iterable[Any], fps: float, color: Color) -> Source:
    """Frames that somebody else makes: whatever ``estimate`` takes, or pairs of a timestamp and that."""
    try:
        frames: int | None = len(items)  # type: ignore[arg-type]
    except TypeError:
        frames = None
    iterator = iter(items)
    info = StreamInfo(frames=frames, duration=frames / fps if frames else None, fps=fps)

    def close() -> None:
        getattr(iterator, "close", lambda: None)()

    return Source(info, _made_frames(iterator, fps, color), close)


def _made_frames(items: Iterable[Any], fps: float, color: Color) -> Iterator[Frame]:
    last = -1.0
    for index, item in enumerate(items):
        timestamp, image = index / fps, item
        if isinstance(item, tuple):
            if len(item) != 2 or not isinstance(item[0], Real):
                raise ValueError(f"a frame is an image or a pair (seconds, image), got a tuple of {len(item)}")
            timestamp, image = float(item[0]), item[1]
        if timestamp <= last:
            raise ValueError(f"timestamps must grow, got {timestamp:g} s after {last:g} s; pass frames in their order")
        last = timestamp
        try:
            # now: its owner may write the next frame into the same array
            pixels = images.load(image, color=color, allow_private=True)[0]
        except (ImageError, OSError) as error:
            yield broken(index, timestamp, str(error))
        else:
            yield Frame(index, timestamp, lambda pixels=pixels: pixels)  # type: ignore[misc]


def find_pyav() -> Any | None:
    """The module ``av``, or None where it is not installed."""
    try:
        return import_module("av")
    except ImportError:
        return None


def open_source(source: Any, *, fps: float = 25.0, start: float = 0.0, color: Color = "rgb") -> Source:
    """Open a stream; live ones always give their newest frame.

    Args:
        source: a file; the number of a camera; a URL (rtsp, http, ...); a folder, glob, printf pattern or list of image
            files; or an iterable of images or of pairs (seconds, image).
        fps: frames per second of what has no clock of its own: image files, and images without seconds.
        start: seconds; frames before it need not come, but they are counted.
        color: channel order of arrays in an iterable.

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
        return open_sequence([Path(item) for item in source], fps, None)
    if isinstance(source, Iterable) and not isinstance(source, (bytes, bytearray, memoryview)):
        return open_iterable(source, fps, color)
    raise TypeError(
        "a stream is a file, a camera's number, a URL, image files (folder, glob, pattern or list), or an iterable of "
        f"frames, got {type(source).__name__}"
    )


def _open_place(place: str, fps: float, start: float) -> Source:
    sequence = find_sequence(place)
    path = Path(place)
    is_file = not is_address(place)
    if sequence is None and is_file and path.suffix.lower() in images.SUFFIXES - _MOVING:
        sequence = [path]
    if sequence is not None:
        return open_sequence(sequence, fps, place)
    if is_file and not path.exists():
        raise FileNotFoundError(f"no such video: {place!r}; relative paths start at {Path.cwd()}")
    av = find_pyav()
    opened = open_with_opencv(place) if av is None else open_pyav(av, place, start)
    return newest(opened) if opened.info.live else opened
