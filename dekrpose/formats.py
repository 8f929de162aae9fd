"""Formats of others that `Poses` is exported to, as pure functions of its arrays; JSON, read strictly; whole files."""

from __future__ import annotations

import inspect
import json
import reprlib
import sys
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from dekrpose.skeletons import Skeleton

Floats = NDArray[np.float32]

# OpenPose's BODY_25 order; None stands for the feet, which our skeletons do not have.
BODY_25: tuple[str | None, ...] = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "mid_hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
    "right_eye", "left_eye", "right_ear", "left_ear", None, None, None, None, None, None,
)  # fmt: skip
_DEEPEST = 100  # levels of JSON; Python's own functions stop somewhere below 1000
_CONTAINERS = {dict, list}
_MOST_FLOAT32 = float(np.finfo(np.float32).max)
_MIDPOINTS = {"neck": ("left_shoulder", "right_shoulder"), "mid_hip": ("left_hip", "right_hip")}


def json_text(value: Any) -> str:
    """JSON for people to read too; numbers must be finite."""
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all: under a temporary name in the same folder, then renamed."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def parse_json(data: str | bytes, *, not_numbers: bool = False) -> Any:
    """JSON without what readers disagree on.

    Args:
        data: a text, or its bytes (UTF-8, or any other that JSON may have).
        not_numbers: let NaN and Infinity through, which Python writes and JSON does not have.

    Raises:
        ValueError: it is no JSON, is nested deeper than 100 levels, or names a key of an object twice.
    """
    if not data or data.isspace():
        raise ValueError("it is empty, expected JSON")
    try:
        value = json.loads(data, object_pairs_hook=_object, parse_constant=None if not_numbers else _refuse)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {_DEEPEST} levels") from None
    except ValueError as error:
        if "set_int_max_str_digits" in str(error):  # Python's own advice, which is no use here
            raise ValueError("it holds a whole number of thousands of digits") from None
        raise
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(_DEEPEST):
        parts = [part.values() if isinstance(part, dict) else part for part in level]
        parts = [part for part in parts if not _CONTAINERS.isdisjoint(map(type, part))]  # most hold numbers alone
        level = [child for part in parts for child in part if isinstance(child, (dict, list))]
    if level:
        raise ValueError(f"it is nested deeper than {_DEEPEST} levels")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"an object has the key {reprlib.repr(twice)} twice")
    return values


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number in JSON; write null")


def read_people(people: Any, names: Sequence[str]) -> dict[str, Any]:
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


def field_of(values: Any, name: str, where: str) -> Any:
    """One field of an object; ValueError if it is none, or lacks the field."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{where} must be an object, got {reprlib.repr(values)}")
    if name not in values:
        raise ValueError(f"{where} lacks {name!r}")
    return values[name]


def whole_number(value: Any, label: str, low: int, high: int) -> int:
    """A whole number from ``low`` to below ``high``, else ValueError."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= int(value) < high:
        raise ValueError(f"{label} must be a whole number from {low} to {high - 1}, got {reprlib.repr(value)}")
    return int(value)


def finite_number(value: Any, label: str, most: float = sys.float_info.max) -> float:
    """A number from -``most`` to ``most``, else ValueError."""
    number = float(value) if isinstance(value, np.floating) else value
    if isinstance(number, bool) or not isinstance(number, Real) or not -most <= number <= most:  # type: ignore[operator]
        raise ValueError(f"{label} must be a number up to {most:.1e}, got {reprlib.repr(value)}")
    return float(value)


def _float32(value: Any, label: str) -> float:
    return float("nan") if value is None or value != value else finite_number(value, label, _MOST_FLOAT32)


def coco_results(
    keypoints: Floats, keypoint_scores: Floats, scores: Floats, image_id: int | str, category_id: int
) -> list[dict[str, Any]]:
    """COCO's results format, one dict per person; ``keypoints`` is flat x, y, score in image pixels.

    A keypoint with NaN or infinity in any of its numbers is 0, 0, 0, and such a person's score 0: JSON has neither.
    """
    triples = _finite_triples(keypoints, keypoint_scores)
    scores = np.where(np.isfinite(scores), scores, np.float32(0))
    return [
        {"image_id": image_id, "category_id": category_id, "keypoints": flat, "score": score}
        for flat, score in zip(
            triples.reshape(len(scores), keypoint_scores.shape[1] * 3).tolist(), scores.tolist(), strict=True
        )
    ]


def openpose_people(keypoints: Floats, keypoint_scores: Floats, skeleton: Skeleton) -> dict[str, Any]:
    """OpenPose's JSON, BODY_25: 25 times x, y, score per person, image pixels.

    ``neck`` and ``mid_hip`` are the middles of the shoulders and hips (with the lower score of the two)
    where the skeleton lacks them. What it cannot give, such as the feet, is 0, 0, 0: OpenPose's "not found". So is a
    keypoint with NaN or infinity in any of its numbers, and a middle of such keypoints.

    Raises:
        ValueError: the skeleton has none of OpenPose's keypoints.
    """
    if not set(skeleton.keypoints) & set(BODY_25):
        raise ValueError(f"skeleton {skeleton.name!r} has no keypoint of OpenPose's BODY_25, whose names are {BODY_25}")
    triples = _finite_triples(keypoints, keypoint_scores, np.nan)
    body = np.zeros((len(keypoints), len(BODY_25), 3))
    for slot, name in enumerate(BODY_25):
        ends = _MIDPOINTS.get(name or "", ())
        if name in skeleton.keypoints:
            body[:, slot] = triples[:, skeleton.index(name)]
        elif ends and set(ends) <= set(skeleton.keypoints):
            left, right = (triples[:, skeleton.index(end)] for end in ends)
            body[:, slot, :2] = (left[:, :2] + right[:, :2]) / 2
            body[:, slot, 2] = np.minimum(left[:, 2], right[:, 2])
    body[np.isnan(body).any(axis=2)] = 0
    others = ("face_keypoints_2d", "hand_left_keypoints_2d", "hand_right_keypoints_2d")
    people = [
        {"person_id": [-1], "pose_keypoints_2d": flat, **{name: [] for name in others}}
        for flat in body.reshape(len(body), 3 * len(BODY_25)).tolist()
    ]
    return {"version": 1.3, "people": people}


def _finite_triples(keypoints: Floats, keypoint_scores: Floats, other: float = 0.0) -> NDArray[np.float64]:
    """(N, K, 3) x, y, score; all three are ``other`` where one is NaN or infinite."""
    triples = np.concatenate([keypoints, keypoint_scores[..., None]], axis=2).astype(np.float64)
    triples[~np.isfinite(triples).all(axis=2)] = other
    return triples


def pandas_table(
    keypoints: Floats, keypoint_scores: Floats, scores: Floats, track_ids: NDArray[np.int64] | None, skeleton: Skeleton
) -> Any:
    """A ``pandas.DataFrame`` with one row per keypoint: person, keypoint, x, y, score, person_score (and track_id).

    ImportError if pandas is missing.
    """
    try:
        import pandas
    except ImportError:
        raise ImportError("Pandas is missing; run: pip install 'dekrpose[pandas]'") from None
    count, channels = keypoint_scores.shape
    columns: dict[str, Any] = {
        "person": np.repeat(np.arange(count), channels),
        "keypoint": list(skeleton.keypoints) * count,
        "x": keypoints[..., 0].ravel(),
        "y": keypoints[..., 1].ravel(),
        "score": keypoint_scores.ravel(),
        "person_score": np.repeat(scores, channels),
    }
    if track_ids is not None:
        columns["track_id"] = np.repeat(track_ids, channels)
    table = pandas.DataFrame(columns)
    return table.astype({"keypoint": object}) if count == 0 else table


def supervision_keypoints(keypoints: Floats, keypoint_scores: Floats, scores: Floats) -> Any:
    """A ``supervision.KeyPoints`` in image pixels, all of class 0; ImportError if supervision is missing."""
    try:
        import supervision
    except ImportError:
        raise ImportError("Supervision is missing; run: pip install 'dekrpose[supervision]'") from None
    if len(scores) == 0:
        return supervision.KeyPoints.empty()
    fields: dict[str, Any] = {"xy": keypoints.copy(), "class_id": np.zeros(len(scores), np.int64)}
    if "keypoint_confidence" in inspect.signature(supervision.KeyPoints).parameters:
        fields |= {"keypoint_confidence": keypoint_scores.copy(), "detection_confidence": scores.copy()}
    else:  # before supervision 0.29
        fields["confidence"] = keypoint_scores.copy()
    return supervision.KeyPoints(**fields)
