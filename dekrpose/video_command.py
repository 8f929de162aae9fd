"""``dekrpose video``: the poses of a video, as a film with skeletons and as one line of JSON per frame."""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import numpy as np

from dekrpose.errors import DekrPoseError, ImageError
from dekrpose.estimator import PoseEstimator
from dekrpose.images import Pixels
from dekrpose.results import Poses
from dekrpose.video.frames import Frame
from dekrpose.video.sources import find_pyav
from dekrpose.video.stream import PoseStream, open_stream
from dekrpose.video.writer import FilmWriter, has_sound, open_writer

_LOG_SECONDS = 10.0  # between lines of progress that nobody watches


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``dekrpose video``."""
    parser.description = (
        "Find everyone in each frame of a video. in.mp4 gets in.poses.mp4, the film with skeletons, and "
        "in.poses.jsonl, one line per frame. Ctrl-C ends both early, and well."
    )
    parser.add_argument(
        "source", metavar="VIDEO", help="a file, a URL (http, rtsp, ...), a folder, glob or pattern of image files"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write there instead of beside the video")
    parser.add_argument("--no-video", action="store_true", help="write the lines only")
    parser.add_argument(
        "--sound", action=argparse.BooleanOptionalAction, help="keep the sound (default: where PyAV is installed)"
    )
    parser.add_argument("--stride", type=int, default=1, metavar="N", help="look at every Nth frame, hold in between")
    parser.add_argument("--start", type=float, metavar="S", help="begin at this second")
    parser.add_argument("--end", type=float, metavar="S", help="stop at this second")
    parser.add_argument("--fps", type=float, default=25.0, help="frames per second of image files (default: 25)")
    parser.add_argument("--batch-size", type=int, metavar="N", help="frames that go through the network together")
    add_model_arguments(parser)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``dekrpose video`` and ``dekrpose webcam`` share."""
    parser.add_argument("--track", action="store_true", help="give people identities")
    parser.add_argument("--smooth", action="store_true", help="smooth the paths of keypoints; tracks, too")
    parser.add_argument("--model", default="tiny", help="name, folder or weights file (default: tiny)")
    parser.add_argument("--score-threshold", type=float, metavar="T", help="default: the model's own")
    parser.add_argument("--max-people", type=int, default=30, metavar="N")
    parser.add_argument("--input-size", type=int, metavar="N", help="short side in pixels; default: the model's own")
    parser.add_argument("--flip", action="store_true", help="average with the mirrored frame: slower, more accurate")
    parser.add_argument("--rescoring-net", metavar="FILE", help="weights of a scoring net, or its name")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")


def stream_of(source: Any, options: argparse.Namespace, **more: Any) -> PoseStream:
    """Load the model and open the stream, as the shared arguments say."""
    estimator = PoseEstimator.from_pretrained(options.model, device=options.device, rescoring_net=options.rescoring_net)
    return open_stream(
        estimator,
        source,
        track=options.track,
        smooth=options.smooth,
        score_threshold=options.score_threshold,
        max_people=options.max_people,
        input_size=options.input_size,
        flip_test=options.flip,
        **more,
    )


def run(options: argparse.Namespace) -> int:
    """``dekrpose video``: 0 done, 1 frames were broken or missing, 130 stopped by Ctrl-C."""
    if options.sound and find_pyav() is None:
        raise ImportError("PyAV, which copies sound, is missing; run: pip install 'dekrpose[video]'")
    section = {"start": options.start, "end": options.end, "fps": options.fps, "batch_size": options.batch_size}
    stream = stream_of(options.source, options, stride=options.stride, every_frame=not options.no_video, **section)
    folder, stem = _place(options.source)
    outputs = _Outputs((options.out or folder) / f"{stem}.poses", stream, options)
    with stream, outputs, _Shield() as shield:
        try:
            for frame, poses in _progress(stream, options):
                with shield.up():
                    outputs.add(frame, poses)
            whole = True
        except KeyboardInterrupt:
            whole = False
        with suppress(KeyboardInterrupt), shield.up():
            outputs.finish(whole)
    return _report(outputs, stream, whole)


def _place(source: str) -> tuple[Path, str]:
    """The folder of a source and what its outputs are called after."""
    if "://" in source:
        name = source.split("?")[0].rstrip("/").rsplit("/", 1)[-1]
        return Path(), Path(name).stem or "stream"
    path = Path(source)
    if path.is_dir():
        return path.resolve().parent, path.resolve().name
    stem = path.stem if path.exists() else re.sub(r"%0?\d*d|[*?\[\]]", "", path.stem).strip("_-. ")
    return path.parent, stem or path.resolve().parent.name


def _progress(stream: PoseStream, options: argparse.Namespace) -> Iterator[tuple[Frame, Poses | None]]:
    """The stream behind a bar with frames per second and the time that is left."""
    from tqdm import tqdm

    info = stream.info
    total = info.frames
    if total and info.fps and (options.start or options.end):
        last = min(total / info.fps, options.end or float("inf"))
        total = max(round((last - (options.start or 0)) * info.fps), 0)
    if total and options.no_video:
        total = -(-total // options.stride)
    interval = 0.1 if sys.stderr.isatty() else _LOG_SECONDS
    with tqdm(total=total, unit="frame", mininterval=interval, maxinterval=max(interval, 10)) as bar:
        for pair in stream.pairs():
            yield pair
            bar.update()
        bar.total = bar.n  # what the container said was an estimate


class _Shield:
    """Holds Ctrl-C back while something is written, so that it is written in whole."""

    def __init__(self) -> None:
        self._up = False
        self._hit = False
        self._before: Any = None

    def __enter__(self) -> _Shield:
        try:
            self._before = signal.signal(signal.SIGINT, self._interrupt)
        except ValueError:  # only the main thread gets signals
            self._before = None
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        self._hit = self._up
        if not self._up:
            raise KeyboardInterrupt

    @contextmanager
    def up(self) -> Iterator[None]:
        """Nothing interrupts this block; what tried to comes after it."""
        self._up, self._hit = True, False
        try:
            yield
        finally:
            self._up = False
        if self._hit:
            raise KeyboardInterrupt


class _Outputs:
    """The film and the lines, under temporary names until they are finished."""

    def __init__(self, base: Path, stream: PoseStream, options: argparse.Namespace) -> None:
        base.parent.mkdir(parents=True, exist_ok=True)
        mark = uuid.uuid4().hex[:8]
        self.lines_path = base.with_name(f"{base.name}.jsonl")
        self.film_path = None if options.no_video else base.with_name(f"{base.name}.mp4")
        self._lines_file = base.with_name(f".{base.name}.{mark}.jsonl")
        self._film_file = base.with_name(f".{base.name}.{mark}.mp4")
        self._stream = stream
        self._options = options
        self._lines: TextIO = self._lines_file.open("w", encoding="utf-8")
        self._film: FilmWriter | None = None
        self._origin: float | None = None
        self._unseen: list[tuple[float, float | None]] = []  # broken frames before the first picture
        self._shown: tuple[Pixels, Poses | None] | None = None  # the last picture and the poses held
        self.frames = self.lines = self.broken = self.people = 0
        self.resized = False

    def __enter__(self) -> _Outputs:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._lines.closed:  # an error: what is there is worth keeping
            try:
                self.finish(whole=False)
            finally:
                self._lines_file.unlink(missing_ok=True)
                self._film_file.unlink(missing_ok=True)

    def add(self, frame: Frame, poses: Poses | None) -> None:
        """Write one frame."""
        self.frames += 1
        if poses is not None:
            self.lines += 1
            self.broken += poses.error is not None
            self.people += len(poses)
            self._lines.write(line_of(poses) + "\n")
        if self.film_path is not None:
            self._add_picture(frame, poses)

    def _add_picture(self, frame: Frame, poses: Poses | None) -> None:
        if self._origin is None:
            self._origin = frame.timestamp if self._options.start else 0.0
        time = frame.timestamp - self._origin
        try:
            pixels = frame.pixels
        except (ImageError, OSError):  # the last picture again, so that the film keeps its length
            if self._film is None or self._shown is None:
                self._unseen.append((time, frame.duration))
            else:
                self._film.write(self._drawn(*self._shown), time, frame.duration)
            return
        held = self._shown[1] if self._shown and poses is None else poses
        self._shown = (pixels, held)
        film = self._film or self._begin(pixels)
        film.write(self._drawn(pixels, held), time, frame.duration)

    def _begin(self, pixels: Pixels) -> FilmWriter:
        assert self._origin is not None
        size = (pixels.shape[0], pixels.shape[1])
        info = self._stream.info
        av = find_pyav() if self._options.sound is not False and info.name and not info.live else None
        sound = (info.name, self._origin) if av is not None and info.name and has_sound(av, info.name) else None
        self._film = open_writer(self._film_file, size, info, sound)
        for time, duration in self._unseen:
            self._film.write(np.zeros_like(pixels), time, duration)
        return self._film

    def _drawn(self, pixels: Pixels, poses: Poses | None) -> Pixels:
        if poses is None or poses.image_size != pixels.shape[:2]:
            return pixels
        return poses.draw(pixels, color_by="side" if poses.track_ids is None else "person")

    def finish(self, whole: bool) -> None:
        """Close the files and give them their names."""
        self._lines.close()
        if self._film is not None:
            self._film.close(whole)
        if self.frames == 0:
            self._lines_file.unlink()
            return
        self._lines_file.replace(self.lines_path)
        if self._film is not None and self.film_path is not None:
            self._film_file.replace(self.film_path)

    @property
    def written(self) -> list[Path]:
        """The files that are there now."""
        film = [self.film_path] if self.film_path is not None and self._film is not None else []
        return [*film, self.lines_path] if self.frames else []


def line_of(poses: Poses) -> str:
    """One frame as a line of JSON: index, timestamp, error, image_size and people as in ``Poses.to_dict``."""
    values = poses.to_dict()
    kept = {name: values[name] for name in ("index", "timestamp", "error", "image_size", "people")}
    return json.dumps(kept, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def _report(outputs: _Outputs, stream: PoseStream, whole: bool) -> int:
    name = stream.info.name
    for trouble in stream.troubles:
        print(f"{name}: {trouble}", file=sys.stderr)
    if not outputs.frames:
        if not whole:
            raise KeyboardInterrupt
        raise DekrPoseError(f"{name} gave no frames; nothing was written")
    parts = [f"{outputs.frames} frames", f"{outputs.people} poses"]
    if outputs.lines != outputs.frames:
        parts.insert(1, f"{outputs.lines} of them looked at")
    if outputs.broken:
        parts.append(f"{outputs.broken} frames broken, see their lines")
    if stream.dropped:
        parts.append(f"{stream.dropped} dropped")
    if not whole:
        parts.append("stopped, so this is only a part")
    print(f"{name}  {', '.join(parts)}  -> {', '.join(map(str, outputs.written))}")
    if not whole:
        return 130
    return 1 if outputs.broken or stream.troubles else 0
