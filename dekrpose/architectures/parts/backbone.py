"""What a backbone is.

A new one is a module beside this file with a subclass of ``Backbone``, its configuration in ``config.py``, and an entry
for the two in ``BACKBONES`` of this package.
"""

from __future__ import annotations

from abc import abstractmethod

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
