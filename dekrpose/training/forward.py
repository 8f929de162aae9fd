"""Which numbers a training step computes with."""

from __future__ import annotations

import time
from typing import Literal

import torch
from torch.nn import functional

Precision = Literal["float32", "bfloat16"]
_RUNS = 5
_WORTH = 1.1
"""How many times as fast bfloat16 must be."""


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
