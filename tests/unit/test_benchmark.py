"""The benchmark: its reference is the same network, its numbers add up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import nn

from dekrpose.benchmark import LoopOverBranches, measure
from dekrpose.cli import main
from dekrpose.config import Branches
from dekrpose.models.dekr import DEKR
from tests.small_model import SMALL, write_small_model


@pytest.mark.parametrize("branches", get_args(Branches))
def test_a_loop_over_branches_gives_the_same_offsets(branches: Branches) -> None:
    torch.manual_seed(0)
    model = DEKR(replace(SMALL, head=replace(SMALL.head, branches=branches, shared_channels=8))).eval()
    for parameter in model.offset_head.parameters():
        nn.init.normal_(parameter, std=0.2)
    loop = LoopOverBranches(model.offset_head, model.config.head).eval()
    features = torch.randn(2, model.backbone.out_channels, 16, 24)
    with torch.inference_mode():
        expected = model.offset_head(features)
        torch.testing.assert_close(loop(features), expected, atol=1e-4, rtol=1e-4)
    assert expected.abs().max() > 0.1


def test_jobs_run_in_turn_and_warm_up_runs_do_not_count() -> None:
    calls: list[str] = []
    timings = measure({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, runs=3)
    assert calls == ["a", "b"] * 5
    assert [timing.runs for timing in timings] == [3, 3]
    assert all(timing.fastest_ms <= timing.median_ms <= timing.slowest_ms for timing in timings)


def test_the_command_prints_a_ratio_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = write_small_model(tmp_path / "small.safetensors"), tmp_path / "out.json"
    words = ["benchmark", str(model), "--compare", "loop", "--runs", "1", "--input-size", "64", "--device", "cpu"]
    assert main([*words, "--json", str(out)]) == 0
    assert "ratio of medians" in capsys.readouterr().out
    assert [entry["runs"] for entry in json.loads(out.read_text())] == [1, 1]


def test_a_photo_size_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_small_model(tmp_path / "small.safetensors")
    assert main(["benchmark", str(model), "--photo", "large", "--device", "cpu"]) == 1
    assert "640x480" in capsys.readouterr().err
