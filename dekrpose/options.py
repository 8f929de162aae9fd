"""The options of ``estimate``: checked, with the model's own values in place of None."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, get_args

import numpy as np

from dekrpose.config import Color, DecodeConfig, MatchMode, ModelConfig

MIN_INPUT_SIZE = 32
"""Input pixels, short side, below which no network sees anything: their deepest cells are as large."""
MIN_CENTERS = 30
"""Centers that are looked at, however few people are asked for: several may belong to one person."""
_MODES = get_args(MatchMode)


_NUMBERS: dict[str, tuple[type, float, float, str]] = {
    "score_threshold": (float, -math.inf, 1, "of at most 1, as scores are"),
    "nms_threshold": (float, 0, 1, "from 0 to 1"),
    "max_people": (int, 1, math.inf, "of at least 1"),
    "input_size": (int, MIN_INPUT_SIZE, math.inf, f"of at least {MIN_INPUT_SIZE} pixels"),
}
"""The kinds and limits of options that are numbers, and the limits in words."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What one call of ``estimate`` is to do; see there. Scales come from large to small."""

    score_threshold: float
    nms_threshold: float
    input_size: int
    scales: tuple[float, ...]
    match_heatmap: MatchMode | None
    rescore: bool
    max_people: int = 30
    max_centers: int = MIN_CENTERS
    flip_test: bool = False
    color: Color = "rgb"
    allow_private: bool = False

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
    asked = {name: value for name, value in options.items() if value is not None or name == "max_people"}
    asked |= {name: checked_number(name, asked[name], *limits) for name, limits in _NUMBERS.items() if name in asked}
    for name in ("flip_test", "rescore"):
        if not isinstance(asked.get(name, False), (bool, np.bool_)):
            raise ValueError(f"{name} must be True or False, got {asked[name]!r}")
    match = asked.get("match_heatmap", own.match_heatmap)
    if match not in (None, False, True, *_MODES):
        raise ValueError(f"match_heatmap must be None, False, True or one of {_MODES}, got {match!r}")
    asked["match_heatmap"] = "official" if match and not isinstance(match, str) else match or None
    chosen: dict[str, Any] = {"input_size": own_input_size, "scales": own.scales, "rescore": has_rescoring_net} | asked
    chosen["scales"] = _checked_scales(chosen["scales"], chosen["input_size"])
    if chosen["rescore"] and not has_rescoring_net:
        raise ValueError("rescore=True needs a rescoring net; from_pretrained(rescoring_net=PATH) gives DEKR one")
    nms = own.nms_threshold if len(chosen["scales"]) == 1 else own.multi_scale_nms_threshold
    thresholds = {"score_threshold": default_threshold(own, chosen["rescore"]), "nms_threshold": nms}
    most = max(MIN_CENTERS, chosen.get("max_people", Options.max_people))
    return Options(**thresholds | chosen, max_centers=most)


def _checked_scales(scales: Sequence[float], size: int) -> tuple[float, ...]:
    if isinstance(scales, (str, Real)) or not all(isinstance(scale, Real) for scale in scales):
        raise ValueError(f"scales must be several numbers such as (0.5, 1, 2), got {scales!r}")
    scales = tuple(float(scale) for scale in scales)
    if 1.0 not in scales or len(set(scales)) != len(scales) or min(scales) <= 0:
        raise ValueError(f"scales must be different positive numbers with 1 among them, got {scales}")
    if size * min(scales) < MIN_INPUT_SIZE / 2:
        raise ValueError(f"scales {scales} of an input of {size} pixels go below {MIN_INPUT_SIZE // 2} pixels")
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
