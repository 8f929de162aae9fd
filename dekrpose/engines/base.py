"""What an engine is: a way of running a network, from photos to poses in input pixels.

An estimator chooses one when it is made (``engines.choose_engine``). A new runtime is one file beside this one, with a
subclass of ``Engine``, and one entry in ``engines.ENGINES``.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from dekrpose.architectures.contract import Architecture, Found, Maps, architecture_of
from dekrpose.config import ModelConfig
from dekrpose.images import Geometry, Pixels
from dekrpose.options import Options


class Memory(Protocol):
    """What is remembered of a stream's earlier frames."""

    def at(self, scale: float) -> Callable[[Tensor], Maps]:
        """What runs in the network's place at a scale."""


class Engine(ABC):
    """Runs a network.

    Args:
        model: the network; its ``config`` says what its input is like and how its answer is read.
        device: where it runs.
        dtype: of backbone and heatmap head; positions are always computed in float32.
    """

    name: str

    def __init__(self, model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        self.model, self.device, self.dtype = model, device, dtype
        self.config = cast(ModelConfig, model.config)
        self.architecture: Architecture = architecture_of(self.config)

    @abstractmethod
    def find(
        self,
        photos: Sequence[Pixels],
        geometries: Sequence[Sequence[Geometry]],
        options: Options,
        memory: Memory | None = None,
    ) -> tuple[list[Found], dict[str, float]]:
        """Find everyone in photos whose input sizes are equal.

        Args:
            photos: (H, W, 3) uint8 RGB each, of any sizes.
            geometries: of each photo, one per scale of the options.
            options: what was asked for.
            memory: of the stream whose next frames the photos are.

        Returns:
            Who is in each photo, and the milliseconds of the stages "resize", "network" and "decode".
        """

    def check(self, options: Options) -> None:
        """Refuse what this engine, or the network's architecture, cannot do.

        Raises:
            ValueError: an option that it cannot serve.
        """
        self.architecture.check(options)

    def autocast(self) -> torch.autocast:
        """A context in which the network runs in ``dtype``."""
        half = torch.bfloat16 if self.dtype == torch.float32 else self.dtype
        return torch.autocast(self.device.type, dtype=half, enabled=self.dtype != torch.float32)


class Stages:
    """Milliseconds by stage.

    Attributes:
        milliseconds: of each stage so far.
    """

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time of a block to a stage."""
        self.milliseconds.setdefault(stage, 0.0)  # in the order in which they begin
        start = time.perf_counter()
        yield
        self.milliseconds[stage] += 1000 * (time.perf_counter() - start)
