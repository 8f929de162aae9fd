"""Skeletons: which keypoints a person has and how they belong together."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

Side = Literal["left", "right", "middle"]
NamedSide = Literal["left", "right", ""]
MOST_KEYPOINTS = 1024
MOST_EDGES = 16_384
_SIDE_WORDS: dict[str, NamedSide] = {
    "left": "left",
    "l": "left",
    "左": "left",
    "right": "right",
    "r": "right",
    "右": "right",
}


@dataclass(frozen=True)
class Skeleton:
    """The keypoints of a person, in channel order.

    Args:
        name: what it is called, for messages and model cards.
        keypoints: K unique names in channel order, such as ``"left_wrist"``.
        edges: pairs of keypoint indices that are drawn as limbs. Their order matters: the scoring
            net reads them as its features.
        flip_pairs: pairs of indices that change places when the image is mirrored.
        sigmas: K OKS falloff constants (COCO's ``sigmas``, not doubled).

    Raises:
        ValueError: names repeat, an index is out of range, or the number of sigmas is not K.
    """

    name: str
    keypoints: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    flip_pairs: tuple[tuple[int, int], ...]
    sigmas: tuple[float, ...]

    def __post_init__(self) -> None:
        count, name = len(self.keypoints), reprlib.repr(self.name)
        if not 0 < count <= MOST_KEYPOINTS or len(self.edges) > MOST_EDGES:
            raise ValueError(
                f"a skeleton has 1 to {MOST_KEYPOINTS} keypoints and up to {MOST_EDGES} edges, got {count} and "
                f"{len(self.edges)}"
            )
        if len(set(self.keypoints)) != count:
            raise ValueError(f"skeleton {name} needs unique keypoint names, got {reprlib.repr(self.keypoints)}")
        if len(self.sigmas) != count:
            raise ValueError(f"skeleton {name} has {count} keypoints but {len(self.sigmas)} sigmas")
        for field in ("edges", "flip_pairs"):
            for pair in getattr(self, field):
                if len(pair) != 2 or not all(0 <= index < count for index in pair):
                    raise ValueError(f"{field} of skeleton {name} must be pairs of indices below {count}, got {pair}")
        mirrored = [index for pair in self.flip_pairs for index in pair]
        if len(set(mirrored)) != len(mirrored):
            raise ValueError(f"flip_pairs of skeleton {name} name a keypoint twice: {reprlib.repr(self.flip_pairs)}")

    def __len__(self) -> int:
        return len(self.keypoints)

    @cached_property
    def flip_indices(self) -> tuple[int, ...]:
        """For each channel, the channel that takes its place in a mirrored image."""
        indices = list(range(len(self)))
        for left, right in self.flip_pairs:
            indices[left], indices[right] = right, left
        return tuple(indices)

    @cached_property
    def sides(self) -> tuple[Side, ...]:
        """The side of each keypoint: as its name says, else by its flip pair, whose first is the left one."""
        sides: list[Side] = ["middle"] * len(self)
        for left, right in self.flip_pairs:
            sides[left], sides[right] = "left", "right"
        words: tuple[Side, ...] = ("left", "right")
        said = (next((side for side in words if side in name.lower()), None) for name in self.keypoints)
        return tuple(word or side for word, side in zip(said, sides, strict=True))

    def index(self, keypoint: str) -> int:
        """The channel of a keypoint name; KeyError lists the names that exist."""
        try:
            return self.keypoints.index(keypoint)
        except ValueError:
            raise KeyError(f"no keypoint {keypoint!r} in {self.name}; it has {', '.join(self.keypoints)}") from None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Skeleton:
        """The inverse of ``to_dict``; unknown or missing keys raise ValueError."""
        expected = {"name", "keypoints", "edges", "flip_pairs", "sigmas"}
        if not isinstance(values, Mapping) or set(values) != expected:
            raise ValueError(f"a skeleton has the keys {sorted(expected)}, got {reprlib.repr(values)}")
        return cls(
            name=_texts([values["name"]])[0],
            keypoints=_texts(values["keypoints"]),
            edges=_pairs(values["edges"]),
            flip_pairs=_pairs(values["flip_pairs"]),
            sigmas=_positive(values["sigmas"]),
        )


def _list(values: Any, kind: str) -> list[Any]:
    if not isinstance(values, list | tuple):
        raise ValueError(f"a skeleton has lists of {kind}, got {reprlib.repr(values)}")
    return list(values)


def _texts(values: Any) -> tuple[str, ...]:
    if not all(isinstance(value, str) for value in _list(values, "names")):
        raise ValueError(f"a skeleton's names are texts, got {reprlib.repr(values)}")
    return tuple(values)


def _pairs(values: Any) -> tuple[tuple[int, int], ...]:
    for pair in _list(values, "pairs"):
        if len(_list(pair, "pairs")) != 2 or not all(type(index) is int for index in pair):
            raise ValueError(f"a skeleton's edges and flip pairs are pairs of whole numbers, got {reprlib.repr(pair)}")
    return tuple((a, b) for a, b in values)


def _positive(values: Any) -> tuple[float, ...]:
    for value in _list(values, "numbers"):
        if type(value) not in (int, float) or not 0 < value < 1e6:
            raise ValueError(f"a skeleton's sigmas are numbers above 0, got {reprlib.repr(value)}")
    return tuple(float(value) for value in values)


COCO_17 = Skeleton(
    name="coco-17",
    keypoints=(
        "nose", "left_eye", "right_eye", "left_ear", "right_ear",
        "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
        "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
    ),
    edges=(
        (0, 1), (0, 2), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 6), (5, 7), (5, 11),
        (6, 8), (6, 12), (7, 9), (8, 10), (11, 12), (11, 13), (12, 14), (13, 15), (14, 16),
    ),
    flip_pairs=((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)),
    sigmas=(
        0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072,
        0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089,
    ),
)  # fmt: skip

CROWDPOSE_14 = Skeleton(
    name="crowdpose-14",
    keypoints=(
        "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
        "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "head_top", "neck",
    ),
    edges=(
        (12, 13), (13, 0), (13, 1), (0, 2), (1, 3), (2, 4), (3, 5), (0, 6),
        (1, 7), (6, 8), (7, 9), (8, 10), (9, 11), (6, 7), (0, 1),
    ),
    flip_pairs=((0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11)),
    sigmas=(0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089, 0.079, 0.079),
)  # fmt: skip


def name_words(name: str) -> tuple[str, ...]:
    """The words of a keypoint's name in small letters: of left_eye, leftEye, "left eye", ..."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return tuple(word for word in re.split(r"[\W_]+", spaced.lower()) if word)


def side_and_rest(name: str) -> tuple[NamedSide, tuple[str, ...], str]:
    """The side that a name says, its words with the side blotted out, and the plain name without the side."""
    words = name_words(name)
    for index, word in enumerate(words):
        found = re.fullmatch(r"(left|right|左|右)(.+)", word)
        side = _SIDE_WORDS.get(found[1] if found else word)
        if side:
            before, after = words[:index], [*([found[2]] if found else []), *words[index + 1 :]]
            blot = "letter" if len(word) == 1 else "word"  # left_eye and r_eye are no pair
            return side, (*before, blot, *after), "_".join([*before, *after])
    return "", words, "_".join(words)
