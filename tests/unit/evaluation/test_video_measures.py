"""Measures of clips on cases that can be worked out by hand."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from dekrpose.data.clips.clip import Clip
from dekrpose.evaluation.charts import series_chart
from dekrpose.evaluation.predictions import Prediction
from dekrpose.evaluation.video.compare import (
    ONE_EURO,
    PER_FRAME,
    RESET,
    SHUFFLED,
    TEMPORAL,
    Bootstrap,
    Cell,
    Interval,
    summary,
)
from dekrpose.evaluation.video.measures import (
    ClipMeasures,
    acceleration_errors,
    lag,
    local_nms_scores,
    match,
    measure,
    motion_products,
)
from dekrpose.evaluation.video.precision import AveragePrecision, Detections, areas_of, detections_of
from dekrpose.evaluation.video.report import comparison_page, controls, criterion, numbers, table, verdict
from dekrpose.skeletons import COCO_17

POSE = np.random.default_rng(0).uniform(0, 40, (17, 2))


def clip_of(keypoints: np.ndarray, size: int = 100) -> Clip:
    """A grey clip of (T, P, 17, 2) people, all labelled."""
    frames = len(keypoints)
    people = np.concatenate([keypoints, np.full((*keypoints.shape[:3], 1), 2.0)], axis=3).astype(np.float32)
    empty = np.zeros((frames, size, size), bool)
    return Clip(
        np.zeros((frames, size, size, 3), np.uint8), people, np.ones(frames, bool), empty, np.arange(frames) / 25, ""
    )


def found(*poses: np.ndarray, scores: tuple[float, ...] | None = None) -> Prediction:
    count = len(poses)
    kept = np.array(scores if scores is not None else [0.5] * count)
    return Prediction.of(np.array(poses).reshape(count, 17, 2), np.ones((count, 17)), kept, 17)


def moving(frames: int, velocity: tuple[float, float]) -> np.ndarray:
    return POSE + np.arange(frames)[:, None, None, None] * np.array(velocity)


def test_frames_without_a_person_count_zero() -> None:
    shown = [found(POSE, POSE, scores=(0.2, 0.4)), found(), found(POSE, scores=(0.3,))]
    assert local_nms_scores(shown) == pytest.approx([40, 0, 30])
    measured = measure(clip_of(moving(3, (1, 0))), shown, 0.25)
    assert measured.local_nms_score == pytest.approx(70 / 3)


def test_constant_velocity_has_no_acceleration_error() -> None:
    truth, sizes = moving(6, (2, 1)), np.full((6, 1), 10.0)
    apart = truth + np.array([3.0, -1.0]) + np.arange(6)[:, None, None, None] * 0.5  # wrong, but steadily so
    errors = acceleration_errors(apart, truth, sizes)
    assert np.isnan(errors[[0, -1]]).all()
    assert errors[1:-1] == pytest.approx(0, abs=1e-9)


def test_a_jump_of_one_frame_shows_in_three() -> None:
    truth, sizes = moving(7, (2, 1)), np.full((7, 1), 10.0)
    jumped = truth.copy()
    jumped[3] += (3, 4)
    assert acceleration_errors(jumped, truth, sizes)[:, 0] == pytest.approx(
        [np.nan, 0, 0.5, 1.0, 0.5, 0, np.nan], nan_ok=True
    )


def test_people_who_are_lost_leave_a_gap() -> None:
    truth, sizes = moving(7, (2, 1)), np.full((7, 1), 10.0)
    lost = truth.copy()
    lost[3] = np.nan
    assert np.isfinite(acceleration_errors(lost, truth, sizes)[:, 0]).tolist() == [
        False,
        True,
        False,
        False,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize("delay", [0, 1, 2, -1, 1.5, 0.4])
def test_a_delayed_copy_has_its_delay_as_lag(delay: float) -> None:
    times = np.arange(60.0)

    def path(at: np.ndarray) -> np.ndarray:
        wave = np.stack([20 * np.sin(at / 3), 15 * np.cos(at / 4)], axis=-1)
        return POSE + wave[:, None, None]

    sizes = np.full((60, 1), 30.0)
    assert lag(motion_products(path(times - delay), path(times), sizes)) == pytest.approx(delay, abs=0.08)


def test_stillness_has_no_lag() -> None:
    still = moving(20, (0, 0))
    assert np.isnan(lag(motion_products(still, still, np.full((20, 1), 30.0))))


def test_everybody_is_matched_once_and_the_missed_count_zero() -> None:
    other = POSE + np.array([50, 30])
    clip = clip_of(np.stack([POSE, other])[None])
    matched, oks = match(clip, [found(POSE + 0.5)])
    assert matched[0, 0] == pytest.approx(POSE + 0.5)
    assert np.isnan(matched[0, 1]).all()
    assert oks[0] > 0.9
    assert oks[1] == 0


def test_average_precision_by_hand() -> None:
    clip = clip_of(np.stack([POSE, POSE + np.array([50, 30])])[None])
    perfect = detections_of(clip, [found(POSE, POSE + np.array([50, 30]), scores=(0.9, 0.8))])
    assert AveragePrecision([perfect])() == pytest.approx(1)
    half = detections_of(clip, [found(POSE, scores=(0.9,))])
    assert AveragePrecision([half])() == pytest.approx(51 / 101)  # recalls 0 to 0.5
    wrong_first = detections_of(clip, [found(POSE + 500, POSE, scores=(0.9, 0.8))])
    assert AveragePrecision([wrong_first])() == pytest.approx(0.5 * 51 / 101)
    nothing = detections_of(clip, [found()])
    assert AveragePrecision([nothing])() == 0
    assert np.isnan(AveragePrecision([detections_of(clip_of(np.zeros((1, 0, 17, 2))), [found()])])())


def test_weights_count_clips_several_times_or_not_at_all() -> None:
    clip = clip_of(moving(2, (1, 0)))
    good, bad = (
        detections_of(clip, [found(POSE), found(POSE + np.array([1, 0]))]),
        detections_of(clip, [found(), found()]),
    )
    precision = AveragePrecision([good, bad])
    assert precision(np.array([1.0, 0.0])) == pytest.approx(1)
    assert precision(np.array([0.0, 2.0])) == 0
    assert precision(np.array([2.0, 2.0])) == pytest.approx(precision())


def test_poses_in_unannotated_regions_are_left_out() -> None:
    clip = clip_of(POSE[None, None])
    clip.ignored[:, 50:, 50:] = True
    bystander = POSE + np.array([50, 50])
    left_out = detections_of(clip, [found(bystander, POSE, scores=(0.9, 0.8))])
    assert AveragePrecision([left_out])() == pytest.approx(1)


@pytest.mark.skipif(find_spec("faster_coco_eval") is None, reason="needs faster-coco-eval")
def test_average_precision_is_that_of_coco() -> None:
    import faster_coco_eval

    rng = np.random.default_rng(3)
    truth, detections, clips = [], [], []
    for image in range(12):
        people = rng.uniform(10, 60, (rng.integers(1, 4), 1, 2)) + rng.uniform(0, 35, (1, 17, 2))
        shown = [person + rng.normal(0, rng.uniform(0.3, 4), (17, 2)) for person in people if rng.random() < 0.8]
        shown += [rng.uniform(0, 90, (17, 2)) for _ in range(rng.integers(0, 3))]
        scores = rng.uniform(0, 1, len(shown))
        clip = clip_of(people[None])
        clips.append(detections_of(clip, [found(*shown, scores=tuple(scores))]))
        for person in clip.keypoints[0]:
            sides = np.ptp(person[:, :2], axis=0)
            truth.append(
                {
                    "id": len(truth) + 1, "image_id": image, "category_id": 1, "iscrowd": 0, "num_keypoints": 17,
                    "keypoints": person.ravel().tolist(),
                    "bbox": [*person[:, :2].min(axis=0).tolist(), *sides.tolist()],
                    "area": float(areas_of(person[None])[0]),
                }
            )  # fmt: skip
        for pose, score in zip(shown, scores, strict=True):
            triples = np.concatenate([pose.astype(np.float32), np.ones((17, 1))], axis=1)
            detections.append(
                {"image_id": image, "category_id": 1, "keypoints": triples.ravel().tolist(), "score": float(score)}
            )
    coco = faster_coco_eval.COCO(
        {"images": [{"id": i, "width": 100, "height": 100} for i in range(12)], "annotations": truth,
         "categories": [{"id": 1, "name": "person"}]}
    )  # fmt: skip
    evaluator = faster_coco_eval.COCOeval_faster(
        coco, coco.loadRes(detections), "keypoints", kpt_oks_sigmas=list(COCO_17.sigmas)
    )
    evaluator.params.areaRng, evaluator.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluator.evaluate()
    evaluator.accumulate()
    expected = np.asarray(evaluator.eval["precision"])[:, :, 0, 0, 0].mean()
    assert AveragePrecision(clips)() == pytest.approx(expected, abs=1e-6)


def cell(right: float, jitter: float, late: float, seed: int) -> Cell:
    """Six clips of one person: a share of right poses, an acceleration error, a lag."""
    rng = np.random.default_rng(seed)
    times = np.arange(40.0)
    truth = POSE + 10 * np.sin(times / 3)[:, None, None, None]
    delayed = POSE + 10 * np.sin((times - late) / 3)[:, None, None, None]
    products = motion_products(delayed, truth, np.full((40, 1), 30.0))
    clips = []
    for _ in range(6):
        hits = rng.random(40) < right
        detections = Detections(rng.random(40), np.repeat(hits[:, None], 10, axis=1), np.zeros(40, bool), 40)
        errors = np.full((40, 1), jitter) + rng.normal(0, 0.002, (40, 1))
        clips.append(ClipMeasures(np.full(40, 50.0), np.full(40, right), errors, products, detections))
    return Cell(clips)


def results(temporal: tuple[float, float, float]) -> dict[tuple[str, str, int], Cell]:
    cells = {}
    for seed in (0, 1, 2):
        for condition in ("clean", "blurred", "noisy"):
            spoilt = 0.0 if condition == "clean" else 0.3
            plain = cell(0.9 - spoilt, 0.1 + spoilt / 3, 0.0, seed)
            cells[condition, PER_FRAME, seed] = plain
            cells[condition, ONE_EURO, seed] = cell(0.9 - spoilt, 0.05, 0.5, seed)
            right, jitter, late = temporal
            good = (0.9, 0.1) if condition == "clean" else (right, jitter)
            cells[condition, TEMPORAL, seed] = cell(*good, late, seed)
            cells[condition, RESET, seed] = plain
            cells[condition, SHUFFLED, seed] = cell(0.5 - spoilt, 0.3, 0.0, seed)
    return cells


def test_a_better_memory_passes_and_its_controls_hold() -> None:
    cells = results((0.85, 0.1, 0.2))
    bootstrap = Bootstrap(cells, 30)
    findings, checks = criterion(cells, bootstrap), controls(cells, bootstrap)
    assert all(finding.holds for finding in [*findings, *checks]), findings + checks
    assert verdict(findings).endswith("The memory passes the criterion.")
    assert "exactly 0" in checks[0].words
    assert bootstrap.precision(RESET, PER_FRAME, ["clean", "noisy"]) == Interval(0.0, 0.0, 0.0)


def test_a_memory_that_lags_or_gains_nothing_does_not_pass() -> None:
    late = results((0.85, 0.1, 1.0))
    assert [finding.holds for finding in criterion(late, Bootstrap(late, 30))] == [True, True, True, True, False]
    same = results((0.6, 0.2, 0.2))
    findings = criterion(same, Bootstrap(same, 30))
    assert [finding.holds for finding in findings[:2]] == [False, False]
    assert "does not pass: 2 of 5" in verdict(findings)


def test_table_numbers_and_page() -> None:
    cells = results((0.85, 0.1, 0.2))
    rows = table(cells).splitlines()
    assert len(rows) == 2 + 3 * 5
    assert rows[2].startswith("| clean | per frame | 50.0 | 90.0 |")
    assert summary(cells, "clean", PER_FRAME)["acceleration"] == pytest.approx(10, abs=0.1)
    findings = criterion(cells, Bootstrap(cells, 20))
    assert numbers(cells, findings)["measures"]["noisy"][TEMPORAL]["AP"] > 50
    page = comparison_page(cells, findings, model="m<1>", data="clips", command="dekrpose eval m")
    assert page.count("<svg") == 9
    assert "m&lt;1&gt;" in page
    assert "passes the criterion" in page


def test_the_series_is_plotted_frame_by_frame() -> None:
    chart = series_chart({"per frame": np.array([0.0, 50.0, 100.0])}, "a clip", {})
    assert 'points="44.0,178.0 217.0,106.0 390.0,34.0"' in chart
