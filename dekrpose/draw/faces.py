"""Faces made unrecognisable: a few averages in place of each head's pixels."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dekrpose.draw.figure import counting
from dekrpose.skeletons import Skeleton

_HEAD = {"nose", "eye", "ear", "mouth", "chin", "face", "head", "forehead"}
_CELLS = 4  # averages across a face: too few for anyone to be recognised, or restored


def blur_faces(
    canvas: NDArray[np.uint8],
    keypoints: NDArray[np.float32],
    keypoint_scores: NDArray[np.float32],
    skeleton: Skeleton,
) -> None:
    """Blur, in place, a disc over the head of everyone.

    Args:
        canvas: (H, W, 3) uint8.
        keypoints: (N, K, 2) xy, pixels of the canvas.
        keypoint_scores: (N, K).
        skeleton: names of the K keypoints.

    Raises:
        ValueError: the skeleton has no keypoint on the head.
    """
    head = [channel for channel, name in enumerate(skeleton.keypoints) if _HEAD & set(name.split("_"))]
    if not head:
        raise ValueError(f"blur_faces needs keypoints of the head (nose, eyes, head_top ...); {skeleton.name} has none")
    names = skeleton.keypoints
    shoulders = [names.index(name) for name in ("left_shoulder", "right_shoulder") if name in names]
    lone_head = [names.index("neck")] if len(head) == 1 and "neck" in names else []
    for points, counts in zip(keypoints, counting(keypoints, keypoint_scores), strict=True):
        placed = np.isfinite(points).all(axis=1)
        seen = [channel for channel in head + lone_head if counts[channel]]
        seen = seen or [channel for channel in head + lone_head if placed[channel]]  # better too much than too little
        if not seen:
            continue
        low, high = points[seen].min(axis=0), points[seen].max(axis=0)
        widths = [2.2 * float(np.hypot(*(high - low))) / 2]
        if len(shoulders) == 2 and placed[shoulders].all():
            widths.append(0.5 * float(np.hypot(*(points[shoulders[0]] - points[shoulders[1]]))))
        if counts.any():
            widths.append(0.09 * float(np.hypot(*np.ptp(points[counts], axis=0))))
        _blur(canvas, (low + high) / 2, max(*widths, 4.0))


def _blur(canvas: NDArray[np.uint8], center: NDArray[np.float32], radius: float) -> None:
    limits = np.array([canvas.shape[1], canvas.shape[0]])
    left, top = np.clip(np.floor(center - radius), 0, limits).astype(int).tolist()
    right, bottom = np.clip(np.ceil(center + radius) + 1, 0, limits).astype(int).tolist()
    width, height = right - left, bottom - top
    if width < 1 or height < 1:
        return
    region = canvas[top:bottom, left:right]
    cell = 2 * radius / _CELLS
    few = cv2.resize(region, (max(round(width / cell), 1), max(round(height / cell), 1)), interpolation=cv2.INTER_AREA)
    smooth = cv2.resize(few, (width, height), interpolation=cv2.INTER_LINEAR)
    rows, columns = np.ogrid[top:bottom, left:right]
    disc = (columns - center[0]) ** 2 + (rows - center[1]) ** 2 <= radius**2
    region[disc] = smooth[disc]
