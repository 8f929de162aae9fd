"""What a model finds at one score threshold: PCK, recall, precision and people seen where nobody is.

All functions take photos with their annotated people and, in the same order, the keypoints that are predicted for
each photo. They are pure: no model, no files. Shares are in [0, 1]; NaN where there is nothing to count.

A person counts when its ``source`` is "human" (for recall also "teacher"), or when its file names no source: the data
that the bundled model is measured on have sources; of any other dataset everybody counts.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dekrpose.data.dataset import Person, Photo
from dekrpose.data.oks import oks_matrix
from dekrpose.skeletons import Skeleton

SMALL_AREA = 32.0**2
"""Square image pixels below which COCO calls a person small."""
BODY_KEYPOINTS = tuple(
    f"{side}_{part}" for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle") for side in ("left", "right")
)
"""The twelve keypoints that PCK is about."""
TORSO_DIAGONALS = (("left_shoulder", "right_hip"), ("right_shoulder", "left_hip"))
"""PCK's unit of length: the first of these whose ends are both labelled."""

MATCH_OKS, HIT_OKS = 0.1, 0.5
"""From which on a pose belongs to a person whose errors are told, and from which on it has found somebody."""
_PCK_PHOTOS = "lsp_"  # of people with a source, PCK is about those in photos whose name starts so

Keypoints = NDArray[np.float32]


def pck(photos: Sequence[Photo], predicted: Sequence[Keypoints], skeleton: Skeleton) -> float:
    """Share of labelled body keypoints that are predicted nearer than 0.2 torso lengths (PCK).

    Over people whose torso is labelled: left shoulder to right hip, else right shoulder to left hip. Everybody is
    compared with the prediction of highest OKS; where nothing is predicted, all keypoints are wrong. ``predicted``
    holds per photo (N, K, 2) xy, image pixels; N may be 0.
    """
    correct = total = 0
    body = [skeleton.index(name) for name in BODY_KEYPOINTS if name in skeleton.keypoints]
    for photo, poses in zip(photos, predicted, strict=True):
        for person in _people(photo, ("human",)):
            torso = torso_length(person.keypoints, skeleton)
            if np.isnan(torso) or (person.source and not photo.file_name.startswith(_PCK_PHOTOS)):
                continue
            labelled = person.keypoints[body, 2] > 0
            total += int(labelled.sum())
            if len(poses):
                best = poses[oks(poses, [person], skeleton)[:, 0].argmax()]
                distances = np.linalg.norm(best[body] - person.keypoints[body, :2], axis=1)
                correct += int((labelled & (distances < 0.2 * torso)).sum())
    return _share(correct, total)


def recall(
    photos: Sequence[Photo],
    predicted: Sequence[Keypoints],
    skeleton: Skeleton,
    areas: tuple[float, float] = (SMALL_AREA, np.inf),
) -> float:
    """Share of people with labelled keypoints for whom some prediction reaches an OKS of 0.5; as for ``pck``.

    ``areas``: lower bound (inclusive) and upper bound (exclusive) of a person's area, square image pixels.
    """
    found = total = 0
    for photo, poses in zip(photos, predicted, strict=True):
        people = [person for person in _people(photo, ("human", "teacher")) if areas[0] <= person.area < areas[1]]
        total += len(people)
        found += int((oks(poses, people, skeleton).max(axis=0, initial=0.0) >= HIT_OKS).sum())
    return _share(found, total)


def precision(photos: Sequence[Photo], predicted: Sequence[Keypoints], skeleton: Skeleton) -> float:
    """Share of predictions that are somebody, with an OKS of 0.5, each person claimed once; as for ``pck``.

    Predictions claim the free person of highest OKS in their order, so give them best first. A prediction without a
    person is left out when at least half of its keypoints lie in the box of an ignored one.
    """
    right = total = 0
    for photo, poses in zip(photos, predicted, strict=True):
        claimed = {match.pose for match in matches(poses, photo.labelled, skeleton, HIT_OKS)}
        right += len(claimed)
        total += sum(row in claimed or not in_ignored_box(pose, photo) for row, pose in enumerate(poses))
    return _share(right, total)


def false_people(photos: Sequence[Photo], predicted: Sequence[Keypoints]) -> float:
    """Mean number of predictions in photos that show nobody: those without any annotation; NaN without such photos."""
    counts = [len(poses) for photo, poses in zip(photos, predicted, strict=True) if not photo.people]
    return _share(sum(counts), len(counts))


def in_ignored_box(pose: Keypoints, photo: Photo) -> bool:
    """Whether at least half of a pose's keypoints (K, 2), image pixels, lie in the box of one ignored person."""
    boxes = [person.box for person in photo.people if person.ignored]
    return any(((pose >= box[:2]) & (pose <= box[:2] + box[2:])).all(axis=1).mean() >= 0.5 for box in boxes)


def torso_length(keypoints: NDArray[np.float32], skeleton: Skeleton) -> float:
    """A person's torso diagonal in image pixels, from (K, 3) x, y, visibility; NaN if no diagonal is labelled."""
    for first, second in TORSO_DIAGONALS:
        if first in skeleton.keypoints and second in skeleton.keypoints:
            ends = keypoints[[skeleton.index(first), skeleton.index(second)]]
            if (ends[:, 2] > 0).all():
                return float(np.linalg.norm(ends[0, :2] - ends[1, :2]))
    return float("nan")


def _people(photo: Photo, sources: Collection[str]) -> list[Person]:
    """People with labelled keypoints that count."""
    return [person for person in photo.labelled if not person.source or person.source in sources]


class Match(NamedTuple):
    """Which pose belongs to which person, and how well it fits."""

    pose: int
    person: int
    oks: float


def matches(
    poses: Keypoints, people: Sequence[Person], skeleton: Skeleton, minimum_oks: float = MATCH_OKS
) -> list[Match]:
    """Poses (N, K, 2), image pixels, best first, claim in their order the free person of highest OKS.

    At most one match per pose and per person, in the order of the poses; people must have labelled keypoints.
    """
    similarity = oks(poses, people, skeleton)
    found = []
    for pose, row in enumerate(similarity):
        if row.size and row.max() >= minimum_oks:
            index = int(row.argmax())
            found.append(Match(pose, index, float(row[index])))
            similarity[:, index] = 0  # each person is claimed once
    return found


def oks(poses: Keypoints, people: Sequence[Person], skeleton: Skeleton) -> NDArray[np.float64]:
    """(N, P) OKS of poses (N, K, 2), image pixels, with annotated people."""
    keypoints, areas = [person.keypoints for person in people], [person.area for person in people]
    return oks_matrix(poses, keypoints, areas, skeleton.sigmas)


def best_oks(poses: Keypoints, photo: Photo, skeleton: Skeleton) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(N,) each pose's highest OKS with somebody of its photo, 0 where nobody is; and (N,) which poses can be judged.

    Nobody can say how good a pose is that fits nobody (OKS below 0.5) and has at least half of its keypoints in the box
    of an ignored person: a crowd, or somebody unlabelled.
    """
    best = oks(poses, photo.labelled, skeleton).max(axis=1, initial=0.0)
    judged = [value >= HIT_OKS or not in_ignored_box(pose, photo) for value, pose in zip(best, poses, strict=True)]
    return best, np.array(judged, bool)


def none_for_nan(value: Any) -> Any:
    """A value of a report for JSON, which has no NaN."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
