"""Clips made from a seed: walking people whose identities and positions are known, and what a detector sees of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dekrpose.data.clips.walkers import Array, film, walk
from dekrpose.results import Poses
from dekrpose.skeletons import COCO_17
from dekrpose.tracking.tracks import person_areas

IMAGE_SIZE = (720, 1280)
RATE, SWAY = 30.0, 10.0
"""Frames per second, and pixels by which the camera sways."""
HIDDEN_SHARE = 0.6
"""Who has this share of the keypoints behind nearer people is not detected."""
LONG_OCCLUSION = 10
"""Frames of being hidden after which a crossing counts as one with an occlusion."""


@dataclass(frozen=True)
class Detector:
    """How a detector errs. Sizes are square roots of people's areas.

    Args:
        noise: standard deviation of a keypoint, in OKS sigmas times the person's size.
        shake: standard deviation of the pose as a whole, in sizes.
        memory: correlation of both errors from frame to frame.
        missed: share of frames in which somebody plainly visible is not detected; misses come in small bursts.
        false: false people in a frame, on average; a third of them stay for a few frames.
        wild: share of keypoints that are somewhere else, most of them with a low score.
    """

    noise: float = 0.7
    shake: float = 0.02
    memory: float = 0.3
    missed: float = 0.03
    false: float = 0.15
    wild: float = 0.01


@dataclass(frozen=True)
class MadeClip:
    """F frames with P people.

    Attributes:
        detections: what the detector found, with index and timestamp, best first.
        keypoints: (F, P, 17, 2) the truth, image pixels.
        visible, hidden: (F, P) who is in the image, and can be detected or is hidden behind somebody.
    """

    detections: tuple[Poses, ...]
    keypoints: Array
    visible: NDArray[np.bool_]
    hidden: NDArray[np.bool_]

    @property
    def sizes(self) -> Array:
        """(F, P) the square roots of people's areas, image pixels."""
        frames, people = self.hidden.shape
        points = self.keypoints.reshape(frames * people, -1, 2)
        return np.sqrt(person_areas(points, np.ones(points.shape[:2]))).reshape(frames, people)

    def occlusions(self) -> NDArray[np.intp]:
        """(P,) how often each person was hidden for ``LONG_OCCLUSION`` frames or longer, and came back."""
        counts = []
        for edges in np.diff(np.pad(self.hidden.astype(np.int8), ((1, 1), (0, 0))), axis=0).T:
            start, stop = np.flatnonzero(edges).reshape(-1, 2).T
            counts.append(((stop - start >= LONG_OCCLUSION) & (stop < len(self.hidden))).sum())
        return np.array(counts, np.intp)


def make_clip(
    seed: int,
    *,
    people: int = 6,
    frames: int = 1200,
    detector: Detector | None = None,
    stops: float = 0.0,
    least_occlusions: int = 3,
    see_through: bool = False,
) -> MadeClip:
    """A clip in which everybody is hidden at least ``least_occlusions`` times for ten frames or longer.

    People walk from side to side, each time at another depth; with ``stops`` they also stand still on the way, that
    many times a second on average, and come out from behind others when no motion foretells it. With ``see_through``
    nobody is hidden. Paths are drawn anew until that holds, from the same seed, so the same arguments give the same
    clip. ValueError if no such paths were found, because the clip is too short or has too few people.
    """
    random = np.random.default_rng([seed, people, frames])
    for _ in range(50):
        walked = walk(random, people, frames, RATE, stops)
        keypoints = film(random, walked, IMAGE_SIZE, RATE, SWAY)
        covered = _covered(keypoints, walked.places[..., 1])
        middles = keypoints[:, :, 5:13].mean(axis=2)
        inside = ((middles >= 0) & (middles < IMAGE_SIZE[::-1])).all(axis=2)
        hidden = inside & (covered.mean(axis=2) >= HIDDEN_SHARE) & (not see_through)
        clip = MadeClip((), keypoints, inside & ~hidden, hidden)
        if clip.occlusions().min() >= least_occlusions:
            found = _detect(random, clip, covered, walked.places[..., 1], detector or Detector())
            return MadeClip(found, keypoints, clip.visible, hidden)
    raise ValueError(
        f"no paths of {people} people in {frames} frames hide everybody {least_occlusions} times; "
        "make the clip longer, or ask for fewer occlusions"
    )


def _covered(keypoints: Array, distances: Array) -> NDArray[np.bool_]:
    """(F, P, 17) which keypoints lie within the box of somebody nearer."""
    low, high = keypoints.min(axis=2), keypoints.max(axis=2)
    points = keypoints[:, :, None]
    within = ((points >= low[:, None, :, None]) & (points <= high[:, None, :, None])).all(axis=4)
    nearer = distances[:, None, :] < distances[:, :, None]
    return np.asarray((within & nearer[..., None]).any(axis=2))


def _detect(
    random: np.random.Generator, clip: MadeClip, covered: NDArray[np.bool_], distances: Array, detector: Detector
) -> tuple[Poses, ...]:
    frames, people = clip.visible.shape
    sizes = clip.sizes
    sigmas = np.array(COCO_17.sigmas)
    own = _drifting(random, (frames, people, 17, 2), detector.memory) * (detector.noise * sigmas[:, None])
    shake = _drifting(random, (frames, people, 1, 2), detector.memory) * detector.shake
    weak = 1 + 2.0 * covered[..., None]
    found = clip.keypoints + (own * weak + shake) * sizes[..., None, None]
    wild = random.random((frames, people, 17)) < detector.wild
    found = found + wild[..., None] * random.normal(0, 0.5, found.shape) * sizes[..., None, None]
    # A bottom-up detector takes a hidden keypoint for that of the person in front.
    in_front = _nearest_in_front(clip.keypoints, distances)
    mixed = covered & (random.random(covered.shape) < 0.3)
    found = np.where(mixed[..., None], in_front + own * sizes[..., None, None], found)
    person_scores = random.uniform(0.55, 0.9, people) + 0.06 * _drifting(random, (frames, people), 0.8)
    person_scores = np.clip(person_scores * (1 - 0.7 * covered.mean(axis=2)), 0.03, 0.99)
    factors = random.uniform(0.75, 1.1, (frames, people, 17)) * np.where(covered, 0.35, 1)
    factors = factors * np.where(wild & (random.random(wild.shape) < 0.8), random.uniform(0.05, 0.4, wild.shape), 1)
    missed = _missed(random, (frames, people), detector.missed) | ~clip.visible
    ghosts = _ghosts(random, clip, detector.false)
    poses = []
    for frame in range(frames):
        there = np.flatnonzero(~missed[frame])
        points = np.concatenate([found[frame, there], *[ghost[None] for ghost, _ in ghosts[frame]]])
        scores = np.concatenate([person_scores[frame, there], [score for _, score in ghosts[frame]]])
        shares = np.concatenate([factors[frame, there], random.uniform(0.4, 1.1, (len(ghosts[frame]), 17))])
        order = np.argsort(-scores, kind="stable")
        poses.append(
            Poses(
                keypoints=points[order],
                keypoint_scores=np.clip(scores[:, None] * shares, 0, 1)[order],
                scores=scores[order],
                skeleton=COCO_17,
                image_size=IMAGE_SIZE,
                index=frame,
                timestamp=frame / RATE,
            )
        )
    return tuple(poses)


def _drifting(random: np.random.Generator, shape: tuple[int, ...], memory: float) -> Array:
    """Normal noise of variance 1, correlated along the first axis."""
    noise = random.normal(size=shape)
    for frame in range(1, shape[0]):
        noise[frame] = memory * noise[frame - 1] + np.sqrt(1 - memory**2) * noise[frame]
    return noise


def _missed(random: np.random.Generator, shape: tuple[int, int], share: float) -> NDArray[np.bool_]:
    """Misses in bursts of two frames on average."""
    starts, goes_on = random.random(shape) < share / 2, random.random(shape) < 0.5
    missed = starts.copy()
    for frame in range(1, shape[0]):
        missed[frame] |= missed[frame - 1] & goes_on[frame]
    return missed


def _nearest_in_front(keypoints: Array, distances: Array) -> Array:
    """(F, P, 17, 2) the keypoints of whoever is nearer to the camera and nearest in the image; else the own."""
    middles = keypoints.mean(axis=2)
    apart = np.linalg.norm(middles[:, :, None] - middles[:, None], axis=3)
    apart = np.where(distances[:, None, :] < distances[:, :, None], apart, np.inf)
    chosen = np.where(np.isfinite(apart).any(axis=2), apart.argmin(axis=2), np.arange(keypoints.shape[1]))
    return np.asarray(np.take_along_axis(keypoints, chosen[..., None, None], axis=1))


def _ghosts(random: np.random.Generator, clip: MadeClip, rate: float) -> list[list[tuple[Array, float]]]:
    """False people of each frame: keypoints and score. Half are doubles of people, the others anywhere."""
    frames, people = clip.visible.shape
    ghosts: list[list[tuple[Array, float]]] = [[] for _ in range(frames)]
    lasting_mean = 2 / 3 + 6 / 3
    for frame in range(frames):
        for _ in range(random.poisson(rate / lasting_mean)):
            lasting = int(random.integers(3, 10)) if random.random() < 1 / 3 else 1
            person = int(random.integers(people))
            size = clip.sizes[frame, person]
            pose = clip.keypoints[frame, person] + random.normal(0, 0.1, (17, 2)) * size
            double = random.random() < 0.5
            shift = random.normal(0, 0.4, 2) * size if double else random.uniform(-1, 1, 2) * IMAGE_SIZE[::-1] / 2
            score = random.uniform(0.05, 0.35)
            for later in range(frame, min(frame + lasting, frames)):
                ghosts[later].append((pose + shift + random.normal(0, 0.03, (17, 2)) * size, score))
    return ghosts
