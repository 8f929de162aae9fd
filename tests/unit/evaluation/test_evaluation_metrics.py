from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dekrpose.data.oks import oks_matrix
from dekrpose.evaluation import metrics
from dekrpose.skeletons import COCO_17, CROWDPOSE_14
from tests.evaluation_people import dataset, hide, human, standing, unlabelled

LEFT, RIGHT = standing(100, 50), standing(220, 60)
TORSO = float(np.linalg.norm(LEFT[5] - LEFT[12]))
NOBODY = np.zeros((0, 17, 2), np.float32)


def triples(*people: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.stack([np.concatenate([person, np.ones((len(person), 1), np.float32)], axis=1) for person in people])


def test_oks_is_the_mean_of_the_labelled_keypoints() -> None:
    people = np.zeros((1, 2, 3))
    people[0, 0] = (10, 20, 2)
    predicted = [[[13, 24], [1000, 1000]], [[10, 20], [0, 0]]]
    expected = math.exp(-25 / (2 * 400 * (2 * 0.1) ** 2))
    np.testing.assert_allclose(oks_matrix(predicted, people, [400], [0.1, 0.1]), [[expected], [1.0]])
    people[0, 1] = (1000, 1000, 1)
    np.testing.assert_allclose(oks_matrix(predicted[:1], people, [400], [0.1, 0.1]), [[(expected + 1) / 2]])


def test_oks_without_predictions_people_or_labels() -> None:
    person = triples(LEFT)
    assert oks_matrix([], person, [10], COCO_17.sigmas).shape == (0, 1)
    assert oks_matrix([LEFT, RIGHT], [], [], COCO_17.sigmas).shape == (2, 0)
    person[..., 2] = 0
    np.testing.assert_array_equal(oks_matrix([LEFT], person, [10], COCO_17.sigmas), [[0]])


def test_oks_with_wrong_shapes() -> None:
    with pytest.raises(ValueError, match=r"predicted must be \(N, 14, 2\)"):
        oks_matrix([LEFT], [], [], CROWDPOSE_14.sigmas)
    with pytest.raises(ValueError, match="one area per person, got 2 for 1"):
        oks_matrix([LEFT], triples(LEFT), [1, 2], COCO_17.sigmas)


def test_perfect_predictions(tmp_path: Path) -> None:
    photos = dataset(tmp_path, ["lsp_1.jpg", "coco_1.jpg"], [human(1, LEFT), human(1, RIGHT, "teacher")]).photos
    predicted = [np.stack([RIGHT, LEFT]), NOBODY]
    assert metrics.pck(photos, predicted, COCO_17) == 1
    assert metrics.recall(photos, predicted, COCO_17) == 1
    assert metrics.precision(photos, predicted, COCO_17) == 1
    assert metrics.false_people(photos, predicted) == 0


def test_nobody_predicted(tmp_path: Path) -> None:
    photos = dataset(tmp_path, ["lsp_1.jpg", "coco_1.jpg"], [human(1, LEFT)]).photos
    assert metrics.pck(photos, [NOBODY, NOBODY], COCO_17) == 0
    assert metrics.recall(photos, [NOBODY, NOBODY], COCO_17) == 0
    assert math.isnan(metrics.precision(photos, [NOBODY, NOBODY], COCO_17))
    assert metrics.false_people(photos, [NOBODY, NOBODY]) == 0


def test_nobody_annotated(tmp_path: Path) -> None:
    photos = dataset(tmp_path, ["coco_1.jpg", "coco_2.jpg"], []).photos
    predicted = [np.stack([LEFT, RIGHT, LEFT]), NOBODY]
    assert math.isnan(metrics.pck(photos, predicted, COCO_17))
    assert math.isnan(metrics.recall(photos, predicted, COCO_17))
    assert metrics.precision(photos, predicted, COCO_17) == 0
    assert metrics.false_people(photos, predicted) == 1.5


def test_photos_of_unlabelled_people_do_not_count_for_false_people(tmp_path: Path) -> None:
    photos = dataset(tmp_path, ["lsp_1.jpg"], [unlabelled(1, (0, 0, 50, 50))]).photos
    assert math.isnan(metrics.false_people(photos, [np.stack([LEFT])]))


@pytest.mark.parametrize(("shift", "expected"), [(0.199, 1.0), (0.201, 0.0)])
def test_pck_turns_at_a_fifth_of_the_torso(tmp_path: Path, shift: float, expected: float) -> None:
    photos = dataset(tmp_path, ["lsp_1.jpg"], [human(1, LEFT)]).photos
    moved = LEFT + np.float32([0, shift * TORSO])
    assert metrics.pck(photos, [moved[None]], COCO_17) == expected


def test_pck_counts_the_labelled_of_twelve_body_keypoints(tmp_path: Path) -> None:
    photos = dataset(tmp_path, ["lsp_1.jpg"], [hide(human(1, LEFT), 9, 10)]).photos
    moved = LEFT.copy()
    moved[[0, 1, 2, 3, 4]] += 100  # the face is not among the twelve
    moved[[9, 10]] += 100  # not labelled
    moved[[13, 15]] += 100
    assert metrics.pck(photos, [moved[None]], COCO_17) == pytest.approx(8 / 10)


def test_pck_pools_keypoints_over_people(tmp_path: Path) -> None:
    annotations = [hide(human(1, LEFT), 7, 8, 9, 10), human(2, RIGHT)]
    photos = dataset(tmp_path, ["lsp_1.jpg", "lsp_2.jpg"], annotations).photos
    assert metrics.pck(photos, [LEFT[None], NOBODY], COCO_17) == pytest.approx(8 / 20)


def test_pck_of_exchanged_sides(tmp_path: Path) -> None:
    photos = dataset(tmp_path, ["lsp_1.jpg"], [human(1, LEFT)]).photos
    swapped = LEFT[list(COCO_17.flip_indices)]
    widths = np.abs(LEFT[5:17:2, 0] - LEFT[6:17:2, 0])
    assert (widths > 0.2 * TORSO).all()
    assert metrics.pck(photos, [swapped[None]], COCO_17) == 0


def test_pck_takes_the_prediction_of_highest_oks(tmp_path: Path) -> None:
    photos = dataset(tmp_path, ["lsp_1.jpg"], [human(1, LEFT)]).photos
    assert metrics.pck(photos, [np.stack([RIGHT, LEFT + 30, LEFT + 1])], COCO_17) == 1


def test_torso_falls_back_to_the_other_diagonal() -> None:
    person = triples(LEFT)[0]
    person[6] += (0, -10, 0)
    assert metrics.torso_length(person, COCO_17) == pytest.approx(TORSO)
    person[5, 2] = 0
    assert metrics.torso_length(person, COCO_17) == pytest.approx(float(np.linalg.norm(person[6, :2] - person[11, :2])))
    person[11, 2] = 0
    assert math.isnan(metrics.torso_length(person, COCO_17))


def test_pck_leaves_out_people_without_a_torso(tmp_path: Path) -> None:
    photos = dataset(tmp_path, ["lsp_1.jpg"], [human(1, LEFT), hide(human(1, RIGHT), 5, 6)]).photos
    assert metrics.pck(photos, [LEFT[None]], COCO_17) == 1


def test_pck_is_over_human_people_of_its_photos_or_over_everybody(tmp_path: Path) -> None:
    annotations = [human(1, LEFT), human(1, RIGHT, "teacher"), human(2, LEFT)]
    photos = dataset(tmp_path, ["lsp_1.jpg", "ccp_1.jpg"], annotations).photos
    predicted = [LEFT[None], NOBODY]
    assert metrics.pck(photos, predicted, COCO_17) == 1


def test_everybody_counts_in_files_without_sources(tmp_path: Path) -> None:
    photos = dataset(tmp_path, ["mine.jpg"], [human(1, LEFT, ""), human(1, RIGHT, "")]).photos
    assert metrics.pck(photos, [LEFT[None]], COCO_17) == pytest.approx(1 / 2)
    assert metrics.recall(photos, [LEFT[None]], COCO_17) == pytest.approx(1 / 2)


def test_pck_of_a_skeleton_without_a_torso_is_undefined(tmp_path: Path) -> None:
    photos = dataset(tmp_path, ["lsp_1.jpg"], [human(1, LEFT)]).photos
    named = {**COCO_17.to_dict(), "keypoints": tuple(f"point_{index}" for index in range(17))}
    assert math.isnan(metrics.pck(photos, [LEFT[None]], type(COCO_17).from_dict(named)))


def test_recall_separates_small_people_and_leaves_unlabelled_ones_out(tmp_path: Path) -> None:
    tiny = standing(20, 20, 40)
    annotations = [human(1, LEFT), human(1, RIGHT, "teacher"), human(1, tiny), unlabelled(1, (200, 0, 90, 200))]
    photos = dataset(tmp_path, ["lsp_1.jpg"], annotations).photos
    assert [person.area < metrics.SMALL_AREA for person in photos[0].people[:3]] == [False, False, True]
    predicted = [np.stack([LEFT, tiny])]
    assert metrics.recall(photos, predicted, COCO_17) == pytest.approx(1 / 2)
    assert metrics.recall(photos, predicted, COCO_17, areas=(0, metrics.SMALL_AREA)) == 1


def test_recall_needs_half_an_oks(tmp_path: Path) -> None:
    photos = dataset(tmp_path, ["lsp_1.jpg"], [human(1, LEFT)]).photos
    person = photos[0].people[0]
    for shift, found in ((3.0, 1), (30.0, 0)):
        oks = oks_matrix([LEFT + shift], person.keypoints[None], [person.area], COCO_17.sigmas)[0, 0]
        assert (oks >= 0.5) == bool(found)
        assert metrics.recall(photos, [(LEFT + shift)[None]], COCO_17) == found


def test_precision_gives_each_person_to_one_prediction(tmp_path: Path) -> None:
    photos = dataset(tmp_path, ["lsp_1.jpg"], [human(1, LEFT), human(1, RIGHT)]).photos
    assert metrics.precision(photos, [np.stack([LEFT, LEFT + 1, RIGHT])], COCO_17) == pytest.approx(2 / 3)


def test_precision_leaves_out_predictions_on_unlabelled_people(tmp_path: Path) -> None:
    low = RIGHT.min(axis=0)
    width, height = RIGHT.max(axis=0) - low
    region = unlabelled(1, (float(low[0]), float(low[1]), float(width), float(height)))
    photos = dataset(tmp_path, ["lsp_1.jpg"], [human(1, LEFT), region]).photos
    assert metrics.precision(photos, [np.stack([LEFT, RIGHT])], COCO_17) == 1
    assert metrics.precision(photos, [np.stack([LEFT, RIGHT - np.float32([60, 0])])], COCO_17) == 1 / 2
