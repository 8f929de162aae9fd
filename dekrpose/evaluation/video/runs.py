"""A model over a clip, as users run it: frame by frame, smoothed, with its memory, and with the memory spoilt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dekrpose.architectures.dekr.temporal import TemporalDEKR
from dekrpose.data.clips.clip import Clip
from dekrpose.errors import DekrPoseError
from dekrpose.estimator import PoseEstimator
from dekrpose.evaluation.predictions import Prediction
from dekrpose.results import Poses
from dekrpose.tracking.smoothing import Smoother
from dekrpose.tracking.tracker import Tracker

Memory = Literal["none", "kept", "reset"]
"""Frame by frame through the image model; through the network for video, with its memory or without any."""


def has_memory(estimator: PoseEstimator) -> bool:
    """Whether a model can see frames in their order, one by one."""
    return isinstance(estimator.model, TemporalDEKR) and estimator.model.heatmap_memory is not None


def run_model(
    estimator: PoseEstimator, clip: Clip, memory: Memory = "none", *, input_size: int | None = None
) -> list[Prediction]:
    """Everybody in every frame, whatever their score, in frame pixels; no scoring net.

    Args:
        estimator: the model; with a memory unless ``memory`` is "none".
        clip: frames in the order in which they are seen.
        memory: see ``Memory``.
        input_size: short side of the network's input; None is the model's own.
    """
    channels = len(estimator.config.skeleton)
    if memory == "none":
        raw = (estimator.estimate_raw(frame, input_size=input_size, rescore=False) for frame in clip.frames)
        return [Prediction.of(*found, channels=channels) for found in raw]
    if not has_memory(estimator):
        raise DekrPoseError("this model has no memory; train one with dekrpose train-temporal")
    people, state = [], None
    for frame, time in zip(clip.frames, clip.times.tolist(), strict=True):
        (poses,), state = estimator.estimate_frames(
            [frame], state if memory == "kept" else None, timestamps=[time],
            score_threshold=0, input_size=input_size, rescore=False,
        )  # fmt: skip
        people.append(Prediction.of(poses.keypoints, poses.keypoint_scores, poses.scores, channels=channels))
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


def run_shuffled(
    estimator: PoseEstimator, clip: Clip, rng: np.random.Generator, *, input_size: int | None = None
) -> list[Prediction]:
    """What a memory finds that sees the frames in a random order; the answer is in the frames' own order."""
    order: NDArray[np.intp] = rng.permutation(len(clip))
    found = run_model(estimator, clip.in_order(order), "kept", input_size=input_size)
    return [found[place] for place in np.argsort(order)]
