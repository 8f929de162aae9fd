"""The options of ``estimate``: checked, with the model's own values in place of None."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, get_args

import numpy as np

from dekrpose.config import Color, DecodeConfig, MatchMode, ModelConfig

MIN_INPUT_SIZE = 32
"""Input pixels, short side, below which no network sees anything: their deepest cells are as large."""
_LEAST = MIN_INPUT_SIZE // 2
"""Input pixels, short side, of the smallest scale."""
MIN_CENTERS = 30
"""Centers that are looked at, however few people are asked for: several may belong to one person."""
_MODES = get_args(MatchMode)


_NUMBERS: dict[str, tuple[type, float, float, str]] = {
    "score_threshold": (float, -math.inf, 1, "of at most 1, as scores are"),
    "nms_threshold": (float, 0, 1, "from 0 to 1, a share of the box diagonal"),
    "max_people": (int, 1, math.inf, "of at least 1"),
    "input_size": (int, MIN_INPUT_SIZE, math.inf, f"of at least {MIN_INPUT_SIZE} pixels"),
}
"""The kinds and limits of options that are numbers, and the limits in words."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What one call of ``estimate`` is to do; see there. ``max_centers`` are looked at per scale.

    Raises:
        ValueError: an option is out of range.
    """

    score_threshold: float
    nms_threshold: float
    input_size: int
    scales: tuple[float, ...]
    match_heatmap: MatchMode | None
    rescore: bool
    max_people: int = 30
    flip_test: bool = False
    color: Color = "rgb"
    allow_private: bool = False
    max_centers: int = field(init=False)

    def __post_init__(self) -> None:
        for name, limits in _NUMBERS.items():
            object.__setattr__(self, name, checked_number(name, getattr(self, name), *limits))
        object.__setattr__(self, "max_centers", max(MIN_CENTERS, self.max_people))
        for name in ("flip_test", "rescore"):
            if not isinstance(getattr(self, name), (bool, np.bool_)):
                raise ValueError(f"{name} must be True or False, got {getattr(self, name)!r}")
        if self.match_heatmap not in (None, *_MODES):
            raise ValueError(f"match_heatmap must be None, False, True or one of {_MODES}, got {self.match_heatmap!r}")
        if self.input_size * min(self.scales) < _LEAST:
            raise ValueError(f"scales {self.scales} of an input of {self.input_size} pixels go below {_LEAST} pixels")

    def size_for(self, height: int, width: int, multiple: int, max_aspect: float) -> int:
        """The input size for a photo: smaller, a multiple, when it is longer than ``max_aspect`` times its width."""
        shrink = math.sqrt(max_aspect * min(height, width) / max(height, width))
        if shrink >= 1:
            return self.input_size
        least = math.ceil(MIN_INPUT_SIZE / min(self.scales))
        return min(self.input_size, max(least, int(shrink * self.input_size) // multiple * multiple))


def resolve_options(own: DecodeConfig, own_input_size: int, has_rescoring_net: bool, **options: Any) -> Options:
    """Check what the caller said and fill in what the model says.

    Args:
        own: the model's thresholds.
        own_input_size: the model's short side, input pixels.
        has_rescoring_net: whether the model has one.
        options: those of ``PoseEstimator.estimate``; None is the model's own.

    Raises:
        TypeError: there is no such option.
        ValueError: an option is out of range.
    """
    match = own.match_heatmap if options.get("match_heatmap") is None else options["match_heatmap"]
    rescore = has_rescoring_net if options.get("rescore") is None else options["rescore"]
    scales = _checked_scales(own.scales if options.get("scales") is None else options["scales"])
    chosen: dict[str, Any] = {
        "score_threshold": default_threshold(own, rescore),
        "nms_threshold": own.nms_threshold if len(scales) == 1 else own.multi_scale_nms_threshold,
        "input_size": own_input_size,
    }
    chosen |= {name: value for name, value in options.items() if value is not None or name not in chosen}
    match = "official" if match is True else None if match is False else match
    resolved = Options(**(chosen | {"scales": scales, "match_heatmap": match, "rescore": rescore}))
    if resolved.rescore and not has_rescoring_net:
        raise ValueError("rescore=True needs a rescoring net; load one with from_pretrained(rescoring_net=PATH)")
    return resolved


def _checked_scales(scales: Sequence[float]) -> tuple[float, ...]:
    if isinstance(scales, (str, Real)) or not all(isinstance(scale, Real) for scale in scales):
        raise ValueError(f"scales must be several numbers such as (0.5, 1, 2), got {scales!r}")
    scales = tuple(float(scale) for scale in scales)
    if 1.0 not in scales or len(set(scales)) != len(scales) or min(scales) <= 0:
        raise ValueError(f"scales must be different positive numbers with 1 among them, got {scales}")
    return tuple(sorted(scales, reverse=True))


def checked_number(name: str, value: Any, kind: type, low: float, high: float, words: str) -> Any:
    """The number, of the kind int or float; ValueError unless it is one within limits."""
    right = isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    if not right or not low <= value <= high:
        raise ValueError(f"{name} must be a {'whole ' if kind is int else ''}number {words}, got {value!r}")
    return kind(value)


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
