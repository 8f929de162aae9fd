"""Colours: by side, person, identity or score, built in or the caller's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import ImageColor

from dekrpose.draw.figure import SIDES

RGB = tuple[int, int, int]
ColorLike = str | Sequence[int]
"""A name such as "orange", "#ff8800", or (red, green, blue) from 0 to 255."""
Colors = ColorLike | Sequence[ColorLike] | Mapping[str, ColorLike] | Mapping[int, ColorLike]
ColorBy = Literal["side", "person", "identity", "score"]

# Blue and amber stay apart for every kind of colour blindness; the middle is neutral.
_SIDES: dict[str, RGB] = {"left": (48, 168, 255), "right": (255, 176, 32), "middle": (240, 240, 236)}
_PEOPLE: list[RGB] = [
    (255, 176, 32), (48, 168, 255), (36, 196, 140), (232, 110, 170),
    (244, 228, 66), (150, 130, 255), (232, 96, 52), (110, 220, 235),
]  # fmt: skip
_SCORES: list[RGB] = [(138, 104, 255), (228, 60, 140), (255, 110, 30), (255, 224, 70)]  # from 0 to 1
_APART = 200  # distance in RGB from which on a colour stands out
_NOBODY = (170, 170, 170)  # people of a stream who have no identity yet


class Look(NamedTuple):
    """The colours of one person, RGB: of "left", "right" and "middle", and of box and label."""

    sides: dict[str, RGB]
    own: RGB


class _People(Protocol):
    @property
    def scores(self) -> NDArray[np.float32]: ...
    @property
    def track_ids(self) -> NDArray[np.int64] | None: ...


def looks(poses: _People, color_by: ColorBy | None, colors: Colors | None) -> list[Look]:
    """The colours of each person; see ``draw_poses``.

    Raises:
        ValueError: an unknown ``color_by``, colours that are none, or that do not go with it.
    """
    if color_by not in (None, *get_args(ColorBy)):
        raise ValueError(f"color_by must be one of {get_args(ColorBy)} or None, got {color_by!r}")
    named = {key: rgb(value) for key, value in colors.items()} if isinstance(colors, Mapping) else {}
    palette = [] if colors is None or named else _palette(colors)
    by_side = bool(named) and all(isinstance(key, str) for key in named)
    if by_side and (not set(named) <= set(_SIDES) or color_by not in (None, "side")):
        raise ValueError(f"colors by name are those of {tuple(_SIDES)}, for color_by='side', got {colors!r}")
    if color_by is None:
        color_by = "side" if by_side or (colors is None and poses.track_ids is None) else "person"
    if color_by == "side" and len(palette) != 1:
        if colors is not None and not by_side:
            raise ValueError(f"with color_by='side' colors is a dict with the keys {tuple(_SIDES)}, got {colors!r}")
        sides = {side: named.get(side, own) for side, own in _SIDES.items()}
        return [Look(sides, sides["middle"])] * len(poses.scores)
    if color_by == "score":
        own = [_between(palette or _SCORES, float(score)) for score in np.nan_to_num(poses.scores)]
    else:
        own = [
            named.get(number) or ((palette or _PEOPLE)[number % len(palette or _PEOPLE)] if number >= 0 else _NOBODY)
            for number in _numbers(poses, color_by)
        ]
    return [Look(dict.fromkeys(_SIDES, color), color) for color in own]


def set_apart(look: Look, ground: NDArray[np.float64]) -> Look:
    """The same colours, lighter (or darker, if they are light) the closer they come to what lies below.

    Args:
        look: of one person.
        ground: (3, 3) mean RGB below the limbs of each of ``SIDES``; NaN where there are none.
    """
    colors = np.array([look.sides[side] for side in SIDES], float)
    near = np.nan_to_num(1 - np.linalg.norm(colors - ground, axis=1, keepdims=True) / _APART).clip(0)
    towards = np.where(colors.min(axis=1, keepdims=True) > 150, 0, 255)
    mixed = np.rint(colors + (towards - colors) * near).astype(int).tolist()
    return Look({side: (red, green, blue) for side, (red, green, blue) in zip(SIDES, mixed, strict=True)}, look.own)


def _numbers(poses: _People, color_by: str) -> list[int]:
    """What tells people apart: their identity, or else their place in the result."""
    if poses.track_ids is not None:
        return [int(number) for number in poses.track_ids]
    if color_by == "identity" and len(poses.scores):
        raise ValueError(
            "color_by='identity' needs poses with track_ids; estimate_video(..., track=True) gives them, and "
            "color_by='person' takes people in their order"
        )
    return list(range(len(poses.scores)))


def _palette(colors: Any) -> list[RGB]:
    """One colour or several as a list."""
    if isinstance(colors, str) or (len(colors) == 3 and all(isinstance(value, (int, np.integer)) for value in colors)):
        return [rgb(colors)]
    if len(colors) == 0:
        raise ValueError("colors is empty; None takes the built-in colours")
    return [rgb(color) for color in colors]


def _between(ramp: list[RGB], share: float) -> RGB:
    """The colour at a share of the way, from 0 to 1, along several."""
    place = min(max(share, 0.0), 1.0) * (len(ramp) - 1)
    index = min(int(place), max(len(ramp) - 2, 0))
    low, high = np.array(ramp[index], float), np.array(ramp[min(index + 1, len(ramp) - 1)], float)
    red, green, blue = np.rint(low + (high - low) * (place - index)).astype(int).tolist()
    return red, green, blue


def rgb(color: ColorLike) -> RGB:
    """A colour as three numbers from 0 to 255; ValueError if it is none."""
    expected = "a colour is a name such as 'orange', '#ff8800', or (red, green, blue) from 0 to 255"
    if isinstance(color, str):
        try:
            values = list(ImageColor.getrgb(color)[:3])
        except ValueError:
            raise ValueError(f"{expected}, got {color!r}") from None
    else:
        values = list(color) if isinstance(color, (tuple, list, np.ndarray)) else []
    whole = all(isinstance(value, (int, np.integer)) and 0 <= value <= 255 for value in values)
    if len(values) != 3 or not whole:
        raise ValueError(f"{expected}, got {color!r}")
    red, green, blue = (int(value) for value in values)
    return red, green, blue
