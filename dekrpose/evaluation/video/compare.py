"""A model with and without its memory on the same clips, with intervals from clips that are drawn again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dekrpose.data.clips.clip import Clip, ClipShape, ClipSource, Floats
from dekrpose.data.clips.corruption import corrupt
from dekrpose.errors import DekrPoseError
from dekrpose.estimator import PoseEstimator
from dekrpose.evaluation.predictions import Prediction
from dekrpose.evaluation.video.measures import ClipMeasures, lag, mean_of, measure
from dekrpose.evaluation.video.precision import AveragePrecision
from dekrpose.progress import Bar
from dekrpose.results import Poses
from dekrpose.tracking.smoothing import Smoother
from dekrpose.tracking.tracker import Tracker
from dekrpose.video.memory import remembers

PER_FRAME, ONE_EURO, TEMPORAL = "per frame", "per frame + One-Euro", "temporal"
RESET, SHUFFLED = "temporal, reset at every frame", "temporal, shuffled order"
METHODS = (PER_FRAME, ONE_EURO, TEMPORAL, RESET, SHUFFLED)
MEASURES = ("local_nms_score", "OKS", "AP", "acceleration", "lag")
DRAWS = 1000
Memory = Literal["none", "kept", "reset"]
"""Frame by frame through the image model; through the network for video, with its memory or without any."""
_TEST = 9173
"""Begins every seed of test clips, so that none is one of training."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One method on the clips of one seed under one condition."""

    clips: Sequence[ClipMeasures]

    @property
    def precision(self) -> AveragePrecision:
        """AP over these clips."""
        return AveragePrecision([clip.detections for clip in self.clips])


Results = Mapping[tuple[str, str, int], Cell]
"""By condition, method and seed."""


@dataclass(frozen=True)
class Interval:
    """A value and the middle 95 % of what it is when clips are drawn again."""

    value: float
    low: float
    high: float

    @property
    def above(self) -> bool:
        """Whether it is surely more than 0."""
        return self.low > 0

    @property
    def below(self) -> bool:
        """Whether it is surely less than 0."""
        return self.high < 0


def compare(
    estimator: PoseEstimator,
    source: ClipSource,
    shape: ClipShape,
    *,
    seeds: Sequence[int],
    clips: int,
    conditions: Sequence[str],
    controls: bool = True,
    input_size: int | None = None,
    progress: bool = True,
) -> dict[tuple[str, str, int], Cell]:
    """Run a model over clips, every method on the same frames.

    Without a memory only the two methods that need none are run. Each seed draws ``clips`` of its own, which are seen
    under each condition: "clean" and kinds of corruption. ``controls`` runs the two negative controls, too.
    """
    cells: dict[tuple[str, str, int], list[ClipMeasures]] = {}
    jobs = [(seed, number, condition) for seed in seeds for number in range(clips) for condition in conditions]
    threshold = estimator.config.decode.score_threshold
    for seed, number, condition in Bar(jobs, desc="evaluate", unit="clip", show=progress):
        rng = np.random.default_rng([_TEST, seed, number])
        clean = source.draw(int(rng.integers(len(source))), rng, shape)
        clip, _ = corrupt(clean, condition, np.random.default_rng([_TEST, seed, number, 1]))
        found = {PER_FRAME: run_model(estimator, clip, input_size=input_size)}
        found[ONE_EURO] = smoothed(estimator, clip, found[PER_FRAME])
        if remembers(estimator.model):
            found[TEMPORAL] = run_model(estimator, clip, "kept", input_size=input_size)
            if controls:
                found[RESET] = run_model(estimator, clip, "reset", input_size=input_size)
                order = np.random.default_rng([_TEST, seed, number, 2]).permutation(len(clip))
                seen = run_model(estimator, clip.in_order(order), "kept", input_size=input_size)
                found[SHUFFLED] = [seen[place] for place in np.argsort(order)]
        for method, people in found.items():
            cells.setdefault((condition, method, seed), []).append(measure(clip, people, threshold))
    return {key: Cell(values) for key, values in cells.items()}


@contextmanager
def seen_whole(estimator: PoseEstimator) -> Iterator[None]:
    """Within this block a network for video gives whole maps, and rounds as it does with its memory."""
    watches = [estimator.model.register_forward_hook(lambda *_: None)] if remembers(estimator.model) else []
    try:
        yield
    finally:
        for watch in watches:
            watch.remove()


def run_model(
    estimator: PoseEstimator, clip: Clip, memory: Memory = "none", *, input_size: int | None = None
) -> list[Prediction]:
    """Everybody in every frame, whatever their score, in frame pixels; no scoring net.

    The model needs a memory unless ``memory`` is "none"; it sees the frames in the clip's order.
    """
    channels = len(estimator.config.skeleton)
    if memory == "none":
        with seen_whole(estimator):
            raw = [estimator.estimate_raw(frame, input_size=input_size, rescore=False) for frame in clip.frames]
        return [Prediction.of(*found, channels=channels) for found in raw]
    if not remembers(estimator.model):
        raise DekrPoseError("this model has no memory; train one with dekrpose train-temporal")
    people, state = [], None
    temporal = estimator.config.temporal
    # the flat GRU sees chunks, forwards and backwards
    together = temporal.chunk if temporal is not None and temporal.kind != "convgru" and memory == "kept" else 1
    for start in range(0, len(clip), together):
        part = slice(start, start + together)
        found, state = estimator.estimate_frames(
            list(clip.frames[part]), state if memory == "kept" else None, timestamps=clip.times[part].tolist(),
            score_threshold=0, input_size=input_size, rescore=False,
        )  # fmt: skip
        people += [Prediction.of(p.keypoints, p.keypoint_scores, p.scores, channels=channels) for p in found]
    return people


def smoothed(estimator: PoseEstimator, clip: Clip, found: Sequence[Prediction]) -> list[Prediction]:
    """The same people after tracking and the One-Euro filter, as ``estimate_video(smooth=True)`` gives them.

    Those below the model's score threshold, whom nobody sees, stay as they are.
    """
    tracker, smoother = Tracker(), Smoother()
    result = []
    for prediction, time in zip(found, clip.times.tolist(), strict=True):
        seen = prediction.scores >= estimator.config.decode.score_threshold
        poses = Poses(
            keypoints=prediction.keypoints[seen],
            keypoint_scores=prediction.keypoint_scores[seen].clip(0, 1),
            scores=prediction.scores[seen].clip(0, 1),
            skeleton=estimator.config.skeleton,
            image_size=clip.frames.shape[1:3],
            timestamp=time,
        )
        tracked, keypoints = tracker.update(poses), prediction.keypoints.copy()
        if tracked.track_ids is not None and (tracked.track_ids >= 0).any():
            keypoints[seen] = smoother.update(tracked).keypoints
        result.append(Prediction(keypoints, prediction.keypoint_scores, prediction.scores))
    return result


def summary(results: Results, condition: str, method: str) -> dict[str, float]:
    """The measures of a method under a condition, means over seeds; acceleration in percent of a person's size."""
    cells = [cell for key, cell in results.items() if key[:2] == (condition, method)]
    values = [
        (
            float(np.mean([clip.local_nms_score for clip in cell.clips])),
            100 * mean_of(np.concatenate([clip.oks for clip in cell.clips])),
            100 * cell.precision(),
            100 * mean_of(np.concatenate([clip.acceleration.ravel() for clip in cell.clips])),
            lag(np.sum([clip.products for clip in cell.clips], axis=0)),
        )
        for cell in cells
    ]
    return dict(zip(MEASURES, np.mean(values, axis=0).tolist(), strict=True))


class Bootstrap:
    """Differences between two methods, and how far they would be others on other clips.

    Clips are drawn again with replacement within each seed, the same ones for all methods and conditions; a difference
    is the mean over seeds and the conditions that are asked for.
    """

    def __init__(self, results: Results, draws: int = DRAWS) -> None:
        self.results = results
        self.seeds = sorted({seed for _, _, seed in results})
        rng = np.random.default_rng(0)
        self._weights: dict[int, tuple[Floats, NDArray[np.intp]]] = {}
        for seed in self.seeds:
            count = len(next(cell for key, cell in results.items() if key[2] == seed).clips)
            chosen = rng.multinomial(count, np.full(count, 1 / count), draws).astype(np.float64)
            drawn = np.concatenate([np.ones((1, count)), chosen])
            different, places = np.unique(drawn, axis=0, return_inverse=True)  # few clips give few different draws
            self._weights[seed] = different, places.reshape(-1)

    def precision(self, first: str, second: str, conditions: Sequence[str]) -> Interval:
        """AP of the first method less that of the second, points of 100."""

        def difference(condition: str, seed: int) -> Callable[[Floats], float]:
            one, two = (self.results[condition, method, seed].precision for method in (first, second))
            return lambda weights: 100 * (one(weights) - two(weights))

        return self._interval(difference, conditions)

    def acceleration(self, first: str, second: str, conditions: Sequence[str]) -> Interval:
        """The same of acceleration errors, percent of a size, over people whom both methods found."""

        def difference(condition: str, seed: int) -> Callable[[Floats], float]:
            pairs = zip(*(self.results[condition, method, seed].clips for method in (first, second)), strict=True)
            apart = [one.acceleration - two.acceleration for one, two in pairs]
            sums, counts = (
                np.array([f(values) for values in apart]) for f in (np.nansum, lambda v: np.isfinite(v).sum())
            )
            return lambda weights: float(100 * (weights @ sums) / max(weights @ counts, 1))

        return self._interval(difference, conditions)

    def lag(self, first: str, second: str, conditions: Sequence[str]) -> Interval:
        """The same of lags, frames."""

        def difference(condition: str, seed: int) -> Callable[[Floats], float]:
            one, two = (
                np.stack([clip.products for clip in self.results[condition, method, seed].clips])
                for method in (first, second)
            )
            return lambda weights: lag(np.einsum("c,clk->lk", weights, one)) - lag(np.einsum("c,clk->lk", weights, two))

        return self._interval(difference, conditions)

    def _interval(
        self, difference: Callable[[str, int], Callable[[Floats], float]], conditions: Sequence[str]
    ) -> Interval:
        values = []
        for condition in conditions:
            for seed in self.seeds:
                of_weights = difference(condition, seed)
                different, places = self._weights[seed]
                values.append(np.array([of_weights(weights) for weights in different])[places])
        means = np.mean(values, axis=0)
        known = means[1:][np.isfinite(means[1:])]
        low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
        return Interval(float(means[0]), float(low), float(high))
