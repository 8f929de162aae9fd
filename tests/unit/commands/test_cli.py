"""The command line: what it writes, prints and answers, photo by photo."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest

from dekrpose import PoseEstimator, Poses, __version__, progress
from dekrpose.architectures import complexity as costs
from dekrpose.checkpoints import read_checkpoint
from dekrpose.cli import COMMANDS, _parser, main
from dekrpose.commands.arguments import MODELS, SCORING_NETS, VIDEO_SETS
from dekrpose.config import ARCHITECTURES
from dekrpose.hub import models
from dekrpose.hub.published import PUBLISHED
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


@pytest.mark.parametrize("out", ["photos/a.jpg", "photos/a.jpg/below"])
@pytest.mark.parametrize("command", ["predict", "video"])
def test_out_that_is_a_file(photos: Path, command: str, out: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "photos/b.png", "--out", out]) == 1
    assert "--out must be a folder, and photos/a.jpg is a file" in capsys.readouterr().err


def test_photos_on_both_sides_of_an_option(photos: Path) -> None:
    assert main(["predict", "photos/a.jpg", "--boxes", "photos/b.png", "--out", "out"]) == 0
    assert listing(Path("out")) == ["a.poses.jpg", "b.poses.png"]


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


def test_subfolders_are_found_again_in_out(photos: Path) -> None:
    for place in ("photos/x/1.png", "photos/y/1.png"):
        write_photo(Path(place))
    assert main(["predict", "photos/**/1.png", "photos/x", "--out", "out", "--no-picture", "--json"]) == 0
    assert listing(Path("out")) == ["x/1.poses.json", "y/1.poses.json"]
    assert main(["predict", "photos", "--out", "flat", "--no-picture", "--json"]) == 0
    assert listing(Path("flat")) == ["a.poses.json", "b.poses.json"]


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


@pytest.mark.parametrize("arguments", [["predict"], ["predict", "a.jpg", "--nonsense"], ["dance"]])
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
    monkeypatch.setattr(costs, "variants", lambda: {"tiny": ARCHITECTURES["tiny"]})
    assert main(["models", "--complexity", "--json"]) == 0
    (cost,) = json.loads(capsys.readouterr().out)
    assert {"name", "parameters", "gmacs"} <= cost.keys()
    assert cost["name"] == "tiny"
    assert 4e6 < cost["parameters"] < 6e6
    assert main(["models", "--complexity"]) == 0
    assert f"{cost['parameters']:,}" in capsys.readouterr().out


def test_python_m_is_the_command_line() -> None:
    command = [sys.executable, "-m", "dekrpose", "--version"]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    assert run.stdout == f"dekrpose {__version__}\n"


def piped(*words: str, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The command line as a process of its own, where nothing was imported before."""
    root = str(Path(__file__).parents[3])
    command = [sys.executable, "-m", "dekrpose", *words]
    own = {**os.environ, "PYTHONPATH": root, **environment}
    return subprocess.run(command, input=stdin, capture_output=True, check=False, env=own)


def test_alone_it_prints_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("usage: dekrpose")
    assert all(name in printed for name in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predit", "a.jpg"], "there is no command 'predit'; did you mean predict?"),
        (["predict", "a.jpg", "--jsn"], "--jsn; did you mean --json?"),
        (["train", "a.json", "--epoch-s", "3"], "--epoch-s 3; did you mean --epochs?"),
        (["predict", "--scales", "0.5", "1", "a.jpg"], "--scales: takes numbers such as 0.5 1 2, got 'a.jpg'"),
        (["dance"], "there is no command 'dance'; there are predict, video"),
        (["video", "a.mp4", "--match-heatmap=best"], "may be followed by official, paper, weighted, off, got 'best'"),
    ],
)
def test_misspelt_words_are_told(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.startswith(f"usage: dekrpose {arguments[0] if arguments[0] in COMMANDS else ''}".rstrip())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_examples_that_work(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    lines = capsys.readouterr().out.split("examples:\n")[1].splitlines()
    assert lines
    for line in lines:
        words = shlex.split(re.split(" [<>] ", line)[0])
        assert words.pop(0) == "dekrpose"
        options = _parser(words).parse_args(words)
        assert options.run


LIGHT = [name for name in COMMANDS if name != "eval-tracking"]
"""Commands that load torch only for work that they can do."""
MISSING = {
    "predict": ["missing.jpg"], "video": ["missing.mp4"], "import": ["missing", "--out", "people.json"],
    "train": ["missing.json", "--out", "run"], "eval": ["tiny", "missing.json"], "convert": ["missing.pth", "a.pth"],
    "export": ["missing.pth", "a.onnx"], "benchmark": ["missing.pth"],
    "train-temporal": ["--out", "run", "--photos", "missing.json"],
    "train-scoring": ["tiny", "missing.json", "--out", "run"],
}  # fmt: skip


def test_arguments_are_checked_before_torch_is_loaded(tmp_path: Path) -> None:
    lines = [f"[{command!r}, *{MISSING.get(command, ['--nonsense'])!r}]" for command in LIGHT]
    program = f"""
import sys
from dekrpose.cli import COMMANDS, _parser, main
for words in [{", ".join(lines)}]:
    try:
        status = main(words)
    except SystemExit as stop:
        status = stop.code
    assert status in (1, 2), words
    assert "torch" not in sys.modules, words
"""
    own = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=own, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("missing") >= len(MISSING)


@pytest.mark.parametrize("command", ["predict", "video", "webcam", "eval", "benchmark", "train-scoring"])
@pytest.mark.parametrize(
    ("words", "mode"), [([], None), (["--match-heatmap"], "official"), (["--match-heatmap", "off"], "off")]
)
def test_every_command_that_estimates_moves_keypoints_as_asked(
    command: str, words: list[str], mode: str | None
) -> None:
    needed = {"webcam": [], "train-scoring": ["tiny", "a.json", "--out", "a"]}.get(command, ["a"])
    assert _parser([command]).parse_args([command, *needed[:1], *words, *needed[1:]]).match_heatmap == mode


def test_choices_are_those_of_the_library() -> None:
    from dekrpose.architectures import exporting
    from dekrpose.benchmark import curves, memory, settings
    from dekrpose.commands import benchmark, export, train, train_scoring, train_temporal
    from dekrpose.data.clips import sequences
    from dekrpose.engines import file
    from dekrpose.export import writers
    from dekrpose.training import initial, scoring, temporal

    assert export.FORMATS == file.FORMATS
    assert get_args(exporting.Offsets) == export.OFFSETS
    assert get_args(exporting.Sampling) == export.SAMPLINGS
    assert writers.OPSET == export.OPSET
    assert initial.BACKBONES == train.BACKBONES
    assert (settings.BACKENDS, settings.LOOP) == (benchmark.BACKENDS, benchmark.LOOP)
    assert (curves.CURVES, curves.PEOPLE, tuple(memory.CASES)) == (benchmark.CURVES, benchmark.PEOPLE, benchmark.CASES)
    for name, _, default, *_ in train_scoring._OPTIONS:
        assert getattr(scoring.ScoringConfig(), name.replace("-", "_")) == default
    assert get_args(temporal.Parts) == train_temporal.PARTS
    assert tuple(sequences.FORMATS) == VIDEO_SETS


def test_json_behind_a_photo_and_before_it(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--json is a flag: only a literal - behind it is its own."""
    assert main(["predict", "--json", "photos/a.jpg"]) == 0
    assert (photos / "a.poses.json").is_file()
    assert main(["predict", "--match-heatmap", "photos/b.png"]) == 0
    assert main(["predict", "--match-heatmap", "paper", "photos/b.png"]) == 0
    capsys.readouterr()
    assert main(["predict", "--no-picture", "--json", "-", "photos"]) == 0
    captured = capsys.readouterr()
    found = [Poses.from_dict(json.loads(line)) for line in captured.out.splitlines()]
    assert [poses.source for poses in found] == ["photos/a.jpg", "photos/b.png"]


def test_csv_on_standard_output_is_one_table(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "broken.jpg").write_text("no photo")
    assert main(["predict", "photos", "--no-picture", "--csv", "-"]) == 1
    captured = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(captured.out)))
    assert {row["source"] for row in rows} == {"photos/a.jpg", "photos/b.png"}
    assert "failed: photos/broken.jpg" in captured.err
    assert listing(photos) == ["a.jpg", "b.png", "broken.jpg"]
    assert main(["predict", "photos/a.jpg", "--csv", "-", "--json", "-"]) == 1
    assert "would mix on standard output" in capsys.readouterr().err


def test_failures_have_a_line_in_the_stream_of_json(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "broken.jpg").write_text("no photo")
    assert main(["predict", "photos/broken.jpg", "--json", "-"]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["source"] == "photos/broken.jpg"
    assert "not an image" in json.loads(line)["error"]


def test_a_photo_from_standard_input(photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    content = (photos / "a.jpg").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert main(["predict", "-", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["source"] == "-"
    assert not list(Path().glob("stdin*"))  # what comes by a pipe and goes by one leaves nothing behind
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert main(["predict", "-"]) == 0
    assert Path("stdin.poses.jpg").is_file()


@pytest.mark.parametrize(("stdin", "state"), [(None, "closed"), (io.TextIOWrapper(io.BytesIO()), "empty")])
def test_standard_input_without_a_photo(
    stdin: Any, state: str, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(sys, "stdin", stdin)
    assert main(["predict", "-"]) == 1
    assert f"standard input is {state}; it must hold a photo" in capsys.readouterr().err


def test_models_that_are_known_by_name_are_those_of_the_hub() -> None:
    assert list(MODELS) == models._MODEL_NAMES
    assert list(SCORING_NETS) == [name for name, weights in PUBLISHED.items() if weights.kind == "rescoring net"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["predict", "a.jpg", "--model", "tinny"], "no model, file or folder is called 'tinny'. Did you mean tiny"),
        (["eval", "tinny"], "is called 'tinny'. Did you mean tiny"),
        (["export", "tinny", "tiny.onnx"], "is called 'tinny'. Did you mean tiny"),
        (["benchmark", "tinny"], "is called 'tinny'. Did you mean tiny"),
        (["predict", "a.jpg", "--rescoring-net", "net.pth"], "there is no weights file or model folder 'net.pth'"),
        (["video", "/dev/null", "--rescoring-net", "./net"], "there is no weights file or model folder './net'"),
        (["webcam", "--rescoring-net", "rescore-coc"], "is called 'rescore-coc'. Did you mean rescore-coco"),
        (["eval", "tiny", "--rescoring-net", "net.pth"], "there is no weights file or model folder 'net.pth'"),
        (["export", "tiny", "a.onnx", "--rescoring-net", "net.pth"], "there is no weights file or model folder"),
    ],
    ids=lambda given: " ".join(given[:1]) if isinstance(given, list) else "",
)
def test_a_misspelt_model_or_net_is_told_before_torch_is_loaded(words: list[str], told: str, tmp_path: Path) -> None:
    program = f"import sys; from dekrpose.cli import main; main({words}); print(*sys.modules)"
    own = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=own, cwd=tmp_path, check=True
    )
    assert told in done.stderr
    assert "torch" not in done.stdout.split()


def test_help_is_a_word_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help"]) == 0
    assert "turn labels of other tools" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["help", "predict"])
    assert ended.value.code == 0
    assert "usage: dekrpose predict" in capsys.readouterr().out


def test_photos_that_were_done_before_are_left_out(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "photos/a.jpg", "--json"]) == 0
    capsys.readouterr()
    assert main(["predict", "photos", "--json", "--resume"]) == 0
    captured = capsys.readouterr()
    assert "1 photo done before" in captured.err
    (line,) = captured.out.splitlines()
    assert line.startswith("photos/b.png")
    (photos / "a.poses.json").unlink()
    assert main(["predict", "photos/a.jpg", "--json", "--resume"]) == 0
    assert (photos / "a.poses.json").is_file()
    assert main(["predict", "photos", "--json", "-", "--resume"]) == 1
    assert "standard output would lack them" in capsys.readouterr().err


@pytest.mark.parametrize(("names", "starts"), [(["photos"], True), (["photos/a.jpg"], True), (["none.jpg"], False)])
def test_the_start_up_is_not_in_the_first_photos_time(
    photos: Path, names: list[str], starts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(PoseEstimator, "warmup", lambda *_, **__: done.append("warm"))
    estimate = PoseEstimator.estimate
    monkeypatch.setattr(PoseEstimator, "estimate", lambda *a, **b: done.append("photo") or estimate(*a, **b))
    main(["predict", *names, "--no-picture"])
    assert done[:2] == (["warm", "photo"] if starts else [])


def test_quiet_and_verbose(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "photos", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["predict", "photos/a.jpg", "--verbose"]) == 0
    assert "network " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("empty", "'empty' is a folder without images"),
        ("nested", "its subfolders are not looked into, a glob such as 'nested/**/*.jpg' does that"),
        ("photos/*.bmp", "'photos/*.bmp' matches nothing"),
        ("photos/missing.jpg", "'photos/missing.jpg' does not exist"),
    ],
)
def test_what_names_no_photo_says_why(
    photos: Path, place: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty").mkdir()
    Path("nested/deep").mkdir(parents=True)
    assert main(["predict", place]) == 1
    assert message in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    photo = write_photo(tmp_path / "a.jpg")
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "dekrpose", "predict", str(photo), "--no-picture", "--json", "-"]
    own = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False, env=own)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_decoders_own_words_stay_off_the_terminal(tmp_path: Path) -> None:
    """libpng and libjpeg write to file descriptor 2 by themselves; ours is the only line."""
    ok, encoded = cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    assert ok
    data = bytearray(encoded.tobytes())
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    (tmp_path / "broken.png").write_bytes(data)
    done = piped("predict", str(tmp_path / "broken.png"))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(b"failed: ")


def test_other_words_on_standard_error_pass() -> None:
    program = """
import os
from dekrpose.commands.decoder_noise import without_decoder_noise
with without_decoder_noise():
    os.write(2, b"libpng error: bad adaptive filter value\\nsomething else\\n")
    import sys
    print("ours", file=sys.stderr)
print("after", file=sys.stderr)
"""
    own = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=own)
    assert sorted(done.stderr.splitlines()) == ["after", "ours", "something else"]


def test_bars_are_lines_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(progress.Bar(range(3), unit="photo")) == [0, 1, 2]
    assert capsys.readouterr().err == ""  # too quick for a line
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    assert list(progress.Bar(range(3), unit="photo", desc="reading")) == [0, 1, 2]
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("reading: 3 of 3 photos")
    assert all("\r" not in line for line in lines)
    assert list(progress.Bar(range(3), unit="photo", show=False)) == [0, 1, 2]
    assert capsys.readouterr().err == ""
