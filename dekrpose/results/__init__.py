"""Results: the poses found in one image, as NumPy arrays that know how to be drawn, saved and exported."""

from __future__ import annotations

import os
import reprlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import IO, Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dekrpose import formats
from dekrpose.draw.figure import counting
from dekrpose.formats import own_json, tables
from dekrpose.results import geometry
from dekrpose.results.exports import Exports
from dekrpose.results.person import Keypoint, Person
from dekrpose.results.pictures import Pictures, people_words
from dekrpose.results.selecting import alike, joined, kept, selection
from dekrpose.skeletons import Skeleton

__all__ = ["Keypoint", "Person", "Poses"]

_ARRAYS: dict[str, tuple[Any, ...]] = {
    "keypoints": (np.float32, "N", "K", 2),
    "keypoint_scores": (np.float32, "N", "K"),
    "scores": (np.float32, "N"),
    "track_ids": (np.int64, "N"),
    "image": (np.uint8, "H", "W", 3),
}
"""Types and shapes of the fields of ``Poses`` that are arrays; H and W are the image's sides."""


class _OldEmpty:
    """``Poses.empty``, a constructor once: always true in ``if poses.empty:``, where a question was meant."""

    def __get__(self, instance: Poses | None, owner: type[Poses]) -> Any:
        instead = "Poses.nobody(skeleton, image_size)" if instance is None else "poses.is_empty"
        warnings.warn(f"Poses.empty is old; use {instead}", DeprecationWarning, stacklevel=2)
        return owner.nobody if instance is None else instance.is_empty


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Poses(Exports, Pictures):
    """The poses of all people found in one image; none at all is a normal answer.

    Arrays are read-only copies, so results never share memory with each other or with the caller.
    Keypoints are as the network placed them: never zeroed, never clipped, some may lie outside the image.

    Args:
        keypoints: (N, K, 2) float32 xy, image pixels.
        keypoint_scores: (N, K) float32 in [0, 1].
        scores: (N,) float32 in [0, 1], one per person.
        skeleton: names and edges of the K keypoints.
        image_size: (height, width) of the image in pixels.
        track_ids: (N,) integer identities in a stream, or None.
        timing: milliseconds per stage.
        source: path or URL of the image, if it had one.
        index: position in a stream, from 0.
        timestamp: seconds from the start of a video.
        error: None, or why this input gave nothing (``estimate_many(on_error="skip")``).
        image: (H, W, 3) uint8 RGB, kept by ``estimate`` only; a read-only array is kept as it is, any other is copied.

    Raises:
        ValueError: shapes do not fit each other, the skeleton or the image size.
    """

    keypoints: NDArray[np.float32]
    keypoint_scores: NDArray[np.float32]
    scores: NDArray[np.float32]
    skeleton: Skeleton
    image_size: tuple[int, int]
    track_ids: NDArray[np.int64] | None = None
    timing: Mapping[str, float] = field(default_factory=dict)
    source: str | None = None
    index: int | None = None
    timestamp: float | None = None
    error: str | None = None
    image: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        height, width = self.image_size
        sizes = {"N": len(self.scores), "K": len(self.skeleton.keypoints), "H": height, "W": width}
        for name, (dtype, *sides) in _ARRAYS.items():
            if getattr(self, name) is not None or name not in ("track_ids", "image"):
                shape = tuple(sizes.get(side, side) for side in sides)
                object.__setattr__(self, name, _own(getattr(self, name), dtype, shape, name))
        object.__setattr__(self, "image_size", (int(height), int(width)))
        object.__setattr__(self, "timing", {str(stage): float(value) for stage, value in self.timing.items()})

    def __setstate__(self, state: dict[str, Any]) -> None:
        for value in state.values():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False  # pickles do not keep it
        self.__dict__.update(state)

    empty = _OldEmpty()

    @classmethod
    def nobody(cls, skeleton: Skeleton, image_size: tuple[int, int], **fields: Any) -> Poses:
        """Nobody: arrays with N = 0. ``fields`` are the constructor's others, such as ``error`` or ``source``."""
        if not isinstance(skeleton, Skeleton):
            raise TypeError(f"skeleton must be a Skeleton, such as dekrpose.skeletons.COCO_17, got {skeleton!r}")
        count = len(skeleton)
        return cls(
            keypoints=np.zeros((0, count, 2), np.float32),
            keypoint_scores=np.zeros((0, count), np.float32),
            scores=np.zeros(0, np.float32),
            skeleton=skeleton,
            image_size=image_size,
            **fields,
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Poses:
        """The inverse of ``to_dict``, without an image.

        Raises:
            ValueError: not our format, another version of it, or a field is missing or cannot be used.
        """
        return cls(**own_json.fields_of_poses(values))

    @classmethod
    def from_json(cls, text: str | bytes | os.PathLike[str] | IO[str] | IO[bytes]) -> Poses:
        """The inverse of ``to_json``, and of ``save`` as JSON.

        Args:
            text: JSON, an open file with it, or the path of one: a ``Path``, or a text that ends in ".json".

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: says what is wrong when the text is not such JSON.
        """
        if isinstance(text, os.PathLike) or (isinstance(text, str) and text.lower().endswith(".json")):
            content = Path(text).read_bytes()
            try:
                return cls.from_dict(formats.parse_json(content))
            except ValueError as error:
                raise ValueError(f"{os.fspath(text)}: {error}") from error
        if hasattr(text, "read"):
            text = text.read()
        try:
            values = formats.parse_json(text)
        except ValueError as error:
            if not isinstance(text, str) or text.lstrip()[:1] in ("{", "["):
                raise
            raise ValueError(f"neither JSON nor a path that ends in .json: {reprlib.repr(text)}: {error}") from error
        return cls.from_dict(values)

    @classmethod
    def from_pandas(cls, table: Any, *, skeleton: Skeleton, image_size: tuple[int, int], **fields: Any) -> Poses:
        """The inverse of ``to_pandas``, also of a part of its rows.

        Args:
            table: a DataFrame with the columns of ``to_pandas``, of one image. Keypoints whose rows are missing are
                NaN, with a score of 0.
            skeleton, image_size: which the table does not hold.
            fields: the constructor's others.

        Raises:
            ValueError: a column is missing, or the rows contradict each other.
        """
        return cls(**tables.fields_of_table(table, skeleton), skeleton=skeleton, image_size=image_size, **fields)

    @classmethod
    def concat(cls, results: Iterable[Poses]) -> Poses:
        """Everyone of several results of one image, in their order.

        The first one's source, index, timestamp and image stay; times are added. Where only some have identities, the
        others' people get -1: none yet.

        Raises:
            ValueError: there is none, or skeletons or image sizes differ.
        """
        every = list(results)
        if not every:
            raise ValueError("concat needs at least one result; Poses.nobody(skeleton, image_size) is an empty one")
        return replace(every[0], **joined(every))

    def __add__(self, other: Poses) -> Poses:
        """``concat`` of two."""
        return Poses.concat([self, other]) if isinstance(other, Poses) else NotImplemented

    @cached_property
    def boxes(self) -> NDArray[np.float32]:
        """(N, 4) float32 x0, y0, x1, y1, image pixels: the part of each person that the image shows.

        The smallest box around the keypoints that count, cut to the image. A keypoint counts when its
        score is at least a tenth of the person's best, wherever it lies: someone cut by the frame gets a
        box that reaches the frame, and a wild guess with next to no score does not blow the box up. It is
        empty (zero width or height, on the border) for someone who lies outside altogether.
        """
        counts = counting(self.keypoints, self.keypoint_scores)
        low = np.where(counts[..., None], self.keypoints, np.inf).min(axis=1, initial=np.inf)
        high = np.where(counts[..., None], self.keypoints, -np.inf).max(axis=1, initial=-np.inf)
        boxes = np.concatenate([low, high], axis=1)
        boxes[~counts.any(axis=1)] = 0
        height, width = self.image_size
        clipped: NDArray[np.float32] = np.clip(boxes, 0, np.array([width, height] * 2)).astype(np.float32)
        clipped.flags.writeable = False
        return clipped

    @property
    def areas(self) -> NDArray[np.float32]:
        """(N,) float32 areas of ``boxes``, square image pixels."""
        return np.asarray((self.boxes[:, 2] - self.boxes[:, 0]) * (self.boxes[:, 3] - self.boxes[:, 1]))

    @property
    def is_empty(self) -> bool:
        """Whether it is nobody."""
        return len(self) == 0

    def __len__(self) -> int:
        return len(self.scores)

    @overload
    def __getitem__(self, which: int) -> Person: ...
    @overload
    def __getitem__(self, which: str) -> NDArray[np.float32]: ...
    @overload
    def __getitem__(self, which: slice | Sequence[int] | Sequence[bool] | NDArray[Any]) -> Poses: ...
    def __getitem__(self, which: Any) -> Person | NDArray[np.float32] | Poses:
        """One person (an integer), a keypoint of everyone (its name), or the ``Poses`` of several people.

        Several are a slice, indices, or a mask of N booleans. A keypoint is (N, 3) float32 x, y in image pixels, score;
        KeyError lists the names that exist.
        """
        if isinstance(which, str):
            channel = self.skeleton.index(which)
            return np.concatenate([self.keypoints[:, channel], self.keypoint_scores[:, channel, None]], axis=1)
        if isinstance(which, (int, np.integer)) and not isinstance(which, bool):
            track_id = None if self.track_ids is None else int(self.track_ids[which])
            score = float(self.scores[which])
            points = self.keypoints[which], self.keypoint_scores[which]
            return Person(*points, score, self.boxes[which], track_id, self.skeleton, self.image_size, self.image)
        if not isinstance(which, slice):
            which = selection(which)
        return replace(
            self,
            keypoints=self.keypoints[which],
            keypoint_scores=self.keypoint_scores[which],
            scores=self.scores[which],
            track_ids=None if self.track_ids is None else self.track_ids[which],
        )

    def __iter__(self) -> Iterator[Person]:
        return (self[person] for person in range(len(self)))

    def filter(
        self,
        where: Callable[[Person], bool] | None = None,
        *,
        score: float | None = None,
        keypoints: str | Sequence[str] | int | None = None,
        keypoint_score: float | None = None,
        box: Sequence[float] | None = None,
        area: float | None = None,
    ) -> Poses:
        """The people to whom everything that is asked applies, in their order.

        Args:
            where: a question of your own.
            score: at least this person's score.
            keypoints: these keypoints (a name or several), or at least so many, are seen.
            keypoint_score: the score from which a keypoint is seen; None: at least a tenth of the person's best.
            box: x0, y0, x1, y1 in image pixels; the middle of the person's box lies in it.
            area: at least so many square image pixels has the person's box.

        Raises:
            KeyError: there is no such keypoint.
            ValueError: a value cannot be used.
        """
        return self[kept(self, where, score, keypoints, keypoint_score, box, area)]

    def allclose(self, other: Poses, *, pixels: float = 0.01, scores: float = 1e-4) -> bool:
        """Whether both have the same people in the same order, up to rounding.

        Args:
            other: compared: skeleton, image size, keypoints, scores and identities; nothing else.
            pixels: how far keypoints may be apart in x and in y, image pixels.
            scores: how much scores may differ.
        """
        return alike(self, other, pixels, scores)

    def without_image(self) -> Poses:
        """The same without the photo that ``estimate`` kept: what is sent to other processes is then small."""
        return replace(self, image=None)

    def joint_angles(self) -> dict[str, NDArray[np.float64]]:
        """(N,) degrees for each joint of the skeleton, from 0 to 180 (stretched), of the points as placed.

        Elbows, knees, shoulders and hips, and keypoints with two edges; NaN where points coincide or are not finite.
        """
        joints = geometry.joints_of(self.skeleton)
        return {joint: geometry.angles_at(self.keypoints, self.skeleton, joint) for joint in joints}

    def normalized(self) -> NDArray[np.float64]:
        """(N, K, 2) xy, y down: the poses wherever and however large people are.

        The origin is the mean of the keypoints that count (at least a tenth of the person's best score), the unit their
        root mean square distance from it; NaN for people without extent.
        """
        return geometry.normalized(self.keypoints, counting(self.keypoints, self.keypoint_scores))

    def __repr__(self) -> str:
        parts = [people_words(len(self)), self.skeleton.name, f"image_size={self.image_size}"]
        if len(self):
            shown = ", ".join(f"{score:.2f}" for score in self.scores[:5])
            parts.append(f"scores=[{shown}{', ...' if len(self) > 5 else ''}]")
        for name in ("source", "index", "error"):
            if getattr(self, name) is not None:
                parts.append(f"{name}={getattr(self, name)!r}")
        return f"Poses({', '.join(parts)})"


def _own(values: ArrayLike, dtype: Any, shape: tuple[int, ...], name: str) -> NDArray[Any]:
    """A read-only array that nobody else can write to, of the given type and shape."""
    array = np.asarray(values)
    if array.shape != shape:
        raise ValueError(f"{name} must have the shape {shape}, got {array.shape}")
    if name == "image" and array.dtype != dtype:
        raise ValueError(f"image must be (H, W, 3) uint8 RGB, got {array.dtype}")
    if array.dtype != dtype or array.flags.writeable:
        array = array.astype(dtype)
    array.flags.writeable = False
    return array
