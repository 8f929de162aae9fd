"""The benchmark: stages add up, settings are what was asked for, wrong ones are refused."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dekrpose.benchmark import made_up
from dekrpose.benchmark.memory import Memory
from dekrpose.benchmark.report import number, table
from dekrpose.benchmark.settings import Setting, compared, load
from dekrpose.benchmark.stages import measure, network_job, photo_job
from dekrpose.cli import main
from dekrpose.images import load as load_image
from tests.small_model import write_small_model

PARTS = ["backbone", "heatmap head", "offset head"]
PHOTO_STAGES = ["read", "resize", "network", *PARTS, "network, other", "decode", "draw", "other", "whole"]
COSTS = {"gmacs", "gflops", "share_of_limit"}


@pytest.fixture
def small(tmp_path: Path) -> str:
    return str(write_small_model(tmp_path / "small.safetensors"))


def benchmark(*words: str) -> int:
    return main(["benchmark", *words, "--device", "cpu"])


def test_jobs_run_in_turn_and_warm_up_runs_do_not_count() -> None:
    calls: list[str] = []

    def job(name: str) -> Any:
        return lambda: calls.append(name) or {}  # type: ignore[func-returns-value]

    found = measure({"a": job("a"), "b": job("b")}, runs=3, settle=0)
    assert calls == ["a", "b"] * 5
    assert [timings["whole"].runs for timings in found.values()] == [3, 3]
    assert all(
        whole.fastest_ms <= whole.median_ms <= whole.slowest_ms for whole in (t["whole"] for t in found.values())
    )


def test_a_fast_job_runs_unmeasured_before_each_run() -> None:
    calls: list[str] = []
    found = measure({"a": lambda: calls.append("a") or {}}, runs=3, settle=60)  # type: ignore[func-returns-value]
    assert calls == ["a"] * (2 + 2 * 3)
    assert found["a"]["whole"].runs == 3


def test_what_the_stages_leave_is_told_and_parts_make_up_the_network() -> None:
    stages = {"read": 0.1, "backbone": 0.2, "heatmap head": 0.1, "offset head": 0.3, "network, other": 0.4}
    timings = measure({"a": lambda: time.sleep(0.002) or stages}, runs=1)["a"]  # type: ignore[func-returns-value]
    assert list(timings) == ["read", "network", *PARTS, "network, other", "other", "whole"]
    assert timings["network"].median_ms == pytest.approx(1.0)
    assert timings["whole"].median_ms == pytest.approx(1.1 + timings["other"].median_ms)


@pytest.mark.slow
def test_a_photo_by_stage_against_the_naive_formulation(
    small: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    assert benchmark(small, "--photo", "96x80", "--compare", "loop", "--runs", "1", "--json", str(out)) == 0
    printed, found = capsys.readouterr().out, json.loads(out.read_text())
    assert set(found) == {"machine", "photo", "people", "settings", "ratios"}
    assert set(found["machine"]) == {"processor", "threads", "device", "library", "system"}
    assert found["people"] == 3
    for measured, backend in zip(found["settings"], ("torch", "loop"), strict=True):
        assert measured["backend"] == backend
        assert measured["dtype"] == "float32"
        assert measured["network_input"] == [64, 128]
        assert list(measured["stages"]) == PHOTO_STAGES
        assert {name for name, stage in measured["stages"].items() if stage.keys() >= COSTS} == {"network", *PARTS}
        total = sum(s["median_ms"] for name, s in measured["stages"].items() if name not in ("network", "whole"))
        assert total == pytest.approx(measured["stages"]["whole"]["median_ms"])
        assert measured["stages"]["network"]["gmacs"] == pytest.approx(
            sum(measured["stages"][part]["gmacs"] for part in PARTS)
        )
        assert measured["matmul_gflops"] > 0
        assert measured["peak_memory_mib"] > 0
    assert list(found["ratios"]) == PHOTO_STAGES
    for words in ("loop over branches", "3 made-up people", "B / A", "ratio of medians", "of limit", "peak memory"):
        assert words in printed


def test_the_network_alone_in_batches(small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting(small, device="cpu", batch=3, input_size=128)
    estimator = load(setting)
    shapes: list[tuple[int, ...]] = []
    estimator.model.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    job, size = network_job(estimator, setting)
    assert list(job()) == PARTS
    assert size == (128, 128)
    assert shapes == [(3, 3, 128, 128)]


def test_hooks_are_gone_after_each_run(small: str) -> None:
    setting = Setting(small, device="cpu")
    estimator = load(setting)
    network_job(estimator, setting)[0]()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in estimator.model.modules())


@pytest.mark.parametrize(("mode", "expected"), [(None, None), ("official", "official"), ("off", None)])
def test_keypoints_are_moved_as_the_setting_says(small: str, mode: str | None, expected: str | None) -> None:
    setting = Setting(small, device="cpu", match_heatmap=mode)
    estimator = load(setting)
    assert estimator.config.decode.match_heatmap == expected
    assert "decode" in photo_job(estimator, setting, made_up.photo_file("80x64"), 2)[0]()


def test_a_batch_of_photos_goes_through_the_network_at_once(small: str) -> None:
    setting = Setting(small, device="cpu", batch=2, flip=True)
    estimator = load(setting)
    shapes: list[tuple[int, ...]] = []
    estimator.model.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    times = photo_job(estimator, setting, made_up.photo_file("80x64"), None)[0]()
    assert list(times) == [stage for stage in PHOTO_STAGES if stage not in ("network", "other", "whole")]
    assert shapes == [(4, 3, 64, 128)]


def test_a_photo_of_the_users_own_shows_its_own_people(
    small: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dekrpose.benchmark.memory.of_job", lambda *_: Memory("job", 100.0, None))
    path, out = tmp_path / "photo.jpg", tmp_path / "out.json"
    path.write_bytes(made_up.jpeg(made_up.photo(80, 64)))
    assert benchmark(small, "--photo", str(path), "--runs", "1", "--json", str(out), "--batch", "2") == 0
    assert json.loads(out.read_text())["people"] is None
    printed = capsys.readouterr().out
    assert "people as found" in printed
    assert "a second" in printed
    assert "peak memory" not in printed


@pytest.mark.parametrize("people", [0, 1, 7, 30])
def test_made_up_people_are_found_where_they_were_planted(small: str, people: int) -> None:
    estimator = load(Setting(small, device="cpu", input_size=192))
    data = made_up.photo_file("640x480")
    photo_job(estimator, Setting(small, device="cpu", input_size=192), data, people)
    poses = estimator.estimate(data, input_size=192)
    assert len(poses) == people
    if people:
        assert poses.scores.min() > 0.5
        assert poses.boxes[:, :2].min() > -1
        assert poses.boxes[:, 2].max() <= 640


def test_made_up_photos_are_photos_and_always_the_same() -> None:
    pixels = made_up.photo(64, 48)
    assert pixels.shape == (48, 64, 3)
    assert (pixels == made_up.photo(64, 48)).all()
    assert (pixels != made_up.photo(64, 48, seed=1)).any()
    large = made_up.photo(640, 480)
    read, _ = load_image(made_up.jpeg(large))
    assert abs(read.astype(int) - large).mean() < 6


def test_random_weights_let_through_numbers_that_processors_are_fast_with() -> None:
    model = load(Setting("tiny-lite", device="cpu")).model
    maps: list[torch.Tensor] = []
    model.backbone.register_forward_hook(lambda _, __, answer: maps.extend(answer))
    model(torch.rand(1, 3, 64, 64))
    assert 1e-3 < float(maps[0].abs().max()) < 1e3


def test_a_second_setting_is_the_first_with_changes(tmp_path: Path) -> None:
    first = Setting("tiny", dtype="bfloat16", batch=2)
    assert compared(first, ["dekr-w32-coco", "dtype=float32"]) == Setting("dekr-w32-coco", dtype="float32", batch=2)
    assert compared(first, ["loop"]) == Setting("tiny", backend="loop", batch=2)
    assert compared(first, ["backend=compile", "batch=4", "input-size=128", "flip=yes", "device=cpu"]) == Setting(
        "tiny", "cpu", "bfloat16", "compile", 128, 4, True
    )
    assert compared(first, ["match-heatmap=off"]) == Setting("tiny", dtype="bfloat16", batch=2, match_heatmap="off")
    strange = tmp_path / "a=b.safetensors"
    strange.touch()
    assert compared(first, [str(strange)]).model == str(strange)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--photo", "large"], "640x480"),
        (["--photo", "0x4"], "at least one pixel"),
        (["--runs", "0"], "at least 1"),
        (["--batch", "0"], "batch must be at least 1"),
        (["--input-size", "0"], "input-size must be a positive number"),
        (["--backend", "tensorrt"], "backend must be one of torch, compile"),
        (["--backend", "loop", "--dtype", "bfloat16"], "is float32"),
        (["--dtype", "int4"], "dtype must be"),
        (["--compare", "speed=2"], "--compare takes loop, a model, device=..."),
        (["--compare", "batch=many"], "batch must be a whole number"),
        (["--compare", "flip=maybe"], "flip must be yes or no"),
        (["--compare", "tiny", "dekr-w32-coco"], "one other model"),
        (["--compare", "no-such-model"], "no-such-model"),
        (["--compare", "match-heatmap=best"], "match-heatmap must be one of official, paper, weighted, off"),
        (["--match-heatmap", "paper"], "give --photo too"),
        (["--people", "3"], "give --photo too"),
        (["--people", "-1", "--photo", "80x64"], "at least 0"),
        (["--at", "3"], "belongs to --curve"),
        (["--svg", "x.svg"], "belongs to --curve"),
        (["--curve", "people", "--compare", "loop"], "leave out --compare"),
        (["--curve", "people", "--at", "-1"], "of at least 0"),
        (["--curve", "batch", "--at", "2", "2"], "different whole numbers"),
        (["--memory", "everywhere"], "--memory knows flip, scales"),
        (["--memory", "--compare", "loop"], "leave out --compare"),
    ],
)
def test_what_makes_no_sense_is_refused(
    words: list[str], message: str, small: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmark(small, *words) == 1
    assert message in capsys.readouterr().err


def test_modes_exclude_each_other(small: str) -> None:
    with pytest.raises(SystemExit):
        benchmark(small, "--curve", "people", "--first-pose")


def test_a_compiled_network_is_one_stage(small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[object] = []
    monkeypatch.setattr("torch.nn.Module.compile", lambda self: compiled.append(self))  # a compiler may not be here
    setting = Setting(small, device="cpu", backend="compile")
    estimator = load(setting)
    assert len(compiled) == 1
    assert list(photo_job(estimator, setting, made_up.photo_file("80x64"), 1)[0]())[2] == "network"


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_an_exported_network_finds_the_same_people(backend: str) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip({"onnx": "onnxruntime"}.get(backend, backend))
    photo = (Path(__file__).parents[3] / "examples" / "astronaut.jpg").read_bytes()
    expected = load(Setting("tiny", device="cpu")).estimate(photo)
    setting = Setting("tiny", device="cpu", backend=backend)
    estimator = load(setting)
    found = estimator.estimate(photo)
    assert len(found) > 0
    np.testing.assert_allclose(found.keypoints, expected.keypoints, atol=0.1)
    job, _ = photo_job(estimator, setting, photo, 2)
    assert list(job()) == ["read", "resize", "network", "decode", "draw"]


def test_columns_stand_under_each_other() -> None:
    lines = table(["", "ms", "x"], [["network", "12.3", ""], ["  other", "1,234", "5%"]], rules=(1,)).splitlines()
    assert lines == [
        "            ms   x",
        "------------------",
        "network   12.3",
        "------------------",
        "  other  1,234  5%",
    ]
    assert [number(value) for value in (0.567, 12.34, 1234.5)] == ["0.57", "12.3", "1,234"]
