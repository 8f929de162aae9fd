"""Inputs on which the library failed once, tried as a user would: each row is one member of a kind of fault.

What other members of a kind do is tested beside the code that answers for it.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dekrpose import DekrPoseError, PoseEstimator, Poses
from dekrpose.cli import main
from dekrpose.errors import ImageError
from dekrpose.video.sources import open_source
from tests.small_model import write_small_model

HERE = Path(__file__).parent
PHOTO = HERE.parents[1] / "examples" / "photographer.jpg"
MOST_MIB, MOST_SECONDS = 512, 5.0
"""What reading a small file may take."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_model(tmp_path_factory.mktemp("model") / "small.safetensors")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["x1.avi", "x2.avi", "raw.264", "late.mkv"])
def test_films_without_presentation_times_and_those_that_start_late_are_whole(name: str) -> None:
    source = open_source(HERE / "film" / name)
    frames = [round((float(frame.pixels.mean()) - 20) / 10) for frame in source.frames]
    assert frames == list(range(20))
    assert source.troubles == []


def test_a_film_whose_name_has_a_colon_is_a_file(here: Path, model: Path) -> None:
    shutil.copy(HERE / "film" / "colon.mp4", here / "2024-05-01T10:30:45.mp4")
    assert main(["video", "2024-05-01T10:30:45.mp4", "--model", str(model), "--out", "out"]) == 0


def test_a_tiny_frame_rate_divides_nothing_by_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    source = open_source(HERE / "film" / "tiny_rate.avi")
    times = [frame.timestamp for frame in source.frames]
    assert times == sorted(times)


def test_a_car_changes_no_measure(here: Path, model: Path) -> None:
    found = []
    for data in ("person", "person_and_car", "nobody", "car_only"):
        shutil.copy(HERE / "coco" / f"{data}.json", here)
        shutil.copy(PHOTO, here)
        words = ["eval", str(model), f"{data}.json", "--images", ".", "--json", "out.json", "--input-size", "64"]
        assert main(words) == 0
        found.append({k: v for k, v in json.loads((here / "out.json").read_text()).items() if "second" not in k})
    for own, other in ((0, 1), (2, 3)):
        for name in ("precision", "recall", "false_people", "ap", "people", "predictions"):
            assert found[own][name] == found[other][name], name


@pytest.mark.parametrize("name", ["ids_of_two_types", "area_null"])
def test_ids_of_two_types_and_null_are_trained_on_and_measured(here: Path, model: Path, name: str) -> None:
    for file in ("a.jpg", "b.jpg"):
        shutil.copy(HERE / "coco" / "a.jpg", here / file)
    shutil.copy(HERE / "coco" / f"{name}.json", here / "d.json")
    small = ["--epochs", "1", "--batch-size", "1", "--size", "64", "--workers", "0", "--init", str(model)]
    assert main(["train", "d.json", "--images", ".", "--out", "run", *small]) == 0
    assert main(["eval", "run", "d.json", "--images", ".", "--json", "out.json", "--input-size", "64"]) == 0
    assert json.loads((here / "out.json").read_text())["people"] > 0
    assert main(["train", "--check", "d.json", "--images", "."]) in (0, 1)


@pytest.mark.parametrize("name", ["png_chunk_ffffff00.png", "png_1x1800.png", "img_1_80_avif.bin", "img_1_331_dds.bin"])
def test_small_pictures_take_little_memory_and_time(model: Path, name: str) -> None:
    estimator = PoseEstimator.from_pretrained(model)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(ImageError):
        estimator.estimate((HERE / "image" / name).read_bytes())
    assert time.monotonic() - start < MOST_SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1024 * MOST_MIB


@pytest.mark.parametrize("name", ["img_1_80_avif.bin", "img_1_331_dds.bin"])
def test_a_picture_that_cannot_be_read_leaves_the_folder_alone(here: Path, model: Path, name: str) -> None:
    (here / "photos").mkdir()
    for file in ("1.jpg", "3.jpg"):
        shutil.copy(PHOTO, here / "photos" / file)
    shutil.copy(HERE / "image" / name, here / "photos" / "2.jpg")
    words = ["predict", "photos", "--json", "--out", "out", "--model", str(model), "--input-size", "64"]
    assert main(words) == 1
    assert sorted(path.name for path in (here / "out").glob("*.json")) == ["1.poses.json", "3.poses.json"]


@pytest.mark.parametrize("name", ["poses_1.json", "poses_2.json"])
def test_poses_that_are_none_are_a_value_error(name: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Poses.from_json((HERE / "json" / name).read_text())
    with pytest.raises(ValueError, match="nested deeper"):
        Poses.from_json("[" * 50_000 + "]" * 50_000)


def test_what_is_wrong_in_data_is_a_problem_in_the_report(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(HERE / "json" / "check_10.json", here / "d.json")
    assert main(["train", "--check", "d.json", "--images", "."]) == 1
    assert "segmentation" in capsys.readouterr().out


WINDOWS = """
import multiprocessing, sys
multiprocessing.get_all_start_methods = lambda: ["spawn"]
from dekrpose.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_system_without_fork_trains_also_from_a_script_without_a_guard(here: Path, model: Path) -> None:
    (here / "windows.py").write_text(WINDOWS)
    for file in ("a.jpg", "b.jpg"):
        shutil.copy(HERE / "coco" / "a.jpg", here / file)
    shutil.copy(HERE / "coco" / "area_null.json", here / "d.json")
    words = ["train", "d.json", "--images", ".", "--out", "run", "--init", str(model), "--size", "64"]
    words += ["--epochs", "1", "--batch-size", "1", "--workers", "1"]
    run = subprocess.run([sys.executable, "windows.py", *words], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_no_text_stops_no_folder(here: Path, model: Path) -> None:
    (here / "photos").mkdir()
    for name in (b"caf\xe9.jpg", b"ok.jpg"):
        shutil.copy(PHOTO, os.fsdecode(bytes(here / "photos") + b"/" + name))
    command = [sys.executable, "-m", "dekrpose", "predict", "photos", "--json", "--out", "out", "--model", str(model)]
    for encoding in ("utf-8", "ascii"):
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        run = subprocess.run([*command, "--input-size", "64"], capture_output=True, check=False, env=environment)
        assert run.returncode == 0, run.stderr
        assert len(list((here / "out").glob("*.json"))) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="a limit of the shell")
def test_a_film_that_cannot_be_written_whole_has_no_final_name(here: Path, model: Path) -> None:
    pytest.importorskip("av")
    (here / "o").mkdir()
    (here / "o" / "late.poses.mp4").write_bytes(b"the old one")
    words = f"{sys.executable} -m dekrpose video {HERE / 'film' / 'late.mkv'} --out o --model {model} --input-size 64"
    run = subprocess.run(["bash", "-c", f"ulimit -f 4; {words}"], capture_output=True, text=True, check=False)
    assert run.returncode not in (0, -25), run.stdout
    assert (here / "o" / "late.poses.mp4").read_bytes() == b"the old one"
    assert [path.name for path in (here / "o").iterdir() if path.suffix == ".mp4"] == ["late.poses.mp4"]


def test_training_on_photos_without_people_is_an_error(here: Path, model: Path) -> None:
    shutil.copy(HERE / "coco" / "car_only.json", here / "d.json")
    shutil.copy(PHOTO, here)
    assert main(["train", "d.json", "--images", ".", "--out", "run", "--init", str(model)]) == 1
    assert issubclass(ImageError, DekrPoseError)
