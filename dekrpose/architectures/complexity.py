"""How large a network is and what one forward pass costs, without running it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dekrpose.architectures.contract import ARCHITECTURES, architecture_of, build, named
from dekrpose.config import ARCHITECTURES as CONFIGS
from dekrpose.config import ModelConfig


@dataclass(frozen=True)
class Complexity:
    """Size and cost of a network.

    Attributes:
        name: architecture or variant.
        input_size: side of the square input, pixels.
        parameters: trainable numbers.
        gmacs: multiply-accumulates of one image, in 10^9. Convolutions and linear layers count, an adaptive
            convolution as a plain 3x3 one; its sampling does not (that is how the paper counts).
    """

    name: str
    input_size: int
    parameters: int
    gmacs: float


def variants() -> dict[str, ModelConfig]:
    """All networks that have a name, and the variants that their architectures add."""
    found = dict(CONFIGS)
    for name in ARCHITECTURES:
        found |= named(name).variants()
    return found


def complexity(config: ModelConfig) -> Complexity:
    """Count a network's parameters and multiply-accumulates at its own input size."""
    with torch.device("meta"):
        parameters = sum(value.numel() for value in build(config).parameters())
    macs = architecture_of(config).gmacs_by_part(config)
    return Complexity(config.name, config.input_size, parameters, sum(macs.values()))
