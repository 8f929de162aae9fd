from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from dekrpose.config import DecodeConfig
from dekrpose.options import resolve_options


def resolved(**options: Any) -> Any:
    return resolve_options(DecodeConfig(), 64, False, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"score_threshold": "0.5"}, "score_threshold must be a number of at most 1, as scores are, got '0.5'"),
        ({"score_threshold": 50}, "score_threshold must be a number of at most 1, as scores are, got 50"),
        ({"score_threshold": float("nan")}, "score_threshold must be a number"),
        ({"score_threshold": True}, "score_threshold must be a number"),
        ({"nms_threshold": -0.1}, "nms_threshold must be a number from 0 to 1"),
        ({"nms_threshold": 5}, "nms_threshold must be a number from 0 to 1"),
        ({"max_people": 2.5}, "max_people must be a whole number of at least 1, got 2.5"),
        ({"max_people": "3"}, "max_people must be a whole number of at least 1, got '3'"),
        ({"max_people": None}, "max_people must be a whole number of at least 1, got None"),
        ({"input_size": 16}, "input_size must be a whole number of at least 32 pixels, got 16"),
        ({"input_size": "512"}, "input_size must be a whole number"),
        ({"input_size": 192.0}, "input_size must be a whole number"),
        ({"scales": "12"}, "scales must be several numbers such as (0.5, 1, 2), got '12'"),
        ({"scales": 2}, "scales must be several numbers"),
        ({"scales": ["a", 1]}, "scales must be several numbers such as (0.5, 1, 2), got ['a', 1]"),
        ({"scales": (0.1, 1)}, "scales (0.1, 1.0) of an input of 64 pixels go below 16 pixels"),
        ({"flip_test": "no"}, "flip_test must be True or False, got 'no'"),
        ({"rescore": 1}, "rescore must be True or False, got 1"),
    ],
)
def test_options_of_the_wrong_kind_or_out_of_range_are_said(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        resolved(**options)


def test_numbers_of_numpy_are_numbers() -> None:
    options = resolved(score_threshold=np.float32(0.5), max_people=np.int64(3), input_size=np.int32(96), flip_test=True)
    assert (options.score_threshold, options.max_people, options.input_size) == (0.5, 3, 96)
    assert type(options.input_size) is int


def test_nothing_is_the_models_own_and_numpys_truth_is_truth() -> None:
    options = resolved(flip_test=None, rescore=None, scales=None, score_threshold=None, match_heatmap=np.False_)
    assert (options.flip_test, options.rescore, options.scales, options.match_heatmap) == (False, False, (1.0,), None)
    assert resolved(match_heatmap=np.True_).match_heatmap == "official"
    assert resolved(max_people=50).max_centers == 50
    with pytest.raises(ValueError, match="rescore must be True or False"):
        resolved(rescore=np.array([True, False]))
    for name in ("max_aspect", "threshold"):
        with pytest.raises(TypeError, match=name):
            resolved(**{name: 3})
    with pytest.raises(TypeError, match="max_centers"):
        resolved(max_centers=3)


def test_a_models_own_numbers_are_taken_as_they_are() -> None:
    own = DecodeConfig(score_threshold=2.0, multi_scale_nms_threshold=1.5)
    options = resolve_options(own, 64, False, scales=(0.5, 1))
    assert (options.score_threshold, options.nms_threshold, options.scales) == (2.0, 1.5, (1.0, 0.5))


def test_everyone_is_kept_below_a_threshold_of_nothing() -> None:
    assert resolved(score_threshold=-1).score_threshold == -1
    assert resolved(score_threshold=1).score_threshold == 1


@pytest.mark.parametrize(
    ("height", "width", "size"), [(48, 64, 192), (10, 60, 192), (61, 10, 160), (10, 240, 96), (9, 10_000, 32)]
)
def test_photos_beyond_the_models_aspect_get_a_smaller_input(height: int, width: int, size: int) -> None:
    assert resolve_options(DecodeConfig(), 192, False).size_for(height, width, 32, max_aspect=6) == size


def test_a_smaller_input_is_large_enough_for_every_scale() -> None:
    own = DecodeConfig()
    assert resolve_options(own, 192, False, scales=(0.25, 1)).size_for(10, 320, 32, max_aspect=6) == 128
    assert resolve_options(own, 64, False, scales=(0.5, 1)).size_for(10, 320, 32, max_aspect=6) == 64


def test_published_models_see_any_photo_at_their_input_size() -> None:
    assert resolved().size_for(10, 320, 32, DecodeConfig.max_aspect) == 64
