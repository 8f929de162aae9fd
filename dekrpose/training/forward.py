"""What a training step runs of the network, as one call, and which numbers it computes with."""

from __future__ import annotations

import time
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from dekrpose.architectures.dekr.network import DEKR
from dekrpose.config import ModelConfig
from dekrpose.images.on_device import normalise

Precision = Literal["float32", "bfloat16"]
_RUNS = 5
_WORTH = 1.1
"""How many times as fast bfloat16 must be."""


def normalised(crops: Tensor, config: ModelConfig) -> Tensor:
    """(B, 3, H, W) uint8 RGB as a network takes them: float32, channels-last."""
    return normalise(crops.permute(0, 2, 3, 1), config.mean, config.std)


class TrainingForward(nn.Module):
    """Crops to heatmaps and offsets; one call, because ``DistributedDataParallel`` wants every part used in it.

    ``bfloat16_parts``: run backbone, heatmap head and the offset head's transition in bfloat16.
    """

    def __init__(self, model: DEKR, bfloat16_parts: bool) -> None:
        super().__init__()
        self.model, self.bfloat16_parts = model, bfloat16_parts

    def forward(self, crops: Tensor, pixels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Heatmaps (B, K + 1, h, w), and offsets (B, 2K, P) at pixels or (B, 2K, h, w), of (B, 3, H, W) uint8 RGB.

        ``pixels`` are (B, P, 2) xy where offsets are wanted, heatmap pixels.
        """
        model = self.model
        images = normalised(crops, model.config)
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=self.bfloat16_parts):
            features = model.features(images)
            heatmaps = model.heatmap_head(features)
            maps = None if pixels is None else model.offset_head.transition(features)
        if pixels is None or maps is None:
            offsets = model.offset_head(features.float())
        else:
            offsets = model.offset_head.at_transition(maps.float(), pixels)
        return heatmaps.float(), offsets


def choose_precision(device: torch.device) -> tuple[Precision, str]:
    """The faster precision for a device, and why, in words.

    A CPU without instructions for bfloat16 computes with it several times more slowly than with float32, and nothing
    but a try tells: a convolution of a network's size is timed in both.
    """
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bfloat16", "this GPU has bfloat16"
        return "float32", "this GPU has no bfloat16"
    if device.type != "cpu":
        return "float32", f"bfloat16 was not tried on {device.type}"
    single, half = _seconds(torch.float32), _seconds(torch.bfloat16)
    if single > _WORTH * half:
        return "bfloat16", f"a convolution takes {half / single:.2f} of the time that it takes in float32 on this CPU"
    return "float32", f"a convolution in bfloat16 takes {half / single:.1f} times as long on this CPU"


@torch.no_grad()
def _seconds(dtype: torch.dtype) -> float:
    """The shortest of a few convolutions; a fresh one is slower."""
    maps = torch.ones(4, 96, 48, 48).to(dtype=dtype, memory_format=torch.channels_last)
    weight = torch.ones(96, 96, 1, 1, dtype=dtype)
    times = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        functional.conv2d(maps, weight)
        times.append(time.perf_counter() - start)
    return min(times)
