"""The dictionary that ``Poses.to_dict`` gives, and back: plain JSON types that say what they are."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dekrpose.formats import field_of, finite_number, whole_number
from dekrpose.skeletons import Skeleton

FORMAT = "dekrpose.poses"
_VERSION = 1
_FIELDS = ("source", "index", "timestamp", "error")
_MOST_FLOAT32 = float(np.finfo(np.float32).max)


class _Person(Protocol):
    """What is written of ``Person``."""

    @property
    def keypoints(self) -> NDArray[np.float32]: ...
    @property
    def keypoint_scores(self) -> NDArray[np.float32]: ...
    @property
    def score(self) -> float: ...
    @property
    def box(self) -> NDArray[np.float32]: ...
    @property
    def track_id(self) -> int | None: ...
    @property
    def skeleton(self) -> Skeleton: ...


def person_to_dict(person: _Person) -> dict[str, Any]:
    """One of ``people``; null stands for NaN and infinity."""
    triples = np.concatenate([person.keypoints, person.keypoint_scores[:, None]], axis=1)
    return {
        "score": shortest(person.score),
        "box": [shortest(value) for value in person.box],
        "track_id": person.track_id,
        "keypoints": {
            name: [shortest(value) for value in triple]
            for name, triple in zip(person.skeleton.keypoints, triples, strict=True)
        },
    }


def poses_to_dict(poses: Any) -> dict[str, Any]:
    """See ``Poses.to_dict``."""
    return {
        "format": FORMAT,
        "version": _VERSION,
        "units": "keypoints are [x, y, score], boxes [x0, y0, x1, y1]; image pixels, scores in [0, 1]",
        "image_size": {"height": poses.image_size[0], "width": poses.image_size[1]},
        **{name: getattr(poses, name) for name in _FIELDS},
        "timing_ms": dict(poses.timing),
        "skeleton": json.loads(json.dumps(poses.skeleton.to_dict())),
        "people": [person_to_dict(person) for person in poses],
    }


def shortest(value: float | np.floating[Any]) -> float | None:
    """The shortest number that is the same float32; None for NaN and infinity, which JSON lacks."""
    return float(str(np.float32(value))) if np.isfinite(value) else None


def fields_of_poses(values: Any) -> dict[str, Any]:
    """The constructor's arguments from what ``Poses.to_dict`` wrote.

    Raises:
        ValueError: not our format, another version of it, or a field is missing or cannot be used.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"expected a JSON object with the format {FORMAT!r}, got {type(values).__name__}")
    if values.get("format") != FORMAT or values.get("version") != _VERSION:
        found = f"{reprlib.repr(values.get('format'))} version {reprlib.repr(values.get('version'))}"
        raise ValueError(f"expected {FORMAT!r} version {_VERSION}, as to_dict writes it, got {found}")
    try:
        return _fields_of(values)
    except (KeyError, TypeError, OverflowError, RecursionError, ValueError) as error:
        raise ValueError(f"these poses are incomplete or damaged: {error}") from error


def _fields_of(values: Mapping[str, Any]) -> dict[str, Any]:
    for name in ("skeleton", "image_size", "timing_ms"):
        if not isinstance(field_of(values, name, "the object"), Mapping):
            raise ValueError(f"{name} must be an object, got {reprlib.repr(values[name])}")
    skeleton = Skeleton.from_dict(values["skeleton"])
    people = _read_people(field_of(values, "people", "the object"), skeleton.keypoints)
    fields = {name: field_of(values, name, "the object") for name in _FIELDS}
    size = [field_of(values["image_size"], side, "image_size") for side in ("height", "width")]
    height, width = (whole_number(side, "image_size", 0, 2**31) for side in size)
    timing, index, timestamp = values["timing_ms"], fields["index"], fields["timestamp"]
    for name in ("source", "error"):
        if fields[name] is not None and not isinstance(fields[name], str):
            raise ValueError(f"{name} must be a text or null, got {reprlib.repr(fields[name])}")
    return {
        **people,
        "skeleton": skeleton,
        "image_size": (height, width),
        "timing": {stage: finite_number(value, f"timing_ms of {stage!r}") for stage, value in timing.items()},
        "index": None if index is None else whole_number(index, "index", -(2**63), 2**63),
        "timestamp": None if timestamp is None else finite_number(timestamp, "timestamp"),
        "source": fields["source"],
        "error": fields["error"],
    }


def _read_people(people: Any, names: Sequence[str]) -> dict[str, Any]:
    """Arrays of the ``people`` that ``Poses.to_dict`` writes; null stands for NaN.

    Returns:
        keypoints (N, K, 2), keypoint_scores (N, K), scores (N,), all float32, and track_ids (N,) int64, or None unless
        everybody has one.

    Raises:
        ValueError: people, keypoints or numbers are missing, or are something else.
    """
    triples, scores, track_ids = [], [], []
    if not isinstance(people, (list, tuple)):
        raise ValueError(f"people must be a list, got {reprlib.repr(people)}")
    for number, person in enumerate(people):
        where = f"people[{number}]"
        keypoints = field_of(person, "keypoints", where)
        for name in names:
            label = f"{name!r} of {where}"
            triple = field_of(keypoints, name, f"keypoints of {where}")
            if not isinstance(triple, (list, tuple)) or len(triple) != 3:
                raise ValueError(f"{label} must be x, y, score, got {reprlib.repr(triple)}")
            triples.append([_float32(value, label) for value in triple])
        scores.append(_float32(field_of(person, "score", where), f"score of {where}"))
        track_id = field_of(person, "track_id", where)
        track_ids.append(None if track_id is None else whole_number(track_id, f"track_id of {where}", -(2**63), 2**63))
    points = np.array(triples, np.float32).reshape(len(scores), len(names), 3)
    return {
        "keypoints": points[..., :2],
        "keypoint_scores": points[..., 2],
        "scores": np.array(scores, np.float32),
        "track_ids": np.array(track_ids, np.int64) if track_ids and None not in track_ids else None,
    }


def _float32(value: Any, label: str) -> float:
    return float("nan") if value is None or value != value else finite_number(value, label, _MOST_FLOAT32)
