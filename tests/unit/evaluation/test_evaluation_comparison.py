"""Two runs over the same photos: which people are the same, and how far their keypoints are apart."""

from __future__ import annotations

import argparse
import math
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from dekrpose.commands import eval as command
from dekrpose.config import ARCHITECTURES
from dekrpose.data.dataset import KeypointDataset
from dekrpose.errors import DekrPoseError
from dekrpose.evaluation.comparison import check_keypoints, other_options, shift
from dekrpose.evaluation.predictions import Prediction, Predictions
from dekrpose.skeletons import COCO_17
from tests.evaluation_people import standing

SOMEBODY = standing(60, 50)


class Dataset:
    """Only what a comparison needs of one."""

    skeleton = COCO_17


def predictions(*photos: list[tuple[NDArray[np.float64], float]]) -> Predictions:
    people = [
        Prediction.of([pose for pose, _ in photo], np.ones((len(photo), 17)), [score for _, score in photo], 17)
        for photo in photos
    ]
    return Predictions(cast(KeypointDataset, Dataset()), [], people, 1.0)


def test_nothing_moves_between_equal_predictions() -> None:
    found = predictions([(SOMEBODY, 0.9), (SOMEBODY + 200, 0.8)], [])
    moved = shift(found, found, (0.05, 0.05))
    assert (moved.people, moved.first, moved.second) == (2, 2, 2)
    assert (moved.median, moved.ninth_decile, moved.largest) == (0, 0, 0)


def test_people_are_found_again_in_another_order_and_distances_are_pixels() -> None:
    step = np.zeros((17, 2))
    step[0] = 3, 4
    first = predictions([(SOMEBODY, 0.9), (SOMEBODY + 200, 0.8)])
    second = predictions([(SOMEBODY + 200 + step, 0.9), (SOMEBODY + step, 0.8)])
    moved = shift(first, second, (0.05, 0.05))
    assert moved.people == 2
    assert (moved.median, moved.largest) == (0, pytest.approx(5))


def test_a_pose_has_one_partner_who_is_near_and_shown() -> None:
    first = predictions([(SOMEBODY, 0.9), (SOMEBODY + 1, 0.8), (SOMEBODY + 500, 0.7)])
    second = predictions([(SOMEBODY, 0.9), (SOMEBODY + 500, 0.1), (SOMEBODY + 900, 0.9)])
    moved = shift(first, second, (0.05, 0.2))
    assert (moved.people, moved.first, moved.second, moved.largest) == (1, 3, 2, 0)


def test_nobody_in_common_is_said_without_numbers() -> None:
    moved = shift(predictions([(SOMEBODY, 0.9)]), predictions([]), (0.05, 0.05))
    assert moved.table() == "people             0 found by both, of 1 and 0"
    assert math.isnan(moved.median)
    assert moved.to_dict()["median"] is None


def test_models_of_other_keypoints_are_refused() -> None:
    coco, crowdpose = (ARCHITECTURES[name] for name in ("tiny", "dekr-w32-crowdpose"))
    check_keypoints(coco, ARCHITECTURES["dekr-w48-coco"])
    with pytest.raises(DekrPoseError, match="tiny finds coco-17, dekr-w32-crowdpose crowdpose-14"):
        check_keypoints(coco, crowdpose)


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(["tiny", "people.json", "--dtype", "float32", "--input-size", "96", "--compare", *words])


def test_changes_of_the_other_run() -> None:
    other = other_options(options("mine", "dtype=bfloat16", "match-heatmap=off"))
    assert (other.model, other.dtype, other.match_heatmap, other.input_size) == ("mine", "bfloat16", "off", 96)
    same = other_options(options("input-size=128"))
    assert (same.model, same.dtype, same.match_heatmap, same.input_size) == ("tiny", "float32", None, 128)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["batch=4"], r"takes a model, dtype=\.\.\., .*got 'batch=4'"),
        (["mine", "other"], "takes one other model, got 'mine' and 'other'"),
        (["input-size=big"], "whole number, got 'big'"),
        (["match-heatmap=on"], "official, paper, weighted, off, got 'on'"),
    ],
)
def test_changes_that_cannot_be_made(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        other_options(options(*words))
