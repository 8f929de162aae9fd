"""The plain engine: the network as it is trained, on any device that torch has. It is the reference for the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dekrpose.architectures.contract import Maps
from dekrpose.engines.base import Answer, Engine, Looks, Memory, Photos, Stages
from dekrpose.options import Options


class TorchEngine(Engine):
    """Photos are resized on the CPU, whole maps are computed on the device and decoded on the CPU."""

    name = "torch"

    def __init__(self, model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(model, device, dtype)
        if device.type == "cpu":
            model.to(device)
        else:
            model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def find(self, photos: Photos, geometries: Looks, options: Options, memory: Memory | None = None) -> Answer:
        stages, looks = Stages(), []
        for scale, own in zip(options.scales, zip(*geometries, strict=True), strict=True):
            with stages("resize"):
                inputs = self.input(photos, own)
            with stages("network"):
                looks.append(self.maps(inputs, options.flip_test, self.model if memory is None else memory.at(scale)))
        with stages("decode"):
            looks = [tuple(part.cpu() for part in look) for look in looks]
            found = [
                self.architecture.poses([tuple(part[index] for part in look) for look in looks], self.config, options)
                for index in range(len(photos))
            ]
        return found, stages.milliseconds

    @torch.inference_mode()
    def maps(self, inputs: Tensor, flip_test: bool, network: Callable[[Tensor], Maps]) -> Maps:
        """What is seen of a batch at one scale, averaged over the mirror image if that is wanted."""
        count = len(inputs)
        if flip_test:
            both = torch.cat([inputs, self.architecture.mirrored(inputs)])
            inputs = both.contiguous(memory_format=torch.channels_last)
        with self.autocast(), single_precision(self.device):
            maps = network(inputs)
        mirrored = tuple(part[count:] for part in maps) if flip_test else None
        size = inputs.shape[2], inputs.shape[3]
        return self.architecture.seen(tuple(part[:count] for part in maps), mirrored, self.config, size)


@contextmanager
def single_precision(device: torch.device) -> Iterator[None]:
    """Within this block convolutions of float32 numbers are float32.

    Otherwise cuDNN rounds them to the 10 bits of TF32, which moves the positions where the offset head looks.
    """
    switches = torch.backends.cudnn
    try:
        before = switches.allow_tf32 if device.type == "cuda" else False
    except RuntimeError:  # somebody chose by operator, with PyTorch's newer switches: that stays
        before = False
    if before:
        switches.allow_tf32 = False
    try:
        yield
    finally:
        if before:
            switches.allow_tf32 = True
