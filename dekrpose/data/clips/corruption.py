"""What goes wrong with a video's pictures: blur, noise, things in the way, lost frames, for a few frames at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from dekrpose.data.clips.clip import Clip

Frames = NDArray[np.uint8]
BURST = (1, 5)
"""Fewest and most frames in a row that are spoilt."""
_GAP = (2, 5)  # good frames between bursts


def corrupt(clip: Clip, kind: str, rng: np.random.Generator) -> tuple[Clip, NDArray[np.bool_]]:
    """Spoil a clip's pictures in bursts of 1 to 5 frames with good ones between; its people stay what they are.

    The kind is "clean" or one of ``CORRUPTIONS``, else ValueError; also says (T,) which frames were spoilt.
    """
    spoilt = np.zeros(len(clip), bool)
    if kind == "clean":
        return clip, spoilt
    if kind not in CORRUPTIONS:
        raise ValueError(f"kind must be clean or one of {tuple(CORRUPTIONS)}, got {kind!r}")
    frames = clip.frames.copy()
    start = int(rng.integers(0, _GAP[1]))
    while start < len(clip):
        stop = min(start + int(rng.integers(BURST[0], BURST[1] + 1)), len(clip))
        before = frames[start - 1] if start else None
        frames[start:stop] = CORRUPTIONS[kind](frames[start:stop], before, rng)
        spoilt[start:stop] = True
        start = stop + int(rng.integers(_GAP[0], _GAP[1] + 1))
    return replace(clip, frames=frames), spoilt


def _blur(frames: Frames, before: Frames | None, rng: np.random.Generator) -> Frames:
    """Out of focus, or smeared along a line."""
    side = frames.shape[1]
    if rng.random() < 0.5:
        sigma = side * float(rng.uniform(0.012, 0.03))
        return np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in frames]).astype(np.uint8)
    length, angle = int(side * rng.uniform(0.06, 0.14)) | 1, float(rng.uniform(0, 180))
    line = np.zeros((length, length), np.float32)
    line[length // 2] = 1
    kernel = cv2.warpAffine(line, cv2.getRotationMatrix2D((length // 2, length // 2), angle, 1), (length, length))
    kernel = kernel / kernel.sum()
    return np.stack([cv2.filter2D(frame, -1, kernel) for frame in frames]).astype(np.uint8)


def _noise(frames: Frames, before: Frames | None, rng: np.random.Generator) -> Frames:
    """A sensor in the dark, with pixels that fail."""
    noisy = frames + rng.normal(0, rng.uniform(30, 70), frames.shape)
    dead = rng.random(frames.shape[:3]) < rng.uniform(0, 0.05)
    noisy[dead] = rng.choice((0.0, 255.0), (int(dead.sum()), 1))
    return noisy.round().clip(0, 255).astype(np.uint8)


def _occluders(frames: Frames, before: Frames | None, rng: np.random.Generator) -> Frames:
    """Bars, boxes and smooth blobs in front, which drift a little."""
    frames = frames.copy()
    side = frames.shape[1]
    for _ in range(int(rng.integers(1, 4))):
        kind, center, drift = int(rng.integers(3)), rng.uniform(0.2, 0.8, 2) * side, rng.normal(0, 0.01, 2) * side
        width, height = rng.uniform(0.15, 0.4, 2) * side
        angle, color = float(rng.uniform(0, 180)), rng.uniform(0, 255, 3)
        if kind == 0:
            width, height = 3.0 * side, float(rng.uniform(0.06, 0.18)) * side
        for index, frame in enumerate(frames):
            mask = np.zeros(frame.shape[:2], np.float32)
            middle = center + index * drift
            if kind < 2:
                box = ((float(middle[0]), float(middle[1])), (float(width), float(height)), angle)
                cv2.fillConvexPoly(mask, np.rint(cv2.boxPoints(box)).astype(np.int32), 1.0, cv2.LINE_AA)
            else:
                axes = int(width / 2) + 1, int(height / 2) + 1
                cv2.ellipse(mask, np.rint(middle).astype(int).tolist(), axes, angle, 0, 360, 1.0, -1)
                mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), 0.03 * side), np.float32)
            frame[:] = np.rint(frame + mask[..., None] * (color - frame)).clip(0, 255)
    return frames


def _dropped(frames: Frames, before: Frames | None, rng: np.random.Generator) -> Frames:
    """Lost frames: the last good one again, or grey where there is none, and now and then anyway."""
    if before is None or rng.random() < 0.5:
        return np.full_like(frames, rng.integers(0, 256))
    return np.broadcast_to(before, frames.shape).copy()


CORRUPTIONS: Mapping[str, Callable[[Frames, Frames | None, np.random.Generator], Frames]] = {
    "blurred": _blur,
    "noisy": _noise,
    "occluded": _occluders,
    "dropped": _dropped,
}
"""Each takes the frames of a burst and the frame before it, if any."""
