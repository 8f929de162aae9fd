from __future__ import annotations

import argparse
import json
import math
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dekrpose.architectures.dekr.network import DEKR
from dekrpose.commands import eval as command
from dekrpose.config import ARCHITECTURES, DecodeConfig
from dekrpose.data.dataset import KeypointDataset
from dekrpose.errors import DekrPoseError
from dekrpose.evaluation.evaluate import Report, own_threshold, predictor, report, sweep, sweep_table
from dekrpose.evaluation.predictions import Predict, Prediction, collect
from tests.evaluation_people import dataset, human, standing

pytest.importorskip("faster_coco_eval")

LEFT, RIGHT, FAR = standing(60, 50), standing(200, 60), standing(600, 50)
NAMES = ["lsp_1.png", "lsp_2.png", "coco_3.png"]
Found = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]


def photos(folder: Path) -> KeypointDataset:
    """Two people, one person, nobody; the photo's first pixel says which one it is."""
    for number, name in enumerate(NAMES):
        Image.new("RGB", (320, 240), (number, 0, 0)).save(folder / name)
    return dataset(folder, NAMES, [human(1, LEFT), human(1, RIGHT, "teacher"), human(2, LEFT)])


def found(*people: tuple[NDArray[np.float32], float]) -> Found:
    keypoints = np.array([keypoints for keypoints, _ in people], np.float32).reshape(-1, 17, 2)
    return keypoints, np.ones(keypoints.shape[:2]), np.array([score for _, score in people])


def predict(image: NDArray[np.uint8]) -> Found:
    """Everybody, one of them with a low score, and a false person in the photo of nobody."""
    assert image.shape == (240, 320, 3)
    return [found((RIGHT, 0.04), (LEFT, 0.5)), found((LEFT, 0.3)), found((FAR, 0.1))][int(image[0, 0, 0])]


def truth(image: NDArray[np.uint8]) -> Found:
    return [found((RIGHT, 0.4), (LEFT, 0.5)), found((LEFT, 0.3)), found()][int(image[0, 0, 0])]


def evaluate(predict: Predict, data: KeypointDataset, *, threshold: float = 0.05, limit: int | None = None) -> Report:
    return report(collect(predict, data, progress=False, limit=limit), threshold)


class Estimator:
    """Stands for ``PoseEstimator``: only what the evaluation needs of it."""

    last: Estimator

    def __init__(self) -> None:
        self.config = replace(ARCHITECTURES["tiny"], decode=DecodeConfig(match_heatmap="paper"))
        self.model = DEKR(self.config)
        self.options: list[dict[str, Any]] = []
        self.rescoring_net: str | None = None

    @classmethod
    def from_pretrained(
        cls, name: str, *, device: str, dtype: str, trust_code: bool, rescoring_net: bool | None = None
    ) -> Estimator:
        assert (name, device, dtype, trust_code) == ("tiny", "auto", "auto", False)
        cls.last = cls()
        cls.last.rescoring_net = None if rescoring_net is False else "the model's own"
        return cls.last

    def estimate_raw(self, image: NDArray[np.uint8], **options: Any) -> Any:
        self.options.append(options)
        return predict(image)


def test_ground_truth_reaches_everything(tmp_path: Path) -> None:
    measured = evaluate(truth, photos(tmp_path))
    assert (measured.photos, measured.people) == (3, 3)
    assert (measured.pck, measured.recall, measured.precision, measured.false_people) == (1, 1, 1, 0)
    assert math.isnan(measured.recall_small)
    assert (measured.ap["AP"], measured.ap["AR"]) == (pytest.approx(1), pytest.approx(1))


def test_nobody_predicted_reaches_nothing(tmp_path: Path) -> None:
    measured = evaluate(lambda image: ([], [], []), photos(tmp_path))
    assert (measured.pck, measured.recall, measured.ap["AP"], measured.false_people) == (0, 0, 0, 0)


def test_the_threshold_applies_to_all_but_average_precision(tmp_path: Path) -> None:
    data = photos(tmp_path)
    high = evaluate(predict, data, threshold=0.05)
    assert (high.recall, high.false_people, high.pck) == (pytest.approx(2 / 3), 1, 1)
    everybody = evaluate(predict, data, threshold=0)
    assert (everybody.recall, everybody.precision) == (1, pytest.approx(3 / 4))
    assert high.ap == pytest.approx(everybody.ap, nan_ok=True)
    assert high.ap["AP50"] == pytest.approx((67 + 34 * 3 / 4) / 101)  # the false person outranks the last right one


def test_zero_keeps_people_of_negative_score() -> None:
    prediction = Prediction.of(*found((LEFT, -0.1), (RIGHT, 0.2)), channels=17)
    assert len(prediction.shown(0)) == 2
    assert len(prediction.shown(0.2)) == 1
    assert len(prediction.shown(0.3)) == 0


def test_limit_counts_the_first_photos_only(tmp_path: Path) -> None:
    measured = evaluate(predict, photos(tmp_path), limit=2)
    assert (measured.photos, measured.people, measured.ap["AP"]) == (2, 3, pytest.approx(1))
    assert math.isnan(measured.false_people)
    with pytest.raises(ValueError, match="limit must be at least 1"):
        evaluate(predict, photos(tmp_path), limit=0)


def test_missing_photos_are_told_before_anything_is_predicted(tmp_path: Path) -> None:
    data = photos(tmp_path)
    (tmp_path / NAMES[2]).unlink()
    with pytest.raises(DekrPoseError, match=r"1 of 3 photos .*coco_3.png"):
        collect(lambda image: pytest.fail("predicted"), data, progress=False)
    assert len(collect(predict, data, progress=False, limit=2).people) == 2


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((np.zeros((1, 14, 2)), np.zeros((1, 17)), [0.5]), r"keypoints of 1 people must be \(1, 17, 2\)"),
        ((np.zeros((2, 17, 2)), np.zeros((2, 17)), [0.5]), r"keypoints of 1 people"),
        ((np.zeros((1, 17, 2)), np.zeros((1, 16)), [0.5]), r"keypoint_scores of 1 people must be \(1, 17\)"),
        ((np.full((1, 17, 2), np.nan), np.zeros((1, 17)), [0.5]), "finite"),
    ],
)
def test_predictions_that_do_not_fit(tmp_path: Path, answer: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(lambda image: answer, photos(tmp_path))


def test_a_sweep_needs_one_run(tmp_path: Path) -> None:
    rows = sweep(collect(predict, photos(tmp_path), progress=False), [0, 0.05, 0.2, 0.9])
    assert [row.recall for row in rows] == pytest.approx([1, 2 / 3, 2 / 3, 0])
    assert [row.false_people for row in rows] == [1, 1, 0, 0]
    assert [row.predictions for row in rows] == [4, 3, 2, 0]
    assert [row.precision for row in rows[:3]] == pytest.approx([3 / 4, 2 / 3, 1])
    assert math.isnan(rows[3].precision)
    lines = sweep_table(rows).splitlines()
    assert len(lines) == 5
    assert len({len(line) for line in lines}) == 1


def test_a_report_is_json_and_a_table(tmp_path: Path) -> None:
    measured = report(collect(predict, photos(tmp_path), progress=False), 0.05)
    values = json.loads(json.dumps(measured.to_dict(), allow_nan=False))
    assert values["recall_small"] is None
    assert values["ap"]["AP_L"] is None
    assert values["pck"] == 1
    table = measured.table()
    for part in ("PCK@0.2          100.0 %", "score >= 0.05", "recall, small          -", "false people"):
        assert part in table


def test_an_estimator_is_asked_for_everybody(tmp_path: Path) -> None:
    estimator = Estimator()
    measured = evaluate(predictor(estimator, flip_test=True), photos(tmp_path))  # type: ignore[arg-type]
    assert estimator.options == [{"flip_test": True}] * 3
    assert measured.photos == 3
    assert own_threshold(estimator) == ARCHITECTURES["tiny"].decode.score_threshold  # type: ignore[arg-type]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    module = types.ModuleType("dekrpose.estimator")
    module.PoseEstimator = Estimator  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dekrpose.estimator", module)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(["tiny", *arguments]))


def test_the_command_prints_and_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = photos(tmp_path)
    out, results = tmp_path / "out.json", tmp_path / "results.json"
    files = ("--images", str(tmp_path), "--json", str(out), "--results", str(results))
    assert run(monkeypatch, str(data.path), *files, "--score-threshold", "0.2", "--sweep", "--errors") == 0
    printed = capsys.readouterr().out
    assert "score >= 0.2" in printed
    assert "threshold   PCK@0.2" in printed
    assert "good 100.0 %, jitter 0.0 %" in printed
    written = json.loads(out.read_text())
    assert (written["model"], written["photos"], written["false_people"]) == ("tiny", 3, 0)
    assert written["ap"]["AR50"] == pytest.approx(1)
    assert [entry["image_id"] for entry in json.loads(results.read_text())] == [1, 1, 2, 3]


def test_the_command_passes_its_switches_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = photos(tmp_path)
    switches = ("--flip", "--scales", "0.5", "1", "--input-size", "96", "--nms-threshold", "0.1")
    out = tmp_path / "out.json"
    assert run(monkeypatch, str(data.path), *switches, "--match-heatmap", "paper", "--json", str(out)) == 0
    expected = {"flip_test": True, "scales": [0.5, 1.0], "input_size": 96, "nms_threshold": 0.1}
    assert Estimator.last.options == [{**expected, "match_heatmap": "paper"}] * 3
    assert json.loads(out.read_text())["rescored"] is True
    assert run(monkeypatch, str(data.path), "--no-rescore", "--match-heatmap", "--json", str(out)) == 0
    assert Estimator.last.options[0]["match_heatmap"] == "official"
    assert run(monkeypatch, str(data.path), "--match-heatmap", "off") == 0
    assert Estimator.last.options[0]["match_heatmap"] is False
    assert run(monkeypatch, str(data.path)) == 0
    assert Estimator.last.options[0]["match_heatmap"] == "paper"
    assert json.loads(out.read_text())["rescored"] is False


def test_contradicting_switches_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["--no-rescore", "--rescoring-net", "net.pth"], ["--match-heatmap", "other"]):
        with pytest.raises(SystemExit):
            run(monkeypatch, "people.json", *words)
    assert "not allowed with argument" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--json", "--results", "--report"])
def test_a_place_that_cannot_be_written_is_told_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    (tmp_path / "people.json").write_text("{}")
    with pytest.raises(DekrPoseError, match=r"nowhere.* its folder does not exist"):
        run(monkeypatch, str(tmp_path / "people.json"), option, str(tmp_path / "nowhere" / "file"))


def test_on_a_terminal_the_progress_bar_counts_photos_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    collect(predict, photos(tmp_path))
    assert "photo/s" in capsys.readouterr().err


def test_the_command_of_a_measurement_has_all_that_decides_it() -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    words = (
        "eval MODEL DATA.json --match-heatmap paper --nms-threshold 0.1 --no-rescore --crowd-limits 0.2 0.8 --limit 9"
    )
    options = parser.parse_args([*words.split()[1:], "--report", "page.html"])
    assert command.command_line(options) == f"dekrpose {words}"


def test_random_weights_replace_the_model_and_are_always_the_same() -> None:
    import torch

    first, second = Estimator(), Estimator()
    for estimator in (first, second):
        for parameter in estimator.model.parameters():
            torch.nn.init.ones_(parameter)
    state = torch.random.get_rng_state()
    command.randomise(first)  # type: ignore[arg-type]
    command.randomise(second)  # type: ignore[arg-type]
    assert torch.equal(state, torch.random.get_rng_state())
    weights = [estimator.model.heatmap_head.final.weight for estimator in (first, second)]
    assert torch.equal(*weights)
    assert not torch.equal(weights[0], torch.ones_like(weights[0]))


def test_the_command_compares_two_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = photos(tmp_path), tmp_path / "out.json"
    assert run(monkeypatch, str(data.path), "--compare", "match-heatmap=off", "--json", str(out)) == 0
    assert Estimator.last.options[0]["match_heatmap"] is False
    printed = capsys.readouterr().out
    assert "compared with match-heatmap=off\npeople             3 found by both, of 3 and 3" in printed
    assert ["AP", "91.6", "91.6"] in [line.split() for line in printed.splitlines()]
    compared = json.loads(out.read_text())["compared"]
    assert (compared["with"], compared["shift"]["largest"]) == (["match-heatmap=off"], 0)
    assert compared["measures"]["photos"] == 3
