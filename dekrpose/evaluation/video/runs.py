"""A model over a clip: frame by frame, smoothed, with its memory, and with the memory spoilt on purpose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from dekrpose import images
from dekrpose.architectures.dekr.decode import decode, pose_map
from dekrpose.architectures.dekr.temporal import TemporalDEKR, TemporalState
from dekrpose.data.clips.clip import Clip
from dekrpose.estimator import PoseEstimator
from dekrpose.evaluation.predictions import Prediction
from dekrpose.images import Geometry
from dekrpose.options import MIN_CENTERS
from dekrpose.results import Poses
from dekrpose.tracking.smoothing import Smoother
from dekrpose.tracking.tracker import Tracker

Memory = Literal["none", "kept", "reset"]
"""Frame by frame through the image model; through the network for video, with its memory or without any."""
MAX_PEOPLE = 30


def has_memory(estimator: PoseEstimator) -> bool:
    """Whether a model can see frames in their order, one by one."""
    return isinstance(estimator.model, TemporalDEKR) and estimator.model.heatmap_memory is not None


@torch.inference_mode()
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
    model, state = estimator.model, None
    height, width = clip.frames.shape[1:3]
    config = estimator.config
    multiple = config.backbone.size_multiple
    geometry = Geometry.fit(height, width, input_size or config.input_size, multiple=multiple)
    found = []
    for frame in clip.frames:
        inputs = images.to_tensor([images.resize(frame, geometry)], config.mean, config.std).to(estimator.device)
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        if memory == "none":
            maps = model(inputs)
        else:
            maps, state = _step(model, inputs, state if memory == "kept" else None)
        found.append(_decoded(estimator, maps, geometry))
    return found


def _step(
    model: torch.nn.Module, inputs: torch.Tensor, state: TemporalState | None
) -> tuple[tuple[torch.Tensor, torch.Tensor], TemporalState | None]:
    if not isinstance(model, TemporalDEKR):
        raise ValueError("this model has no memory; train one with dekrpose train-temporal")
    return model.step(inputs, state)


def _decoded(estimator: PoseEstimator, maps: tuple[torch.Tensor, torch.Tensor], geometry: Geometry) -> Prediction:
    settings = estimator.config.decode
    keypoints, keypoint_scores, scores = decode(
        [(maps[0][0].float().cpu(), pose_map(maps[1])[0].float().cpu())],
        (1.0,),
        max_people=MAX_PEOPLE,
        max_centers=MIN_CENTERS,
        nms_threshold=settings.nms_threshold,
        nms_min_keypoints=settings.nms_min_keypoints,
        other_scale_factor=settings.other_scale_factor,
        match=settings.match_heatmap,
    )
    points = geometry.to_image(keypoints.numpy())
    return Prediction.of(points, keypoint_scores.numpy(), scores.numpy(), channels=len(estimator.config.skeleton))


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
