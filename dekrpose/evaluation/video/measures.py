"""Measures of a clip: the seed's local NMS score, OKS, acceleration error, lag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dekrpose.data.clips.clip import Clip, Floats
from dekrpose.data.oks import assigned, oks_matrix
from dekrpose.evaluation.predictions import Prediction
from dekrpose.evaluation.video.precision import Detections, areas_of, detections_of
from dekrpose.skeletons import COCO_17

SAME = 0.1
"""A pose belongs to somebody from this OKS on, as in the evaluation of photos."""
LAGS = np.arange(-4, 5)
"""Frames by which motion is shifted to find the lag."""
_FASTEST = 0.5  # sizes a frame; keypoints that jump farther are mistakes, not motion


@dataclass(frozen=True, eq=False)
class ClipMeasures:
    """How a clip went.

    Attributes:
        series: (T,) pose-NMS score of the best person of each frame, times 100; 0 without one.
        oks: (n,) of everybody in every labelled frame; 0 for those who were missed.
        acceleration: (T, P) acceleration errors, see ``acceleration_errors``.
        products: (9, 3) sums for the lag, see ``motion_products``.
        detections: for AP.
    """

    series: Floats
    oks: Floats
    acceleration: Floats
    products: Floats
    detections: Detections

    @property
    def local_nms_score(self) -> float:
        """The seed project's measure: the mean of ``series``."""
        return float(self.series.mean())


def measure(clip: Clip, found: Sequence[Prediction], threshold: float) -> ClipMeasures:
    """Compare what was found in each frame, frame pixels, with a clip's people; the threshold holds for all but AP."""
    if len(found) != len(clip):
        raise ValueError(f"expected what was found in each of {len(clip)} frames, got {len(found)}")
    shown = [prediction.shown(threshold) for prediction in found]
    matched, oks = match(clip, shown)
    truth = np.where(clip.keypoints[..., 2:] > 0, clip.keypoints[..., :2], np.nan).astype(np.float64)
    sizes = np.stack([np.sqrt(areas_of(people)) for people in clip.keypoints])
    return ClipMeasures(
        series=local_nms_scores(shown),
        oks=oks,
        acceleration=acceleration_errors(matched, truth, sizes),
        products=motion_products(matched, truth, sizes),
        detections=detections_of(clip, found),
    )


def local_nms_scores(shown: Sequence[Prediction]) -> Floats:
    """(T,) the best score of each frame times 100; a frame without a person counts 0."""
    return np.array([100 * float(people.scores.max(initial=0.0)) for people in shown])


def match(clip: Clip, shown: Sequence[Prediction]) -> tuple[Floats, Floats]:
    """(T, P, 17, 2) the pose of each person, NaN where it has none; and the OKS of everybody in a labelled frame.

    In every frame poses are assigned to people for the highest total OKS.
    """
    matched = np.full((*clip.keypoints.shape[:3], 2), np.nan)
    similarities: list[float] = []
    for time in np.flatnonzero(clip.labelled).tolist():
        present = np.flatnonzero((clip.keypoints[time, ..., 2] > 0).any(axis=1))
        truth, points = clip.keypoints[time, present], shown[time].keypoints
        oks = oks_matrix(points, truth, areas_of(truth), COCO_17.sigmas)
        best = np.zeros(len(present))
        for row, column in assigned(oks, SAME):
            best[column] = oks[row, column]
            matched[time, present[column]] = points[row]
        similarities += best.tolist()
    return matched, np.array(similarities)


def acceleration_errors(found: Floats, truth: Floats, sizes: Floats) -> Floats:
    """How far the second difference of found keypoints is from that of the truth, in sizes of the person.

    Found and true keypoints are (T, P, K, 2) pixels, NaN where there is none, sizes (T, P) square roots of areas,
    pixels. (T, P) means over keypoints of |d2 found - d2 truth| / size around each frame; NaN where a person was not
    found in three consecutive frames, and at both ends.
    """
    error = found - truth
    values = np.full(error.shape[:2], np.nan)
    if len(error) < 3:
        return values
    second = np.linalg.norm(error[2:] - 2 * error[1:-1] + error[:-2], axis=-1)
    known = np.isfinite(second)
    mean = np.where(known, second, 0).sum(axis=-1) / np.maximum(known.sum(axis=-1), 1)
    values[1:-1] = np.where(known.any(axis=-1), mean / sizes[1:-1], np.nan)
    return values


def motion_products(found: Floats, truth: Floats, sizes: Floats) -> Floats:
    """Sums from which ``lag`` makes the correlation of found with true motion, so that clips can be added up.

    (9, 3) for each of ``LAGS``: sum of products of found velocity at t + lag with true velocity at t, and of both
    squares; takes what ``acceleration_errors`` does.
    """
    scale = sizes[1:, :, None, None]
    moved, moves = np.diff(found, axis=0) / scale, np.diff(truth, axis=0) / scale
    moved = np.where(np.linalg.norm(moved, axis=-1, keepdims=True) > _FASTEST, np.nan, moved)
    sums = np.zeros((len(LAGS), 3))
    for row, lag in enumerate(LAGS.tolist()):
        if abs(lag) >= len(moves):
            continue
        late, early = (moved[lag:], moves[: len(moves) - lag]) if lag >= 0 else (moved[:lag], moves[-lag:])
        both = np.isfinite(late) & np.isfinite(early)
        a, b = np.where(both, late, 0), np.where(both, early, 0)
        sums[row] = (a * b).sum(), (a * a).sum(), (b * b).sum()
    return sums


def lag(products: Floats) -> float:
    """Frames by which found motion comes later than the true one: where their correlation is highest.

    From (9, 3) sums of ``motion_products``; between frames by the parabola through the peak and its neighbours.
    Negative is ahead of the truth, NaN where nothing moves.
    """
    energy = np.sqrt(products[:, 1] * products[:, 2])
    if not (energy > 0).all():
        return float("nan")
    curve = products[:, 0] / energy
    peak = int(curve[1:-1].argmax()) + 1
    before, here, after = curve[peak - 1 : peak + 2]
    bend = before - 2 * here + after
    shift = 0.5 * (before - after) / bend if bend < 0 else 0.0
    return float(LAGS[peak] + np.clip(shift, -1, 1))


def mean_of(values: NDArray[np.float64]) -> float:
    """The mean of what is known; NaN of nothing."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")
