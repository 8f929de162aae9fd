"""Clips of drawn people who move in front of moving backgrounds; their truth is exact and no file is needed."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dekrpose.data.clips.bodies import CYCLES, MOTIONS, body
from dekrpose.data.clips.clip import (
    SPLITS,
    Clip,
    ClipShape,
    Floats,
    Split,
    camera_path,
    clip_times,
    through_camera,
    wander,
)
from dekrpose.data.clips.figures import background, draw_figure, draw_looks

_STAGE = 320
"""Side of the square that a camera at scale 1 shows, stage pixels."""
_HEIGHTS = (0.45, 0.95)  # of bodies, in stages
_PACE = 0.12  # stages a second that somebody walks, about
_NOISE = 4.0  # of the camera's sensor


class DrawnClips:
    """``count`` different drawn clips of one split; those of the other have other motions, clothes and backgrounds.

    ``people``: fewest and most in a clip.
    """

    def __init__(self, split: Split, count: int, people: tuple[int, int] = (1, 3)) -> None:
        if split not in SPLITS:
            raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
        self.split, self.count, self.people = split, count, people

    def __len__(self) -> int:
        return self.count

    def draw(self, index: int, rng: np.random.Generator, shape: ClipShape) -> Clip:
        """Draw a clip; what is in it is decided by ``rng``, the index gives it a name."""
        rng = np.random.default_rng([SPLITS.index(self.split), *rng.integers(0, 2**31, 4)])
        times = clip_times(rng, shape)
        matrices, mirrored = camera_path(rng, shape, times, np.full(2, _STAGE / 2), _STAGE)
        frames = self._backgrounds(rng, shape, times, matrices)
        people = int(rng.integers(self.people[0], self.people[1] + 1))
        keypoints = np.zeros((len(times), people, 17, 3))
        covered = np.zeros((people, *frames.shape[:3]), bool)
        for person in range(people):  # from back to front
            points, depths, height = self._person(rng, times, person / people)
            looks = draw_looks(rng, self.split)
            zooms = np.sqrt(np.abs(np.linalg.det(matrices[:, :, :2])))
            on_frame = np.einsum("tij,tkj->tki", matrices[:, :, :2], points) + matrices[:, None, :, 2]
            for index_in_time, frame in enumerate(frames):
                covered[person, index_in_time] = draw_figure(
                    frame, on_frame[index_in_time], depths[index_in_time], height * zooms[index_in_time], looks
                )
            keypoints[:, person] = np.concatenate([points, _seen(depths)[..., None]], axis=-1)
        moved = through_camera(keypoints, matrices, shape.size, mirrored)
        _hide(moved, covered)
        noisy = frames + rng.normal(0, rng.uniform(0, _NOISE), frames.shape)
        return Clip(
            frames=noisy.round().clip(0, 255).astype(np.uint8),
            keypoints=moved,
            labelled=np.ones(len(times), bool),
            ignored=np.zeros(frames.shape[:3], bool),
            times=times,
            name=f"drawn {self.split} {index}",
        )

    def _backgrounds(
        self, rng: np.random.Generator, shape: ClipShape, times: Floats, matrices: Floats
    ) -> NDArray[np.uint8]:
        """(T, size, size, 3): a picture behind the stage, which moves a little by itself."""
        picture = background(rng, self.split, 2 * _STAGE)
        own = rng.uniform(0, 0.3) * _STAGE * wander(rng, times, 2, shape.drift)
        frames = np.zeros((len(times), shape.size, shape.size, 3), np.uint8)
        for frame, matrix, shift in zip(frames, matrices, own, strict=True):
            there = matrix.copy()
            there[:, 2] += matrix[:, :2] @ (shift - _STAGE / 2)
            size = (shape.size, shape.size)
            cv2.warpAffine(picture, there, size, frame, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        return frames

    def _person(self, rng: np.random.Generator, times: Floats, nearness: float) -> tuple[Floats, Floats, float]:
        """Keypoints (T, 17, 2) and height in stage pixels, depths (T, 17) in heights."""
        kinds = list(MOTIONS[self.split].values())
        points = body(rng, times, kinds[rng.integers(len(kinds))], CYCLES[self.split])
        low, high = np.log(_HEIGHTS)
        height = _STAGE * float(np.exp(low + (high - low) * (0.5 * nearness + 0.5 * rng.random())))
        start = _STAGE * np.array([rng.uniform(0.2, 0.8), rng.uniform(0.42, 0.58)])
        pace = rng.normal(0, _PACE, 2) * (1.0, 0.15)
        way = start + _STAGE * (pace * (times - times.mean())[:, None] + wander(rng, times, 2, 0.04))
        return way[:, None] + height * points[..., :2], points[..., 2], height


def _seen(depths: Floats) -> Floats:
    """(T, 17) visibility: faces that look away and far ears are hidden by the own head."""
    seen = np.full(depths.shape, 2.0)
    away = depths[:, :1] <= depths[:, 3:5].mean(axis=1, keepdims=True)
    seen[:, :3] = np.where(away, 1, 2)
    for ear in (3, 4):
        seen[:, ear] = np.where(depths[:, ear] <= depths[:, 7 - ear] - 0.02, 1, 2)
    return seen


def _hide(keypoints: NDArray[np.float32], covered: NDArray[np.bool_]) -> None:
    """Mark keypoints behind people who are nearer as hidden, in place."""
    size = covered.shape[-1]
    for person in range(keypoints.shape[1] - 1):
        in_front = np.logical_or.reduce(covered[person + 1 :], axis=0)
        x, y = np.rint(keypoints[:, person, :, :2]).astype(int).clip(0, size - 1).transpose(2, 0, 1)
        hidden = in_front[np.arange(len(keypoints))[:, None], y, x]
        keypoints[:, person, :, 2] = np.minimum(keypoints[:, person, :, 2], np.where(hidden, 1, 2))
