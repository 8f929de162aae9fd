"""What ``dekrpose video`` writes: the film and one line of JSON per frame."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import numpy as np

from dekrpose.draw import DrawOptions
from dekrpose.draw.colors import rgb
from dekrpose.errors import DekrPoseError, ImageError
from dekrpose.images import Pixels
from dekrpose.results import Poses
from dekrpose.video.frames import Frame, StreamInfo
from dekrpose.video.pyav import reason
from dekrpose.video.writer import FilmError, FilmWriter, check_film, open_writer


class Outputs:
    """The film and the lines, called after ``base``, under temporary names until they are finished and whole.

    The film, if there is one, may keep the source's sound, and begins at its start unless ``from_zero``: at the first
    frame. ``look`` is how poses are drawn.
    """

    def __init__(
        self,
        base: Path,
        info: StreamInfo,
        *,
        film: bool,
        sound: bool,
        from_zero: bool,
        look: DrawOptions | None = None,
    ) -> None:
        base.parent.mkdir(parents=True, exist_ok=True)
        mark = uuid.uuid4().hex[:8]
        self.lines_path = base.with_name(f"{base.name}.jsonl")
        self.film_path = base.with_name(f"{base.name}.mp4") if film else None
        self._lines_file = base.with_name(f".{base.name}.{mark}.jsonl")
        self._film_file = base.with_name(f".{base.name}.{mark}.mp4")
        self._info = info
        self._sound, self._from_zero = sound, from_zero
        self._look: DrawOptions = look or {}
        self._lines: TextIO = self._lines_file.open("w", encoding="utf-8")
        self._film: FilmWriter | None = None
        self._origin: float | None = None
        self._unseen: list[tuple[float, float | None]] = []  # broken frames before the first picture
        self._shown: tuple[Pixels, Poses | None] | None = None  # the last picture and the poses held
        self.frames = self.lines = self.broken = self.people = 0
        self._finished = False

    def __enter__(self) -> Outputs:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._finished:  # an error, which is said: what is there is worth keeping
            with suppress(DekrPoseError):
                self.finish(whole=False)

    def add(self, frame: Frame, poses: Poses | None) -> None:
        """Write one frame."""
        self.frames += 1
        if poses is not None:
            self.lines += 1
            self.broken += poses.error is not None
            self.people += len(poses)
            with self._writing(self.lines_path):
                self._lines.write(line_of(poses) + "\n")
        if self.film_path is not None:
            self._add_picture(frame, poses)

    @contextmanager
    def _writing(self, path: Path | None) -> Iterator[None]:
        """Say which file cannot be written, by the name that it was to get."""
        try:
            yield
        except (FilmError, OSError) as error:
            words = f"cannot write {path}: {reason(error)}; check the space and limits on files there"
            kept = f". The older {path.name} stays as it was" if path is not None and path.exists() else ""
            raise DekrPoseError(words + kept) from error

    def _add_picture(self, frame: Frame, poses: Poses | None) -> None:
        if self._origin is None:
            self._origin = frame.timestamp if self._from_zero else 0.0
        time = frame.timestamp - self._origin
        try:
            pixels = frame.pixels
        except (ImageError, OSError):  # the last picture again, so that the film keeps its length
            if self._film is None or self._shown is None:
                self._unseen.append((time, frame.duration))
            else:
                self._write(self._film, self._drawn(*self._shown), time, frame.duration)
            return
        held = self._shown[1] if self._shown and poses is None else poses
        self._shown = (pixels, held)
        film = self._film or self._begin(pixels)
        self._write(film, self._drawn(pixels, held), time, frame.duration)

    def _write(self, film: FilmWriter, pixels: Pixels, time: float, duration: float | None) -> None:
        with self._writing(self.film_path):
            film.write(pixels, time, duration)

    def _begin(self, pixels: Pixels) -> FilmWriter:
        assert self._origin is not None
        size = (pixels.shape[0], pixels.shape[1])
        info = self._info
        sound = (info.name, self._origin) if self._sound and info.name and not info.live else None
        with self._writing(self.film_path):
            self._film = open_writer(self._film_file, size, info, sound)
        for time, duration in self._unseen:
            self._write(self._film, np.zeros_like(pixels), time, duration)
        return self._film

    def _drawn(self, pixels: Pixels, poses: Poses | None) -> Pixels:
        if poses is None or poses.image_size != pixels.shape[:2]:
            background = self._look.get("background")
            return pixels if background is None else np.full_like(pixels, rgb(background))
        return poses.draw(pixels, **self._look)

    def finish(self, whole: bool) -> None:
        """Close the files and give their names to those that are whole; of the others nothing is left.

        DekrPoseError if one of them could not be written.
        """
        self._finished = True
        try:
            self._finish_film(whole)
        finally:
            self._finish_lines()

    def _finish_film(self, whole: bool) -> None:
        try:
            if self._film is not None and self.film_path is not None:
                with self._writing(self.film_path):
                    self._film.close(whole)
                    check_film(self._film_file, self._film.frames)
                    self._film_file.replace(self.film_path)
        finally:
            self._film_file.unlink(missing_ok=True)

    def _finish_lines(self) -> None:
        try:
            with self._writing(self.lines_path):
                self._lines.close()
                if self.frames:
                    self._lines_file.replace(self.lines_path)
        finally:
            self._lines_file.unlink(missing_ok=True)

    @property
    def written(self) -> list[Path]:
        """The files that are there now."""
        film = [self.film_path] if self.film_path is not None and self._film is not None else []
        return [*film, self.lines_path] if self.frames else []


def line_of(poses: Poses) -> str:
    """One frame as a line of JSON: index, timestamp, error, image_size and people as in ``Poses.to_dict``."""
    values = poses.to_dict()
    kept = {name: values[name] for name in ("index", "timestamp", "error", "image_size", "people")}
    line = json.dumps(kept, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return line.encode("utf-8", "backslashreplace").decode("utf-8")  # bytes of a name that are no text: JSON's \\udc..
