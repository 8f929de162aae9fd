"""The ways of running a network, and the choice between them, which is made once."""

from __future__ import annotations

import os
from typing import Literal, get_args

import torch
from torch import nn

from dekrpose.engines.base import Engine
from dekrpose.engines.cpu import CPUEngine
from dekrpose.engines.cuda import CUDAEngine
from dekrpose.engines.file import ExportedModel, FileEngine
from dekrpose.engines.torch import TorchEngine

EngineName = Literal["auto", "torch", "cpu", "cuda"]
"""What can be asked for."""
ENGINES: dict[str, type[Engine]] = {engine.name: engine for engine in (TorchEngine, CPUEngine, CUDAEngine, FileEngine)}
VARIABLE = "DEKRPOSE_ENGINE"
"""Environment variable that says what "auto" is."""


def choose_engine(model: nn.Module, device: torch.device, dtype: torch.dtype, engine: str = "auto") -> Engine:
    """Put a network into the engine that is asked for.

    Args:
        model, device, dtype: see ``Engine``.
        engine: "auto" is the fast one on CPUs and the plain one elsewhere, unless DEKRPOSE_ENGINE says another;
            "torch" the plain one; "cpu" and "cuda" the fast ones of these devices. Exported files have their own.

    Raises:
        ValueError: there is no such engine, or it does not run on this device.
    """
    asked = os.environ.get(VARIABLE, "auto") if engine == "auto" else engine
    if asked not in get_args(EngineName):
        raise ValueError(f"engine must be one of {get_args(EngineName)}, got {asked!r}")
    if isinstance(model, ExportedModel):
        return FileEngine(model, device, dtype)
    if asked in ("cpu", "cuda") and asked != device.type:
        if engine == "auto":  # the variable is for all models of a program, also those on other devices
            asked = "auto"
        else:
            raise ValueError(f'engine {asked!r} runs on device {asked!r}, got {device.type!r}; pass engine="auto"')
    if asked == "auto":
        asked = "cpu" if device.type == "cpu" else "torch"
    return ENGINES[asked](model, device, dtype)
