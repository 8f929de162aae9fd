"""Validation while training: what is measured and kept, when a run ends, and how it is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dekrpose import PoseEstimator
from dekrpose.cli import main
from dekrpose.data.dataset import KeypointDataset
from dekrpose.errors import DekrPoseError
from dekrpose.evaluation.evaluate import Report
from dekrpose.training import validation as validation_module
from dekrpose.training.loader import CachedPhotos
from dekrpose.training.loop import Trainer
from dekrpose.training.run_log import read_lines
from dekrpose.training.validation import Validation, curves_svg
from tests.small_model import write_small_model
from tests.training_photos import SMALL, made_up_dataset, write_dataset
from tests.unit.training.test_training import CONFIG
from tests.unit.training.test_training_resume import records, start, state


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> KeypointDataset:
    return made_up_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def photos(data: KeypointDataset) -> CachedPhotos:
    return CachedPhotos(data, progress=False)


def scored(validation: Validation, monkeypatch: pytest.MonkeyPatch, values: list[float]) -> Validation:
    """The measurements of a validation replaced: made-up weights reach nothing."""
    left = iter(values)
    measure = validation_module.report

    def report(*arguments: Any) -> Report:
        own = measure(*arguments)
        return replace(own, ap={**own.ap, "AP": next(left)})

    monkeypatch.setattr(validation_module, "report", report)
    return validation


def test_every_set_is_measured_now_and_then_and_at_the_end(
    data: KeypointDataset, photos: CachedPhotos, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Trainer(SMALL, CONFIG, photos, tmp_path, validation=Validation([data], every=5)).run()
    lines = read_lines(tmp_path / "validation.jsonl")
    assert [line["step"] for line in lines] == [5, 10, 12]
    assert set(lines[0]["sets"]) == {"people.json"}
    assert lines[0]["sets"]["people.json"]["photos"] == 6
    root = ET.parse(tmp_path / "curves.svg").getroot()
    assert root.tag.endswith("svg")
    told = capsys.readouterr().err
    assert "step 12: people.json: AP" in told
    assert "images/s, heat" in told  # lines, where there is no terminal
    assert records(tmp_path)[0]["step"] == 1  # the log starts with the first step


def test_the_best_weights_are_kept(
    data: KeypointDataset, photos: CachedPhotos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validation = scored(Validation([data], every=4), monkeypatch, [0.2, 0.5, 0.4])
    Trainer(SMALL, CONFIG, photos, tmp_path / "whole", validation=validation).run(until=8)
    best = (tmp_path / "whole" / "best.safetensors").read_bytes()
    Trainer(SMALL, CONFIG, photos, tmp_path / "whole", validation=validation).run()
    assert (tmp_path / "whole" / "best.safetensors").read_bytes() == best  # 0.4 is less than 0.5
    assert [line["mean_ap"] for line in read_lines(tmp_path / "whole" / "validation.jsonl")] == [0.2, 0.5, 0.4]
    PoseEstimator.from_pretrained(tmp_path / "whole" / "best.safetensors")


def test_a_run_ends_early_when_nothing_gets_better(
    data: KeypointDataset, photos: CachedPhotos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    validation = scored(Validation([data], every=1, patience=2), monkeypatch, [0.1, 0.3, 0.3, 0.2, 0.9])
    trainer = Trainer(SMALL, CONFIG, photos, tmp_path, validation=validation)
    trainer.run()
    assert trainer.progress.step == 4
    assert "stopped early: 2 measurements" in capsys.readouterr().err


def test_measuring_changes_nothing_of_the_training(data: KeypointDataset, photos: CachedPhotos, tmp_path: Path) -> None:
    for name, validation in (("with", Validation([data], every=3)), ("without", None)):
        Trainer(SMALL, CONFIG, photos, tmp_path / name, validation=validation).run()
    expected, found = state(tmp_path / "without"), state(tmp_path / "with")
    for name, value in expected["model"].items():
        assert value.equal(found["model"][name]), name


def test_what_was_not_saved_is_measured_again(data: KeypointDataset, photos: CachedPhotos, tmp_path: Path) -> None:
    Trainer(SMALL, CONFIG, photos, tmp_path, validation=Validation([data], every=4)).run(until=4)
    with (tmp_path / "validation.jsonl").open("a") as file:
        file.write(json.dumps({"step": 8, "mean_ap": 1.0, "sets": {}}) + "\n")
    Trainer(SMALL, CONFIG, photos, tmp_path, validation=Validation([data], every=4)).run()
    assert [line["step"] for line in read_lines(tmp_path / "validation.jsonl")] == [4, 8, 12]
    assert read_lines(tmp_path / "validation.jsonl")[1]["mean_ap"] < 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--val", "a.json", "--val", "b.json", "--val-images", "photos"], "2 --val and 1 --val-images"),
        (["--patience", "3"], "give --val"),
    ],
)
def test_options_that_do_not_belong_together_are_refused(
    tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dataset(tmp_path / "data")
    data = ["train", str(tmp_path / "data" / "people.json"), "--images", str(tmp_path / "data" / "photos")]
    assert main([*data, "--out", str(tmp_path / "run"), *words]) != 0
    assert message in capsys.readouterr().err


def test_curves_are_drawn_without_measurements_too() -> None:
    log = [{"step": step, "heat": 1 / step, "offset": 0.1} for step in (1, 50, 100)]
    picture = ET.fromstring(curves_svg(log, [], {"heat": "heatmap loss", "offset": "offset loss"}))
    assert len(picture.findall("{http://www.w3.org/2000/svg}g")) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_run_that_is_asked_to_end_saves_its_state(tmp_path: Path, number: signal.Signals) -> None:
    data, folder = tmp_path / "data", tmp_path / "run"
    write_dataset(data, photos=8)
    write_small_model(data / "start.safetensors", SMALL)
    process: subprocess.Popen[bytes] = start(data, folder, "--workers", "1", "--checkpoint-minutes", "60")
    while len(records(folder)) < 3:
        assert process.poll() is None, (data / "run.txt").read_text()
        time.sleep(0.01)
    os.killpg(process.pid, number)  # the loader's processes get it too, as with Ctrl-C and service managers
    assert process.wait(timeout=60) == 128 + number
    step = records(folder)[-1]["step"]
    assert state(folder)["progress"]["step"] == step < 40
    assert f"stopped at step {step} of 40; the state is saved: give the same command again" in (
        (data / "run.txt").read_text()
    )
    assert start(data, folder, "--workers", "0").wait(timeout=60) == 0
    assert [record["step"] for record in records(folder)] == list(range(1, 41))


def test_sets_on_which_nothing_can_be_measured_are_refused(tmp_path: Path) -> None:
    one, other = made_up_dataset(tmp_path / "one", 2), made_up_dataset(tmp_path / "other", 2)
    assert one.path.name == other.path.name
    assert Validation([one, other]).names == [str(one.path), str(other.path)]
    for sets, options, words in (
        ([one, one], {}, "names a set twice"),
        ([], {}, "nobody with labelled keypoints"),
        ([one], {"patience": 0}, "--patience must be at least 1, got 0"),
        ([one], {"every": 0}, "--val-every must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=words):
            Validation(sets, **options)  # type: ignore[arg-type]


def test_keypoints_in_another_order_are_refused(tmp_path: Path) -> None:
    path = made_up_dataset(tmp_path, 2).path
    content = json.loads(path.read_text(encoding="utf-8"))
    names = list(SMALL.skeleton.keypoints)
    content["categories"] = [{"id": 1, "name": "person", "keypoints": [*names[:1], *names[:0:-1]]}]
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DekrPoseError, match="in another order"):
        KeypointDataset(path, skeleton=SMALL.skeleton)
