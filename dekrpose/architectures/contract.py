"""What an architecture is: all that the engines ask of a way of finding people.

A new one is a package beside this file with the functions of ``Architecture``, and an entry in ``ARCHITECTURES``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, cast

from torch import Tensor, nn

from dekrpose.config import ModelConfig
from dekrpose.options import Options

Maps = tuple[Tensor, ...]
"""What a network answers, each (B, channels, h, w); what they mean is the architecture's own affair."""
Stage = Callable[[str], AbstractContextManager[None]]
"""A block of code whose time counts as that of a stage."""


@dataclass(frozen=True, eq=False)
class Found:
    """Who is in a photo, everyone in the official order.

    Args:
        keypoints: (N, K, 2) xy, input pixels of scale 1, never clipped; N may be 0.
        keypoint_scores: (N, K), as they come: they can be slightly negative.
        scores: (N,), as they come.
    """

    keypoints: Tensor
    keypoint_scores: Tensor
    scores: Tensor


class Architecture(Protocol):
    """A package with these functions."""

    def build(self, config: ModelConfig) -> nn.Module:
        """The network that a configuration describes, with fresh weights: normalised (B, 3, H, W) -> ``Maps``."""

    def hasten(self, network: nn.Module) -> None:
        """Let a network take from now on, on CPUs and without gradients, whatever is faster and gives the same."""

    def mirrored(self, images: Tensor) -> Tensor:
        """A batch as the network shall see it mirrored."""

    def seen(self, maps: Maps, mirrored: Maps | None, config: ModelConfig) -> Maps:
        """A network's answer in the form that ``poses`` reads, averaged with that for the mirrored images."""

    def poses(self, seen: Sequence[Maps], config: ModelConfig, options: Options) -> Found:
        """Who is in one photo, from what is ``seen`` of it (without a batch dimension) at each of the scales."""

    def gives_candidates(self, network: Callable[..., Any]) -> bool:
        """Whether a network can be asked for ``candidates``, which is faster than for all of its maps."""

    def candidates(self, network: Callable[..., Any], images: Tensor, options: Options, stage: Stage) -> Any:
        """Who can be in each photo of a batch, at one scale; what is not the network's is in the stage "decode"."""

    def chosen(self, candidates: Any, config: ModelConfig, options: Options) -> list[Found]:
        """Who is in each photo, from ``candidates``."""

    def packed(self, seen: Sequence[Maps], options: Options) -> tuple[Any, Tensor]:
        """All that the CPU needs to know of a batch, (B, n) on its device without waiting for it, and its layout."""

    def unpacked(self, row: Tensor, layout: Any, config: ModelConfig, options: Options) -> Found:
        """Who is in one photo, from its row of what was ``packed``."""


ARCHITECTURES = {"dekr": "dekrpose.architectures.dekr"}
"""The package of each."""


def architecture_of(config: ModelConfig) -> Architecture:
    """The architecture that a configuration names."""
    return cast(Architecture, import_module(ARCHITECTURES[config.architecture]))
