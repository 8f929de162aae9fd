"""Image sequences, and frames that somebody else makes."""

from __future__ import annotations

import functools
import glob
import re
from collections.abc import Iterable, Iterator, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from dekrpose import images
from dekrpose.errors import ImageError
from dekrpose.images import Color, Pixels
from dekrpose.video.frames import Frame, Source, StreamInfo, broken

_PRINTF = re.compile(r"%0?\d*d")


def find_sequence(place: str) -> list[Path] | None:
    """The pictures that a folder, a glob or a printf pattern names, in the order of the numbers in their names.

    Args:
        place: such as "frames", "frames/*.png" or "frames/%04d.png". A pattern's missing numbers are named, too:
            reading them fails, and what comes later keeps its time.

    Returns:
        None when it is none of these.

    Raises:
        FileNotFoundError: it is, and there is no picture.
    """
    path = Path(place)
    if "://" in place or path.is_file():
        return None
    if path.is_dir():
        return sorted(images.find_images(place), key=_numbers)
    if _PRINTF.search(path.name):
        return _numbered(path)
    if glob.has_magic(place):
        return sorted(images.find_images(place), key=_numbers)
    return None


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
    return Source(info, _file_frames(paths, fps), lambda: None)


def _file_frames(paths: Iterable[Path], fps: float) -> Iterator[Frame]:
    for index, path in enumerate(paths):
        yield Frame(index, index / fps, functools.partial(_load, path), 1 / fps)


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
            pixels = images.load(image, color=color)[0]  # now: its owner may write the next frame into the same array
        except (ImageError, OSError) as error:
            yield broken(index, timestamp, str(error))
        else:
            yield Frame(index, timestamp, lambda pixels=pixels: pixels)  # type: ignore[misc]
