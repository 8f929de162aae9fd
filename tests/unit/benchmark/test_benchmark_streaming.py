"""The benchmark of a memory: the same network with and without it, in turn."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dekrpose.architectures.contract import build
from dekrpose.architectures.dekr.temporal import TemporalDEKR
from dekrpose.checkpoints import write_checkpoint
from dekrpose.cli import main
from dekrpose.config import ARCHITECTURES, TemporalConfig
from tests.small_model import SMALL, write_small_model


def benchmark(*words: str) -> int:
    return main(["benchmark", *words, "--device", "cpu", "--stream", "--runs", "1"])


def test_an_image_model_gets_a_fresh_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    small = str(write_small_model(tmp_path / "small.safetensors"))
    assert benchmark(small, "--input-size", "128", "--json", str(out)) == 0
    found = json.loads(out.read_text())
    assert found["fresh"]
    assert found["input_size"] == 128
    assert found["ratio"] == pytest.approx(found["stream"]["median_ms"] / found["alone"]["median_ms"])
    printed = capsys.readouterr().out
    for words in ("per frame", "with memory", "128 x 128", "a fresh memory", "ratio of medians"):
        assert words in printed


def test_a_network_with_memory_is_measured_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("convgru", "gru_offset_flat"):
        config = replace(SMALL, temporal=TemporalConfig(kind=kind, hidden=2))  # type: ignore[arg-type]
        write_checkpoint(tmp_path / f"{kind}.safetensors", config, TemporalDEKR(config).state_dict())
    assert benchmark(str(tmp_path / "convgru.safetensors")) == 0
    assert "fresh" not in capsys.readouterr().out
    assert benchmark(str(tmp_path / "gru_offset_flat.safetensors")) != 0
    assert "convolutional GRUs" in capsys.readouterr().err


def test_an_architecture_without_memory_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = ARCHITECTURES["directpose-tiny"]
    write_checkpoint(tmp_path / "direct.safetensors", config, build(config).state_dict())
    assert benchmark(str(tmp_path / "direct.safetensors")) != 0
    assert "measures networks with a memory; DirectPose has none" in capsys.readouterr().err


@pytest.mark.parametrize("more", [["--flip"], ["--backend", "compile"], ["--compare", "loop"]])
def test_what_does_not_go_with_it_is_refused(
    more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmark(str(write_small_model(tmp_path / "small.safetensors")), *more) != 0
    assert "leave out" in capsys.readouterr().err
