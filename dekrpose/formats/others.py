"""Formats of other libraries, as pure functions of arrays: COCO, OpenPose, YOLO-pose, Transformers, supervision."""

from __future__ import annotations

import inspect
from typing import Any

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
_MIDPOINTS = {"neck": ("left_shoulder", "right_shoulder"), "mid_hip": ("left_hip", "right_hip")}


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


def yolo_lines(
    keypoints: Floats,
    keypoint_scores: Floats,
    scores: Floats,
    boxes: Floats,
    counts: NDArray[np.bool_],
    image_size: tuple[int, int],
    class_id: int,
    with_scores: bool,
) -> str:
    """YOLO-pose text, a line per person; see ``Poses.to_yolo``."""
    height, width = image_size
    lines = []
    for person in range(len(scores)):
        x0, y0, x1, y1 = (boxes[person] / ([width, height] * 2)).tolist()
        if not (x1 > x0 and y1 > y0):
            continue  # nothing of them is in the image
        points = keypoints[person] / [width, height]
        marks = keypoint_scores[person].astype(np.float64)
        if not with_scores:
            labelled = counts[person] & ((points >= 0) & (points <= 1)).all(axis=1)
            points, marks = np.where(labelled[:, None], points, 0.0), np.where(labelled, 2.0, 0.0)
        values = [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, *np.column_stack([points, marks]).ravel().tolist()]
        values += [float(scores[person])] if with_scores else []
        lines.append(" ".join([str(class_id), *(f"{value:.6g}" for value in values)]) + "\n")
    return "".join(lines)


def transformers_people(keypoints: Floats, keypoint_scores: Floats, boxes: Floats) -> list[dict[str, Any]]:
    """What ``post_process_pose_estimation`` of Transformers' ViTPose gives for one image; see ``Poses``."""
    import torch

    labels = torch.arange(keypoint_scores.shape[1])
    tensors = (torch.tensor(array) for array in (keypoints, keypoint_scores, boxes))
    return [
        {"keypoints": points, "scores": scores, "labels": labels.clone(), "bbox": box}
        for points, scores, box in zip(*tensors, strict=True)
    ]


def supervision_keypoints(
    keypoints: Floats,
    keypoint_scores: Floats,
    scores: Floats,
    counts: NDArray[np.bool_],
    track_ids: NDArray[np.int64] | None,
) -> Any:
    """A ``supervision.KeyPoints`` in image pixels, all of class 0; ImportError if supervision is missing."""
    try:
        import supervision
    except ImportError:
        raise ImportError("Supervision is missing; run: pip install 'dekrpose[supervision]'") from None
    if len(scores) == 0:
        return supervision.KeyPoints.empty()
    known = inspect.signature(supervision.KeyPoints).parameters
    fields: dict[str, Any] = {"xy": keypoints.copy(), "class_id": np.zeros(len(scores), np.int64)}
    if "keypoint_confidence" in known:
        fields |= {"keypoint_confidence": keypoint_scores.copy(), "detection_confidence": scores.copy()}
    else:  # before supervision 0.29
        fields["confidence"] = keypoint_scores.copy()
    if "visible" in known:
        fields["visible"] = counts.copy()
    if track_ids is not None:
        fields["data"] = {"tracker_id": track_ids.copy()}
    return supervision.KeyPoints(**fields)
