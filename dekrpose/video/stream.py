"""Poses of a stream, frame by frame, in constant memory."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from dekrpose.config import ModelConfig
from dekrpose.errors import ImageError
from dekrpose.images import Pixels
from dekrpose.results import Poses
from dekrpose.tracking.smoothing import Smoother
from dekrpose.tracking.tracker import Tracker
from dekrpose.video.frames import FASTEST, SLOWEST, Frame, Source, StreamInfo, sensible_rate
from dekrpose.video.memory import StreamState
from dekrpose.video.sources import open_source

logger = logging.getLogger(__name__)

BATCH_SIZE = 8


class _Estimator(Protocol):
    """What a stream needs of ``PoseEstimator``."""

    @property
    def config(self) -> ModelConfig: ...

    def estimate_many(self, images: Sequence[Pixels], *, batch_size: int, **options: Any) -> Iterator[Poses]: ...

    def estimate_frames(
        self, frames: Sequence[Pixels], state: StreamState | None, *, timestamps: Sequence[float], **options: Any
    ) -> tuple[list[Poses], StreamState | None]: ...


@dataclass(frozen=True)
class _Plan:
    """What is to be done with a stream."""

    estimator: _Estimator
    options: dict[str, Any]
    stride: int
    start: float
    end: float
    batch_size: int
    skip_errors: bool
    every_frame: bool
    follow: tuple[Callable[[Poses, float], Poses], ...]


class PoseStream(Iterator[Poses]):
    """The poses of a stream: an iterator of ``Poses`` with ``index`` and ``timestamp``, without images.

    The source is closed when the iteration ends, fails or is interrupted, at the end of a ``with`` block, by ``close``,
    and when nobody holds the stream any more. ``info`` is what the source says about itself: ``live``, ``frames``,
    ``duration`` and ``fps``, where they are known.
    """

    def __init__(self, source: Source, plan: _Plan) -> None:
        self.info: StreamInfo = source.info
        self._source = source
        self._pairs = _pairs(source, plan)  # which must not hold self: it would live until the next collection

    @property
    def dropped(self) -> int:
        """Frames of a live source that came while the network was busy, until now."""
        return self._source.dropped()

    @property
    def troubles(self) -> list[str]:
        """What went wrong with the source as a whole, until now, such as an end that came early."""
        return list(self._source.troubles)

    def pairs(self) -> Iterator[tuple[Frame, Poses | None]]:
        """The same with the frames; poses are None for frames between the strides, where these come at all."""
        return self._pairs

    def __next__(self) -> Poses:
        while True:
            _, poses = next(self._pairs)
            if poses is not None:
                return poses

    def close(self) -> None:
        """Close the source and end its thread."""
        self._pairs.close()
        self._source.close()

    def __enter__(self) -> PoseStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_pairs"):
            self.close()


def open_stream(
    estimator: _Estimator,
    source: Any,
    *,
    stride: int = 1,
    track: bool = False,
    smooth: bool = False,
    start: float | None = None,
    end: float | None = None,
    fps: float = 25.0,
    batch_size: int | None = None,
    on_error: Literal["raise", "skip"] = "skip",
    every_frame: bool = False,
    **options: Any,
) -> PoseStream:
    """Open a stream for ``PoseEstimator.estimate_video``, whose arguments these are; ``color`` is among the options.

    ``every_frame``: ``pairs`` gives the frames between the strides, too.
    """
    if stride < 1:
        raise ValueError(f"stride must be at least 1, got {stride}")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if on_error not in ("raise", "skip"):
        raise ValueError(f'on_error must be "raise" or "skip", got {on_error!r}')
    if not sensible_rate(fps):
        raise ValueError(f"fps must be above 0 frames per second, from {SLOWEST:g} to {FASTEST}, got {fps}")
    begin = 0.0 if start is None else float(start)
    stop = float("inf") if end is None else float(end)
    if not 0 <= begin < stop:
        raise ValueError(f"start and end must be seconds with 0 <= start < end, got start={start}, end={end}")
    if not options.pop("allow_private", True):
        raise ValueError("streams come from trusted sources, so allow_private=False cannot be kept here; leave it out")
    color = options.pop("color", "rgb")
    estimator.estimate_many([], batch_size=1, color=color, **options)  # wrong options are said before anything opens
    opened = open_source(source, fps=fps, start=begin, color=color)
    if batch_size is None:
        # frames of an iterator may come one by one from somewhere that waits for the answer
        batch_size = _batch_size(estimator.config) if isinstance(source, (str, os.PathLike, list, tuple)) else 1
    plan = _Plan(
        estimator=estimator,
        options=options,
        stride=stride,
        start=begin,
        end=stop,
        batch_size=1 if opened.info.live else batch_size,
        skip_errors=on_error == "skip",
        every_frame=every_frame,
        follow=(*([Tracker().update] if track or smooth else []), *([Smoother().update] if smooth else [])),
    )
    return PoseStream(opened, plan)


def _batch_size(config: ModelConfig) -> int:
    """Frames of a file that go through the network together; a flat GRU sees whole chunks."""
    temporal = config.temporal
    return temporal.chunk if temporal is not None and temporal.kind == "gru_offset_flat" else BATCH_SIZE


def _pairs(source: Source, plan: _Plan) -> Generator[tuple[Frame, Poses | None], None, None]:
    """Frames and their poses, in order, never more than a batch of them in memory."""
    pending: list[tuple[Frame, bool]] = []
    frames = _section(source.frames, plan.start, plan.end)
    number = 0
    state: StreamState | None = None
    try:
        while True:
            try:
                frame = next(frames, None)
            except Exception:
                yield from _answers(pending, source, plan, state)  # what was read before is not lost
                raise
            if frame is None:
                break
            wanted = number % plan.stride == 0
            number += 1
            if wanted or plan.every_frame:
                pending.append((frame, wanted))
            if len(pending) == plan.batch_size:
                state = yield from _answers(pending, source, plan, state)
                pending = []
            del frame  # held by nobody while the caller works
        yield from _answers(pending, source, plan, state)
    finally:
        source.close()
    for trouble in source.troubles:
        logger.warning("%s: %s", source.info.title or "the stream", trouble)


def _section(frames: Iterator[Frame], start: float, end: float) -> Iterator[Frame]:
    for frame in frames:
        if frame.timestamp >= end:
            return
        if frame.timestamp >= start:
            yield frame


def _answers(
    pending: list[tuple[Frame, bool]], source: Source, plan: _Plan, state: StreamState | None
) -> Generator[tuple[Frame, Poses | None], None, StreamState | None]:
    """One batch through the network, then one by one through what follows identities; returns the stream's state."""
    readable: list[Frame] = []
    failed: dict[int, Exception] = {}
    for frame, wanted in pending:
        try:
            if wanted:
                _ = frame.pixels
                readable.append(frame)
        except (ImageError, OSError) as error:
            failed[frame.index] = error
    answers, state = _estimate(readable, plan, state)
    estimated = iter(answers)
    for frame, wanted in pending:
        place: dict[str, Any] = {"index": frame.index, "timestamp": frame.timestamp, "source": source.info.title}
        if frame.index in failed:
            if not plan.skip_errors:
                raise failed[frame.index]
            reason = str(failed[frame.index])
            yield frame, Poses.nobody(plan.estimator.config.skeleton, (0, 0), error=reason, **place)
        elif wanted:
            poses = replace(next(estimated), **place)
            for update in plan.follow:
                poses = update(poses, frame.timestamp)
            yield frame, poses
        else:
            yield frame, None
    return state


def _estimate(frames: list[Frame], plan: _Plan, state: StreamState | None) -> tuple[list[Poses], StreamState | None]:
    """The only place where frames meet the network; one with a memory gets the stream's state and hands it on."""
    if not frames:
        return [], state
    pixels = [frame.pixels for frame in frames]
    if plan.estimator.config.temporal is None:
        return list(plan.estimator.estimate_many(pixels, batch_size=len(pixels), **plan.options)), None
    times = [frame.timestamp for frame in frames]
    return plan.estimator.estimate_frames(pixels, state, timestamps=times, **plan.options)
