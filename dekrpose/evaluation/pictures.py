"""Small pictures of a photo for a report: what was predicted, and what is annotated."""

from __future__ import annotations

import base64
import io

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dekrpose.data.dataset import Photo
from dekrpose.draw import draw_poses
from dekrpose.evaluation.errors import Mark
from dekrpose.evaluation.predictions import Prediction
from dekrpose.results import Poses
from dekrpose.skeletons import Skeleton

_QUALITY = 80
_WRONG, _IGNORED = (255, 64, 64), (190, 190, 190)
_MARGIN = 0.06  # of a box around keypoints, as a share of its longer side


def predicted_picture(
    image: NDArray[np.uint8], shown: Prediction, mark: Mark, skeleton: Skeleton, side: int
) -> NDArray[np.uint8]:
    """The photo (H, W, 3) uint8 RGB with the predicted poses; a red box around those of nobody.

    The picture's longer side is at most ``side`` pixels. ``shown`` are the poses that the mark is about, image pixels.
    """
    small, scale = _shrunk(image, side)
    keypoints = _scaled(shown.keypoints, scale)
    picture = _drawn(small, keypoints, shown.keypoint_scores.clip(0, 1), shown.scores.clip(0, 1), skeleton)
    for pose in mark.false:
        _box(picture, keypoints[pose], _WRONG)
    return picture


def annotated_picture(
    image: NDArray[np.uint8], photo: Photo, mark: Mark, skeleton: Skeleton, side: int
) -> NDArray[np.uint8]:
    """The same with the annotated people; a red box around those who are missed, a grey one around the ignored."""
    small, scale = _shrunk(image, side)
    people = photo.labelled
    triples = np.array([person.keypoints for person in people], np.float32).reshape(-1, len(skeleton), 3)
    keypoints, labelled = _scaled(triples[..., :2], scale), triples[..., 2] > 0
    picture = _drawn(small, keypoints, labelled.astype(np.float32), np.ones(len(people), np.float32), skeleton)
    for person in photo.people:
        if person.ignored:
            corners = np.array([person.box[:2], person.box[:2] + person.box[2:]])
            _box(picture, _scaled(corners, scale), _IGNORED, margin=0)
    for points, seen, oks in zip(keypoints, labelled, mark.oks, strict=True):
        if oks == 0:
            _box(picture, points[seen], _WRONG)
    return picture


def jpeg_uri(picture: NDArray[np.uint8]) -> str:
    """A (H, W, 3) uint8 RGB picture as a ``data:`` URI."""
    buffer = io.BytesIO()
    # Thin coloured limbs lose their colour under chroma subsampling.
    Image.fromarray(picture).save(buffer, "JPEG", quality=_QUALITY, subsampling=0, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _shrunk(image: NDArray[np.uint8], side: int) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """The photo, no longer than ``side``, and the x and y scale that led there."""
    height, width = image.shape[:2]
    factor = min(1.0, side / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if factor < 1 else image
    return np.asarray(small, np.uint8), (size[0] / width, size[1] / height)


def _scaled(points: NDArray[np.float32], scale: tuple[float, float]) -> NDArray[np.float32]:
    """Pixel centers are integers in both frames."""
    return np.asarray((points + 0.5) * np.array(scale) - 0.5, np.float32)


def _drawn(
    image: NDArray[np.uint8],
    keypoints: NDArray[np.float32],
    keypoint_scores: NDArray[np.float32],
    scores: NDArray[np.float32],
    skeleton: Skeleton,
) -> NDArray[np.uint8]:
    size = (image.shape[0], image.shape[1])
    poses = Poses(
        keypoints=keypoints, keypoint_scores=keypoint_scores, scores=scores, skeleton=skeleton, image_size=size
    )
    return draw_poses(image, poses)


def _box(
    picture: NDArray[np.uint8], points: NDArray[np.float32], color: tuple[int, int, int], margin: float = _MARGIN
) -> None:
    """Draw the box of points (N, 2) into the picture, with a dark rim, cut to what is visible."""
    low, high = points.min(axis=0), points.max(axis=0)
    grown = margin * float((high - low).max())
    limits = np.array([picture.shape[1], picture.shape[0]]) - 2
    corners = np.stack([low - grown, high + grown]).clip(1, limits).round().astype(int).tolist()
    for shade, thickness in (((0, 0, 0), 4), (color, 2)):
        cv2.rectangle(picture, corners[0], corners[1], shade, thickness)
