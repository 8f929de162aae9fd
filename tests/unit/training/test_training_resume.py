"""A training that is killed and started again ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from dekrpose.architectures.learning import TrainConfig
from dekrpose.errors import DekrPoseError
from dekrpose.training.loader import CachedPhotos
from dekrpose.training.loop import Trainer
from tests.small_model import write_small_model
from tests.training_photos import SMALL, made_up_dataset, write_dataset

STEPS = 40
EVERY_STEP = "from dekrpose.training import loop; loop.LOG_STEPS = 1; from dekrpose.cli import main; exit(main())"
"""The command line, with a line of the log for each step."""


def start(data: Path, folder: Path, *extra: str) -> subprocess.Popen[bytes]:
    """Begin or go on with a run of 40 steps."""
    words = [sys.executable, "-c", EVERY_STEP, "train", data / "people.json", "--images", data / "photos"]
    words += ["--out", folder, "--init", data / "start.safetensors", "--size", "64", "--epochs", "10"]
    words += ["--batch-size", "2", "--device", "cpu", *extra]
    with (data / f"{folder.name}.txt").open("ab") as output:
        return subprocess.Popen(
            [str(word) for word in words],
            stdout=output,
            stderr=output,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )


def records(folder: Path) -> list[dict[str, Any]]:
    """Whole lines of the log."""
    path = folder / "log.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def kill_after(process: subprocess.Popen[bytes], folder: Path, lines: int) -> int:
    """Send SIGKILL when the log has grown by some lines; return its last step."""
    goal = len(records(folder)) + lines
    while len(records(folder)) < goal:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.005)
    process.kill()
    process.wait()
    return int(records(folder)[-1]["step"])


def state(folder: Path) -> dict[str, Any]:
    """What the run would go on from."""
    found: dict[str, Any] = torch.load(folder / "last.pt", weights_only=True)
    return found


@pytest.mark.slow
def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path: Path) -> None:
    data, whole, cut = tmp_path / "data", tmp_path / "whole", tmp_path / "split"  # names as long as each other
    write_dataset(data, photos=8)
    write_small_model(data / "start.safetensors", SMALL)
    uninterrupted = start(data, whole, "--workers", "0")
    kill_after(start(data, cut, "--workers", "0", "--checkpoint-minutes", "60"), cut, 2)  # before any checkpoint
    assert not (cut / "last.pt").exists()
    process = start(data, cut, "--workers", "1", "--checkpoint-minutes", "0")  # a checkpoint after each step
    while not (cut / "last.pt").exists():
        assert process.poll() is None
        time.sleep(0.005)
    kill_after(process, cut, 5)
    saved = int(state(cut)["progress"]["step"])
    process = start(data, cut, "--workers", "1", "--checkpoint-minutes", "60")
    while len(records(cut)) > saved:  # the line of a step that was not saved any more
        time.sleep(0.005)
    assert kill_after(process, cut, 4) >= saved + 4  # between two checkpoints
    assert state(cut)["progress"]["step"] == saved < STEPS
    (cut / "last.pt.tmp").write_bytes(b"half a state")
    with (cut / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write('{"step": 30, "im')
    assert start(data, cut, "--workers", "1").wait() == 0, (data / "split.txt").read_text()
    assert uninterrupted.wait() == 0, (data / "whole.txt").read_text()
    expected, found = state(whole), state(cut)
    for part in ("model", "average"):
        for name, value in expected[part].items():
            assert torch.equal(value, found[part][name]), name
    for number, values in expected["optimizer"]["state"].items():
        for name, value in values.items():
            assert torch.equal(value, found["optimizer"]["state"][number][name]), name
    assert (whole / "model.safetensors").stat().st_size == (cut / "model.safetensors").stat().st_size
    for name in ("step", "images", "heat", "offset", "gradient_norm", "learning_rate"):
        assert [record[name] for record in records(cut)] == [record[name] for record in records(whole)], name
    assert [record["step"] for record in records(cut)] == list(range(1, STEPS + 1))
    assert sorted(item.name for item in cut.iterdir()) == sorted(item.name for item in whole.iterdir())


@pytest.mark.parametrize("content", [b"", b"no state", b"PK\x03\x04 cut off"])
def test_a_damaged_state_is_named(tmp_path: Path, content: bytes) -> None:
    photos = CachedPhotos(made_up_dataset(tmp_path / "data", 4), progress=False)
    (tmp_path / "last.pt").write_bytes(content)
    with pytest.raises(DekrPoseError, match=r"last\.pt is no whole state of a run"):
        Trainer(SMALL, TrainConfig(batch_size=2, workers=0), photos, tmp_path)
