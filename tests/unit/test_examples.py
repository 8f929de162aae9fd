"""The programs in ``examples`` that show results and pictures run, on the example photos."""

from __future__ import annotations

import csv
import io
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dekrpose import PoseEstimator
from dekrpose.config import ARCHITECTURES
from dekrpose.hub import models
from dekrpose.results import Poses
from tests.small_model import write_small_model

EXAMPLES = Path(__file__).parents[2] / "examples"
BUNDLED = models._TINY.is_file()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two photos; the bundled model, or an untrained one where that is not there."""
    if not BUNDLED:
        monkeypatch.setattr(models, "_TINY", write_small_model(tmp_path / "tiny.safetensors", ARCHITECTURES["tiny"]))
    (tmp_path / "photos").mkdir()
    for name in ("astronaut.jpg", "photographer.jpg"):
        shutil.copy(EXAMPLES / name, tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(program: str, *words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [program, *words])
    runpy.run_path(str(EXAMPLES / program), run_name="__main__")


@pytest.mark.parametrize("program", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_every_program_is_short_and_says_how_it_is_called(program: Path) -> None:
    text = program.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 40
    assert f"python {program.name}" in text
    assert program.name in (EXAMPLES / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("program", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_a_program_without_arguments_says_how_it_is_called(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if program.name == "exported_onnx.py":
        pytest.importorskip("onnxruntime")
    with pytest.raises(SystemExit, match=f"python {program.name}"):
        run(program.name, monkeypatch=monkeypatch)


def answer(application: Any, content: bytes) -> tuple[str, str]:
    status: list[str] = []
    environ = {"CONTENT_LENGTH": str(len(content)), "wsgi.input": io.BytesIO(content)}
    body = b"".join(application(environ, lambda own, _: status.append(own)))
    return status[0], body.decode()


def test_web_upload_answers_photos_with_poses_and_the_rest_with_reasons(here: Path) -> None:
    application = runpy.run_path(str(EXAMPLES / "web_upload.py"))["application"]
    status, body = answer(application, (here / "photos" / "astronaut.jpg").read_bytes())
    assert status == "200 OK"
    assert Poses.from_json(body).image_size == (512, 512)
    assert answer(application, b"no photo")[0] == "400 Bad Request"
    assert answer(application, b"")[0] == "413 Content Too Large"


def test_joint_angles_are_a_table(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "photos" / "broken.jpg").write_bytes(b"no photo")
    run("joint_angles.py", "photos", "angles.csv", monkeypatch=monkeypatch)
    rows = list(csv.DictReader((here / "angles.csv").open(encoding="utf-8")))
    assert {Path(row["photo"]).name for row in rows} <= {"astronaut.jpg", "photographer.jpg"}
    assert all(0 <= float(row["left_elbow"]) <= 180 for row in rows)
    assert rows or not BUNDLED


def test_people_keep_their_identities(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    (here / "film").mkdir()
    for number in range(6):
        shutil.copy(EXAMPLES / "astronaut.jpg", here / "film" / f"{number}.jpg")
    run("frames_with_identities.py", "film", monkeypatch=monkeypatch)
    assert "#1: " in capsys.readouterr().out or not BUNDLED


def test_pictures_have_colours_of_ones_own(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("own_colors.py", "photos/astronaut.jpg", "out/new", monkeypatch=monkeypatch)
    names = ["blank.png", "palette.jpg", "private.jpg", "scores.jpg", "sides.jpg", "texts.jpg"]
    assert sorted(path.name for path in (here / "out" / "new").iterdir()) == names


def test_threads_share_an_estimator(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    (here / "photos" / "broken.jpg").write_bytes(b"no photo")
    run("thread_pool.py", "photos", monkeypatch=monkeypatch)
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        "astronaut.jpg",
        "broken.jpg",
        "photographer.jpg",
    ]


@pytest.mark.slow
@pytest.mark.skipif(not BUNDLED, reason="other processes know the bundled model alone")
def test_spawned_processes_send_their_results(here: Path) -> None:
    (here / "photos" / "broken.jpg").write_bytes(b"no photo")
    command = [sys.executable, str(EXAMPLES / "spawn.py"), "photos"]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
    assert "broken.jpg: " in done.stdout


def test_people_are_filtered_and_joined(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("filter_and_merge.py", "photos/astronaut.jpg", "merged.jpg", monkeypatch=monkeypatch)
    with Image.open(here / "merged.jpg") as picture:
        assert picture.size == (512, 512)


def test_people_are_cut_out(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    run("crops.py", "photos/astronaut.jpg", "people", monkeypatch=monkeypatch)
    assert len(list((here / "people").glob("*.png"))) == len(capsys.readouterr().out.splitlines())


def test_json_and_pandas_give_poses_back(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    pytest.importorskip("pandas")
    run("json_and_pandas.py", "photos/astronaut.jpg", "poses.json", monkeypatch=monkeypatch)
    poses = Poses.from_json("poses.json")
    assert poses.image_size == (512, 512)
    if len(poses) == 1:  # what was the right eye is the left one of the mirrored photo
        assert f"left_eye now at [[{511 - poses['right_eye'][0, 0]:.0f}." in capsys.readouterr().out


def test_labels_are_imported_and_fine_tuned_on(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    source = Path(__file__).parents[1] / "cases" / "imports" / "labelme"
    run("import_labels.py", str(source), "birds.json", "beak", "left_wing", "right_wing", monkeypatch=monkeypatch)
    assert "labelme: 2 photos, 3 people\nbeak: 3 times\nleft_wing: 2 times" in capsys.readouterr().out
    run("fine_tune.py", "birds.json", str(source), "runs/birds", "1", monkeypatch=monkeypatch)
    assert "people with beak, left_wing, right_wing in a.jpg" in capsys.readouterr().out
    assert (here / "runs" / "birds" / "model.safetensors").is_file()


@pytest.mark.slow
def test_an_exported_file_runs_in_plain_onnxruntime(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    pytest.importorskip("onnxruntime")
    PoseEstimator.from_pretrained(device="cpu").export("onnx", "tiny.onnx")
    monkeypatch.setitem(sys.modules, "dekrpose", None)  # as where it is not installed
    run("exported_onnx.py", "tiny.onnx", "photos/astronaut.jpg", monkeypatch=monkeypatch)
    assert " left_shoulder " in capsys.readouterr().out
