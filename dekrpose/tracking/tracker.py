"""Identities: who in this frame is who was seen before."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dekrpose.results import Poses
from dekrpose.skeletons import Skeleton
from dekrpose.tracking.tracks import Array, Motion, People, Tracks, follow, observe, shape_likeness, similarities

_FORMAT = "dekrpose.tracker"
_FORMAT_VERSION = 1


@dataclass(frozen=True)
class TrackerSettings:
    """When people are taken for the same. Times in seconds; scores as shares of what is typical in this stream.

    Scores differ from model to model, so they are compared with the stream's typical best score, a running
    mean over about two seconds.

    Args:
        strong: people above this share can start a track and come first; fainter ones only continue tracks.
        confident: people above this share get an identity at once.
        confirm_hits: frames in a row after which others get theirs.
        max_gap: how long somebody may be out of sight and come back as the same.
        faint_gap: how long after the last sight somebody may be continued by a faint person.
        minimum_similarity: from 0 to 1, below which two poses are never the same person; it falls as the place
            where somebody is expected becomes uncertain.
        duplicate_similarity: above which a person without a track is somebody's double and starts none.
        pose: how much the likeness of poses and places counts, against the two that follow.
        shape: how much the lengths of limbs count for people who were out of sight, 0 is not at all.
        doubt: how much is held against people whose place has become uncertain, 0 is nothing.
        floor: natural logarithm of the likelihood, so weighted, below which two are not joined in a frame.
        newcomer_floor: the same for somebody about to get a new identity while others are out of sight; lower,
            because few people come from nowhere.
        motion: how people move.

    Raises:
        ValueError: a share or similarity is outside of [0, 1], or a time is negative.
    """

    strong: float = 0.35
    confident: float = 0.7
    confirm_hits: int = 4
    max_gap: float = 3.0
    faint_gap: float = 0.5
    minimum_similarity: float = 0.3
    duplicate_similarity: float = 0.5
    pose: float = 3.0
    shape: float = 0.5
    doubt: float = 0.5
    floor: float = -5.0
    newcomer_floor: float = -20.0
    motion: Motion = field(default_factory=Motion)

    def __post_init__(self) -> None:
        for name in ("strong", "confident", "minimum_similarity", "duplicate_similarity"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {getattr(self, name)}")
        if self.max_gap < 0 or self.faint_gap < 0 or self.confirm_hits < 1:
            raise ValueError(
                "max_gap and faint_gap must be at least 0 s, confirm_hits at least 1, "
                f"got {self.max_gap}, {self.faint_gap}, {self.confirm_hits}"
            )


class Tracker:
    """Gives the people of one stream their identities, frame by frame; one tracker for each stream.

    People and tracks are joined by OKS with where each track is expected (constant velocity that fades), by the
    Hungarian method, in the order of ByteTrack (Zhang et al., ECCV 2022): clearly seen people first, then faint ones
    continue what is left over. Time is the timestamps', so strides and variable frame rates need no settings. Who was
    away for less than ``max_gap`` and fits the prediction and the lengths of limbs is the same person again; later it
    is somebody new. An identity is never given twice.
    """

    def __init__(self, settings: TrackerSettings | None = None) -> None:
        self.settings = settings or TrackerSettings()
        self._next_id = 1
        self._skeleton: Skeleton | None = None
        self._tracks: Tracks | None = None
        self._timestamp: float | None = None
        self._typical = 0.0

    def reset(self) -> None:
        """Forget everybody, as after a cut; identities go on counting."""
        self._skeleton = self._tracks = self._timestamp = None
        self._typical = 0.0

    def update(self, poses: Poses, timestamp: float | None = None) -> Poses:
        """The same poses with ``track_ids``; the timestamp, seconds, is ``poses.timestamp`` unless given.

        An identity of -1 means none yet: somebody faint who was not seen in enough frames. ``poses[poses.track_ids >=
        0]`` leaves those out. A timestamp before the last one starts anew.

        Raises:
            ValueError: there is no finite timestamp, or the skeleton changed without ``reset``.
        """
        time = finite_seconds(poses.timestamp if timestamp is None else timestamp, "tracking")
        if self._timestamp is not None and time < self._timestamp:
            self.reset()
        if self._skeleton is not None and poses.skeleton != self._skeleton:
            raise ValueError(
                f"this tracker follows {self._skeleton.name!r}, got poses of {poses.skeleton.name!r}; "
                "reset() it, or use a tracker for each stream"
            )
        self._skeleton = poses.skeleton
        people = observe(poses.keypoints, poses.keypoint_scores, poses.scores, poses.skeleton)
        tracks = self._tracks if self._tracks is not None else Tracks.nobody(poses.skeleton)
        tracks = tracks[time - tracks.seen <= self.settings.max_gap]
        if len(people.scores):
            gap = math.inf if self._timestamp is None else time - self._timestamp
            self._typical += (float(people.scores.max()) - self._typical) * -math.expm1(-gap / 2.0)
        assigned = self._assign(people, tracks, time)
        self._tracks, ids = self._carry_on(people, tracks, assigned, time)
        self._timestamp = time
        return replace(poses, track_ids=ids)

    def _assign(self, people: People, tracks: Tracks, time: float) -> NDArray[np.intp]:
        """For each person the row of the track, or -1."""
        settings = self.settings
        assigned = np.full(len(people.scores), -1, np.intp)
        if not len(tracks) or not len(assigned):
            return assigned
        rank = self._rank(people, tracks, time, settings.floor, settings.minimum_similarity)
        strong = people.scores >= settings.strong * self._typical
        known = tracks.ids >= 0
        recent = time - tracks.seen <= settings.faint_gap
        for rows, columns in ((strong, known), (~strong, known & recent), (strong, ~known)):
            free = columns.copy()
            free[assigned[assigned >= 0]] = False
            _match(rank, np.flatnonzero(rows & (assigned < 0)), np.flatnonzero(free), assigned)
        return assigned

    def _rank(self, people: People, tracks: Tracks, time: float, floor: float, least: float) -> Array:
        """(N, T) by how much the weighted logarithm of the likelihood that two are the same is above the floor.

        At least 0, which is never the same; so is a similarity below ``least``.
        """
        assert self._skeleton is not None
        settings = self.settings
        sigmas = np.asarray(self._skeleton.sigmas, np.float64)
        plain, doubt = similarities(people, tracks, time, sigmas, settings.motion)
        away = np.clip((time - tracks.seen) / 0.3, 0, 1)
        shape = settings.shape * away * np.log(shape_likeness(people, tracks))
        rank = settings.pose * np.log(np.maximum(plain, 1e-9)) + shape - settings.doubt * np.log(doubt)
        return np.where(plain * doubt >= least, np.maximum(rank - floor, 0), 0.0)

    def _carry_on(
        self, people: People, tracks: Tracks, assigned: NDArray[np.intp], time: float
    ) -> tuple[Tracks, NDArray[np.int64]]:
        """The tracks after this frame, and each person's identity."""
        settings = self.settings
        seen = np.flatnonzero(assigned >= 0)
        followed = follow(tracks[assigned[seen]], people[seen], time, settings.motion)
        new = self._newcomers(people, assigned, time)
        now = followed.join(Tracks.start(people[new], time))
        missing = tracks[(tracks.ids >= 0) & ~np.isin(tracks.ids, now.ids)]
        owners = np.concatenate([seen, new])
        sure = people.scores[owners] >= settings.confident * self._typical
        # While somebody is out of sight, who comes up may be that person, half hidden still.
        sure = (now.hits >= settings.confirm_hits) | (sure & (len(missing) == 0))
        fresh = np.flatnonzero(sure & (now.ids < 0))
        given = now.ids.copy()
        given[fresh] = self._returned(now[fresh], missing, time)
        fresh = fresh[given[fresh] < 0]
        given[fresh] = self._next_id + np.arange(len(fresh))
        self._next_id += len(fresh)
        now = replace(now, ids=given)
        ids = np.full(len(assigned), -1, np.int64)
        ids[owners] = given
        return now.join(missing[~np.isin(missing.ids, given)]), ids

    def _returned(self, newcomers: Tracks, missing: Tracks, time: float) -> NDArray[np.int64]:
        """Which of the missing each newcomer is after all, by what several frames have shown of them; -1 is none."""
        found = np.full(len(newcomers), -1, np.intp)
        if len(newcomers) and len(missing):
            rank = self._rank(newcomers.as_people(), missing, time, self.settings.newcomer_floor, 0.0)
            _match(rank, np.arange(len(newcomers)), np.arange(len(missing)), found)
        return np.append(missing.ids, -1)[found]

    def _newcomers(self, people: People, assigned: NDArray[np.intp], time: float) -> NDArray[np.intp]:
        """People who start a track: clearly seen, without one, and nobody's double."""
        assert self._skeleton is not None
        loose = np.flatnonzero((assigned < 0) & (people.scores >= self.settings.strong * self._typical))
        if not len(loose):
            return loose
        order = np.concatenate([np.flatnonzero(assigned >= 0), loose])
        sigmas = np.asarray(self._skeleton.sigmas, np.float64)
        others = Tracks.start(people[order], time)
        alike, _ = similarities(people[loose], others, time, sigmas, self.settings.motion)
        doubles = alike >= self.settings.duplicate_similarity
        first = len(order) - len(loose)
        # Poses come best first: only those before a person can make it a double.
        earlier = np.arange(len(order))[None] < first + np.arange(len(loose))[:, None]
        return loose[~(doubles & earlier).any(axis=1)]

    def to_dict(self) -> dict[str, Any]:
        """The whole state in plain JSON types; ``from_dict`` goes on from there."""
        return {
            "format": _FORMAT,
            "version": _FORMAT_VERSION,
            "settings": asdict(self.settings),
            "next_id": self._next_id,
            "typical": self._typical,
            "timestamp": self._timestamp,
            "skeleton": None if self._skeleton is None else self._skeleton.to_dict(),
            "tracks": None if self._tracks is None else self._tracks.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Tracker:
        """The inverse of ``to_dict``; ValueError if it is another format or version, or incomplete."""
        if values.get("format") != _FORMAT or values.get("version") != _FORMAT_VERSION:
            found = f"{values.get('format')!r} version {values.get('version')!r}"
            raise ValueError(f"expected {_FORMAT!r} version {_FORMAT_VERSION}, as to_dict writes it, got {found}")
        try:
            settings = dict(values["settings"])
            tracker = cls(TrackerSettings(**{**settings, "motion": Motion(**settings["motion"])}))
            tracker._next_id, tracker._typical = int(values["next_id"]), float(values["typical"])
            tracker._timestamp = None if values["timestamp"] is None else float(values["timestamp"])
            if values["skeleton"] is not None:
                tracker._skeleton = Skeleton.from_dict(values["skeleton"])
                tracker._tracks = Tracks.from_dict(values["tracks"], tracker._skeleton)
        except (KeyError, TypeError) as error:
            raise ValueError(f"this tracker's state is incomplete or damaged: {error!r}") from error
        return tracker


def _match(rank: Array, rows: NDArray[np.intp], columns: NDArray[np.intp], assigned: NDArray[np.intp]) -> None:
    """Join people and tracks for the largest sum of ranks; 0 is never joined."""
    if not len(rows) or not len(columns):
        return
    from scipy.optimize import linear_sum_assignment

    part = rank[np.ix_(rows, columns)]
    for row, column in zip(*linear_sum_assignment(part, maximize=True), strict=True):
        if part[row, column] > 0:
            assigned[rows[row]] = columns[column]


def finite_seconds(timestamp: float | None, work: str) -> float:
    """A frame's time; ValueError, which names the work that needs it, unless it is finite."""
    if timestamp is None or not math.isfinite(timestamp):
        raise ValueError(f"{work} needs the frame's time: expected finite seconds, got {timestamp}")
    return float(timestamp)
