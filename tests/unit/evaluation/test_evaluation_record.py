"""``dekrpose eval --record`` puts the numbers into the model, and only there."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dekrpose.checkpoints import read_checkpoint, write_checkpoint
from dekrpose.cli import main
from dekrpose.commands import eval as command
from dekrpose.errors import DekrPoseError
from dekrpose.evaluation.evaluate import Report
from dekrpose.evaluation.record import find_target, numbers, record
from dekrpose.hub import models
from dekrpose.hub.model_cards import model_card
from tests import checkpoint_fixtures as fixtures
from tests.small_model import SMALL, write_small_model
from tests.training_photos import write_dataset

REPORT = Report(
    photos=2,
    people=3,
    seconds=1.0,
    images_per_second=2.0,
    score_threshold=0.05,
    predictions=4,
    pck=0.15204,
    recall=0.5,
    recall_small=float("nan"),
    precision=float("nan"),
    false_people=2.1251,
    ap={"AP": 0.056, "AP50": 0.1, "AP_M": 0.2, "AR": 0.3},
)
METRICS = {"PCK@0.2": 15.2, "recall": 50.0, "AP": 5.6, "AP50": 10.0, "AR": 30.0,
           "false people per photo of nobody": 2.125}  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_small_model(tmp_path / "small.safetensors", replace(SMALL, metrics={"old": 1.0}))


@pytest.fixture
def folder(tmp_path: Path, file: Path) -> Path:
    checkpoint = read_checkpoint(file)
    scoring = {name: tensor.float() for name, tensor in fixtures.scoring_net().items()}
    models.save_folder(tmp_path / "mine", checkpoint.config, checkpoint.state_dict, scoring)
    return tmp_path / "mine"


def assert_recorded(weights: Path, before: Path) -> None:
    old, new = read_checkpoint(before), read_checkpoint(weights)
    assert new.config == replace(old.config, metrics=METRICS, evaluation="the command", evaluation_data="the data")
    for tensors, others in ((old.state_dict, new.state_dict), (old.rescoring or {}, new.rescoring or {})):
        assert list(tensors) == list(others)
        assert all(tensor.dtype == others[name].dtype for name, tensor in tensors.items())
        assert all(torch.equal(tensor, others[name]) for name, tensor in tensors.items())


def copy(weights: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(weights, tmp_path / "before.safetensors"))


def test_numbers_are_percent_and_leave_out_what_was_not_measured() -> None:
    assert numbers(REPORT) == METRICS


@pytest.mark.parametrize("stored", [{}, {"half": True}, {"int8": True}], ids=["float32", "float16", "integers"])
def test_a_file_gets_the_numbers_and_keeps_its_weights(file: Path, stored: dict[str, bool], tmp_path: Path) -> None:
    checkpoint = read_checkpoint(file)
    write_checkpoint(file, checkpoint.config, checkpoint.state_dict, **stored)
    before = copy(file, tmp_path)
    record(find_target(str(file)), REPORT, "the command", "the data")
    assert_recorded(file, before)
    assert file.stat().st_size == pytest.approx(before.stat().st_size, abs=2000)


@pytest.mark.parametrize("name", ["", "model.safetensors"], ids=["folder", "file inside"])
def test_a_folder_gets_them_everywhere(folder: Path, name: str, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(folder / "model.safetensors")
    write_checkpoint(
        folder / "model.safetensors", checkpoint.config, checkpoint.state_dict, checkpoint.rescoring, int8=True
    )
    before = copy(folder / "model.safetensors", tmp_path)
    record(find_target(str(folder / name)), REPORT, "the command", "the data")
    assert_recorded(models.resolve(folder), before)
    config = read_checkpoint(models.resolve(folder)).config
    assert (folder / "model.safetensors").stat().st_size == pytest.approx(before.stat().st_size, abs=2000)
    assert json.loads((folder / "config.json").read_text())["metrics"] == METRICS
    assert (folder / "README.md").read_text(encoding="utf-8") == model_card(config, has_rescoring_net=True)
    assert sorted(item.name for item in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]


def test_a_folder_with_weights_alone_becomes_a_whole_one(folder: Path) -> None:
    for name in ("config.json", "README.md"):
        (folder / name).unlink()
    record(find_target(str(folder)), REPORT, "the command", "the data")
    assert "| AP | 5.6 |" in (folder / "README.md").read_text(encoding="utf-8")
    assert (folder / "config.json").is_file()


def test_a_card_that_somebody_wrote_is_kept_beside(folder: Path) -> None:
    (folder / "README.md").write_text("my own words", encoding="utf-8")
    record(find_target(str(folder)), REPORT, "the command", "the data")
    assert (folder / "README.previous.md").read_text(encoding="utf-8") == "my own words"
    assert "the command" in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["tiny", "dekr-w32-coco", "someone/model", "missing.safetensors"])
def test_names_are_no_places_to_write(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DekrPoseError, match="save it as one first"):
        find_target(name)


def test_foreign_files_are_to_be_converted_first(tmp_path: Path) -> None:
    path = fixtures.save_official(tmp_path / "official.pth", fixtures.official(keypoints=3))
    with pytest.raises(DekrPoseError, match=r"dekrpose convert official\.pth official\.safetensors"):
        find_target(str(path))


def test_a_model_that_changed_meanwhile_is_left_alone(file: Path) -> None:
    target = find_target(str(file))
    write_small_model(file, replace(SMALL, name="another, longer name"))
    with pytest.raises(DekrPoseError, match="measure again"):
        record(target, REPORT, "the command", "the data")
    assert read_checkpoint(file).config.name == "another, longer name"


def test_nothing_measured_is_nothing_to_record(file: Path) -> None:
    nan = float("nan")
    nothing = replace(REPORT, pck=nan, recall=nan, false_people=nan, ap={"AP": nan})
    with pytest.raises(DekrPoseError, match="no numbers to record"):
        record(find_target(str(file)), nothing, "the command", "the data")


@pytest.fixture
def evaluate(folder: Path, tmp_path: Path) -> Callable[..., int]:
    pytest.importorskip("faster_coco_eval")
    annotations, photos = write_dataset(tmp_path / "private", photos=2)
    words = ["eval", str(folder), str(annotations), "--images", str(photos), "--record", "--device", "cpu"]
    return lambda *more: main([*words, *more])


def test_the_command_names_files_and_no_private_paths(
    evaluate: Callable[..., int], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = read_checkpoint(folder / "model.safetensors").state_dict
    assert evaluate("--flip", "--scales", "1", "0.5", "--input-size", "64", "--score-threshold", "0.2") == 0
    assert f"recorded in {folder}" in capsys.readouterr().out
    after = read_checkpoint(models.resolve(folder))
    assert after.config.evaluation == (
        "dekrpose eval mine people.json --images photos --flip --scales 1 0.5 --input-size 64 --score-threshold 0.2"
    )
    assert after.config.evaluation_data == "people.json (2 photos, 2 people)"
    assert {"PCK@0.2", "AP", "AR"} <= set(after.config.metrics)
    assert all(torch.equal(before[name], tensor) for name, tensor in after.state_dict.items())
    for name in ("README.md", "config.json"):
        assert str(folder.parent) not in (folder / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("option", [["--limit", "1"], ["--random-weights"]])
def test_partial_measurements_are_not_recorded(
    evaluate: Callable[..., int], option: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(*option) == 1
    assert f"leave out {option[0]}" in capsys.readouterr().err
    assert read_checkpoint(models.resolve(folder)).config.metrics == {"old": 1.0}


def test_names_with_blanks_are_quoted(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    options = parser.parse_args([f"{tmp_path}/my model/", "val.json", "--rescoring-net", "nets/rescore.pth"])
    assert command.command_line(options) == "dekrpose eval 'my model' val.json --rescoring-net rescore.pth"
