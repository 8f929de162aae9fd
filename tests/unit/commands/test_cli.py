"""The command line: what it writes, prints and answers, photo by photo."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from dekrpose import Poses, __version__
from dekrpose.checkpoints import read_checkpoint
from dekrpose.cli import main
from dekrpose.commands import models as catalogue
from dekrpose.config import ARCHITECTURES
from dekrpose.hub import models
from tests import checkpoint_fixtures as fixtures
from tests.small_model import write_small_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_model(tmp_path_factory.mktemp("model") / "small.safetensors")


@pytest.fixture
def photos(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a folder with two photos, which the small model serves as the bundled one."""
    monkeypatch.setattr(models, "_TINY", model)
    monkeypatch.chdir(tmp_path)
    write_photo(tmp_path / "photos" / "a.jpg")
    write_photo(tmp_path / "photos" / "b.png", side=80)
    return tmp_path / "photos"


def write_photo(path: Path, side: int = 64) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(side).integers(0, 256, (side, side + 20, 3), np.uint8)
    assert cv2.imwrite(str(path), pixels)
    return path


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_one_photo_gets_a_picture_beside_it(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "photos/a.jpg"]) == 0
    assert listing(photos) == ["a.jpg", "a.poses.jpg", "b.png"]
    assert cv2.imread(str(photos / "a.poses.jpg")).shape == cv2.imread(str(photos / "a.jpg")).shape
    captured = capsys.readouterr()
    assert "photos/a.jpg" in captured.out
    assert "people" in captured.out
    assert "-> photos/a.poses.jpg" in captured.out
    assert captured.err == ""


def test_several_photos_with_their_numbers(photos: Path) -> None:
    assert main(["predict", "photos/a.jpg", "photos/b.png", "--json"]) == 0
    assert listing(photos) == ["a.jpg", "a.poses.jpg", "a.poses.json", "b.png", "b.poses.json", "b.poses.png"]
    poses = Poses.from_json((photos / "b.poses.json").read_text())
    assert poses.source == "photos/b.png"
    assert poses.image_size == (80, 100)
    assert len(poses) > 0


@pytest.mark.parametrize("pattern", ["photos", "photos/*.*", "**/*.*g"])
def test_folders_and_globs(photos: Path, pattern: str) -> None:
    assert main(["predict", pattern]) == 0
    assert listing(photos) == ["a.jpg", "a.poses.jpg", "b.png", "b.poses.png"]


def test_out_is_made_and_takes_everything(photos: Path) -> None:
    assert main(["predict", "photos", "--out", "new/out", "--json"]) == 0
    assert listing(photos) == ["a.jpg", "b.png"]
    assert listing(Path("new/out")) == ["a.poses.jpg", "a.poses.json", "b.poses.json", "b.poses.png"]


def test_numbers_without_pictures(photos: Path) -> None:
    assert main(["predict", "photos", "--json", "--no-picture"]) == 0
    assert listing(photos) == ["a.jpg", "a.poses.json", "b.png", "b.poses.json"]


def test_no_picture_alone_only_prints(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "photos/a.jpg", "--no-picture"]) == 0
    assert listing(photos) == ["a.jpg", "b.png"]
    assert "->" not in capsys.readouterr().out


def test_options_reach_the_estimator(photos: Path) -> None:
    options = ["--max-people", "2", "--flip", "--scales", "1", "0.5", "--match-heatmap", "--input-size", "96"]
    assert main(["predict", "photos/a.jpg", "--json", "--score-threshold", "0", *options]) == 0
    assert len(Poses.from_json((photos / "a.poses.json").read_text())) == 2
    assert main(["predict", "photos/a.jpg", "--json", "--score-threshold", "1"]) == 0
    assert len(Poses.from_json((photos / "a.poses.json").read_text())) == 0


def test_a_broken_photo_does_not_stop_the_others(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "aa.jpg").write_text("no photo")
    assert main(["predict", "photos"]) == 1
    assert listing(photos) == ["a.jpg", "a.poses.jpg", "aa.jpg", "b.png", "b.poses.png"]
    captured = capsys.readouterr()
    assert captured.out.count("->") == 2
    assert captured.err.startswith("failed: photos/aa.jpg is not an image")
    assert captured.err.splitlines()[-1] == "1 failed, the others are done"


@pytest.mark.skipif(sys.platform != "linux", reason="such names are for file systems that take any bytes")
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_names_that_are_no_text_or_that_the_terminal_lacks(
    photos: Path, encoding: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [os.fsdecode(b"caf\xe9"), "caf\u00e9", "\u5199\u771f"]
    for name in names:
        write_photo(photos / "a.jpg").rename(photos / f"{name}.jpg")
    (photos / os.fsdecode(b"broken\xe9.jpg")).write_text("no photo")
    terminal = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["predict", "photos", "--json", "--out", "out"]) == 1
    assert "1 failed, the others are done" in capsys.readouterr().err
    assert terminal.errors == "strict"  # as it was
    terminal.flush()
    assert terminal.buffer.getvalue().count(b"->") == 4  # type: ignore[attr-defined]
    made = [f"{name}.poses.{suffix}" for name in names for suffix in ("jpg", "json")]
    assert listing(Path("out")) == sorted([*made, "b.poses.png", "b.poses.json"])
    for path in Path("out").glob("*.json"):
        assert Poses.from_json(path.read_bytes().decode("utf-8")).image_size[0] > 0


def test_a_missing_photo_does_not_stop_the_others(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "photos/missing.jpg", "photos/a.jpg"]) == 1
    assert (photos / "a.poses.jpg").exists()
    assert "no image found: 'photos/missing.jpg'" in capsys.readouterr().err


def test_only_a_missing_photo(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "photos/missing.jpg"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1


def test_photos_that_would_write_the_same_picture(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_photo(Path("more/a.jpg"))
    assert main(["predict", "photos/a.jpg", "more/a.jpg", "--out", "out"]) == 1
    assert "photos/a.jpg and more/a.jpg would both write out/a.poses.jpg" in capsys.readouterr().err
    assert not Path("out").exists()


def test_photos_that_would_write_the_same_numbers(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_photo(photos / "a.png")
    assert main(["predict", "photos/a.jpg", "photos/a.png"]) == 0
    assert main(["predict", "photos/a.jpg", "photos/a.png", "--json"]) == 1
    assert "would both write photos/a.poses.json" in capsys.readouterr().err


def test_a_photo_is_never_written_over(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = write_photo(Path("out/a.poses.jpg"))
    before = named.read_bytes()
    assert main(["predict", "photos/a.jpg", "out/a.poses.jpg", "--out", "out"]) == 1
    assert "written over" in capsys.readouterr().err
    assert named.read_bytes() == before


@pytest.mark.parametrize("again", [["photos"], ["photos/*.*"], ["photos/a.jpg", "photos/a.poses.jpg", "photos/b.png"]])
def test_pictures_of_an_earlier_run_are_not_photos(photos: Path, again: list[str]) -> None:
    assert main(["predict", "photos", "--json"]) == 0
    before = listing(photos)
    assert main(["predict", *again, "--json"]) == 0
    assert listing(photos) == before
    assert main(["predict", *again, "--out", "out"]) == 0
    assert listing(Path("out")) == ["a.poses.jpg", "b.poses.png"]


def test_a_picture_of_an_earlier_run_can_be_named(photos: Path) -> None:
    write_photo(Path("c.poses.jpg"))
    assert main(["predict", "c.poses.jpg"]) == 0
    assert Path("c.poses.poses.jpg").exists()


def test_a_folder_of_nothing_but_earlier_pictures(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_photo(Path("done/c.poses.jpg"))
    assert main(["predict", "done"]) == 1
    assert "done holds only pictures that dekrpose wrote" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "photos/a.jpg", "--model", "dekr-w32-cocoo"], "dekr-w32-coco"),
        (["predict", "photos/a.jpg", "--model", "photos/a.jpg"], "JPEG"),
        (["predict", "photos", "--scales", "0.5", "2"], "scales must be"),
        (["predict", "photos", "--max-people", "0"], "max_people must be"),
        (["predict", "photos/a.jpg", "--rescoring-net", "photos/a.jpg"], "JPEG"),
        (["convert", "missing.pth", "out.safetensors"], "missing.pth"),
        (["train", "missing.json", "--out", "run"], "missing.json"),
    ],
)
def test_errors_are_one_line_on_stderr(
    photos: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("dekrpose: ")
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1


@pytest.mark.parametrize("arguments", [[], ["predict"], ["predict", "a.jpg", "--nonsense"], ["dance"]])
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: dekrpose" in capsys.readouterr().err


def test_convert_official_weights_and_use_them(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fixtures.save_official(Path("official.pth"), fixtures.official())
    fixtures.save_official(Path("rescore.pth"), fixtures.scoring_net())
    assert main(["convert", "official.pth", "plain.safetensors"]) == 0
    assert "official.pth (official, " in capsys.readouterr().out
    assert main(["convert", "official.pth", "half.safetensors", "--half", "--rescoring-net", "rescore.pth"]) == 0
    assert "half.safetensors, with a scoring net" in capsys.readouterr().out
    assert Path("half.safetensors").stat().st_size < Path("plain.safetensors").stat().st_size
    assert main(["convert", "official.pth", "int8.safetensors", "--int8", "--rescoring-net", "rescore.pth"]) == 0
    assert Path("int8.safetensors").stat().st_size < Path("half.safetensors").stat().st_size
    assert read_checkpoint("plain.safetensors").rescoring is None
    assert read_checkpoint("half.safetensors").rescoring is not None
    assert main(["predict", "photos/a.jpg", "--model", "half.safetensors", "--input-size", "64"]) == 0


@pytest.mark.parametrize("generation", ["0", "1"])
def test_convert_mmpose_weights(photos: Path, generation: str) -> None:
    state_dict = getattr(fixtures, f"mmpose_{generation}")()
    getattr(fixtures, f"save_mmpose_{generation}")(Path("mmpose.pth"), state_dict)
    assert main(["convert", "mmpose.pth", "ours.safetensors"]) == 0
    assert read_checkpoint("ours.safetensors").format == "dekrpose"


def test_convert_writes_safetensors_only(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fixtures.save_official(Path("official.pth"), fixtures.official())
    assert main(["convert", "official.pth", "out.pth"]) == 1
    assert ".safetensors" in capsys.readouterr().err


def test_models_lists_names_and_whose_numbers_they_are(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("tiny\n")
    assert "AP 68.6 (published, other decoding)" in printed


def test_models_as_json(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    known = json.loads(capsys.readouterr().out)
    assert [model["name"] for model in known][:2] == ["tiny", "dekr-w32-coco"]
    assert [model["available"] for model in known][:2] == [True, False]


def test_complexity_as_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "variants", lambda: {"tiny": ARCHITECTURES["tiny"]})
    assert main(["models", "--complexity", "--json"]) == 0
    (cost,) = json.loads(capsys.readouterr().out)
    assert {"name", "parameters", "gmacs"} <= cost.keys()
    assert cost["name"] == "tiny"
    assert 2e6 < cost["parameters"] < 4e6
    assert main(["models", "--complexity"]) == 0
    assert f"{cost['parameters']:,}" in capsys.readouterr().out


def test_python_m_is_the_command_line() -> None:
    command = [sys.executable, "-m", "dekrpose", "--version"]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    assert run.stdout == f"dekrpose {__version__}\n"
