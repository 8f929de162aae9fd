"""What tracking knows about people, and its maths: motion, similarity, shape. Pure functions of arrays."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dekrpose.skeletons import Skeleton

Array = NDArray[np.float64]

_SEEN_FROM, _SEEN_FULLY = 0.1, 0.5
_AREA_SHARE = 0.6  # of a person's box that the person fills
_THINNEST = 0.3  # the square root of an area is at least this share of the box's longer side
_BONE_SPREAD = 0.3  # how far the logarithm of a bone's length spreads before it was seen often
_BONE_MEMORY = 30.0  # observations over which a bone's length is averaged
_SIZE_SPREAD = 0.1  # how far a person's size is misjudged in one frame, as a logarithm
_FIRST_SPEED = 2.0  # sizes per second at which somebody may move who was seen once, about a walk
_SHORTEST_BONE = 0.02  # of the person's size: shorter ones are noise


class Rows:
    """A dataclass of arrays with one row for each person."""

    def __getitem__(self, which: NDArray[Any] | slice) -> Self:
        """Those that indices, a mask or a slice select."""
        return type(self)(**{name: values[which] for name, values in vars(self).items()})

    def join(self, other: Self) -> Self:
        """These rows, then the others."""
        return type(self)(**{name: np.concatenate([own, getattr(other, name)]) for name, own in vars(self).items()})

    def to_dict(self) -> dict[str, Any]:
        """Lists for JSON."""
        return {name: values.tolist() for name, values in vars(self).items()}


@dataclass(frozen=True)
class People(Rows):
    """The N people of one frame, as the tracker compares them.

    Args:
        keypoints: (N, K, 2) xy, image pixels, finite; those that were not are in the person's middle, with weight 0.
        weights, scores, bone_weights: (N, K), (N,) and (N, E) in [0, 1], see ``keypoint_weights``.
        areas: (N,) square image pixels.
        bones: (N, E) logarithms of the bones' lengths in image pixels.
    """

    keypoints: Array
    weights: Array
    areas: Array
    scores: Array
    bones: Array
    bone_weights: Array


@dataclass(frozen=True)
class Tracks(Rows):
    """T people who were seen before, one row each, as they were when last seen.

    Args:
        ids: (T,) from 1 on; -1 for somebody who has no identity yet.
        hits, seen: (T,) frames in which they were seen, and when they were seen last, seconds.
        keypoints, weights: (T, K, 2) xy, image pixels, and (T, K) in [0, 1].
        body_velocity: (T, 2) of the body as a whole, image pixels per second.
        limb_velocity: (T, K, 2) of the keypoints beyond the body's, image pixels per second.
        areas: (T,) square image pixels.
        bones, bone_spread, bone_count: (T, E) mean and standard deviation of the logarithm of the bones' lengths in
            image pixels, and how many observations they come from.
    """

    ids: NDArray[np.int64]
    hits: NDArray[np.int64]
    seen: Array
    keypoints: Array
    weights: Array
    body_velocity: Array
    limb_velocity: Array
    areas: Array
    bones: Array
    bone_spread: Array
    bone_count: Array

    def __len__(self) -> int:
        return len(self.ids)

    def as_people(self) -> People:
        """What has been seen of them, as if of one frame; all scores are 1."""
        return People(
            keypoints=self.keypoints,
            weights=self.weights,
            areas=self.areas,
            scores=np.ones(len(self)),
            bones=self.bones,
            bone_weights=np.minimum(self.bone_count, 1.0),
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any], skeleton: Skeleton) -> Tracks:
        """The inverse of ``to_dict``; ValueError or KeyError when it is something else."""
        count = len(values["ids"])
        shapes = {field.name: getattr(cls.nobody(skeleton), field.name) for field in fields(cls)}
        arrays = {name: np.asarray(values[name], like.dtype) for name, like in shapes.items()}
        return cls(**{name: array.reshape(count, *shapes[name].shape[1:]) for name, array in arrays.items()})

    @classmethod
    def nobody(cls, skeleton: Skeleton) -> Tracks:
        """T = 0."""
        scores = np.zeros((0, len(skeleton)))
        return cls.start(observe(np.zeros((*scores.shape, 2)), scores, np.zeros(0), skeleton), 0.0)

    @classmethod
    def start(cls, people: People, timestamp: float) -> Tracks:
        """One track for each person, seen once, at rest, without identity."""
        count = len(people.scores)
        return cls(
            ids=np.full(count, -1, np.int64),
            hits=np.ones(count, np.int64),
            seen=np.full(count, timestamp, np.float64),
            keypoints=people.keypoints,
            weights=people.weights,
            body_velocity=np.zeros((count, 2)),
            limb_velocity=np.zeros_like(people.keypoints),
            areas=people.areas,
            bones=people.bones,
            bone_spread=np.full_like(people.bones, _BONE_SPREAD),
            bone_count=people.bone_weights,
        )


@dataclass(frozen=True)
class Motion:
    """The motion model. Times in seconds; a size is the square root of a person's area.

    Args:
        body_memory: time after which an unseen body has lost 63 % of its velocity.
        limb_memory: the same of the keypoints' own motion.
        response: time within which the velocities follow what is seen.
        slack: how far people and keypoints lie from where they are expected, beyond OKS's falloff, in sizes.
        growth: how much more that is of a person for each second without sight, in sizes per second.
        surprise: share of the distance walked out of sight by which people come out too early or too late.
    """

    body_memory: float = 1.5
    limb_memory: float = 0.1
    response: float = 0.2
    slack: float = 0.12
    growth: float = 0.5
    surprise: float = 0.5


def bone_ends(skeleton: Skeleton) -> NDArray[np.intp]:
    """(E, 2) keypoints joined by edges that are long enough to measure: the face's are not."""
    ends = [edge for edge in skeleton.edges if min(skeleton.sigmas[end] for end in edge) > 0.05]
    return np.array(ends or skeleton.edges, np.intp).reshape(-1, 2)


def keypoint_weights(keypoints: NDArray[Any], scores: NDArray[Any]) -> Array:
    """How far each keypoint is to be believed, by its share of the person's best keypoint score.

    Good scores of a bottom-up network may be as low as 0.1, so the share counts, as where poses are drawn: 0 up to a
    tenth of the best, 1 from half of it on. (N, K, 2) xy and (N, K) scores give (N, K) in [0, 1]; 0 where one is not
    finite.
    """
    finite = np.isfinite(keypoints).all(axis=2) & np.isfinite(scores)
    values = np.where(finite, scores, 0.0).astype(np.float64)
    best = np.maximum(values.max(axis=1, keepdims=True, initial=0.0), 1e-9)
    return np.asarray(np.clip((values / best - _SEEN_FROM) / (_SEEN_FULLY - _SEEN_FROM), 0, 1))


def person_areas(keypoints: Array, weights: Array) -> Array:
    """(N,) square image pixels: of the box around what is seen, the part that a person fills; at least 1.

    Unlike ``Poses.boxes`` it is not cut to the image, so that nobody shrinks on the way out.
    """
    seen = (weights > 0)[..., None]
    low = np.where(seen, keypoints, np.inf).min(axis=1, initial=np.inf)
    high = np.where(seen, keypoints, -np.inf).max(axis=1, initial=-np.inf)
    sides = np.where(seen.any(axis=1), high - low, 0.0)
    return np.asarray(np.maximum(np.maximum(_AREA_SHARE * sides.prod(axis=1), (_THINNEST * sides.max(axis=1)) ** 2), 1))


def observe(keypoints: NDArray[Any], keypoint_scores: NDArray[Any], scores: NDArray[Any], skeleton: Skeleton) -> People:
    """The people of one frame. Args as in ``Poses``; N may be 0."""
    weights = keypoint_weights(keypoints, keypoint_scores)
    points = np.where(np.isfinite(keypoints), keypoints, 0.0).astype(np.float64)
    total = np.maximum(weights.sum(axis=1), 1e-9)
    middles = (points * weights[..., None]).sum(axis=1) / total[:, None]
    points = np.where(np.isfinite(keypoints).all(axis=2, keepdims=True), points, middles[:, None])
    areas = person_areas(points, weights)
    starts, ends = bone_ends(skeleton).T
    lengths = np.linalg.norm(points[:, ends] - points[:, starts], axis=2)
    return People(
        keypoints=points,
        weights=weights,
        areas=areas,
        scores=np.nan_to_num(scores.astype(np.float64)),
        bones=np.log(np.maximum(lengths, _SHORTEST_BONE * np.sqrt(areas)[:, None])),
        bone_weights=np.minimum(weights[:, starts], weights[:, ends]),
    )


def predict(tracks: Tracks, timestamp: float, motion: Motion) -> Array:
    """(T, K, 2) image pixels: where everybody is expected, at a constant velocity that fades away."""
    gaps = timestamp - tracks.seen
    body = motion.body_memory * -np.expm1(-gaps / motion.body_memory)
    limb = motion.limb_memory * -np.expm1(-gaps / motion.limb_memory)
    moved = tracks.body_velocity[:, None] * body[:, None, None] + tracks.limb_velocity * limb[:, None, None]
    return np.asarray(tracks.keypoints + moved)


def similarities(
    people: People, tracks: Tracks, timestamp: float, sigmas: Array, motion: Motion
) -> tuple[Array, Array]:
    """(N, T) how well people fit where tracks are expected: OKS times the likeness of places, in [0, 1].

    What all keypoints have in common is judged apart: a person as a whole may come out of hiding too early or too late,
    on the line of walking more than beside it, and the longer unseen the more. The poses laid on each other are
    compared by OKS. Keypoints count by how far they are to be believed on both sides. The area is the larger of both:
    who is half hidden looks small. The second (N, T) is by how much the places' uncertainty has grown, from 1 on: the
    likelihood of any one place falls by it.
    """
    error = people.keypoints[:, None] - predict(tracks, timestamp, motion)[None]
    areas = np.maximum(people.areas[:, None], tracks.areas[None])
    weights = people.weights[:, None] * np.maximum(tracks.weights, 0.1)[None]
    weights = weights / np.maximum(weights.sum(axis=2, keepdims=True), 1e-9)
    falloff = 2 * areas[..., None] * ((2 * sigmas) ** 2 + motion.slack**2)
    common = common_motion(error, weights, falloff)
    likeness = np.einsum("ntk,ntk->nt", weights, np.exp(-_squared(error - common[:, :, None]) / falloff))
    gaps = timestamp - tracks.seen
    speed = np.linalg.norm(tracks.body_velocity, axis=1)
    ahead = tracks.body_velocity / np.maximum(speed, 1e-9)[:, None]
    walked = speed * motion.body_memory * -np.expm1(-gaps / motion.body_memory)
    basic = areas * (motion.slack**2 + np.mean((2 * sigmas) ** 2))
    across = basic + areas * np.square((motion.growth + _FIRST_SPEED / tracks.hits) * gaps)
    along = across + np.square(motion.surprise * walked)
    forward = np.square((common * ahead).sum(axis=2))
    sideways = np.maximum(_squared(common) - forward, 0)
    place = np.exp(-0.5 * (forward / along + sideways / across))
    return likeness * place, np.sqrt(along * across) / basic


def common_motion(error: Array, weights: Array, falloff: Array) -> Array:
    """What the keypoints' errors (..., K, 2) have in common: their mean, then once more without those far from it.

    Keypoints of somebody half hidden may be those of the person in front. Weights (..., K) are in [0, 1], ``falloff``
    (..., K) square image pixels over which a keypoint loses 63 % of its weight; the result is (..., 2) image pixels.
    """
    common = _mean(error, weights)
    return _mean(error, weights * np.exp(-_squared(error - common[..., None, :]) / falloff))


def _mean(error: Array, weights: Array) -> Array:
    total = np.maximum(weights.sum(axis=-1), 1e-9)
    return np.asarray(np.einsum("...k,...kd->...d", weights, error) / total[..., None])


def _squared(vectors: Array) -> Array:
    """Squares of the lengths of (..., 2); a sum over so short an axis is slow."""
    return np.asarray(np.square(vectors[..., 0]) + np.square(vectors[..., 1]))


def shape_likeness(people: People, tracks: Tracks) -> Array:
    """(N, T) in (0, 1]: how well the lengths of people's bones fit those of tracks; 1 where nothing can be compared.

    Lengths are in pixels: over a short gap nobody grows or shrinks much, and tall and small people differ most.
    """
    certainty = np.minimum(tracks.bone_count, 1.0) / (np.square(tracks.bone_spread) + 0.1**2)
    weights = people.bone_weights[:, None] * certainty[None]
    total = np.maximum(weights.sum(axis=2), 1e-9)
    apart = people.bones[:, None] - tracks.bones[None]
    size = np.einsum("nte,nte->nt", weights, apart) / total
    rest = np.minimum(np.square(apart - size[..., None]) * certainty[None], 4.0)
    shape = np.einsum("ne,nte->nt", people.bone_weights, rest) / max(apart.shape[2], 1)
    taller = np.minimum(np.square(size) * np.minimum(total, 1 / _SIZE_SPREAD**2), 9.0)
    return np.asarray(np.exp(-0.5 * (taller + shape)))


def follow(tracks: Tracks, people: People, timestamp: float, motion: Motion) -> Tracks:
    """The tracks after each was seen as the person in the same row (M of both).

    An alpha-beta filter: the body's velocity is corrected by what all keypoints have in common, which
    averages their noise; what is left over moves the limbs.
    """
    gaps = np.maximum(timestamp - tracks.seen, 1e-3)
    expected = predict(tracks, timestamp, motion)
    reach = np.sqrt(tracks.areas)[:, None, None]
    error = np.clip(people.keypoints - expected, -reach, reach)
    weights = people.weights[..., None]
    common = common_motion(error, people.weights, 2 * motion.slack**2 * tracks.areas[:, None])
    # The second observation is the first to say anything about velocity; who is half hidden says little.
    response = np.maximum(-np.expm1(-gaps / motion.response), 1.0 / tracks.hits)[:, None]
    response = response * np.square(people.weights.mean(axis=1, keepdims=True))
    body = tracks.body_velocity * np.exp(-gaps / motion.body_memory)[:, None] + response * common / gaps[:, None]
    own = weights * (error - common[:, None]) / gaps[:, None, None]
    limb = tracks.limb_velocity * np.exp(-gaps / motion.limb_memory)[:, None, None] + response[..., None] * own
    gain = np.maximum(0.1, 0.8 * people.weights)[..., None]
    fade = np.exp(-gaps / 0.5)
    spans = np.minimum(tracks.bone_count + people.bone_weights, _BONE_MEMORY)
    share = people.bone_weights / np.maximum(spans, 1e-9)
    apart = people.bones - tracks.bones
    variance = np.square(tracks.bone_spread) * (1 - share) + share * (1 - share) * np.square(apart)
    return Tracks(
        ids=tracks.ids,
        hits=tracks.hits + 1,
        seen=np.full(len(tracks), timestamp, np.float64),
        keypoints=expected + gain * (people.keypoints - expected),
        weights=people.weights + (tracks.weights - people.weights) * np.exp(-gaps / 0.1)[:, None],
        body_velocity=body,
        limb_velocity=limb,
        areas=people.areas + (tracks.areas - people.areas) * fade,
        bones=tracks.bones + share * apart,
        bone_spread=np.sqrt(variance),
        bone_count=spans,
    )
