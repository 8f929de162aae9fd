"""Object keypoint similarity: how well a predicted pose fits an annotated one, from 0 to 1; and who is who by it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment


def oks_matrix(predicted: ArrayLike, keypoints: ArrayLike, areas: ArrayLike, sigmas: ArrayLike) -> NDArray[np.float64]:
    """OKS between all predictions and all people, as COCO's evaluation computes it.

    The mean of exp(-d^2 / (2 * area * (2 * sigma)^2)) over the keypoints that a person has labelled.

    Args:
        predicted: (N, K, 2) xy, image pixels; N may be 0.
        keypoints: (P, K, 3) x, y, visibility of people, image pixels; visibility 0 is unlabelled; P may be 0.
        areas: (P,) square image pixels.
        sigmas: (K,) falloff constants of the skeleton (not doubled).

    Returns:
        (N, P) float64 in [0, 1]; 0 for people without labelled keypoints.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    sigmas = np.asarray(sigmas, np.float64)
    count = len(sigmas)
    predicted = _shaped(predicted, (count, 2), "predicted")
    keypoints = _shaped(keypoints, (count, 3), "keypoints")
    areas = np.asarray(areas, np.float64).reshape(-1)
    if len(areas) != len(keypoints):
        raise ValueError(f"expected one area per person, got {len(areas)} for {len(keypoints)} people")
    similarity = keypoint_similarity(predicted[:, None], keypoints, areas, sigmas).sum(axis=2)
    return np.asarray(similarity / np.maximum((keypoints[..., 2] > 0).sum(axis=1), 1), np.float64)


def keypoint_similarity(
    predicted: NDArray[Any], keypoints: NDArray[Any], areas: NDArray[Any], sigmas: Any
) -> NDArray[np.float64]:
    """(..., P, K) similarity of predicted keypoints (..., K, 2) to those of P people; 0 where they are not labelled."""
    squared = np.square(predicted - keypoints[..., :2], dtype=np.float64).sum(axis=-1)
    # The smallest step of a float, as in COCO's code: an area of 0 divides nothing by zero.
    falloff = 2 * (areas[:, None] + np.spacing(1)) * np.square(2 * np.asarray(sigmas))
    return np.asarray(np.where(keypoints[..., 2] > 0, np.exp(-squared / falloff), 0.0), np.float64)


def assigned(similarity: NDArray[np.floating], least: float) -> list[tuple[int, int]]:
    """Rows and columns of (N, P) that belong together for the largest sum, of those pairs that reach ``least``."""
    rows, columns = linear_sum_assignment(similarity, maximize=True)
    return [
        (row, column)
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
        if similarity[row, column] >= least
    ]


def _shaped(values: ArrayLike, tail: tuple[int, int], name: str) -> NDArray[Any]:
    array = np.asarray(values, np.float64)
    if array.size == 0:
        return np.zeros((0, *tail))
    if array.shape[1:] != tail or array.ndim != 3:
        raise ValueError(f"{name} must be (N, {tail[0]}, {tail[1]}), got {array.shape}")
    return array
