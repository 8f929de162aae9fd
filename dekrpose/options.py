"""The options of ``estimate``: checked, with the model's own values in place of None."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from types import NoneType
from typing import Any, get_args

import numpy as np

from dekrpose.config import Color, DecodeConfig, MatchMode, ModelConfig

MIN_INPUT_SIZE = 32
"""Input pixels, short side, below which no network sees anything: their deepest cells are as large."""
MIN_CENTERS = 30
"""Centers that are looked at, however few people are asked for: several may belong to one person."""
_MODES = get_args(MatchMode)


@dataclass(frozen=True)
class Asked:
    """What a caller of ``estimate`` may say; see there. None is the model's own."""

    score_threshold: float | None = None
    max_people: int = 30
    input_size: int | None = None
    nms_threshold: float | None = None
    flip_test: bool = False
    scales: Sequence[float] | None = None
    match_heatmap: bool | MatchMode | None = None
    rescore: bool | None = None
    color: Color = "rgb"
    allow_private: bool = False


@dataclass(frozen=True)
class Options:
    """What one call of ``estimate`` is to do; see there."""

    score_threshold: float
    max_people: int
    input_size: int
    nms_threshold: float
    flip_test: bool
    scales: tuple[float, ...]
    match: MatchMode | None
    rescore: bool
    color: Color
    allow_private: bool
    max_aspect: float

    def size_for(self, height: int, width: int, multiple: int) -> int:
        """The input size for a photo: smaller, a multiple, when it is longer than ``max_aspect`` times its width."""
        shrink = math.sqrt(self.max_aspect * min(height, width) / max(height, width))
        if shrink >= 1:
            return self.input_size
        least = math.ceil(MIN_INPUT_SIZE / min(self.scales))
        return min(self.input_size, max(least, int(shrink * self.input_size) // multiple * multiple))

    @property
    def max_centers(self) -> int:
        """Centers that are looked at per scale."""
        return max(MIN_CENTERS, self.max_people)


def resolve_options(own: DecodeConfig, own_input_size: int, has_rescoring_net: bool, **options: Any) -> Options:
    """Check what the caller said and fill in what the model says.

    Args:
        own: the model's thresholds.
        own_input_size: the model's short side, input pixels.
        has_rescoring_net: whether the model has one.
        options: see ``Asked``.

    Raises:
        TypeError: there is no such option.
        ValueError: an option is out of range.
    """
    asked = Asked(**options)
    size = own_input_size if asked.input_size is None else asked.input_size
    check_number("score_threshold", asked.score_threshold, -math.inf, 1, "of at most 1, as scores are")
    check_number("nms_threshold", asked.nms_threshold, 0, 1, "from 0 to 1, a share of the box diagonal")
    check_number("max_people", asked.max_people, 1, math.inf, "of at least 1", Integral)
    check_number("input_size", size, MIN_INPUT_SIZE, math.inf, f"of at least {MIN_INPUT_SIZE} pixels", Integral)
    scales = _checked_scales(own.scales if asked.scales is None else asked.scales, size)
    match = own.match_heatmap if asked.match_heatmap is None else asked.match_heatmap
    if match not in (None, False, True, *_MODES):
        raise ValueError(f"match_heatmap must be None, False, True or one of {_MODES}, got {match!r}")
    for name, value in (("flip_test", asked.flip_test), ("rescore", asked.rescore)):
        if not isinstance(value, (bool, np.bool_, NoneType)):
            raise ValueError(f"{name} must be True or False, got {value!r}")
    if asked.rescore and not has_rescoring_net:
        raise ValueError("rescore=True needs a rescoring net; load one with from_pretrained(rescoring_net=PATH)")
    rescore = has_rescoring_net if asked.rescore is None else bool(asked.rescore)
    nms_threshold = own.nms_threshold if len(scales) == 1 else own.multi_scale_nms_threshold
    threshold = default_threshold(own, rescore)
    return Options(
        score_threshold=float(threshold if asked.score_threshold is None else asked.score_threshold),
        max_people=int(asked.max_people),
        input_size=int(size),
        nms_threshold=float(nms_threshold if asked.nms_threshold is None else asked.nms_threshold),
        flip_test=bool(asked.flip_test),
        scales=scales,
        match="official" if match is True else match or None,
        rescore=rescore,
        color=asked.color,
        allow_private=bool(asked.allow_private),
        max_aspect=own.max_aspect,
    )


def _checked_scales(scales: Sequence[float], size: int) -> tuple[float, ...]:
    if isinstance(scales, (str, Real)) or not all(isinstance(scale, Real) for scale in scales):
        raise ValueError(f"scales must be several numbers such as (0.5, 1, 2), got {scales!r}")
    scales = tuple(float(scale) for scale in scales)
    if 1.0 not in scales or len(set(scales)) != len(scales) or min(scales) <= 0:
        raise ValueError(f"scales must be different positive numbers with 1 among them, got {scales}")
    if size * min(scales) < MIN_INPUT_SIZE / 2:
        raise ValueError(f"scales {scales} of an input of {size} pixels go below {MIN_INPUT_SIZE // 2} pixels")
    return scales


def check_number(name: str, value: Any, low: float, high: float, words: str, kind: type = Real) -> None:
    """ValueError unless it is a number of the kind within limits; thresholds may be None."""
    if value is None and kind is Real:
        return
    right = isinstance(value, kind) and not isinstance(value, bool)
    if not right or not low <= value <= high:
        raise ValueError(f"{name} must be a {'whole ' if kind is Integral else ''}number {words}, got {value!r}")


def default_threshold(own: DecodeConfig, rescored: bool) -> float:
    """The score below which a model's poses are not shown, with or without a scoring net."""
    return own.rescored_threshold if rescored and own.rescored_threshold is not None else own.score_threshold


def matching(mode: str | None) -> Any:
    """``match_heatmap`` of ``PoseEstimator.estimate`` for a MODE of ``--match-heatmap``."""
    return False if mode == "off" else mode


def with_matching(config: ModelConfig, mode: str | None) -> ModelConfig:
    """The configuration of a model that matches as ``--match-heatmap MODE`` asks; None leaves the model's own way."""
    if mode is None:
        return config
    return replace(config, decode=replace(config.decode, match_heatmap=matching(mode) or None))


def read_changes(words: Sequence[str], keys: Sequence[str], others: Sequence[str] = ()) -> dict[str, str]:
    """Values by key; a word without a key, or one that names a file, is the "model".

    Args:
        words: of the command line.
        keys: that there are besides "model".
        others: words of the command's own, for the message.

    Raises:
        ValueError: an unknown key, or one that is given twice.
    """
    changes: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or Path(word).exists():
            key, value = "model", word
        elif key not in keys:
            known = ", ".join([*others, "a model", *(f"{key}=..." for key in keys)])
            raise ValueError(f"--compare takes {known}; got {word!r}")
        if key in changes:
            raise ValueError(f"--compare takes one other {key}, got {changes[key]!r} and {value!r}")
        changes[key] = value
    return changes


def whole_number(key: str, value: str) -> int:
    """A value that counts something.

    Raises:
        ValueError: it is none.
    """
    try:
        return int(value)
    except ValueError as error:
        raise ValueError(f"{key} must be a whole number, got {value!r}") from error
