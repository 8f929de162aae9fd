"""How well identities and motion are kept: ID switches, MOTA, IDF1, jitter and lag; and trackers to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from dekrpose.data.oks import assigned, oks_matrix
from dekrpose.evaluation.video.measures import acceleration_errors, lag, motion_products
from dekrpose.results import Poses

Array = NDArray[np.float64]

SAME = 0.5
"""OKS from which a found person counts as one of the truth."""


@dataclass(frozen=True)
class IdentityMetrics:
    """How identities were kept.

    Args:
        person_frames: people of the truth, summed over frames.
        missed, false, switches: counts of CLEAR MOT (Bernardin and Stiefelhagen, 2008).
        identified: detections that carry the identity which fits the truth best over all frames (IDTP).
        found: people with an identity, summed over frames.
    """

    person_frames: int = 0
    missed: int = 0
    false: int = 0
    switches: int = 0
    identified: int = 0
    found: int = 0

    @property
    def mota(self) -> float:
        """1 - (missed + false + switches) / person-frames: 1 is perfect, below 0 is possible."""
        return 1 - (self.missed + self.false + self.switches) / max(self.person_frames, 1)

    @property
    def idf1(self) -> float:
        """F1 score of identified detections (Ristani et al., 2016), from 0 to 1."""
        return 2 * self.identified / max(self.person_frames + self.found, 1)

    @property
    def switches_per_500(self) -> float:
        """ID switches per 500 person-frames."""
        return 500 * self.switches / max(self.person_frames, 1)

    def __add__(self, other: IdentityMetrics) -> IdentityMetrics:
        return IdentityMetrics(**{name: value + getattr(other, name) for name, value in vars(self).items()})


@dataclass(frozen=True)
class MotionMetrics:
    """How motion was kept, over all keypoints of people who were found in consecutive frames.

    Args:
        jitter: mean length of the error of the acceleration, percent of the person's size per frame squared.
        error: mean distance from the truth, percent of the person's size.
        lag: frames by which the found velocities come after the true ones.
    """

    jitter: float
    error: float
    lag: float


def identity_metrics(
    similarities: Sequence[Array], identities: Sequence[NDArray[np.int64]], present: NDArray[np.bool_]
) -> IdentityMetrics:
    """ID switches, MOTA and IDF1 by their standard definitions.

    As in CLEAR MOT, a pair of the frame before stays a pair while it is similar enough; the others are joined
    for the largest sum. A switch is counted when a person of the truth is joined with another identity
    than the last time, also after a gap.

    Args:
        similarities: per frame (N, P) between found people and those of the truth, in [0, 1]; ``SAME`` or more fits.
        identities: per frame (N,) of the found people; those below 0 are left out.
        present: (F, P) whom the truth has in which frame.
    """
    missed = false = switches = found = 0
    last: dict[int, int] = {}
    for likeness, ids, there in zip(similarities, identities, present, strict=True):
        likeness = np.where(there, likeness, 0)[ids >= 0]
        ids = ids[ids >= 0]
        pairs = _continued(likeness, ids, last)
        found += len(ids)
        missed += int(there.sum()) - len(pairs)
        false += len(ids) - len(pairs)
        for row, person in pairs:
            switches += int(last.get(person, ids[row]) != ids[row])
            last[person] = int(ids[row])
    identified = _identified(similarities, identities, present)
    return IdentityMetrics(int(present.sum()), missed, false, switches, identified, found)


def _continued(likeness: Array, ids: NDArray[np.int64], last: dict[int, int]) -> list[tuple[int, int]]:
    """Rows and people of one frame that belong together; pairs that were stay."""
    weights = np.where(likeness >= SAME, likeness, 0)
    for person, identity in last.items():
        row = np.flatnonzero(ids == identity)
        if len(row) and weights[row[0], person] > 0:
            weights[row[0], person] += likeness.size  # outweighs all others together
    return assigned(weights, SAME)


def _identified(
    similarities: Sequence[Array], identities: Sequence[NDArray[np.int64]], present: NDArray[np.bool_]
) -> int:
    """The most detections that fit the truth when each person keeps one identity throughout."""
    names = np.unique(np.concatenate([ids[ids >= 0] for ids in identities]))
    together = np.zeros((len(names), present.shape[1]))
    for likeness, ids, there in zip(similarities, identities, present, strict=True):
        rows = np.flatnonzero(ids >= 0)
        fits = (likeness[rows] >= SAME) & there
        np.add.at(together, np.searchsorted(names, ids[rows]), fits)
    return int(together[linear_sum_assignment(together, maximize=True)].sum())


def similarities_of(found: Sequence[Poses], keypoints: Array, sizes: Array) -> list[Array]:
    """Per frame (N, P) OKS of found people with the truth: (F, P, K, 2) keypoints, (F, P) square roots of areas."""
    visible = np.ones((*keypoints.shape[:3], 1))
    truth = np.concatenate([keypoints, visible], axis=3)
    return [
        oks_matrix(poses.keypoints, people, np.square(size), poses.skeleton.sigmas)
        for poses, people, size in zip(found, truth, sizes, strict=True)
    ]


def trajectories(found: Sequence[Poses], similarities: Sequence[Array], shape: tuple[int, ...]) -> Array:
    """Found keypoints of each person of the truth, in the truth's shape (F, P, K, 2); NaN where nobody fits."""
    result = np.full(shape, np.nan)
    for frame, (poses, likeness) in enumerate(zip(found, similarities, strict=True)):
        for row, person in assigned(likeness, SAME):
            result[frame, person] = poses.keypoints[row]
    return result


def motion_metrics(found: Array, truth: Array, sizes: Array) -> MotionMetrics:
    """Jitter, error and lag of ``trajectories``; the first and the last are those of clips, see ``video.measures``.

    ValueError if nobody was found for long enough.
    """
    late = lag(motion_products(found, truth, sizes))
    if np.isnan(late):
        raise ValueError("nobody was found in enough consecutive frames, which measuring lag needs")
    return MotionMetrics(
        jitter=100 * float(np.nanmean(acceleration_errors(found, truth, sizes))),
        error=100 * float(np.nanmean(np.linalg.norm((found - truth) / sizes[..., None, None], axis=3))),
        lag=late,
    )


class RankIdentities:
    """No tracking: the best person of a frame is 0, the next one 1, ..."""

    def update(self, poses: Poses, timestamp: float) -> Poses:
        """The same poses with their places as ``track_ids``."""
        return replace(poses, track_ids=np.arange(len(poses)))


class IouTracker:
    """A plain tracker to compare with: boxes that overlap those last seen are the same person.

    ``memory``: seconds for which the box of somebody unseen is kept; 0 is the next frame alone.
    """

    def __init__(self, memory: float = 1.0) -> None:
        self.memory = memory
        self._ids, self._boxes, self._seen = np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0)
        self._next_id, self._timestamp = 1, 0.0

    def update(self, poses: Poses, timestamp: float) -> Poses:
        """The same poses with ``track_ids``."""
        kept = (timestamp - self._seen <= self.memory) | (self._seen == self._timestamp)
        boxes = poses.boxes.astype(np.float64)
        overlap = box_overlaps(boxes, self._boxes[kept])
        ids = np.full(len(poses), -1, np.int64)
        for row, column in assigned(overlap, 0.3):
            ids[row] = self._ids[kept][column]
        new = ids < 0
        ids[new] = self._next_id + np.arange(new.sum())
        self._next_id += int(new.sum())
        away = kept & ~np.isin(self._ids, ids)
        self._boxes = np.concatenate([boxes, self._boxes[away]])
        self._seen = np.concatenate([np.full(len(ids), timestamp), self._seen[away]])
        self._ids = np.concatenate([ids, self._ids[away]])
        self._timestamp = timestamp
        return replace(poses, track_ids=ids)


def box_overlaps(first: Array, second: Array) -> Array:
    """(N, M) intersection over union of boxes x0, y0, x1, y1; 0 for empty ones."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second)]
    return np.asarray(shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9))
