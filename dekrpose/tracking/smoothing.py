"""Smooth motion: the One-Euro filter for the keypoints of people with identities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dekrpose.results import Poses
from dekrpose.tracking.tracker import finite_seconds
from dekrpose.tracking.tracks import Array, Rows, keypoint_weights, person_areas

_FORMAT = "dekrpose.smoother"
_FORMAT_VERSION = 1
_LEAST_WEIGHT = 0.02  # of a keypoint that is there at all: held back, not held for ever
_SIZE_MEMORY = 0.5  # seconds


@dataclass(frozen=True)
class SmootherSettings:
    """How much is smoothed. A size is the square root of a person's area, about 0.4 of a standing one's height.

    The filter is a low pass whose cutoff rises with speed: ``cutoff = min_cutoff + beta * speed``. A lower
    ``min_cutoff`` takes more jitter out of what is at rest, a higher ``beta`` lets what is fast lag less.
    The body as a whole, whose motion all keypoints show, and each keypoint's motion beyond it are filtered apart.

    Args:
        min_cutoff: of a keypoint at rest with its body, Hz.
        beta: Hz for each size per second that a keypoint moves beyond its body.
        body_min_cutoff, body_beta: the same of the body as a whole.
        speed_cutoff: of the low pass that speeds are measured with, Hz.
        hold: seconds within which a keypoint that is no longer seen well loses 63 % of its weight against
            what is seen badly.
        max_gap: seconds without a person after which the filter starts anew.

    Raises:
        ValueError: a cutoff or time is not above 0, or a beta is negative.
    """

    min_cutoff: float = 2.0
    beta: float = 1.5
    body_min_cutoff: float = 3.0
    body_beta: float = 3.0
    speed_cutoff: float = 1.5
    hold: float = 0.3
    max_gap: float = 0.5

    def __post_init__(self) -> None:
        for name in ("min_cutoff", "body_min_cutoff", "speed_cutoff", "hold", "max_gap"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if not (self.beta >= 0 and self.body_beta >= 0):
            raise ValueError(f"beta and body_beta must be at least 0, got {self.beta} and {self.body_beta}")


@dataclass(frozen=True)
class _People(Rows):
    """T filters, one row each: smoothed keypoints (T, K, 2), speeds in sizes per second, trust (T, K) in [0, 1]."""

    ids: NDArray[np.int64]
    seen: Array
    sizes: Array
    keypoints: Array
    limb_velocity: Array
    body_velocity: Array
    trust: Array

    @classmethod
    def start(cls, ids: NDArray[np.int64], keypoints: Array, weights: Array, sizes: Array, time: float) -> _People:
        return cls(
            ids=ids,
            seen=np.full(len(ids), time, np.float64),
            sizes=sizes,
            keypoints=keypoints,
            limb_velocity=np.zeros_like(keypoints),
            body_velocity=np.zeros((len(ids), 2)),
            trust=weights,
        )


class Smoother:
    """Takes the jitter out of one stream's keypoints; one smoother for each stream, after its ``Tracker``.

    The One-Euro filter (Casiez, Roussel and Vogel, CHI 2012) for each keypoint of each identity: what moves slowly is
    smoothed much, what moves fast lags little. Speeds count in sizes of the person, so people near and far are treated
    alike. Keypoints with low scores hardly pull: they go along with the body instead. Identities that were away for
    longer than ``max_gap`` start anew, where they are seen.
    """

    def __init__(self, settings: SmootherSettings | None = None) -> None:
        self.settings = settings or SmootherSettings()
        self._people: _People | None = None
        self._timestamp: float | None = None

    def reset(self) -> None:
        """Forget everybody, as after a cut."""
        self._people = self._timestamp = None

    def update(self, poses: Poses, timestamp: float | None = None) -> Poses:
        """The same poses with smoothed ``keypoints``; the timestamp, seconds, is ``poses.timestamp`` unless given.

        People without an identity (-1) and identities that are new come out as they are; a keypoint that is not finite
        takes the place where it is expected, if it was ever seen. A timestamp before the last one starts anew.

        Raises:
            ValueError: there are no ``track_ids``, one comes twice, there is no finite timestamp, or the number of
                keypoints changed without ``reset``.
        """
        time = finite_seconds(poses.timestamp if timestamp is None else timestamp, "smoothing")
        ids = _identities(poses)
        if self._timestamp is not None and time < self._timestamp:
            self.reset()
        rows = np.flatnonzero(ids >= 0)
        raw = poses.keypoints[rows].astype(np.float64)
        weights = keypoint_weights(raw, poses.keypoint_scores[rows])
        sizes = np.sqrt(person_areas(raw, weights))
        fresh = _People.start(ids[rows], raw, weights, sizes, time)
        known = self._people if self._people is not None else fresh[:0]
        if known.keypoints.shape[1] != raw.shape[1]:
            raise ValueError(
                f"this smoother holds {known.keypoints.shape[1]} keypoints a person, got {raw.shape[1]}; "
                "reset() it, or use a smoother for each stream"
            )
        known = known[time - known.seen <= self.settings.max_gap]
        self._people, self._timestamp = known, time
        if not len(rows):
            return poses
        # Who is new is filtered against themselves, which changes nothing.
        same = np.concatenate([fresh.ids[:, None] == known.ids[None], np.eye(len(fresh.ids), dtype=bool)], axis=1)
        now = _filtered(known.join(fresh)[same.argmax(axis=1)], fresh, self.settings)
        self._people = now.join(known[~np.isin(known.ids, now.ids)])
        keypoints = poses.keypoints.copy()
        keypoints[rows] = now.keypoints
        return replace(poses, keypoints=keypoints)

    def to_dict(self) -> dict[str, Any]:
        """The whole state in plain JSON types; ``from_dict`` goes on from there."""
        people = None if self._people is None else self._people.to_dict()
        values = {"settings": asdict(self.settings), "timestamp": self._timestamp, "people": people}
        return {"format": _FORMAT, "version": _FORMAT_VERSION, **values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Smoother:
        """The inverse of ``to_dict``; ValueError if it is another format or version, or incomplete."""
        if values.get("format") != _FORMAT or values.get("version") != _FORMAT_VERSION:
            found = f"{values.get('format')!r} version {values.get('version')!r}"
            raise ValueError(f"expected {_FORMAT!r} version {_FORMAT_VERSION}, as to_dict writes it, got {found}")
        try:
            smoother = cls(SmootherSettings(**values["settings"]))
            smoother._timestamp = None if values["timestamp"] is None else float(values["timestamp"])
            if values["people"] and values["people"]["ids"]:
                types = {field.name: np.int64 if field.name == "ids" else np.float64 for field in fields(_People)}
                people: dict[str, Any] = {name: np.array(values["people"][name], kind) for name, kind in types.items()}
                smoother._people = _People(**people)
        except (KeyError, TypeError) as error:
            raise ValueError(f"this smoother's state is incomplete or damaged: {error!r}") from error
        return smoother


def _filtered(before: _People, seen: _People, settings: SmootherSettings) -> _People:
    """One step of the filter for M people: ``before`` and what was seen, in the same rows."""
    gaps = np.maximum(seen.seen - before.seen, 1e-3)
    sizes = before.sizes + (seen.sizes - before.sizes) * -np.expm1(-gaps / _SIZE_MEMORY)
    first = ~np.isfinite(before.keypoints)
    previous = np.where(first, seen.keypoints, before.keypoints)
    error = np.where(np.isfinite(seen.keypoints), seen.keypoints - previous, 0.0)
    weights = np.where(np.isfinite(seen.keypoints).all(axis=2), np.maximum(seen.trust, _LEAST_WEIGHT), 0.0)
    common = (weights[..., None] * error).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-9)[:, None]
    own = error - common[:, None]
    pace = _share(settings.speed_cutoff, gaps)
    unit = (gaps * sizes)[:, None]
    body_velocity = before.body_velocity + pace[:, None] * (common / unit - before.body_velocity)
    towards = own / unit[..., None] - before.limb_velocity
    limb_velocity = before.limb_velocity + (pace[:, None] * weights)[..., None] * towards
    body_cutoff = settings.body_min_cutoff + settings.body_beta * np.linalg.norm(body_velocity, axis=1)
    limb_cutoff = settings.min_cutoff + settings.beta * np.linalg.norm(limb_velocity, axis=2)
    # A weighted mean of what was held and what is seen; with full weights it is the plain filter.
    share = _share(limb_cutoff, gaps[:, None])
    old_trust = np.maximum(before.trust * np.exp(-gaps / settings.hold)[:, None], weights * before.trust)
    pull = share * weights / np.maximum(share * weights + (1 - share) * old_trust, 1e-9)
    moved = _share(body_cutoff, gaps)[:, None, None] * common[:, None] + pull[..., None] * own
    return _People(
        ids=seen.ids,
        seen=seen.seen,
        sizes=sizes,
        keypoints=previous + moved,
        limb_velocity=limb_velocity,
        body_velocity=body_velocity,
        trust=np.maximum(weights, old_trust),
    )


def _share(cutoff: Any, gaps: Array) -> Array:
    """What a first-order low pass takes of a new value, in (0, 1): cutoff in Hz, time since the last in seconds."""
    return np.asarray(1 / (1 + 1 / (2 * np.pi * cutoff * gaps)))


def _identities(poses: Poses) -> NDArray[np.int64]:
    if poses.track_ids is None:
        if len(poses):
            raise ValueError("smoothing needs track_ids; hand over what Tracker().update(poses, timestamp) returns")
        return np.zeros(0, np.int64)
    ids = poses.track_ids[poses.track_ids >= 0]
    if len(np.unique(ids)) < len(ids):
        raise ValueError(f"an identity is given to one person a frame, got track_ids {poses.track_ids.tolist()}")
    return poses.track_ids
