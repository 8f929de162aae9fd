"""Several processes train as one does with their joined batch."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from torch import Tensor, nn
from torch.nn import functional

from dekrpose.architectures.dekr.batches import TargetConfig
from dekrpose.architectures.dekr.network import DEKR
from dekrpose.architectures.learning import AugmentConfig, TrainConfig
from dekrpose.errors import DekrPoseError
from dekrpose.training import loop
from dekrpose.training.device_batches import DeviceBatches
from dekrpose.training.distributed import Processes, SyncedBatchNorm, joined, synchronise_batch_norm
from dekrpose.training.loader import CachedPhotos
from dekrpose.training.loop import Trainer
from dekrpose.training.order import EpochOrder
from tests.small_model import write_small_model
from tests.training_photos import SMALL, made_up_dataset, write_dataset

CONFIG = TrainConfig(
    epochs=3,
    batch_size=2,
    warmup=2,
    learning_rate=1e-2,
    clip_norm=0.1,  # less than every gradient's
    workers=0,
    ema=0.5,
    augment=AugmentConfig(size=64, mosaic=0.3),
    targets=TargetConfig(sigma=1.5, center_sigma=2.0, radius=3, offset_pixels=40),
)
JOINED = replace(CONFIG, batch_size=4)
CPU = torch.device("cpu")


EVERYWHERE = replace(CONFIG, targets=replace(CONFIG.targets, offset_pixels=0))
"""With smooth_relu gradients of chosen pixels come channels last, which torch's own batch norm takes wrongly."""


def smooth_relu(x: Tensor, inplace: bool = False) -> Tensor:
    """In place of ReLU, where rounding decides on which side of 0 a pixel is, and soon everything differs."""
    return functional.softplus(x, beta=8)


def steady_trainer(config: TrainConfig, photos: CachedPhotos, folder: Path, processes: Processes) -> Trainer:
    """One whose rounding errors stay small: no tiny weights, no division by tiny gradients."""
    generator = torch.Generator().manual_seed(1)
    initial = DEKR(SMALL).state_dict()
    for name, value in initial.items():
        if name.endswith("weight") and value.ndim == 4 and "transform" not in name:
            value.normal_(0, (1 / value[0].numel()) ** 0.5 * (0.1 if "final" in name else 1), generator=generator)
    trainer = Trainer(SMALL, config, photos, folder, initial=initial, processes=processes)
    for group in trainer.optimizer.param_groups:
        group["eps"] = 0.1
    return trainer


def a_batch_for_norm() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, factors = torch.randn(2, 4, 3, 5, 6, generator=generator).unbind()
    return x * 2 + 7, factors


def norm_results(norm: nn.BatchNorm2d, x: Tensor, factors: Tensor) -> dict[str, Tensor]:
    """What a batch norm of made-up parameters makes of a batch, and its gradients."""
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 1.0, -2.0]))
        norm.bias.copy_(torch.tensor([0.1, 0.0, 3.0]))
    x = x.clone().requires_grad_()
    out = norm.train()(x)
    (out * factors).sum().backward()
    gradients = {"x": x.grad, "weight": norm.weight.grad, "bias": norm.bias.grad}
    found = {"out": out, **{f"{name} gradient": value for name, value in gradients.items()}, **norm.state_dict()}
    return {name: value.detach().clone() for name, value in found.items() if value is not None}


def one_of_two(rank: int, port: int, folder: Path) -> None:
    """What each of two processes does; its findings go to files."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }  # fmt: skip
    torch.set_num_threads(1)
    loop.LOG_STEPS = 1
    functional.relu = smooth_relu
    photos = CachedPhotos(made_up_dataset(folder / f"photos{rank}", 12), progress=False)
    with joined("cpu") as (processes, device):
        found: dict[str, Any] = {"processes": (processes.rank, processes.count, str(device))}
        found["norm"] = norm_results(SyncedBatchNorm(3), *(part[2 * rank :][:2] for part in a_batch_for_norm()))
        trainer = steady_trainer(EVERYWHERE, photos, folder / "two", processes)
        trainer.run()
        found["model"], found["average"] = trainer.model.state_dict(), trainer.average
        trainer = Trainer(SMALL, CONFIG, photos, folder / "cut", processes=processes)
        trainer.run(until=4)
        batches = list(trainer.loader)
        if rank:  # nobody else sees this
            batches[0].heatmaps[0, 0, 0, 0] = float("nan")
        trainer.loader = batches
        with pytest.raises(DekrPoseError) as error:
            trainer.run()
        found["diverged"] = str(error.value)
        if rank == 0:
            with pytest.raises(RuntimeError):
                processes.wait()  # the other one ends
            found["left alone"] = True
    torch.save(found, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes have trained."""
    folder = tmp_path_factory.mktemp("processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(one_of_two, (port, folder), nprocs=2)
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[str, Any]]:
    """What each of them found."""
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> CachedPhotos:
    return CachedPhotos(made_up_dataset(tmp_path_factory.mktemp("data"), 12), progress=False)


def assert_close(one: Mapping[str, Tensor], other: Mapping[str, Tensor], atol: float, rtol: float) -> None:
    assert list(one) == list(other)
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, atol=atol, rtol=rtol, msg=lambda text, name=name: name + text)


def test_two_processes_train_as_one_with_the_joined_batch(
    found: list[dict[str, Any]], folder: Path, photos: CachedPhotos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "LOG_STEPS", 1)
    monkeypatch.setattr(functional, "relu", smooth_relu)
    alone = steady_trainer(replace(EVERYWHERE, batch_size=4), photos, tmp_path, Processes())
    alone.run()
    one, two = (
        [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]
        for path in (tmp_path, folder / "two")
    )
    assert [record["step"] for record in two] == list(range(1, 10))
    assert [record["images"] for record in two] == [4 * step for step in range(1, 10)]
    for name, rel in (("heat", 1e-5), ("offset", 1e-5), ("gradient_norm", 2e-4)):
        assert [record[name] for record in two] == pytest.approx([record[name] for record in one], rel=rel), name
    assert_close(alone.model.state_dict(), found[0]["model"], atol=1e-4, rtol=1e-4)
    assert_close(alone.average, found[0]["average"], atol=1e-4, rtol=1e-4)


def test_every_process_holds_the_same_weights(found: list[dict[str, Any]]) -> None:
    assert [one["processes"] for one in found] == [(0, 2, "cpu"), (1, 2, "cpu")]
    for kind in ("model", "average"):
        assert_close(found[0][kind], found[1][kind], atol=0, rtol=0)


def test_synchronised_batch_norm_is_batch_norm_of_the_joined_batch(found: list[dict[str, Any]]) -> None:
    first, second = (one["norm"] for one in found)
    both = first | {name: torch.cat([first[name], second[name]]) for name in ("out", "x gradient")}
    both |= {name: first[name] + second[name] for name in ("weight gradient", "bias gradient")}
    assert_close(norm_results(nn.BatchNorm2d(3), *a_batch_for_norm()), both, atol=1e-5, rtol=1e-5)


def test_nan_in_one_process_stops_all_and_a_lost_process_does_not_leave_others_waiting(
    found: list[dict[str, Any]], folder: Path
) -> None:
    for one in found:
        assert "diverged at step 4" in one["diverged"]
        assert str(folder / "cut" / "last.pt") in one["diverged"]
    assert found[0]["left alone"]


def test_one_process_goes_on_where_two_ended(found: list[dict[str, Any]], folder: Path, photos: CachedPhotos) -> None:
    assert Trainer(SMALL, JOINED, photos, folder / "cut").progress.step == 4
    with pytest.raises(DekrPoseError, match="batch_size"):
        Trainer(SMALL, CONFIG, photos, folder / "cut")


def test_processes_share_each_batch_also_on_the_device(photos: CachedPhotos) -> None:
    def batches(rank: int, processes: int, size: int) -> DeviceBatches:
        order = EpochOrder(12, size, 0, rank, processes)
        return DeviceBatches(photos, order, CONFIG.augment, CONFIG.targets, seed=0, device=CPU)

    whole, parts = batches(0, 1, 4), [batches(rank, 2, 2) for rank in range(2)]
    for joined_batch, first, second in zip(whole, *parts, strict=True):
        for name in ("images", "heatmaps", "offsets", "pixels"):
            both = torch.cat([getattr(first, name), getattr(second, name)])
            assert torch.equal(getattr(joined_batch, name), both), name


def test_layers_that_are_kept_stay_plain_and_names_stay() -> None:
    network = DEKR(SMALL)
    names, kept = list(network.state_dict()), network.backbone.early_layers()
    synchronise_batch_norm(network, CPU, kept)
    assert list(network.state_dict()) == names
    plain = {module for layer in kept for module in layer.modules()}
    norms = {module for module in network.modules() if isinstance(module, nn.BatchNorm2d)}
    assert norms & plain
    assert {module for module in norms if isinstance(module, SyncedBatchNorm)} == norms - plain


def test_alone_without_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined("cpu") as (processes, device):
        assert (processes, device) == (Processes(), CPU)
        assert processes.first


@pytest.mark.slow
def test_torchrun_starts_the_command(tmp_path: Path) -> None:
    annotations, images = write_dataset(tmp_path / "data", photos=8)
    start = write_small_model(tmp_path / "start.safetensors")
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "dekrpose"]
    words += ["train", annotations, "--images", images, "--out", tmp_path / "run", "--init", start, "--size", 64]
    words += ["--epochs", 2, "--batch-size", 2, "--workers", 1, "--device", "cpu"]
    words += ["--val", annotations, "--val-images", images, "--val-every", 3, "--patience", 2]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("wrote ") == 1
    assert "16 images in " in done.stdout
    assert torch.load(tmp_path / "run" / "last.pt", weights_only=True)["config"]["batch_size"] == 4
    measured = (tmp_path / "run" / "validation.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in measured] == [3, 4]
