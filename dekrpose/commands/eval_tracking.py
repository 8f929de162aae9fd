"""``dekrpose eval-tracking``: measure identities and smoothing on made clips."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dekrpose.data.clips.walkers_seen import Detector, MadeClip, make_clip
from dekrpose.errors import counted
from dekrpose.evaluation.tracking import (
    IdentityMetrics,
    IouTracker,
    MotionMetrics,
    RankIdentities,
    identity_metrics,
    motion_metrics,
    similarities_of,
    trajectories,
)
from dekrpose.formats import json_text, write_whole
from dekrpose.results import Poses
from dekrpose.tracking.smoothing import Smoother
from dekrpose.tracking.tracker import Tracker

EXAMPLES = ("dekrpose eval-tracking", "dekrpose eval-tracking --seeds 1 2 --json tracking.json")
STOPS = 0.05
"""How often a second somebody stops on the way, in the harder clips."""


class _Updates(Protocol):
    def update(self, poses: Poses, timestamp: float) -> Poses: ...


TRACKERS: dict[str, Callable[[], _Updates]] = {
    "no tracking (place in the frame)": RankIdentities,
    "boxes (IoU), no memory": lambda: IouTracker(memory=0),
    "boxes (IoU), 1 s of memory": IouTracker,
    "dekrpose": Tracker,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``dekrpose eval-tracking``."""
    parser.description = (
        "Measure identities and smoothing on made clips of six people who walk past each other; a seed gives always "
        "the same clip. The tracker's settings were chosen on seeds 0 to 7 and 20 to 35."
    )
    parser.add_argument("--seeds", metavar="N", type=int, nargs="+", default=list(range(100, 106)))
    parser.add_argument("--frames", metavar="N", type=int, default=1200, help="of each clip, at 30 a second")
    parser.add_argument("--cost-frames", metavar="N", type=int, default=300, help="frames of 20 people that are timed")
    parser.add_argument("--json", metavar="OUT.json", type=Path, help="write the measures here")


def run(options: argparse.Namespace) -> int:
    """Print the tables."""
    measures: dict[str, Any] = {"seeds": options.seeds, "frames": options.frames}
    ours: list[IdentityMetrics] = []
    for stops in (0.0, STOPS):
        clips = [make_clip(seed, frames=options.frames, stops=stops) for seed in options.seeds]
        measures["stopping" if stops else "walking"], metrics = _measure(clips, stops)
        ours += metrics
    low, high = _interval(ours)
    total = sum(ours, IdentityMetrics()).switches_per_500
    measures["switches_per_500"] = {"all": total, "interval": [low, high]}
    print(f"dekrpose on {counted(len(ours), 'clip')}: {total:.2f} ID switches per 500 person-frames,")
    print(f"{low:.2f} to {high:.2f} with 95 % confidence (bootstrap over clips)\n")
    measures["milliseconds"] = _cost(options.cost_frames)
    if options.json is not None:
        write_whole(options.json, json_text(measures))
    return 0


def _interval(metrics: Sequence[IdentityMetrics]) -> tuple[float, float]:
    """Where 95 % of 2000 resamples of the clips have their ID switches per 500 person-frames."""
    counts = np.array([(each.switches, each.person_frames) for each in metrics])
    drawn = counts[np.random.default_rng(0).integers(len(counts), size=(2000, len(counts)))].sum(axis=1)
    low, high = np.percentile(500 * drawn[:, 0] / drawn[:, 1], [2.5, 97.5])
    return float(low), float(high)


def _measure(clips: Sequence[MadeClip], stops: float) -> tuple[dict[str, Any], list[IdentityMetrics]]:
    """Print one table; return its numbers, and those of our identities clip by clip."""
    occlusions = np.concatenate([clip.occlusions() for clip in clips])
    hidden = 100 * np.mean([clip.hidden.mean() for clip in clips])
    manner = "who stop on the way, also behind others" if stops else "who walk past each other"
    shown = f"{counted(len(clips), 'clip')} of {clips[0].hidden.shape[1]} people"
    print(f"{shown} {manner}: each hidden for 10 frames or more")
    print(f"{occlusions.min()} to {occlusions.max()} times, {hidden:.0f} % of the time hidden\n")
    print(f"{'':34}ID switches  per 500    MOTA    IDF1")
    likeness = [similarities_of(clip.detections, clip.keypoints, clip.sizes) for clip in clips]
    measures: dict[str, Any] = {"occlusions": occlusions.tolist(), "identities": {}}
    for name, start in TRACKERS.items():
        ours, motions = [], []
        for clip, similar in zip(clips, likeness, strict=True):
            tracked = _run(start(), clip.detections)
            ours.append(identity_metrics(similar, [_ids(poses) for poses in tracked], clip.visible))
            if name == "dekrpose":
                motions.append(_motions(clip, similar, tracked))
        total = sum(ours, IdentityMetrics())
        print(f"{name:34}{total.switches:11}{total.switches_per_500:9.2f}{total.mota:8.3f}{total.idf1:8.3f}")
        measures["identities"][name] = {**vars(total), "mota": total.mota, "idf1": total.idf1}
    print(f"\n{'':34}     jitter    error    lag, frames")
    for row, name in enumerate(("as found", "smoothed")):
        jitter, error, lag = (
            np.mean([getattr(pair[row], key) for pair in motions]) for key in ("jitter", "error", "lag")
        )
        print(f"{name:34}{jitter:11.2f}{error:9.2f}{lag:10.2f}")
        measures[name] = {"jitter": float(jitter), "error": float(error), "lag": float(lag)}
    print("(percent of a person's size, per frame squared for jitter)\n")
    return measures, ours


def _motions(clip: MadeClip, similar: Sequence[Any], tracked: Sequence[Poses]) -> tuple[MotionMetrics, MotionMetrics]:
    """As found and smoothed; the same people are compared with the same truth in both."""
    smoothed = _run(Smoother(), tracked)
    found, smooth = (trajectories(poses, similar, clip.keypoints.shape) for poses in (tracked, smoothed))
    return motion_metrics(found, clip.keypoints, clip.sizes), motion_metrics(smooth, clip.keypoints, clip.sizes)


def _run(stage: _Updates, frames: Sequence[Poses]) -> list[Poses]:
    return [stage.update(poses, poses.timestamp or 0.0) for poses in frames]


def _ids(poses: Poses) -> Any:
    assert poses.track_ids is not None
    return poses.track_ids


def _cost(frames: int) -> dict[str, float]:
    """Median milliseconds a frame with 20 people, all of them in sight."""
    plain = Detector(missed=0, false=0)
    clip = make_clip(0, people=20, frames=frames, detector=plain, least_occlusions=0, see_through=True)
    tracker, smoother = Tracker(), Smoother()
    times: list[tuple[float, float]] = []
    for poses in clip.detections:
        start = time.perf_counter()
        tracked = tracker.update(poses, poses.timestamp)
        middle = time.perf_counter()
        smoother.update(tracked, poses.timestamp)
        times.append((1000 * (middle - start), 1000 * (time.perf_counter() - middle)))
    tracking, smoothing = (float(value) for value in np.median(times, axis=0))
    people = np.median([len(poses) for poses in clip.detections])
    print(f"with {people:.0f} people: tracking {tracking:.2f} ms a frame, smoothing {smoothing:.2f} ms (medians)")
    return {"people": float(people), "tracking": tracking, "smoothing": smoothing}
