"""``dekrpose video``: the poses of a video, as a film with skeletons and as one line of JSON per frame."""

from __future__ import annotations

import argparse
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from dekrpose.commands.arguments import check_out
from dekrpose.commands.drawing import add_draw_arguments, draw_options
from dekrpose.commands.predict import add_model_arguments, estimate_options
from dekrpose.errors import DekrPoseError, counted, without_password

if TYPE_CHECKING:
    from dekrpose.results import Poses
    from dekrpose.video.frames import Frame
    from dekrpose.video.outputs import Outputs
    from dekrpose.video.stream import PoseStream

EXAMPLES = (
    "dekrpose video in.mp4",
    "dekrpose video in.mp4 --track --smooth --out results",
    "dekrpose video 'frames/*.png' --fps 30 --no-video",
)


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
    add_stream_arguments(parser)


def add_stream_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``dekrpose video`` and ``dekrpose webcam`` share."""
    parser.add_argument("--track", action="store_true", help="give people identities")
    parser.add_argument("--smooth", action="store_true", help="smooth the paths of keypoints; tracks, too")
    add_draw_arguments(parser, stream=True)
    add_model_arguments(parser)


def stream_of(source: Any, options: argparse.Namespace, chosen: dict[str, Any], **more: Any) -> PoseStream:
    """Load the model and open the stream, as the shared arguments say; ``chosen`` are its ``estimate_options``."""
    from dekrpose.estimator import PoseEstimator
    from dekrpose.video.stream import open_stream

    estimator = PoseEstimator.from_pretrained(
        options.model, device=options.device, rescoring_net=options.rescoring_net, trust_code=options.trust_code
    )
    return open_stream(estimator, source, track=options.track, smooth=options.smooth, **chosen, **more)


def run(options: argparse.Namespace) -> int:
    """``dekrpose video``: 0 done, 1 frames were broken or missing, 130 stopped by Ctrl-C."""
    _check_source(options.source)
    check_out(options.out)
    chosen = estimate_options(options)
    look = draw_options(options)
    if options.blur_faces and options.stride > 1:
        raise ValueError(
            "--blur-faces misses faces that move between the frames that --stride looks at; leave --stride out"
        )
    from dekrpose.video.outputs import Outputs
    from dekrpose.video.sources import find_pyav

    if options.sound and find_pyav() is None:
        raise ImportError("PyAV, which copies sound, is missing; run: pip install 'dekrpose[video]'")
    section = {"start": options.start, "end": options.end, "fps": options.fps, "batch_size": options.batch_size}
    stream = stream_of(
        options.source, options, chosen, stride=options.stride, every_frame=not options.no_video, **section
    )
    folder, stem = _place(options.source)
    outputs = Outputs(
        (options.out or folder) / f"{stem}.poses",
        stream.info,
        film=not options.no_video,
        sound=options.sound is not False,
        from_zero=bool(options.start),
        look=look,
    )
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


def _check_source(source: str) -> None:
    """Say before anything is loaded that a file is not there; addresses, globs and patterns are looked into later."""
    if not re.search(r"://|[*?\[%]|^\d+$|^/dev/", source) and not Path(source).exists():
        raise FileNotFoundError(f"{source} does not exist; relative paths start at {Path.cwd()}")


def _place(source: str) -> tuple[Path, str]:
    """The folder of a source and what its outputs are called after."""
    from dekrpose.video.frames import is_address

    if is_address(source):
        name = without_password(source).split("?")[0].rstrip("/").rsplit("/", 1)[-1]
        return Path(), Path(name).stem or "stream"
    path = Path(source)
    if path.is_dir():
        return path.resolve().parent, path.resolve().name
    stem = path.stem if path.exists() else re.sub(r"%0?\d*d|[*?\[\]]", "", path.stem).strip("_-. ")
    return path.parent, stem or path.resolve().parent.name


def _progress(stream: PoseStream, options: argparse.Namespace) -> Iterator[tuple[Frame, Poses | None]]:
    """The stream behind a bar with frames per second and the time that is left."""
    from dekrpose.progress import Bar

    info = stream.info
    total = info.frames
    if total and info.fps and (options.start or options.end):
        last = min(total / info.fps, options.end or float("inf"))
        total = max(round((last - (options.start or 0)) * info.fps), 0)
    if total and options.no_video:
        total = -(-total // options.stride)
    with Bar(total=total, unit="frame") as bar:
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


def _report(outputs: Outputs, stream: PoseStream, whole: bool) -> int:
    name = stream.info.title
    for trouble in stream.troubles:
        print(f"{name}: {trouble}", file=sys.stderr)
    if not outputs.frames:
        if not whole:
            raise KeyboardInterrupt
        raise DekrPoseError(f"{name} gave no frames; nothing was written")
    parts = [counted(outputs.frames, "frame"), counted(outputs.people, "pose")]
    if outputs.lines != outputs.frames:
        parts.insert(1, f"{outputs.lines} of them looked at")
    if outputs.broken:
        parts.append(f"{counted(outputs.broken, 'frame')} broken, see their lines")
    if stream.dropped:
        parts.append(f"{stream.dropped} dropped")
    if not whole:
        parts.append("stopped, so this is only a part")
    print(f"{name}  {', '.join(parts)}  -> {', '.join(map(str, outputs.written))}")
    if not whole:
        return 130
    return 1 if outputs.broken or stream.troubles else 0
