"""Predictions for a whole dataset, kept so that many thresholds can be tried on one run of a model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dekrpose.data.dataset import KeypointDataset, Photo
from dekrpose.errors import DekrPoseError, counted
from dekrpose.progress import Bar

Predict = Callable[[NDArray[np.uint8]], tuple[ArrayLike, ArrayLike, ArrayLike]]
"""(H, W, 3) uint8 RGB -> keypoints (N, K, 2) in image pixels, keypoint scores (N, K), scores (N,): everybody, whatever
their score, in the model's own order; N may be 0."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says about one photo: keypoints (N, K, 2) xy, image pixels; N may be 0."""

    keypoints: NDArray[np.float32]
    keypoint_scores: NDArray[np.float32]
    scores: NDArray[np.float32]

    @classmethod
    def of(cls, keypoints: ArrayLike, keypoint_scores: ArrayLike, scores: ArrayLike, channels: int) -> Prediction:
        """The arrays for K = ``channels``; ValueError if a shape does not fit, or a number is not finite."""
        kept = np.asarray(scores, np.float32).reshape(-1)
        points, point_scores = np.asarray(keypoints, np.float32), np.asarray(keypoint_scores, np.float32)
        if len(kept) == points.size == point_scores.size == 0:
            points, point_scores = np.zeros((0, channels, 2), np.float32), np.zeros((0, channels), np.float32)
        shape = (len(kept), channels)
        for name, array, wanted in (("keypoints", points, (*shape, 2)), ("keypoint_scores", point_scores, shape)):
            if array.shape != wanted:
                raise ValueError(f"{name} of {len(kept)} people must be {wanted}, got {array.shape}")
        if not all(np.isfinite(array).all() for array in (kept, points, point_scores)):
            raise ValueError("keypoints and scores must be finite; has the training of this model diverged?")
        return cls(points, point_scores, kept)

    def __len__(self) -> int:
        return len(self.scores)

    def shown(self, threshold: float) -> Prediction:
        """Those whose score reaches the threshold, best first; a threshold of 0 or less keeps everybody."""
        order = np.argsort(-self.scores, kind="stable")
        if threshold > 0:
            order = order[self.scores[order] >= threshold]
        return Prediction(self.keypoints[order], self.keypoint_scores[order], self.scores[order])


@dataclass(frozen=True, eq=False)
class Predictions:
    """A model's predictions for the first photos of a dataset, one per photo, in its order.

    ``seconds`` are spent predicting, without reading the photos.
    """

    dataset: KeypointDataset
    photos: Sequence[Photo]
    people: Sequence[Prediction]
    seconds: float

    def shown(self, threshold: float) -> list[NDArray[np.float32]]:
        """Per photo the keypoints (N, K, 2) of those whose score reaches the threshold, best first."""
        return [prediction.shown(threshold).keypoints for prediction in self.people]


def collect(
    predict: Predict, dataset: KeypointDataset, *, progress: bool = True, limit: int | None = None
) -> Predictions:
    """Run a model over the photos of a dataset, or over the first ``limit`` of them.

    Raises:
        DekrPoseError: photos are missing; nothing is predicted before that is known.
        ValueError: ``predict`` returns arrays that do not fit, or ``limit`` is not positive.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1 photo, got {limit}")
    photos = dataset.photos[:limit]
    wanted = {photo.file_name for photo in photos}
    missing = [name for name in dataset.missing() if name in wanted]
    if missing:
        raise DekrPoseError(
            f"{dataset.path}: {len(missing):,} of {counted(len(photos), 'photo')} missing in the given places, first "
            f"{missing[0]!r}; check --images"
        )
    people, seconds = [], 0.0
    for index in Bar(range(len(photos)), desc="evaluate", unit="photo", show=progress):
        image = dataset.read(index)
        start = time.perf_counter()
        found = predict(image)
        seconds += time.perf_counter() - start
        people.append(Prediction.of(*found, channels=len(dataset.skeleton)))
    return Predictions(dataset, photos, people, seconds)


def results_json(photos: Sequence[Photo], people: Sequence[Prediction]) -> list[dict[str, Any]]:
    """Predictions as COCO keypoint results: image_id, category_id 1, keypoints (x, y, score, ...) and score."""
    results = []
    for photo, prediction in zip(photos, people, strict=True):
        triples = np.concatenate([prediction.keypoints, prediction.keypoint_scores[..., None]], axis=2)
        for values, score in zip(triples.tolist(), prediction.scores.tolist(), strict=True):
            keypoints = [number for triple in values for number in triple]
            results.append({"image_id": photo.id, "category_id": 1, "keypoints": keypoints, "score": score})
    return results
