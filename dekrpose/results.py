"""Results: the poses found in one image, as NumPy arrays that know how to be drawn, saved and exported."""

from __future__ import annotations

import base64
import html
import io
import json
import os
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from dekrpose import formats
from dekrpose.draw import RELATIVE_FLOOR, draw_poses
from dekrpose.skeletons import Skeleton

_FORMAT = "dekrpose.poses"
_FORMAT_VERSION = 1
_FIELDS = ("source", "index", "timestamp", "error")
_PHOTO_OPTIONS: dict[str, dict[str, Any]] = {
    # Thin coloured limbs lose their colour under chroma subsampling.
    ".jpg": {"format": "JPEG", "quality": 93, "subsampling": 0},
    ".jpeg": {"format": "JPEG", "quality": 93, "subsampling": 0},
    ".png": {"format": "PNG"},
    ".webp": {"format": "WEBP", "quality": 93},
}
_PREVIEW_SIDE = 640


class Keypoint(NamedTuple):
    """One keypoint: x and y in image pixels, score in [0, 1]."""

    x: float
    y: float
    score: float


@dataclass(frozen=True, eq=False)
class Person:
    """One person of ``Poses``: a read-only view, not a copy.

    Args:
        keypoints: (K, 2) float32 xy, image pixels.
        keypoint_scores: (K,) float32 in [0, 1].
        score: the person's score in [0, 1].
        box: (4,) float32 x0, y0, x1, y1, image pixels; see ``Poses.boxes``.
        track_id: identity in a stream, or None.
        skeleton: names of the K keypoints.
    """

    keypoints: NDArray[np.float32]
    keypoint_scores: NDArray[np.float32]
    score: float
    box: NDArray[np.float32]
    track_id: int | None
    skeleton: Skeleton

    def __len__(self) -> int:
        return len(self.keypoints)

    def __getitem__(self, keypoint: str | int) -> Keypoint:
        """One keypoint by its name or channel; KeyError lists the names that exist."""
        channel = self.skeleton.index(keypoint) if isinstance(keypoint, str) else keypoint
        x, y = self.keypoints[channel].tolist()
        return Keypoint(x, y, float(self.keypoint_scores[channel]))

    def __iter__(self) -> Iterator[Keypoint]:
        return (self[channel] for channel in range(len(self)))

    def __repr__(self) -> str:
        track = "" if self.track_id is None else f", track_id={self.track_id}"
        box = ", ".join(f"{value:.0f}" for value in self.box)
        return f"Person(score={self.score:.2f}, box=[{box}], {len(self)} keypoints{track})"


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Poses:
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
        count, channels = len(self.scores), len(self.skeleton.keypoints)
        arrays: dict[str, tuple[Any, tuple[int, ...]]] = {
            "keypoints": (np.float32, (count, channels, 2)),
            "keypoint_scores": (np.float32, (count, channels)),
            "scores": (np.float32, (count,)),
        }
        if self.track_ids is not None:
            arrays["track_ids"] = (np.int64, (count,))
        if self.image is not None:
            arrays["image"] = (np.uint8, (height, width, 3))
        for name, (dtype, shape) in arrays.items():
            object.__setattr__(self, name, _own(getattr(self, name), dtype, shape, name))
        object.__setattr__(self, "image_size", (int(height), int(width)))
        object.__setattr__(self, "timing", {str(stage): float(value) for stage, value in self.timing.items()})

    @classmethod
    def empty(cls, skeleton: Skeleton, image_size: tuple[int, int], **fields: Any) -> Poses:
        """Nobody: arrays with N = 0. ``fields`` are the constructor's others, such as ``error`` or ``source``."""
        count = len(skeleton)
        return cls(
            keypoints=np.zeros((0, count, 2), np.float32),
            keypoint_scores=np.zeros((0, count), np.float32),
            scores=np.zeros(0, np.float32),
            skeleton=skeleton,
            image_size=image_size,
            **fields,
        )

    @cached_property
    def boxes(self) -> NDArray[np.float32]:
        """(N, 4) float32 x0, y0, x1, y1, image pixels: the part of each person that the image shows.

        The smallest box around the keypoints that count, cut to the image. A keypoint counts when its
        score is at least a tenth of the person's best, wherever it lies: someone cut by the frame gets a
        box that reaches the frame, and a wild guess with next to no score does not blow the box up. It is
        empty (zero width or height, on the border) for someone who lies outside altogether.
        """
        best = self.keypoint_scores.max(axis=1, keepdims=True, initial=0)
        counts = (self.keypoint_scores >= RELATIVE_FLOOR * best) & np.isfinite(self.keypoints).all(axis=2)
        low = np.where(counts[..., None], self.keypoints, np.inf).min(axis=1, initial=np.inf)
        high = np.where(counts[..., None], self.keypoints, -np.inf).max(axis=1, initial=-np.inf)
        boxes = np.concatenate([low, high], axis=1)
        boxes[~counts.any(axis=1)] = 0
        height, width = self.image_size
        clipped: NDArray[np.float32] = np.clip(boxes, 0, np.array([width, height] * 2)).astype(np.float32)
        clipped.flags.writeable = False
        return clipped

    def __len__(self) -> int:
        return len(self.scores)

    @overload
    def __getitem__(self, which: int) -> Person: ...
    @overload
    def __getitem__(self, which: slice | Sequence[int] | Sequence[bool] | NDArray[Any]) -> Poses: ...
    def __getitem__(self, which: Any) -> Person | Poses:
        """One person (an integer), or the ``Poses`` of several: a slice, indices, or a mask of N booleans."""
        if isinstance(which, (int, np.integer)) and not isinstance(which, bool):
            track_id = None if self.track_ids is None else int(self.track_ids[which])
            score = float(self.scores[which])
            return Person(
                self.keypoints[which], self.keypoint_scores[which], score, self.boxes[which], track_id, self.skeleton
            )
        if not isinstance(which, slice):
            which = _selection(which)
        return replace(
            self,
            keypoints=self.keypoints[which],
            keypoint_scores=self.keypoint_scores[which],
            scores=self.scores[which],
            track_ids=None if self.track_ids is None else self.track_ids[which],
        )

    def __iter__(self) -> Iterator[Person]:
        return (self[person] for person in range(len(self)))

    def __repr__(self) -> str:
        parts = [_people(len(self)), self.skeleton.name, f"image_size={self.image_size}"]
        if len(self):
            shown = ", ".join(f"{score:.2f}" for score in self.scores[:5])
            parts.append(f"scores=[{shown}{', ...' if len(self) > 5 else ''}]")
        for name in ("source", "index", "error"):
            if getattr(self, name) is not None:
                parts.append(f"{name}={getattr(self, name)!r}")
        return f"Poses({', '.join(parts)})"

    def _repr_html_(self) -> str:
        """For notebooks: the photo with its poses (at most 640 pixels wide or high), or a table without it."""
        height, width = self.image_size
        parts = [_people(len(self)), f"{width} by {height} pixels", self.source, self.error]
        caption = f"<div>{html.escape(' · '.join(part for part in parts if part))}</div>"
        if self.image is None:
            return _html_table(self) + caption
        preview = self._preview()
        buffer = io.BytesIO()
        Image.fromarray(preview.draw()).save(buffer, **{**_PHOTO_OPTIONS[".jpg"], "quality": 85})
        data = base64.b64encode(buffer.getvalue()).decode("ascii")
        return f'<img src="data:image/jpeg;base64,{data}" alt="{_people(len(self))}">{caption}'

    def _preview(self) -> Poses:
        """Image and keypoints, reduced to the preview's size, so that limbs are drawn as wide as it needs."""
        image = self._kept_image()
        height, width = self.image_size
        scale = _PREVIEW_SIDE / max(height, width)
        if scale >= 1:
            return self
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
        factors = np.array([size[0] / width, size[1] / height], np.float32)
        return replace(self, keypoints=self.keypoints * factors, image=small, image_size=small.shape[:2])

    def _kept_image(self) -> NDArray[np.uint8]:
        if self.image is None:
            raise ValueError(
                "this result holds no image (only estimate keeps it); hand it over: poses.draw(image) takes "
                "(H, W, 3) uint8 RGB, and poses.save('x.json') needs none"
            )
        return self.image

    def draw(
        self,
        image: NDArray[np.uint8] | None = None,
        *,
        color: Literal["rgb", "bgr"] = "rgb",
        keypoint_threshold: float | None = None,
        thickness: float | None = None,
        color_by: Literal["side", "person"] | None = None,
    ) -> NDArray[np.uint8]:
        """Draw the poses onto a copy of the image.

        Args:
            image: (H, W, 3) uint8 in the order that ``color`` names; None takes the kept RGB image.
            color, keypoint_threshold, thickness, color_by: see ``draw_poses``.

        Returns:
            (H, W, 3) uint8 in the order that ``color`` names.

        Raises:
            ValueError: no image was given or kept, or its shape is not that of the estimated one.
        """
        if image is None:
            image = self._kept_image()
            image = image[..., ::-1] if color == "bgr" else image
        return draw_poses(
            image, self, color=color, keypoint_threshold=keypoint_threshold, thickness=thickness, color_by=color_by
        )

    def plot(self, ax: Any = None) -> Any:
        """Show the drawn image in a matplotlib ``Axes`` (a new one if None) and return that.

        Raises:
            ImportError: matplotlib is missing.
            ValueError: no image was kept.
        """
        drawn = self.draw()
        if ax is None:
            try:
                from matplotlib import pyplot  # type: ignore[import-not-found,unused-ignore]
            except ImportError:
                raise ImportError("Matplotlib is missing; run: pip install matplotlib") from None
            _, ax = pyplot.subplots()
        ax.imshow(drawn)
        ax.set_axis_off()
        return ax

    def show(self) -> None:
        """Open the drawn image in the system's viewer."""
        Image.fromarray(self.draw()).show(title=self.source or "poses")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the drawn photo (.jpg, .jpeg, .png, .webp) or the numbers (.json).

        The file appears in whole or not at all: it is written under a temporary name beside ``path``.

        Raises:
            ValueError: another suffix, or a photo is wanted and no image was kept.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix == ".json":
            content = self.to_json(indent=2).encode("utf-8", "backslashreplace")  # names may be no text
        elif suffix in _PHOTO_OPTIONS:
            buffer = io.BytesIO()
            Image.fromarray(self.draw()).save(buffer, **_PHOTO_OPTIONS[suffix])
            content = buffer.getvalue()
        else:
            raise ValueError(f"poses are saved as {', '.join((*_PHOTO_OPTIONS, '.json'))}, got {path.name!r}")
        formats.write_whole(path, content)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types that say what they are; ``from_dict`` is the inverse. The image is left out."""
        people = [
            {
                "score": _number(person.score),
                "box": [_number(value) for value in person.box],
                "track_id": person.track_id,
                "keypoints": {
                    name: [_number(value) for value in keypoint]
                    for name, keypoint in zip(self.skeleton.keypoints, person, strict=True)
                },
            }
            for person in self
        ]
        return {
            "format": _FORMAT,
            "version": _FORMAT_VERSION,
            "units": "keypoints are [x, y, score], boxes [x0, y0, x1, y1]; image pixels, scores in [0, 1]",
            "image_size": {"height": self.image_size[0], "width": self.image_size[1]},
            "source": self.source,
            "index": self.index,
            "timestamp": self.timestamp,
            "error": self.error,
            "timing_ms": dict(self.timing),
            "skeleton": json.loads(json.dumps(self.skeleton.to_dict())),
            "people": people,
        }

    def to_json(self, indent: int | None = None) -> str:
        """``to_dict`` as strict JSON text."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False, ensure_ascii=False)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Poses:
        """The inverse of ``to_dict``, without an image.

        Raises:
            ValueError: not our format, another version of it, or a field is missing or cannot be used.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"expected an object with the format {_FORMAT!r}, got {type(values).__name__}")
        if values.get("format") != _FORMAT or values.get("version") != _FORMAT_VERSION:
            found = f"{reprlib.repr(values.get('format'))} version {reprlib.repr(values.get('version'))}"
            raise ValueError(f"expected {_FORMAT!r} version {_FORMAT_VERSION}, as to_dict writes it, got {found}")
        try:
            return cls._from_values(values)
        except (KeyError, TypeError, OverflowError, RecursionError, ValueError) as error:
            raise ValueError(f"these poses are incomplete or damaged: {error}") from error

    @classmethod
    def _from_values(cls, values: Mapping[str, Any]) -> Poses:
        for name in ("skeleton", "image_size", "timing_ms"):
            if not isinstance(formats.field_of(values, name, "the object"), Mapping):
                raise ValueError(f"{name} must be an object, got {reprlib.repr(values[name])}")
        skeleton = Skeleton.from_dict(values["skeleton"])
        people = formats.read_people(formats.field_of(values, "people", "the object"), skeleton.keypoints)
        fields = {name: formats.field_of(values, name, "the object") for name in _FIELDS}
        size = [formats.field_of(values["image_size"], side, "image_size") for side in ("height", "width")]
        height, width = (formats.whole_number(side, "image_size", 0, 2**31) for side in size)
        timing, index, timestamp = values["timing_ms"], fields["index"], fields["timestamp"]
        for name in ("source", "error"):
            if fields[name] is not None and not isinstance(fields[name], str):
                raise ValueError(f"{name} must be a text or null, got {reprlib.repr(fields[name])}")
        return cls(
            **people,
            skeleton=skeleton,
            image_size=(height, width),
            timing={stage: formats.finite_number(value, f"timing_ms of {stage!r}") for stage, value in timing.items()},
            index=None if index is None else formats.whole_number(index, "index", -(2**63), 2**63),
            timestamp=None if timestamp is None else formats.finite_number(timestamp, "timestamp"),
            source=fields["source"],
            error=fields["error"],
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> Poses:
        """The inverse of ``to_json``; ValueError says what is wrong when the text is not such JSON."""
        values = formats.parse_json(text)
        if not isinstance(values, dict):
            raise ValueError(f"expected a JSON object with the format {_FORMAT!r}, got {type(values).__name__}")
        return cls.from_dict(values)

    def to_coco(self, image_id: int | str, category_id: int = 1) -> list[dict[str, Any]]:
        """COCO results: one dict per person with image_id, category_id, keypoints (x, y, score, flat) and score.

        Keypoints that are not finite are 0, 0, 0; see ``formats.coco_results``.
        """
        return formats.coco_results(self.keypoints, self.keypoint_scores, self.scores, image_id, category_id)

    def to_openpose(self) -> dict[str, Any]:
        """OpenPose's JSON in its BODY_25 order; see ``formats.openpose_people``."""
        return formats.openpose_people(self.keypoints, self.keypoint_scores, self.skeleton)

    def to_pandas(self) -> Any:
        """A DataFrame, one row per keypoint: person, keypoint, x, y, score, person_score (and track_id)."""
        return formats.pandas_table(self.keypoints, self.keypoint_scores, self.scores, self.track_ids, self.skeleton)

    def to_supervision(self) -> Any:
        """A ``supervision.KeyPoints``."""
        return formats.supervision_keypoints(self.keypoints, self.keypoint_scores, self.scores)


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


def _selection(which: Any) -> NDArray[Any]:
    """Indices or a mask as an array; an empty list selects nobody."""
    array = np.asarray(which)
    array = array.astype(np.intp) if array.size == 0 and array.dtype != bool else array
    if array.ndim != 1 or array.dtype.kind not in "biu":
        raise TypeError(
            f"poses are indexed by an integer, a slice, or a list of integers or booleans, got {which!r}; "
            "keypoints are named on a person: poses[0]['left_wrist']"
        )
    return array


def _number(value: float) -> float | None:
    """The shortest number that is the same float32; None for NaN and infinity, which JSON lacks."""
    return float(str(np.float32(value))) if np.isfinite(value) else None


def _people(count: int) -> str:
    return "nobody" if count == 0 else "1 person" if count == 1 else f"{count} people"


def _html_table(poses: Poses) -> str:
    rows = "".join(
        f"<tr><td>{number}</td><td>{person.score:.2f}</td><td>{', '.join(f'{v:.0f}' for v in person.box)}</td></tr>"
        for number, person in enumerate(poses)
    )
    return f"<table><tr><th>person</th><th>score</th><th>box (x0, y0, x1, y1)</th></tr>{rows}</table>" if rows else ""
