"""Formats of others that `Poses` is exported to; pure functions of its arrays."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dekrpose.skeletons import Skeleton

# OpenPose's BODY_25 order; None stands for the feet, which our skeletons do not have.
BODY_25: tuple[str | None, ...] = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "mid_hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
    "right_eye", "left_eye", "right_ear", "left_ear", None, None, None, None, None, None,
)  # fmt: skip
_MIDPOINTS = {"neck": ("left_shoulder", "right_shoulder"), "mid_hip": ("left_hip", "right_hip")}


def coco_results(
    keypoints: NDArray[np.float32],
    keypoint_scores: NDArray[np.float32],
    scores: NDArray[np.float32],
    image_id: int,
    category_id: int,
) -> list[dict[str, Any]]:
    """COCO's results format, one dict per person; ``keypoints`` is flat x, y, score in image pixels."""
    triples = np.concatenate([keypoints, keypoint_scores[..., None]], axis=2).astype(np.float64)
    return [
        {"image_id": image_id, "category_id": category_id, "keypoints": flat, "score": score}
        for flat, score in zip(
            triples.reshape(len(scores), keypoint_scores.shape[1] * 3).tolist(), scores.tolist(), strict=True
        )
    ]


def openpose_people(
    keypoints: NDArray[np.float32], keypoint_scores: NDArray[np.float32], skeleton: Skeleton
) -> dict[str, Any]:
    """OpenPose's JSON, BODY_25: 25 times x, y, score per person, image pixels.

    ``neck`` and ``mid_hip`` are the middles of the shoulders and hips (with the lower score of the two)
    where the skeleton lacks them. What it cannot give, such as the feet, is 0, 0, 0: OpenPose's "not found".

    Raises:
        ValueError: the skeleton has none of OpenPose's keypoints.
    """
    if not set(skeleton.keypoints) & set(BODY_25):
        raise ValueError(f"skeleton {skeleton.name!r} has no keypoint of OpenPose's BODY_25, whose names are {BODY_25}")
    triples = np.concatenate([keypoints, keypoint_scores[..., None]], axis=2).astype(np.float64)
    body = np.zeros((len(keypoints), len(BODY_25), 3))
    for slot, name in enumerate(BODY_25):
        ends = _MIDPOINTS.get(name or "", ())
        if name in skeleton.keypoints:
            body[:, slot] = triples[:, skeleton.index(name)]
        elif ends and set(ends) <= set(skeleton.keypoints):
            left, right = (triples[:, skeleton.index(end)] for end in ends)
            body[:, slot, :2] = (left[:, :2] + right[:, :2]) / 2
            body[:, slot, 2] = np.minimum(left[:, 2], right[:, 2])
    others = ("face_keypoints_2d", "hand_left_keypoints_2d", "hand_right_keypoints_2d")
    people = [
        {"person_id": [-1], "pose_keypoints_2d": flat, **{name: [] for name in others}}
        for flat in body.reshape(len(body), 3 * len(BODY_25)).tolist()
    ]
    return {"version": 1.3, "people": people}


def pandas_table(
    keypoints: NDArray[np.float32],
    keypoint_scores: NDArray[np.float32],
    scores: NDArray[np.float32],
    track_ids: NDArray[np.int64] | None,
    skeleton: Skeleton,
) -> Any:
    """A ``pandas.DataFrame`` with one row per keypoint: person, keypoint, x, y, score, person_score.

    Identities, where there are any, come as a seventh column ``track_id``.

    Raises:
        ImportError: pandas is missing.
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


def supervision_keypoints(
    keypoints: NDArray[np.float32], keypoint_scores: NDArray[np.float32], scores: NDArray[np.float32]
) -> Any:
    """A ``supervision.KeyPoints`` in image pixels, all of class 0.

    Raises:
        ImportError: supervision is missing.
    """
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
