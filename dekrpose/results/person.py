"""One person of a result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from dekrpose.draw.figure import counting
from dekrpose.errors import counted
from dekrpose.formats import finite_number
from dekrpose.formats.own_json import person_to_dict
from dekrpose.results import geometry
from dekrpose.skeletons import Skeleton


class Keypoint(NamedTuple):
    """One keypoint: x and y in image pixels, score in [0, 1]."""

    x: float
    y: float
    score: float


@dataclass(frozen=True, eq=False)
class Person:
    """One person of ``Poses``: a read-only view, not a copy.

    Args:
        keypoints: (K, 2) float32 xy, image pixels.
        keypoint_scores: (K,) float32 in [0, 1].
        score: the person's score in [0, 1].
        box: (4,) float32 x0, y0, x1, y1, image pixels; see ``Poses.boxes``.
        track_id: identity in a stream, or None.
        skeleton: names of the K keypoints.
        image_size: (height, width) of the image in pixels, or None.
        image: (H, W, 3) uint8 RGB, where the result keeps it.
    """

    keypoints: NDArray[np.float32]
    keypoint_scores: NDArray[np.float32]
    score: float
    box: NDArray[np.float32]
    track_id: int | None
    skeleton: Skeleton
    image_size: tuple[int, int] | None = None
    image: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.keypoints)

    def __getitem__(self, keypoint: str | int) -> Keypoint:
        """One keypoint by its name or channel; KeyError lists the names that exist."""
        channel = self.skeleton.index(keypoint) if isinstance(keypoint, str) else keypoint
        x, y = self.keypoints[channel].tolist()
        return Keypoint(x, y, float(self.keypoint_scores[channel]))

    def __iter__(self) -> Iterator[Keypoint]:
        return (self[channel] for channel in range(len(self)))

    def __repr__(self) -> str:
        track = "" if self.track_id is None else f", track_id={self.track_id}"
        box = ", ".join(f"{value:.0f}" for value in self.box)
        return f"Person(score={self.score:.2f}, box=[{box}], {counted(len(self), 'keypoint')}{track})"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types: score, box, track_id and keypoints by name, as in the ``people`` of ``Poses.to_dict``."""
        return person_to_dict(self)

    def crop(
        self, image: NDArray[np.uint8] | PIL.Image.Image | None = None, *, margin: float = 0.1
    ) -> NDArray[np.uint8]:
        """Cut the person out of the image.

        Args:
            image: (H, W) or (H, W, C) or a Pillow image, the one that was estimated; None takes the one that the result
                keeps.
            margin: around ``box``, as a share of its longer side; at least 0.

        Returns:
            A copy of that part of the image, cut at its border.

        Raises:
            TypeError: the image is something else.
            ValueError: no image was given or kept, it has another size, the person lies outside of it, or the margin
                is negative.
        """
        if finite_number(margin, "margin") < 0:
            raise ValueError(f"margin must be at least 0, a share of the box's longer side, got {margin!r}")
        image = self.image if image is None else np.asarray(image) if isinstance(image, PIL.Image.Image) else image
        if image is None:
            raise ValueError("this result holds no image (only estimate keeps it); hand it over: person.crop(image)")
        if not isinstance(image, np.ndarray) or image.ndim not in (2, 3):
            found = f"the shape {image.shape}" if isinstance(image, np.ndarray) else repr(image)
            raise TypeError(f"image must be an array (H, W) or (H, W, C) or a Pillow image, got {found}")
        if self.image_size is not None and image.shape[:2] != self.image_size:
            raise ValueError(f"this person is in an image of {self.image_size} (height, width), got {image.shape[:2]}")
        sides = self.box[2:] - self.box[:2]
        if not (sides > 0).all():
            raise ValueError("this person lies outside of the image, or on a single line of it; nothing can be cut")
        grown = np.concatenate([self.box[:2] - margin * sides.max(), self.box[2:] + margin * sides.max() + 1])
        limits = np.array([image.shape[1], image.shape[0]] * 2)
        x0, y0, x1, y1 = np.clip(grown, 0, limits).astype(int).tolist()
        return image[y0:y1, x0:x1].copy()

    def angle(self, joint: str, between: tuple[str, str] | None = None) -> float:
        """The angle at a joint in degrees, from 0 to 180 (stretched), of the points as placed.

        It is that in the picture: a limb that points at the camera looks bent. See ``geometry.angles_at`` for
        ``between`` and errors.
        """
        return float(geometry.angles_at(self.keypoints, self.skeleton, joint, between))

    def normalized(self) -> NDArray[np.float64]:
        """(K, 2) xy wherever and however large the person is; see ``Poses.normalized``."""
        counts = counting(self.keypoints[None], self.keypoint_scores[None])
        return np.asarray(geometry.normalized(self.keypoints[None], counts)[0])

    def similarity(self, other: Person, *, aligned: bool = True) -> float:
        """How alike two poses are, from 0 to 1 (the same), as object keypoint similarity.

        Args:
            other: of the same skeleton.
            aligned: compare shapes, wherever and however large both are. False compares places in one image, too.

        Raises:
            ValueError: the skeletons differ.
        """
        if other.skeleton != self.skeleton:
            raise ValueError(f"both people need one skeleton, got {self.skeleton.name!r} and {other.skeleton.name!r}")
        points = np.stack([self.keypoints, other.keypoints])
        common = counting(points, np.stack([self.keypoint_scores, other.keypoint_scores])).all(axis=0)
        return geometry.similarity(points[0], points[1], np.asarray(common), self.skeleton, aligned=aligned)
