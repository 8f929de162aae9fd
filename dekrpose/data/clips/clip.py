"""What a clip is, where clips come from, and the one change of frame that a clip's pictures and people share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from dekrpose.skeletons import COCO_17

Floats = NDArray[np.floating[Any]]
Split = Literal["train", "test"]
SPLITS: tuple[Split, Split] = ("train", "test")
RATE = 25.0
"""Frames per second of made clips, and of data sets that do not say theirs."""


@dataclass(frozen=True, eq=False)
class Clip:
    """T frames with at most P people of COCO's 17 keypoints.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB.
        keypoints: (T, P, 17, 3) float32 x, y, visibility, pixels of the frames; 0 is unlabelled or outside, 1 is
            hidden, 2 is visible; one person keeps its place through the clip; P may be 0.
        labelled: (T,) whether the frame's people are known.
        ignored: (T, H, W) True where people are not annotated.
        times: (T,) seconds from the first frame.
        name: says where it comes from.
    """

    frames: NDArray[np.uint8]
    keypoints: NDArray[np.float32]
    labelled: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    times: Floats
    name: str

    def __len__(self) -> int:
        return len(self.frames)

    def in_order(self, order: NDArray[np.intp]) -> Clip:
        """The same frames in another order, at the old times."""
        parts = {name: getattr(self, name)[order] for name in ("frames", "keypoints", "labelled", "ignored")}
        return replace(self, **parts)


@dataclass(frozen=True)
class ClipShape:
    """How clips are cut.

    Args:
        frames: of one clip, in order.
        size: side of the square frames, pixels.
        strides: fewest and most frames of the source from one frame to the next; one number for a clip.
        rotation: largest turn of a clip, degrees.
        scale: smallest and largest side of what fills a frame, in sides that show a person or photo whole.
        flip: probability of mirroring a clip.
        drift: how far the camera moves in a second, in sides of the frame, about.
    """

    frames: int = 8
    size: int = 160
    strides: tuple[int, int] = (1, 3)
    rotation: float = 20.0
    scale: tuple[float, float] = (0.8, 1.3)
    flip: float = 0.5
    drift: float = 0.25

    def __post_init__(self) -> None:
        if self.frames < 1 or self.size < 32 or not 1 <= self.strides[0] <= self.strides[1]:
            raise ValueError(
                "a clip has at least one frame of at least 32 pixels and strides from 1 upwards, got "
                f"{self.frames} frames, {self.size} pixels, strides {self.strides}"
            )


class ClipSource(Protocol):
    """Draws clips; ``rng`` and the index alone decide what a clip looks like."""

    def __len__(self) -> int: ...
    def draw(self, index: int, rng: np.random.Generator, shape: ClipShape) -> Clip: ...


def clip_times(rng: np.random.Generator, shape: ClipShape) -> Floats:
    """(T,) seconds: one stride for the whole clip."""
    stride = int(rng.integers(shape.strides[0], shape.strides[1] + 1))
    return np.arange(shape.frames) * (stride / RATE)


def wander(rng: np.random.Generator, times: Floats, channels: int, speed: float) -> Floats:
    """(T, channels) smooth curves that begin at 0: three slow waves whose mean speed is about ``speed`` a second."""
    frequencies = rng.uniform(0.15, 0.9, (3, channels))
    phases = rng.uniform(0, 2 * np.pi, (3, channels))
    amplitudes = speed * rng.uniform(0.2, 1.0, (3, channels)) / (2 * np.pi * frequencies)
    waves = amplitudes * np.sin(2 * np.pi * frequencies * times[:, None, None] + phases)
    return np.asarray((waves - waves[:1]).sum(axis=1))


def camera_path(
    rng: np.random.Generator, shape: ClipShape, times: Floats, center: Floats, side: float
) -> tuple[Floats, bool]:
    """One affine map for the clip with a small smooth drift on it, and whether the frames are mirrored.

    ``center`` (2,) comes near the middle of the first frame, ``side`` is that of the region that fills a frame at scale
    1, both source pixels. The maps (T, 2, 3) lead from source pixels to frame pixels, the mirror inside.
    """
    side = side * float(np.exp(rng.uniform(*np.log(shape.scale))))
    angle = np.deg2rad(rng.uniform(-shape.rotation, shape.rotation))
    mirrored = bool(rng.random() < shape.flip)
    drift = shape.drift * float(rng.uniform(0, 1))
    paths = wander(rng, times, 4, 1.0) * (drift * np.array([1, 1, 0.4, 0.3]))
    angles, zooms = angle + paths[:, 3], shape.size / side * np.exp(paths[:, 2])
    cosines, sines = zooms * np.cos(angles), zooms * np.sin(angles)
    linear = np.stack([np.stack([cosines, sines], -1), np.stack([-sines, cosines], -1)], -2)
    middle = (shape.size - 1) / 2 + shape.size * paths[:, :2]
    matrices = np.concatenate([linear, (middle - linear @ center)[..., None]], axis=2)
    if mirrored:
        matrices[:, 0] *= -1
        matrices[:, 0, 2] += shape.size - 1
    return matrices, mirrored


def through_camera(keypoints: NDArray[np.floating], matrices: Floats, size: int, mirrored: bool) -> NDArray[np.float32]:
    """People in the frames' pixels; those keypoints that lie outside become unlabelled.

    Keypoints (T, P, 17, 3) are x, y, visibility in source pixels, matrices (T, 2, 3) those of ``camera_path``, ``size``
    is the side of the frames; ``mirrored``: left and right change places.
    """
    moved = np.array(keypoints, np.float64)
    moved[..., :2] = np.einsum("tij,tpkj->tpki", matrices[:, :, :2], moved[..., :2]) + matrices[:, None, None, :, 2]
    if mirrored:
        moved = moved[:, :, list(COCO_17.flip_indices)]
    inside = (moved[..., :2] >= -0.5).all(-1) & (moved[..., :2] < size - 0.5).all(-1)
    moved[..., 2] *= inside
    return moved.astype(np.float32)
