"""One training in several processes: who they are, gradients and batch statistics over all of them.

``torchrun`` starts them; each takes its part of every batch, and together they compute what one process with the joined
batch would: gradients are averaged (``DistributedDataParallel``), and batch norm sees the joined batch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dekrpose.engines.devices import pick_device
from dekrpose.errors import DekrPoseError


@dataclass(frozen=True)
class Processes:
    """The processes of a training, seen from the one of this rank; 0 writes the files."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files and shows progress."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes, without gradient; every process must ask for it."""
        values = values.detach().clone()
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.count > 1:
            dist.barrier()


@contextmanager
def joined(device: str) -> Iterator[tuple[Processes, torch.device]]:
    """Join the processes that ``torchrun`` started, which it says in the environment; alone without it.

    Yields the processes and this one's device, which is as for ``pick_device``; with CUDA each process of a machine
    gets a GPU of its own. DekrPoseError if there are more processes than GPUs, or the device cannot work with others.
    """
    picked = pick_device(device)
    processes = Processes(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
    if processes.count == 1:
        yield processes, picked
        return
    if picked.type == "cuda":
        index = int(os.environ.get("LOCAL_RANK", "0"))
        if index >= torch.cuda.device_count():
            raise DekrPoseError(
                f"process {index} of this machine has no GPU: there are {torch.cuda.device_count()}; "
                "start as many processes as GPUs (torchrun --nproc-per-node), or pass --device cpu"
            )
        picked = torch.device("cuda", index)
        torch.cuda.set_device(picked)
    elif picked.type != "cpu":
        raise DekrPoseError(f"several processes train on cuda or cpu, got {picked.type}; pass --device cpu")
    dist.init_process_group("nccl" if picked.type == "cuda" else "gloo")
    yield processes, picked
    dist.destroy_process_group()  # not after an error: the others may be waiting, and notice when this process ends


def parallel(network: nn.Module, processes: Processes, device: torch.device) -> nn.Module:
    """The same network, whose gradients are averaged over the processes; all start from the first one's weights."""
    if processes.count == 1:
        return network
    return DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)


def synchronise_batch_norm(network: nn.Module, device: torch.device, kept: Collection[nn.Module] = ()) -> None:
    """Let batch norm in training mode see the batches of all processes, in place; names in the state stay as they are.

    Layers in ``kept`` are in evaluation mode, need no batch and stay plain. torch's own works on GPUs only.
    """
    plain = {inner for layer in kept for inner in layer.modules()}
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d) and child not in plain:
                on_gpu = device.type == "cuda"
                convert = cast(Callable[[nn.BatchNorm2d], nn.Module], nn.SyncBatchNorm.convert_sync_batchnorm)
                setattr(module, name, convert(child) if on_gpu else SyncedBatchNorm.of(child))


class SyncedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the batches of all processes, which have equal shapes, for CPUs."""

    @classmethod
    def of(cls, plain: nn.BatchNorm2d) -> SyncedBatchNorm:
        """With the parameters, statistics and mode of another."""
        synced = cls(plain.num_features, eps=plain.eps, momentum=plain.momentum)
        synced._parameters, synced._buffers = plain._parameters, plain._buffers
        return synced.train(plain.training)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        if self.running_mean is None or self.running_var is None or self.momentum is None:
            raise ValueError(
                "synchronised batch norm needs running statistics and a momentum, as all our networks have"
            )
        assert self.num_batches_tracked is not None
        single, processes = x.float(), dist.get_world_size()
        total = cast(Callable[[Tensor], Tensor], _Total.apply)
        mean = total(single.mean((0, 2, 3))) / processes
        centered = single - mean.view(1, -1, 1, 1)
        variance = total(centered.square().mean((0, 2, 3))) / processes
        count = x.numel() // x.shape[1] * processes
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / max(count - 1, 1)), self.momentum)
            self.num_batches_tracked.add_(1)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centered * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(x.dtype)


class _Total(torch.autograd.Function):
    """The sum over all processes, whose gradient is summed over them too."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        values = values.clone()
        dist.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Total.forward(ctx, gradients[0])
