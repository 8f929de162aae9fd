"""Training a memory: it learns, it resumes where it was, it leaves alone what it should."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dekrpose import PoseEstimator
from dekrpose.architectures.dekr.batches import TargetConfig
from dekrpose.architectures.dekr.temporal import TemporalDEKR, with_memory
from dekrpose.architectures.learning import TrainConfig
from dekrpose.cli import main
from dekrpose.config import TemporalConfig
from dekrpose.data.clips.clip import ClipShape
from dekrpose.data.clips.drawn import DrawnClips
from dekrpose.engines.cpu import CPUEngine
from dekrpose.errors import DekrPoseError
from dekrpose.evaluation.video.compare import PER_FRAME, RESET, Bootstrap, Interval, compare, run_model
from dekrpose.training.clips import ClipRecipe, ClipSamples, MixedClips
from dekrpose.training.temporal import Parts, SeenClips, TemporalTrainer
from tests.small_model import write_small_model
from tests.training_photos import SMALL

SHAPE = ClipShape(frames=4, size=64)
RECIPE = ClipRecipe(SHAPE, clips=4)
CONFIG = TrainConfig(
    epochs=3, batch_size=2, warmup=1, workers=0, ema=0.5, learning_rate=5e-3,
    targets=TargetConfig(sigma=1.5, center_sigma=2.0, radius=3, offset_pixels=40),
)  # fmt: skip
SOURCE = DrawnClips("train", 4)


def fresh() -> TemporalDEKR:
    torch.manual_seed(3)
    model = TemporalDEKR(replace(SMALL, temporal=TemporalConfig()))
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.Conv2d) and "memory" not in name:  # the official initialisation is too small
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
    return model


def test_the_seeds_flat_network_trains_at_the_size_that_it_is_told(tmp_path: Path) -> None:
    flat = TemporalConfig(kind="gru_offset_flat", hidden=8, input_size=SHAPE.size)
    image = {name: value for name, value in fresh().state_dict().items() if "_memory." not in name}
    model = with_memory(SMALL, image, flat)
    training = TemporalTrainer(model, replace(CONFIG, warmup=0), RECIPE, SOURCE, "memory", tmp_path)
    training.model.eval()  # as ``run`` does
    before = {name: value.clone() for name, value in training.model.state_dict().items()}
    batch = next(iter(training.loader))
    losses = []
    for _ in range(4):
        losses.append(float(sum(training.losses(batch).values()).detach()))  # type: ignore[arg-type]
        training._step(batch)
    assert losses[-1] < losses[0]
    changed = {name for name, value in training.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("offset_gru.") for name in changed)


def trainer(folder: Path, parts: Parts = "memory", config: TrainConfig = CONFIG) -> TemporalTrainer:
    return TemporalTrainer(fresh(), config, RECIPE, SOURCE, parts, folder)


@pytest.mark.parametrize("parts", ["heads", "memory", "memory+heads", "all"])
def test_the_loss_of_a_clip_falls_and_only_what_is_trained_changes(parts: Parts, tmp_path: Path) -> None:
    training = trainer(tmp_path, parts, replace(CONFIG, warmup=0))
    before = {name: value.clone() for name, value in training.model.state_dict().items()}
    training.model.eval()
    batch = next(iter(training.loader))
    losses = [float(sum(training.losses(batch).values()).detach())]  # type: ignore[arg-type]
    for _ in range(2):
        training._step(batch)
        losses.append(float(sum(training.losses(batch).values()).detach()))  # type: ignore[arg-type]
    assert losses[2] < losses[0]
    changed = {name for name, value in training.model.state_dict().items() if not torch.equal(value, before[name])}
    assert not any("running" in name or "num_batches" in name for name in changed)  # batch norm stays as it is
    memory = {name for name in changed if "_memory." in name}
    heads = {name for name in changed if name.startswith(("heatmap_head.final", "offset_head.groups"))}
    backbone = {name for name in changed if name.startswith("backbone")}
    assert (bool(memory), bool(heads), bool(backbone)) == {
        "heads": (False, True, False), "memory": (True, False, False),
        "memory+heads": (True, True, False), "all": (True, True, True),
    }[parts]  # fmt: skip


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, cut = trainer(tmp_path / "whole"), trainer(tmp_path / "cut")
    whole.run()
    cut.run(until=3)  # in the middle of an epoch
    resumed = trainer(tmp_path / "cut")
    assert resumed.progress.step == 3
    resumed.run()
    assert resumed.progress.step == whole.progress.step == 6
    for name, value in whole.average.items():
        assert torch.equal(value, resumed.average[name]), name


def test_other_clips_or_parts_need_another_folder(tmp_path: Path) -> None:
    trainer(tmp_path).run(until=1)
    with pytest.raises(DekrPoseError, match="other clips or of other parts"):
        trainer(tmp_path, "heads")
    with pytest.raises(DekrPoseError, match="other settings"):
        trainer(tmp_path, config=replace(CONFIG, learning_rate=1.0))


def test_what_a_frozen_network_sees_is_kept_and_resets_are_drawn_anew(tmp_path: Path) -> None:
    training = trainer(tmp_path)
    training.recipe = replace(RECIPE, resets=0.5)
    training.loader.samples.recipe = training.recipe  # type: ignore[attr-defined]
    batches: list[list[SeenClips]] = []
    for epoch in range(2):
        training.order.epoch = epoch
        batches.append(list(training.loader))  # type: ignore[arg-type]
    assert sum(len(batch.clips.resets) for batch in batches[0]) == 4
    resets = [torch.cat([batch.clips.resets for batch in epoch]) for epoch in batches]
    assert not torch.equal(resets[0], resets[1])
    sums = [sorted(float(m.float().sum()) for batch in epoch for m in batch.maps[0]) for epoch in batches]
    assert sums[0] == pytest.approx(sums[1])


def test_unlabelled_frames_teach_nothing() -> None:
    class Unlabelled(DrawnClips):
        def draw(self, index, rng, shape):  # type: ignore[no-untyped-def]
            clip = super().draw(index, rng, shape)
            clip.labelled[1:] = False
            return clip

    sample = ClipSamples(Unlabelled("train", 4), RECIPE, CONFIG.targets, 0)[0, 0, 0].frames
    assert sample.heatmap_weights[0].any()
    assert sample.offset_weights[0].any()
    assert not sample.heatmap_weights[1:].any()
    assert not sample.offset_weights[1:].any()


def test_clips_of_an_epoch_are_decided_by_seed_and_epoch() -> None:
    samples, repeated = (ClipSamples(SOURCE, RECIPE, CONFIG.targets, 0, repeat) for repeat in (False, True))
    assert torch.equal(samples[1, 0, 2].frames.images, samples[1, 3, 2].frames.images)
    assert not torch.equal(samples[0, 0, 2].frames.images, samples[1, 0, 2].frames.images)
    assert torch.equal(repeated[0, 0, 2].frames.images, repeated[1, 0, 2].frames.images)


def test_sources_take_turns() -> None:
    class Named(DrawnClips):
        def draw(self, index, rng, shape):  # type: ignore[no-untyped-def]
            return (self.count, index)

    mixed = MixedClips([Named("train", 2), Named("train", 3)])
    rng = np.random.default_rng(0)
    assert [mixed.draw(index, rng, SHAPE) for index in range(6)] == [(2, 0), (3, 0), (2, 1), (3, 1), (2, 0), (3, 2)]
    with pytest.raises(ValueError, match="nothing to draw clips from"):
        MixedClips([])


@pytest.fixture
def estimator() -> PoseEstimator:
    """A network whose memory matters, and that sees somebody."""
    model = fresh()
    with torch.no_grad():
        assert model.heatmap_memory is not None
        assert model.offset_memory is not None
        for memory in (model.heatmap_memory, model.offset_memory):
            for value in memory.parameters():
                value.normal_(std=0.3)
        assert model.heatmap_head.final.bias is not None
        model.heatmap_head.final.bias.fill_(0.5)
        for group in model.offset_head.groups:
            group.final.bias.normal_(std=3.0)  # type: ignore[union-attr, operator]
    return PoseEstimator(model)


def test_reset_at_every_frame_the_advantage_is_exactly_zero(estimator: PoseEstimator) -> None:
    results = compare(
        estimator, DrawnClips("test", 99), ClipShape(frames=3, size=64), seeds=[0, 1], clips=1,
        conditions=["clean", "noisy"], progress=False,
    )  # fmt: skip
    bootstrap = Bootstrap(results, 20)
    assert bootstrap.precision(RESET, PER_FRAME, ["clean", "noisy"]) == Interval(0.0, 0.0, 0.0)
    assert bootstrap.acceleration(RESET, PER_FRAME, ["clean", "noisy"]) == Interval(0.0, 0.0, 0.0)
    for condition in ("clean", "noisy"):
        for seed in (0, 1):
            pairs = zip(results[condition, RESET, seed].clips, results[condition, PER_FRAME, seed].clips, strict=True)
            assert all(np.array_equal(one.series, two.series) for one, two in pairs)


def test_frames_alone_are_computed_as_with_a_memory(estimator: PoseEstimator, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = DrawnClips("test", 99).draw(0, np.random.default_rng(0), SHAPE)
    monkeypatch.delattr(CPUEngine, "candidates")  # which round otherwise than whole maps
    assert len(run_model(estimator, clip)) == len(clip)
    with pytest.raises(AttributeError):
        estimator.estimate(clip.frames[0])


def test_a_memory_changes_later_frames_and_not_the_first(estimator: PoseEstimator) -> None:
    clip = DrawnClips("test", 99).draw(0, np.random.default_rng(0), SHAPE)
    alone, kept = run_model(estimator, clip), run_model(estimator, clip, "kept")
    assert np.array_equal(alone[0].scores, kept[0].scores)
    assert any(not np.array_equal(one.scores, two.scores) for one, two in zip(alone[1:], kept[1:], strict=True))


@pytest.mark.slow
def test_from_an_image_model_to_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = write_small_model(tmp_path / "start.safetensors", SMALL)
    words = ["train-temporal", "--init", str(start), "--clips", "2", "--frames", "3", "--size", "64", "--epochs", "1"]
    words += ["--batch-size", "2", "--device", "cpu"]
    assert main([*words, "--train", "heads", "--out", str(tmp_path / "heads")]) == 0
    words[2] = str(tmp_path / "heads")
    assert main([*words, "--out", str(tmp_path / "mine")]) == 0
    assert json.loads((tmp_path / "mine" / "config.json").read_text())["temporal"]["kind"] == "convgru"
    assert json.loads((tmp_path / "mine" / "clips.json").read_text())["parts"] == "memory"
    report, numbers = tmp_path / "report.html", tmp_path / "numbers.json"
    words = ["eval", str(tmp_path / "mine"), "--video", "drawn", "--clips", "1", "--frames", "4", "--seeds", "0", "1"]
    words += ["--conditions", "clean", "occluded", "--report", str(report), "--json", str(numbers), "--device", "cpu"]
    capsys.readouterr()
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "| occluded | temporal, shuffled order |" in printed
    assert "control, as it should be: reset at every frame, the advantage is exactly 0" in printed
    assert "The memory" in printed
    assert "<svg" in report.read_text()
    assert set(json.loads(numbers.read_text())["measures"]) == {"clean", "occluded"}


def test_a_flat_network_from_a_model_of_several_scales_sees_frames_at_one(tmp_path: Path) -> None:
    several = replace(SMALL, decode=replace(SMALL.decode, scales=(1.0, 2.0)))
    start = write_small_model(tmp_path / "start.safetensors", several)
    words = ["train-temporal", "--init", str(start), "--memory", "gru_offset_flat", "--hidden", "4", "--clips", "2"]
    words += ["--frames", "2", "--size", "64", "--epochs", "1", "--batch-size", "2", "--device", "cpu"]
    assert main([*words, "--out", str(tmp_path / "flat")]) == 0
    PoseEstimator.from_pretrained(tmp_path / "flat", device="cpu").estimate(np.zeros((64, 64, 3), np.uint8))


def test_an_image_model_is_measured_without_a_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = write_small_model(tmp_path / "start.safetensors", SMALL)
    words = ["eval", str(start), "--video", "drawn", "--clips", "1", "--frames", "3", "--seeds", "0", "--device", "cpu"]
    assert main([*words, "--conditions", "clean"]) == 0
    printed = capsys.readouterr().out
    assert "| clean | per frame + One-Euro |" in printed
    assert "temporal" not in printed


def test_video_of_photos_needs_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = write_small_model(tmp_path / "start.safetensors", SMALL)
    assert main(["eval", str(start), "--video", "photos", "--device", "cpu"]) == 1
    assert "--video photos needs DATA.json" in capsys.readouterr().err
    assert main(["eval", str(start), "--video", "drawn", "--flip", "--record"]) == 1
    assert "--flip, --record are for photos" in capsys.readouterr().err
    assert main(["eval", str(start), "--device", "cpu"]) == 1
    assert "DATA.json is missing" in capsys.readouterr().err
