from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dekrpose.data.dataset import KeypointDataset
from dekrpose.evaluation.coco_ap import coco_average_precision
from dekrpose.evaluation.predictions import Prediction, results_json
from dekrpose.skeletons import COCO_17, CROWDPOSE_14
from tests.evaluation_people import dataset, hide, human, standing, unlabelled

pytest.importorskip("faster_coco_eval")

LEFT, RIGHT, FAR = standing(60, 50), standing(200, 60), standing(600, 50)
LARGE = standing(150, 10, 220)


def prediction(*people: tuple[NDArray[np.float32], float]) -> Prediction:
    keypoints = np.array([keypoints for keypoints, _ in people]).reshape(-1, 17, 2)
    return Prediction.of(keypoints, np.ones(keypoints.shape[:2]), [score for _, score in people], 17)


def average_precision(data: KeypointDataset, *people: Prediction) -> dict[str, float]:
    return coco_average_precision(data, results_json(data.photos, people))


def interpolated(steps: list[tuple[float, float]]) -> float:
    """AP by hand: the mean over the recalls 0, 0.01, ..., 1 of the precision at the first step that reaches them."""
    values = [next((precision for recall, precision in steps if recall >= level / 100), 0.0) for level in range(101)]
    return float(np.mean(values))


def test_ground_truth_as_predictions(tmp_path: Path) -> None:
    annotations = [human(1, LEFT), hide(human(1, RIGHT), 0, 1, 2), human(2, LARGE), human(2, standing(20, 20, 40))]
    data = dataset(tmp_path, ["a.jpg", "b.jpg", "nobody.jpg"], annotations)
    found = [prediction((LEFT, 0.5), (RIGHT, 0.2)), prediction((LARGE, 0.9), (standing(20, 20, 40), 0.1))]
    measures = average_precision(data, *found, prediction())
    assert set(measures) == {
        *("AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L"),
        *("AR", "AR50", "AR75", "AR_S", "AR_M", "AR_L"),
    }
    assert measures == pytest.approx(dict.fromkeys(measures, 1.0))


def test_a_false_person_between_two_right_ones(tmp_path: Path) -> None:
    data = dataset(tmp_path, ["a.jpg"], [human(1, LEFT), human(1, RIGHT)])
    measures = average_precision(data, prediction((LEFT, 0.9), (FAR, 0.8), (RIGHT, 0.7)))
    assert measures["AP"] == pytest.approx(interpolated([(0.5, 1.0), (1.0, 2 / 3)]))
    assert measures["AR"] == pytest.approx(1.0)


def test_thresholds_between_which_a_shifted_person_falls(tmp_path: Path) -> None:
    data = dataset(tmp_path, ["a.jpg"], [human(1, LEFT)])
    area = human(1, LEFT)["area"]
    shift = 4.0
    falloff = 2 * area * (2 * np.array(COCO_17.sigmas)) ** 2
    oks = float(np.exp(-(shift**2) / falloff).mean())
    reached = sum(threshold <= oks for threshold in np.arange(0.5, 0.96, 0.05))
    assert 0 < reached < 10
    measures = average_precision(data, prediction((LEFT + np.float32([shift, 0]), 0.9)))
    assert measures["AP"] == pytest.approx(reached / 10)
    assert measures["AP50"] == 1
    assert measures["AR"] == pytest.approx(reached / 10)


def test_exchanged_sides_lose_average_precision(tmp_path: Path) -> None:
    data = dataset(tmp_path, ["a.jpg"], [human(1, LEFT)])
    assert average_precision(data, prediction((LEFT[list(COCO_17.flip_indices)], 0.9)))["AP"] < 0.1


def test_nobody_predicted_and_nobody_annotated(tmp_path: Path) -> None:
    data = dataset(tmp_path, ["a.jpg"], [human(1, LEFT)])
    measures = average_precision(data, prediction())
    assert (measures["AP"], measures["AR"], measures["AP_M"]) == (0, 0, 0)
    assert math.isnan(measures["AP_L"])
    empty = average_precision(dataset(tmp_path, ["a.jpg"], []), prediction((LEFT, 0.9)))
    assert all(math.isnan(value) for value in empty.values())


def test_only_unlabelled_people_leave_nothing_to_measure(tmp_path: Path) -> None:
    data = dataset(tmp_path, ["a.jpg"], [unlabelled(1, (0, 0, 50, 100))])
    assert math.isnan(average_precision(data, prediction((LEFT, 0.9)))["AP"])


def around(keypoints: NDArray[np.float32]) -> tuple[float, float, float, float]:
    low, high = keypoints.min(axis=0), keypoints.max(axis=0)
    return (float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1]))


@pytest.mark.parametrize("fields", [{}, {"num_keypoints": None}, {"iscrowd": 1}])
def test_predictions_on_unlabelled_people_and_crowds_do_not_count(tmp_path: Path, fields: dict[str, Any]) -> None:
    region = unlabelled(1, around(RIGHT), **fields)
    data = dataset(tmp_path, ["a.jpg"], [human(1, LEFT), region])
    measures = average_precision(data, prediction((RIGHT, 0.9), (LEFT, 0.8)))
    assert (measures["AP"], measures["AP_M"]) == (1, 1)
    assert math.isnan(measures["AP_L"])


def test_unlabelled_people_take_one_prediction_crowds_take_any_number(tmp_path: Path) -> None:
    found = prediction((RIGHT, 0.9), (RIGHT, 0.85), (LEFT, 0.8))
    for crowd, expected in ((0, 1 / 2), (1, 1.0)):
        region = unlabelled(1, around(RIGHT), iscrowd=crowd)
        data = dataset(tmp_path, ["a.jpg"], [human(1, LEFT), region])
        assert average_precision(data, found)["AP"] == pytest.approx(expected)


def test_a_labelled_person_comes_before_the_region_around_them(tmp_path: Path) -> None:
    data = dataset(tmp_path, ["a.jpg"], [unlabelled(1, around(LEFT)), human(1, LEFT)])
    assert average_precision(data, prediction((LEFT, 0.9)))["AP"] == 1


def test_false_people_of_another_size_do_not_count_for_a_size(tmp_path: Path) -> None:
    data = dataset(tmp_path, ["a.jpg"], [human(1, LEFT)])
    measures = average_precision(data, prediction((LARGE + np.float32([400, 0]), 0.9), (LEFT, 0.8)))
    assert measures["AP_M"] == 1
    assert measures["AP"] == pytest.approx(1 / 2)


def test_twenty_predictions_per_photo(tmp_path: Path) -> None:
    data = dataset(tmp_path, ["a.jpg"], [human(1, LEFT)])
    crowd = [(FAR + np.float32([0, 10 * index]), 0.9 - 0.01 * index) for index in range(20)]
    assert average_precision(data, prediction(*crowd[:19], (LEFT, 0.1)))["AR"] == 1
    assert average_precision(data, prediction(*crowd, (LEFT, 0.1)))["AR"] == 0


def test_only_some_photos(tmp_path: Path) -> None:
    data = dataset(tmp_path, ["a.jpg", "b.jpg"], [human(1, LEFT), human(2, LEFT)])
    results = results_json(data.photos[:1], [prediction((LEFT, 0.9))])
    assert coco_average_precision(data, results, photos=data.photos[:1])["AP"] == 1
    assert coco_average_precision(data, results)["AR"] == 0.5
    with pytest.raises(ValueError, match=r"images that are not evaluated: \[1\]"):
        coco_average_precision(data, results, photos=data.photos[1:])


def test_files_without_counts_and_areas(tmp_path: Path) -> None:
    entry = {key: value for key, value in human(1, LEFT).items() if key not in {"num_keypoints", "area", "iscrowd"}}
    assert average_precision(dataset(tmp_path, ["a.jpg"], [entry]), prediction((LEFT, 0.9)))["AP"] == 1


def test_the_inputs_stay_as_they_were(tmp_path: Path) -> None:
    data = dataset(tmp_path, ["a.jpg"], [human(1, LEFT)])
    results = results_json(data.photos, [prediction((LEFT, 0.9))])
    assert set(results[0]) == {"image_id", "category_id", "keypoints", "score"}
    before = repr((data.content, results))
    coco_average_precision(data, results)
    assert repr((data.content, results)) == before


def test_crowdpose_by_crowding_with_its_own_sigmas(tmp_path: Path) -> None:
    keypoints = LEFT[:14]
    annotations = [human(number, keypoints) for number in (1, 2, 3, 4)]
    for annotation in annotations:
        del annotation["area"]
    names = [f"{number}.jpg" for number in (1, 2, 3, 4)]
    path = dataset(tmp_path, names, [], crowdIndex=[0, 0.1, 0.5, 0.9]).path
    path.write_text(path.read_text().replace('"annotations": []', f'"annotations": {annotations}'.replace("'", '"')))
    data = KeypointDataset(path, skeleton=CROWDPOSE_14)
    people = [Prediction.of([keypoints], np.ones((1, 14)), [0.9], 14)] * 2
    missed = Prediction.of([], [], [], 14)
    measures = coco_average_precision(data, results_json(data.photos, [*people, missed, people[0]]))
    assert [measures[f"AP_{name}"] for name in ("easy", "medium", "hard")] == [1, 0, 1]


def test_missing_evaluator_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataset(tmp_path, ["a.jpg"], [human(1, LEFT)])
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(ImportError, match=r"faster-coco-eval is missing; run: pip install 'dekrpose\[eval\]'"):
        average_precision(data, prediction())
