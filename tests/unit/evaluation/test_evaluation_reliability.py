from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr

from dekrpose.data.dataset import KeypointDataset
from dekrpose.evaluation.predictions import Prediction, Predictions
from dekrpose.evaluation.reliability import reliability, reliability_of, scores_and_oks
from tests.evaluation_people import dataset, human, standing, unlabelled

LEFT, RIGHT, FAR = standing(60, 50), standing(200, 60), standing(600, 50)


def predictions(data: KeypointDataset, *people: list[tuple[NDArray[np.float32], float]]) -> Predictions:
    found = [
        Prediction.of([pose for pose, _ in here], np.ones((len(here), 17)), [score for _, score in here], 17)
        for here in people
    ]
    return Predictions(data, data.photos, found, 1.0)


def test_scores_meet_the_oks_of_the_nearest_person(tmp_path: Path) -> None:
    data = dataset(tmp_path, ["a.jpg", "nobody.jpg"], [human(1, LEFT), human(1, RIGHT)])
    found = predictions(data, [(RIGHT, 0.2), (LEFT, 0.9), (LEFT, 0.4)], [(FAR, -0.1)])
    scores, oks = scores_and_oks(found)
    np.testing.assert_allclose(scores, [0.2, 0.9, 0.4, -0.1], rtol=1e-6)
    np.testing.assert_allclose(oks, [1, 1, 1, 0])


def test_predictions_on_unlabelled_people_are_left_out(tmp_path: Path) -> None:
    data = dataset(tmp_path, ["a.jpg"], [human(1, LEFT), unlabelled(1, (150.0, 50.0, 100.0, 150.0))])
    scores, _ = scores_and_oks(predictions(data, [(LEFT, 0.5), (RIGHT, 0.4), (FAR, 0.3)]))
    np.testing.assert_allclose(scores, [0.5, 0.3], rtol=1e-6)


def test_bins_and_calibration_error_by_hand() -> None:
    measured = reliability_of(np.array([0.1, 0.2, 0.5, 0.9, 1.2, -0.1]), np.array([0.0, 0.4, 0.6, 1.0, 0.8, 0.0]), 2)
    np.testing.assert_array_equal(measured.counts, [3, 3])
    np.testing.assert_allclose(measured.mean_scores, [0.2 / 3, 2.6 / 3])
    np.testing.assert_allclose(measured.mean_oks, [0.4 / 3, 0.8])
    np.testing.assert_allclose(measured.hits, [0, 1])
    assert measured.calibration_error == pytest.approx((3 * 0.2 / 3 + 3 * (1 - 2.6 / 3)) / 6)
    assert "0.5 to 1.0        3        0.87        1.00      0.80" in measured.table()


def test_correlations_with_ties() -> None:
    rng = np.random.default_rng(0)
    scores, oks = rng.integers(0, 6, 50) / 5, rng.integers(0, 4, 50) / 3
    measured = reliability_of(scores, oks)
    assert measured.pearson == pytest.approx(np.corrcoef(scores, oks)[0, 1])
    assert measured.spearman == pytest.approx(spearmanr(scores, oks).statistic)


def test_scores_that_are_the_oks_rank_perfectly_and_those_that_tell_hits_are_calibrated() -> None:
    oks = np.linspace(0, 1, 40)
    measured = reliability_of(oks, oks)
    assert reliability_of((oks >= 0.5).astype(float), oks).calibration_error == pytest.approx(0)
    assert (measured.pearson, measured.spearman) == (pytest.approx(1), pytest.approx(1))
    assert reliability_of(1 - oks, oks).spearman == pytest.approx(-1)


def test_nobody_predicted_gives_empty_bins(tmp_path: Path) -> None:
    measured = reliability(predictions(dataset(tmp_path, ["a.jpg"], [human(1, LEFT)]), []))
    assert measured.counts.tolist() == [0] * 10
    assert np.isnan(measured.mean_oks).all()
    assert math.isnan(measured.calibration_error)
    assert math.isnan(measured.spearman)
    values = json.loads(json.dumps(measured.to_dict(), allow_nan=False))
    assert values["mean_scores"] == [None] * 10
