"""Hostile films: damaged ones in every container that PyAV writes, read through it and through OpenCV."""

from __future__ import annotations

import itertools
import random
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from dekrpose.errors import DekrPoseError, ImageError
from tests.hostile.kind import TESTS, Kind, damaged
from tests.video_clips import SIZE, regular, write_clip

_FRAMES = 40
_FORMS = (
    ("mp4", "libx264"),
    ("mkv", "libx264"),
    ("avi", "mpeg4"),
    ("mov", "mjpeg"),
    ("ts", "libx264"),
    ("avi", "mjpeg"),
)


@cache
def _films() -> list[bytes]:
    with tempfile.TemporaryDirectory() as name:
        paths = [Path(name) / f"{number}.{suffix}" for number, (suffix, _) in enumerate(_FORMS)]
        for path, (_, codec) in zip(paths, _FORMS, strict=True):
            write_clip(path, regular(12), codec=codec)
        own = [path.read_bytes() for path in paths]
    return own + [path.read_bytes() for path in sorted((TESTS / "cases" / "film").iterdir())]


def make_film(dice: random.Random) -> bytes:
    """Which reader in the first byte, the film after it."""
    return dice.choice((b"p", b"p", b"o")) + damaged(dice.choice(_films()), dice, (*SIZE, 12))


def use_films() -> Callable[[bytes], Any]:
    import av

    from dekrpose.video.opencv import open_with_opencv
    from dekrpose.video.pyav import open_pyav

    av.logging.set_level(None)
    folder = tempfile.TemporaryDirectory()

    def use(data: bytes) -> None:
        path = str(Path(folder.name) / "film")
        Path(path).write_bytes(data[1:])
        source = open_pyav(av, path) if data[:1] == b"p" else open_with_opencv(path)
        try:
            for frame in itertools.islice(source.frames, _FRAMES):
                try:
                    _ = frame.pixels
                except ImageError:
                    continue
        finally:
            source.close()

    return use


FILMS = Kind(make_film, use_films, lambda: b"p" + _films()[0], (DekrPoseError,), count=500, seconds=20, mebibytes=1024)
