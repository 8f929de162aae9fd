"""What an engine is: a way of running a network, from photos to poses in input pixels.

An estimator chooses one when it is made (``engines.choose_engine``). A new runtime is one file beside this one, with a
subclass of ``Engine``, and one entry in ``engines.ENGINES``.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from dekrpose.architectures.contract import Architecture, Found, Maps, architecture_of
from dekrpose.config import ModelConfig
from dekrpose.images import Geometry, Pixels, network_input
from dekrpose.options import Options

Photos = Sequence[Pixels]
"""(H, W, 3) uint8 RGB each."""
Looks = Sequence[Sequence[Geometry]]
"""Of each photo, one per scale of the options."""
Answer = tuple[list[Found], dict[str, float]]
"""Who is in each photo, and milliseconds by stage."""


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
    def find(self, photos: Photos, geometries: Looks, options: Options, memory: Memory | None = None) -> Answer:
        """Find everyone in photos whose input sizes are equal.

        Args:
            photos: of any sizes.
            geometries: of each photo.
            options: what was asked for.
            memory: of the stream whose next frames the photos are.

        Returns:
            Who is where, perhaps more than ``max_people``; and the milliseconds of the stages "resize", "network" and
            "decode".
        """

    def check(self, options: Options) -> None:
        """Refuse what this engine, or the network's architecture, cannot do.

        Raises:
            ValueError: an option that it cannot serve.
        """
        self.architecture.check(options)

    def input(self, photos: Photos, geometries: Sequence[Geometry]) -> Tensor:
        """The network's input (B, 3, h, w) on its device, from photos and the geometry of each at one scale."""
        return network_input(photos, geometries, self.config.mean, self.config.std).to(self.device)

    def autocast(self) -> torch.autocast:
        """A context in which the network runs in ``dtype``."""
        half = torch.bfloat16 if self.dtype == torch.float32 else self.dtype
        return torch.autocast(self.device.type, dtype=half, enabled=self.dtype != torch.float32)


@dataclass
class Stages:
    """Milliseconds of each stage so far."""

    milliseconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time of a block to a stage."""
        self.milliseconds.setdefault(stage, 0.0)  # in the order in which they begin
        start = time.perf_counter()
        yield
        self.milliseconds[stage] += 1000 * (time.perf_counter() - start)
