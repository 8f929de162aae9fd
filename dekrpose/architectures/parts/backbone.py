"""What a backbone is, and how its maps are joined.

A new one is a module beside this file with a subclass of ``Backbone``, its configuration in ``config.py``, and an entry
for the two in ``BACKBONES`` of this package.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Backbone(nn.Module):
    """(B, 3, H, W) normalised RGB -> maps from fine to coarse, the first at stride 4.

    H and W are multiples of its configuration's ``size_multiple``.

    Attributes:
        map_channels: channels of each map.
    """

    map_channels: list[int]

    @property
    def out_channels(self) -> int:
        """Of all maps together."""
        return sum(self.map_channels)

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]:
        """The maps."""

    @abstractmethod
    def early_layers(self) -> list[nn.Module]:
        """What a short training leaves as it is: layers that cost much time and know little of poses."""

    @abstractmethod
    def pretrained(self) -> list[nn.Module]:
        """What published weights fill."""

    def reset_parameters(self) -> None:
        """Give layers without batch norm weights that keep the size of what passes through."""


def concatenate(maps: list[Tensor]) -> Tensor:
    """Join the maps at stride 4: (B, C1 + C2 + ..., h, w), coarser ones upsampled bilinearly."""
    if len(maps) == 1:
        return maps[0]
    size = maps[0].shape[-2:]
    return torch.cat(
        [maps[0], *(F.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in maps[1:])], dim=1
    )


def top_down(levels: Sequence[Tensor], laterals: nn.ModuleList, merges: nn.ModuleList) -> Tensor:
    """Maps from fine to coarse, joined from the coarsest on, each by its lateral and its merge."""
    merged: Tensor | None = None
    for level, lateral, merge in zip(levels[::-1], laterals[::-1], merges[::-1], strict=True):
        x = lateral(level)
        if merged is not None:
            x = x + F.interpolate(merged, size=x.shape[-2:], mode="nearest")
        merged = merge(x)
    assert merged is not None
    return merged
