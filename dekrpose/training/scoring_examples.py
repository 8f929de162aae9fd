"""What a scoring net learns from: the poses that a model finds in annotated photos, and how well they fit."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from dekrpose.architectures.parts.poses import TORSO_EDGES, pose_features
from dekrpose.data.dataset import KeypointDataset, Photo
from dekrpose.data.oks import keypoint_similarity
from dekrpose.errors import DekrPoseError
from dekrpose.evaluation.evaluate import predictor
from dekrpose.evaluation.metrics import HIT_OKS, best_oks, oks
from dekrpose.evaluation.predictions import Prediction, Predictions, collect
from dekrpose.formats import write_whole
from dekrpose.skeletons import Skeleton

if TYPE_CHECKING:
    from dekrpose.estimator import PoseEstimator

_ROWS = ("keypoints", "keypoint_scores", "scores")


@dataclass(frozen=True, eq=False)
class Examples:
    """What a scoring net learns from, one row per predicted pose; N may be 0.

    ``features`` (N, F) are those of ``pose_features``, ``targets`` (N,) in [0, 1] the OKS with the person that the pose
    fits best, 0 where nobody is, ``photos`` (N,) positions of the poses' photos in the dataset. ``fits`` (N, 1 + K) are
    what a calibrated net learns: 1 where that OKS is at least 0.5, then where each keypoint is half as similar as can
    be to the same person's, or more; else 0, and NaN where that keypoint is not labelled.
    """

    features: NDArray[np.float32]
    targets: NDArray[np.float32]
    photos: NDArray[np.int64]
    fits: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.targets)


def collect_predictions(
    estimator: PoseEstimator,
    dataset: KeypointDataset,
    *,
    cache: str | Path | None = None,
    progress: bool = True,
    **options: Any,
) -> Predictions:
    """Everybody that a model finds in the photos, whatever the score, without a scoring net.

    The cache, an ``.npz`` file, is read if it is there, and written otherwise; ``options`` are those of
    ``PoseEstimator.estimate_raw``, such as ``flip_test``.

    Raises:
        DekrPoseError: the skeleton is another one or has too few edges; photos are missing; the cache is broken, or of
            another model, other photos or other options.
    """
    if dataset.skeleton != estimator.config.skeleton:
        raise DekrPoseError(
            f"the model finds {estimator.config.skeleton.name}, the data are read as {dataset.skeleton.name}; pass "
            "KeypointDataset(..., skeleton=estimator.config.skeleton)"
        )
    check_skeleton(dataset.skeleton)
    path = None if cache is None else Path(cache)
    made_from = _fingerprint(estimator, dataset, options) if path is not None else ""
    if path is not None and path.exists():
        return _read_cache(path, made_from, dataset)
    predictions = collect(predictor(estimator, rescore=False, **options), dataset, progress=progress)
    if path is not None:
        _write_cache(path, made_from, predictions)
    return predictions


def examples_of(predictions: Predictions) -> Examples:
    """Features and OKS of every predicted pose that can be judged, see ``best_oks``.

    DekrPoseError if the skeleton has too few edges.
    """
    skeleton = predictions.dataset.skeleton
    check_skeleton(skeleton)
    features = [np.zeros((0, 3 * len(skeleton.edges) + len(skeleton)), np.float32)]
    targets, photos, fits = [np.zeros(0)], [np.zeros(0, np.int64)], [np.zeros((0, 1 + len(skeleton)), np.float32)]
    for index, (photo, found) in enumerate(zip(predictions.photos, predictions.people, strict=True)):
        best, judged = best_oks(found.keypoints, photo, skeleton)
        parts = torch.from_numpy(found.keypoints), torch.from_numpy(found.keypoint_scores)
        features.append(pose_features(*parts, skeleton.edges).numpy()[judged])  # as PoseEstimator computes them
        targets.append(best[judged])
        photos.append(np.full(judged.sum(), index))
        fits.append(np.column_stack([best >= HIT_OKS, _keypoint_fits(found, photo, skeleton)])[judged])
    return Examples(
        np.concatenate(features),
        np.concatenate(targets).astype(np.float32),
        np.concatenate(photos),
        np.concatenate(fits).astype(np.float32),
    )


def joined(parts: Sequence[Examples]) -> Examples:
    """The examples of several datasets; photos are numbered on."""
    starts = np.cumsum([0, *(part.photos.max(initial=-1) + 1 for part in parts)])
    photos = np.concatenate([part.photos + start for part, start in zip(parts, starts, strict=False)])
    features, targets, fits = (
        np.concatenate([getattr(p, name) for p in parts]) for name in ("features", "targets", "fits")
    )
    return Examples(features, targets, photos, fits)


def _keypoint_fits(found: Prediction, photo: Photo, skeleton: Skeleton) -> NDArray[np.float32]:
    """(N, K) see ``Examples``; all 0 where nobody is."""
    people = photo.labelled
    if not people:
        return np.zeros((len(found), len(skeleton)), np.float32)
    keypoints, areas = np.stack([person.keypoints for person in people]), np.array([person.area for person in people])
    similarity = keypoint_similarity(found.keypoints[:, None], keypoints, areas, skeleton.sigmas)
    best = oks(found.keypoints, people, skeleton).argmax(axis=1)
    own = np.where(keypoints[best, :, 2] > 0, similarity[np.arange(len(best)), best] >= HIT_OKS, np.nan)
    return own.astype(np.float32)


def check_skeleton(skeleton: Skeleton) -> None:
    """DekrPoseError unless the scoring net can measure poses of this skeleton."""
    needed = max(TORSO_EDGES) + 1
    if len(skeleton.edges) < needed:
        raise DekrPoseError(
            f"the scoring net measures poses by the mean length of edges {TORSO_EDGES[0]} and {TORSO_EDGES[1]}, "
            f"counted from 0, so a skeleton needs {needed} edges or more; {skeleton.name!r} has "
            f"{len(skeleton.edges)}. Use the model without a scoring net, or train one whose skeleton has more edges, "
            "long limbs at those two places"
        )


def _fingerprint(estimator: PoseEstimator, dataset: KeypointDataset, options: Mapping[str, Any]) -> str:
    """Changes with anything that the predictions depend on, but not with the annotations."""
    digest = hashlib.sha256()
    config = estimator.config.to_dict()
    settings = {name: config[name] for name in ("skeleton", "decode", "input_size", "head")}
    names = [[photo.id, photo.file_name] for photo in dataset.photos]
    digest.update(json.dumps([settings, str(estimator.dtype), dict(options), names], default=str).encode())
    for name, tensor in sorted(estimator.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _write_cache(path: Path, made_from: str, predictions: Predictions) -> None:
    people = predictions.people
    counts = np.array([len(found) for found in people], np.int64)
    nobody = Prediction.of([], [], [], len(predictions.dataset.skeleton))
    rows: dict[str, Any] = {
        name: np.concatenate([getattr(found, name) for found in (nobody, *people)]) for name in _ROWS
    }
    stored = io.BytesIO()
    np.savez(stored, made_from=np.array(made_from), seconds=np.array(predictions.seconds), counts=counts, **rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, stored.getvalue())


def _read_cache(path: Path, made_from: str, dataset: KeypointDataset) -> Predictions:
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in ("made_from", "seconds", "counts", *_ROWS)}
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise DekrPoseError(f"{path} holds no predictions of dekrpose ({error}); delete it") from error
    if str(arrays["made_from"]) != made_from:
        raise DekrPoseError(
            f"{path} holds predictions of another model, of other photos or with other options; delete it or name "
            "another cache"
        )
    ends = np.cumsum(arrays["counts"])[:-1]
    keypoints, keypoint_scores, scores = (np.split(arrays[name], ends) for name in _ROWS)
    people = [
        Prediction.of(*rows, len(dataset.skeleton)) for rows in zip(keypoints, keypoint_scores, scores, strict=True)
    ]
    return Predictions(dataset, dataset.photos, people, float(arrays["seconds"]))
