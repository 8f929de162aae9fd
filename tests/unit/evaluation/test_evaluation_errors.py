from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from dekrpose.evaluation.errors import KINDS, keypoint_errors
from dekrpose.skeletons import COCO_17
from tests.evaluation_people import dataset, hide, human, standing, unlabelled

LEFT, RIGHT = standing(100, 50), standing(220, 60)
SHOULDER, OTHER_SHOULDER, ELBOW, NOSE = 5, 6, 7, 0


def shares(**counts: int) -> dict[str, float]:
    total = sum(counts.values())
    return {kind: pytest.approx(counts.get(kind, 0) / total) for kind in KINDS}


def test_perfect_predictions_are_good(tmp_path: Path) -> None:
    photos = dataset(tmp_path, ["a.jpg"], [human(1, LEFT), human(1, RIGHT)]).photos
    assert keypoint_errors(photos, [np.stack([RIGHT, LEFT])], COCO_17) == shares(good=34)


def test_one_error_of_each_kind(tmp_path: Path) -> None:
    annotations = [human(1, LEFT), human(1, RIGHT)]
    photos = dataset(tmp_path, ["a.jpg"], annotations).photos
    area, sigma = annotations[0]["area"], COCO_17.sigmas[ELBOW]
    pose = LEFT.copy()
    pose[ELBOW, 0] += math.sqrt(-math.log(0.7) * 2 * area) * 2 * sigma  # similarity 0.7
    pose[SHOULDER] = LEFT[OTHER_SHOULDER]
    pose[15] = RIGHT[15]
    pose[16] = RIGHT[15]  # the other side of another person
    pose[13] += 500
    expected = shares(good=12, jitter=1, inversion=1, swap=2, miss=1)
    assert keypoint_errors(photos, [pose[None]], COCO_17) == expected


def test_keypoints_without_a_counterpart_are_never_inverted(tmp_path: Path) -> None:
    photos = dataset(tmp_path, ["a.jpg"], [human(1, LEFT)]).photos
    pose = LEFT.copy()
    pose[NOSE] += 50
    assert keypoint_errors(photos, [pose[None]], COCO_17) == shares(good=16, miss=1)


def test_only_labelled_keypoints_of_large_people_with_a_prediction_count(tmp_path: Path) -> None:
    small = standing(20, 20, 40)
    annotations = [hide(human(1, LEFT), 0, 1), human(1, RIGHT), human(1, small), unlabelled(1, (0, 0, 9, 9))]
    photos = dataset(tmp_path, ["a.jpg"], annotations).photos
    pose = LEFT.copy()
    pose[[0, 1]] += 90
    assert keypoint_errors(photos, [np.stack([pose, small])], COCO_17) == shares(good=15)


def test_a_second_prediction_of_a_person_does_not_count(tmp_path: Path) -> None:
    photos = dataset(tmp_path, ["a.jpg"], [human(1, LEFT)]).photos
    assert keypoint_errors(photos, [np.stack([LEFT, LEFT + 8])], COCO_17) == shares(good=17)


def test_nobody_found_is_undefined(tmp_path: Path) -> None:
    photos = dataset(tmp_path, ["a.jpg", "b.jpg"], [human(1, LEFT)]).photos
    nobody = np.zeros((0, 17, 2), np.float32)
    assert all(math.isnan(share) for share in keypoint_errors(photos, [nobody, LEFT[None]], COCO_17).values())
