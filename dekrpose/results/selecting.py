"""Which people of a result are meant, and several results as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dekrpose.draw.figure import counting
from dekrpose.formats import finite_number

if TYPE_CHECKING:
    from dekrpose.results import Poses
    from dekrpose.results.person import Person


def selection(which: Any) -> NDArray[Any]:
    """Indices or a mask as an array; an empty list selects nobody."""
    array = np.asarray(which)
    array = array.astype(np.intp) if array.size == 0 and array.dtype != bool else array
    if array.ndim != 1 or array.dtype.kind not in "biu":
        raise TypeError(
            "poses are indexed by an integer, a slice, a list of integers or booleans, or the name of a keypoint, got "
            f"{which!r}"
        )
    return array


def kept(
    poses: Poses,
    where: Callable[[Person], bool] | None,
    score: float | None,
    keypoints: str | Sequence[str] | int | None,
    keypoint_score: float | None,
    box: Sequence[float] | None,
    area: float | None,
) -> NDArray[np.bool_]:
    """(N,) to whom everything applies that ``Poses.filter`` asks."""
    if where is not None and not callable(where):
        raise TypeError(f"where must be a function of a Person, got {where!r}; for a least score: filter(score=0.2)")
    keep = np.ones(len(poses), bool)
    if score is not None:
        keep &= poses.scores >= _score(score, "score")
    if area is not None:
        keep &= poses.areas >= finite_number(area, "area")
    if box is not None:
        keep &= _in_box(poses.boxes, box)
    if keypoints is not None:
        seen = counting(poses.keypoints, poses.keypoint_scores)
        if keypoint_score is not None:
            seen = poses.keypoint_scores >= _score(keypoint_score, "keypoint_score")
        if isinstance(keypoints, (int, np.integer)):
            keep &= seen.sum(axis=1) >= keypoints
        else:
            names = [keypoints] if isinstance(keypoints, str) else keypoints
            keep &= seen[:, [poses.skeleton.index(name) for name in names]].all(axis=1)
    elif keypoint_score is not None:
        raise ValueError("keypoint_score says what seen means; name the keypoints, or how many: keypoints=5")
    if where is not None:
        keep &= np.array([bool(where(person)) for person in poses], bool)
    return keep


def _score(value: Any, label: str) -> float:
    """A limit of scores, which are at most 1."""
    number = finite_number(value, label)
    if number > 1:
        raise ValueError(f"{label} must be a number of at most 1, as scores are, got {value!r}")
    return number


def _in_box(boxes: NDArray[np.float32], box: Sequence[float]) -> NDArray[np.bool_]:
    """Whose middle lies in a box."""
    if isinstance(box, str) or np.shape(box) != (4,):
        raise ValueError(f"box must be x0, y0, x1, y1 in image pixels, got {box!r}")
    x0, y0, x1, y1 = (finite_number(value, "box") for value in box)
    if x1 < x0 or y1 < y0:
        raise ValueError(f"box must be x0, y0, x1, y1 with x0 <= x1 and y0 <= y1, got {box!r}; not x, y, width, height")
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    return np.asarray(((middles >= (x0, y0)) & (middles <= (x1, y1))).all(axis=1))


def joined(results: Sequence[Poses]) -> dict[str, Any]:
    """What changes in the first of several results when it gets the people of all; see ``Poses.concat``."""
    first = results[0]
    for other in results[1:]:
        if (other.skeleton, other.image_size) != (first.skeleton, first.image_size):
            raise ValueError(
                "results of one image are joined, of one skeleton and size, got "
                f"{first.skeleton.name} {first.image_size} and {other.skeleton.name} {other.image_size}"
            )
    names = ("keypoints", "keypoint_scores", "scores")
    fields: dict[str, Any] = {name: np.concatenate([getattr(one, name) for one in results]) for name in names}
    if any(one.track_ids is not None for one in results):
        ids = [np.full(len(one), -1) if one.track_ids is None else one.track_ids for one in results]
        fields["track_ids"] = np.concatenate(ids)
    stages = sorted({stage for one in results for stage in one.timing})
    fields["timing"] = {stage: sum(one.timing.get(stage, 0.0) for one in results) for stage in stages}
    return fields


def alike(first: Poses, second: Poses, pixels: float, scores: float) -> bool:
    """See ``Poses.allclose``."""
    shapes = [(one.skeleton, one.image_size, len(one), one.track_ids is None) for one in (first, second)]
    if shapes[0] != shapes[1]:
        return False
    limits = {"keypoints": pixels, "keypoint_scores": scores, "scores": scores, "track_ids": 0.0}
    pairs = [(getattr(first, name), getattr(second, name), most) for name, most in limits.items()]
    return all(one is None or np.allclose(one, other, rtol=0, atol=most, equal_nan=True) for one, other, most in pairs)
