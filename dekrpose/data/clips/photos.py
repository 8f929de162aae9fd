"""Clips from photos with known keypoints: a camera that moves smoothly over a still scene."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dekrpose.data.clips.clip import Clip, ClipShape, Floats, camera_path, clip_times, through_camera
from dekrpose.data.dataset import KeypointDataset
from dekrpose.errors import DekrPoseError
from dekrpose.skeletons import COCO_17

_GREY = (124, 116, 104)


class PhotoClips:
    """Clips that a camera would film of photos of people with COCO's 17 keypoints; photos of nobody are left out.

    DekrPoseError if there are no such people.
    """

    def __init__(self, dataset: KeypointDataset) -> None:
        if dataset.skeleton.keypoints != COCO_17.keypoints:
            raise DekrPoseError(f"clips need COCO's 17 keypoints, {dataset.path} has {len(dataset.skeleton)} others")
        self.dataset = dataset
        self.indices = [index for index, photo in enumerate(dataset.photos) if photo.labelled]
        if not self.indices:
            raise DekrPoseError(f"{dataset.path} has nobody with keypoints to film")

    def __len__(self) -> int:
        return len(self.indices)

    def draw(self, index: int, rng: np.random.Generator, shape: ClipShape) -> Clip:
        """A clip of the photo with this index among those with people."""
        photo = self.indices[index]
        image, record = self.dataset.read(photo), self.dataset.photos[photo]
        still = np.stack([person.keypoints for person in record.labelled])
        times = clip_times(rng, shape)
        center, side = framing(still, rng)
        matrices, mirrored = camera_path(rng, shape, times, center, side)
        keypoints = through_camera(np.broadcast_to(still, (len(times), *still.shape)), matrices, shape.size, mirrored)
        frames = [filmed(image, matrix, shape.size) for matrix in matrices]
        unknown = self.dataset.ignored_mask(photo).astype(np.uint8)
        size = (shape.size, shape.size)
        ignored = [cv2.warpAffine(unknown, matrix, size, flags=cv2.INTER_NEAREST) > 0 for matrix in matrices]
        return Clip(
            frames=np.stack(frames),
            keypoints=keypoints,
            labelled=np.ones(len(times), bool),
            ignored=np.stack(ignored),
            times=times,
            name=record.file_name,
        )


def framing(people: NDArray[np.floating[Any]], rng: np.random.Generator) -> tuple[Floats, float]:
    """Where a camera looks: the center (2,) and side, image pixels, of what shows one of (P, 17, 3) people whole."""
    person = people[rng.integers(len(people))]
    xy = person[person[:, 2] > 0, :2].astype(np.float64)
    low, high = xy.min(axis=0), xy.max(axis=0)
    side = max(1.35 * float((high - low).max()), 48.0)
    return (low + high) / 2 + rng.uniform(-0.12, 0.12, 2) * side, side


def filmed(image: NDArray[np.uint8], matrix: Floats, size: int) -> NDArray[np.uint8]:
    """(size, size, 3) what a camera sees of a photo, grey beyond its border.

    Pixels are averaged before the photo is made much smaller.
    """
    zoom = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if zoom < 0.6:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), 0.4 / zoom), np.uint8)
    return np.asarray(cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderValue=_GREY), np.uint8)
