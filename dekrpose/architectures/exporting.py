"""What exported files ask of an architecture: a graph from pictures to people, and how it is compared with torch."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from dekrpose.architectures.contract import ARCHITECTURES, Network
from dekrpose.architectures.parts.poses import OKSScoreNet
from dekrpose.config import ModelConfig

Offsets = Literal["map", "people"]
"""Where an exported file computes offsets: at every pixel, or at the centers that it finds."""
Sampling = Literal["deform_conv", "grid_sample"]
"""How values between pixels are read: by ONNX's DeformConv, all branches in one node, or by grid sampling."""
Found = tuple[Tensor, Tensor, Tensor]
"""Keypoints (B, N, K, 2) input pixels, their scores (B, N, K), scores (B, N), 0 for nobody; the last three outputs."""


class Exporting(Protocol):
    """The module ``exporting`` of an architecture."""

    SAMPLINGS: tuple[Sampling, ...]
    """What can be written."""
    HALVES: bool
    """Whether OpenVINO may run what the first output needs in half precision, and the rest of the second in float32."""

    def outputs(self, config: ModelConfig, offsets: Offsets) -> tuple[str, ...]:
        """What files answer, in this order; the last three are the people.

        Raises:
            ValueError: such files cannot be written.
        """

    def least_side(self, config: ModelConfig) -> int:
        """Pixels that pictures have at least; torch.export fixes dimensions that may be 1."""

    def graph(
        self, network: Network, rescoring_net: OKSScoreNet | None, max_people: int, sampling: Sampling, offsets: Offsets
    ) -> nn.Module:
        """Pictures (B, 3, H, W) uint8 RGB -> ``outputs``; the network's weights are copied."""

    def differences(
        self,
        network: Network,
        graph: nn.Module,
        answer: tuple[Tensor, ...],
        pictures: NDArray[np.uint8],
        offsets: Offsets,
    ) -> tuple[float, float, Found]:
        """A file's answer beside torch's.

        Returns:
            The largest difference of a keypoint, input pixels; that of other values; and the people whom torch reads
            from the file's own other outputs.
        """

    def file_candidates(self, answer: tuple[Tensor, ...]) -> Any:
        """What ``Architecture.chosen`` reads, from a file that finds people by itself."""


def exporting_of(config: ModelConfig) -> Exporting:
    """How networks of a configuration are exported."""
    return cast(Exporting, import_module(f"{ARCHITECTURES[config.architecture]}.exporting"))
