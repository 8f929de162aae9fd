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
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dekrpose.errors import DekrPoseError
from dekrpose.estimator import pick_device


@dataclass(frozen=True)
class Processes:
    """The processes of a training, seen from one of them.

    Args:
        rank: which one this is; 0 writes the files.
        count: how many there are.
    """

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

    Args:
        device: as for ``pick_device``; with CUDA each process of a machine gets a GPU of its own.

    Yields:
        The processes and this one's device.

    Raises:
        DekrPoseError: there are more processes than GPUs, or the device cannot work with others.
    """
    picked = pick_device(device)
    processes = Processes(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
    if processes.count == 1:
        yield processes, picked
        return
    if picked.type == "cuda":
        picked = _own_gpu(int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(picked)
    elif picked.type != "cpu":
        raise DekrPoseError(f"several processes train on cuda or cpu, got {picked.type}; pass --device cpu")
    dist.init_process_group("nccl" if picked.type == "cuda" else "gloo")
    yield processes, picked
    dist.destroy_process_group()  # not after an error: the others may be waiting, and notice when this process ends


def _own_gpu(index: int) -> torch.device:
    if index >= torch.cuda.device_count():
        raise DekrPoseError(
            f"process {index} of this machine has no GPU: there are {torch.cuda.device_count()}; "
            "start as many processes as GPUs (torchrun --nproc-per-node), or pass --device cpu"
        )
    return torch.device("cuda", index)


def parallel(network: nn.Module, processes: Processes, device: torch.device) -> nn.Module:
    """The same network, whose gradients are averaged over the processes; all start from the first one's weights."""
    if processes.count == 1:
        return network
    return DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)


def synchronise_batch_norm(network: nn.Module, device: torch.device, kept: Collection[nn.Module] = ()) -> None:
    """Let batch norm in training mode see the batches of all processes; names in the state stay as they are.

    Args:
        network: changed in place.
        device: where it is; torch's own synchronised batch norm works on GPUs only.
        kept: layers in evaluation mode, which need no batch and stay plain.
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
        mean, variance = _joined_statistics(x.detach().float())
        self._update_running(mean, variance, x.numel() // x.shape[1] * dist.get_world_size())
        normalise = cast(Callable[..., Tensor], _Normalise.apply)
        return normalise(x, self.weight, self.bias, mean, variance, self.eps)

    def _update_running(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """From statistics over ``count`` pixels."""
        running = (self.running_mean, self.running_var, self.num_batches_tracked)
        if running[0] is None or running[1] is None or running[2] is None or self.momentum is None:
            raise ValueError(
                "synchronised batch norm needs running statistics and a momentum, as all our networks have"
            )
        running[0].lerp_(mean, self.momentum)
        running[1].lerp_(variance * (count / max(count - 1, 1)), self.momentum)
        running[2].add_(1)


def _joined_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """(C,) mean and biased variance of (B, C, h, w) over all processes, from each one's own, so that none cancels."""
    own = torch.stack(torch.var_mean(x, dim=(0, 2, 3), correction=0))
    every = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(every, own)
    variances, means = torch.stack(every, 1)
    return means.mean(0), variances.mean(0) + means.var(0, correction=0)


class _Normalise(torch.autograd.Function):
    """(x - mean) / deviation * weight + bias, where mean and deviation are those of x over all processes."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt())
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse = ctx.saved_tensors
        gradient = gradients[0].float()
        normal = (x.float() - _by_channel(mean)) * _by_channel(inverse)
        own = torch.stack([gradient.sum((0, 2, 3)), (gradient * normal).sum((0, 2, 3))])
        joined_sums = own.clone()
        dist.all_reduce(joined_sums)
        count = x.numel() // x.shape[1] * dist.get_world_size()
        shift, slope = (joined_sums / count).unbind()
        change = gradient - _by_channel(shift) - normal * _by_channel(slope)
        return (change * _by_channel(inverse * weight)).to(x.dtype), own[1], own[0], None, None, None


def _by_channel(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)
