"""The form of MoveNet's heads: a depthwise 3x3 and a 1x1 convolution without batch norm, ReLU, a linear 1x1 one."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dekrpose.architectures.dekr.adaptive_conv import neighbourhoods

_PRIOR = 0.01
"""What fresh heads say everywhere: from a half on, hundreds of steps would do nothing but empty the background."""


class SeparableConv(nn.Module):
    """A depthwise 3x3 convolution, a 1x1 convolution and ReLU: (B, C, h, w) -> (B, channels, h, w)."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
        self.pointwise = nn.Conv2d(in_channels, channels, 1)

    def reset_parameters(self) -> None:
        """Weights that keep the size of what passes through."""
        nn.init.normal_(self.depthwise.weight, std=1 / 3)
        nn.init.kaiming_normal_(self.pointwise.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.pointwise(self.depthwise(x)), inplace=True)

    def at(self, x: Tensor, pixels: Tensor) -> Tensor:
        """The same at (B, P, 2) integer xy pixels only: (B, channels, P)."""
        weight = self.depthwise.weight.flatten(1).t()
        mixed = (neighbourhoods(x, pixels) * weight).sum(1)
        out = F.relu(F.linear(mixed, self.pointwise.weight.flatten(1), self.pointwise.bias))
        return out.reshape(*pixels.shape[:2], -1).transpose(1, 2)


class SeparableHeatmapHead(nn.Module):
    """(B, C, h, w) features -> (B, K+1, h, w) heatmaps from 0 to 1; the last channel holds the centers.

    Keypoints and centers have a separable convolution each.
    """

    def __init__(self, in_channels: int, keypoints: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.keypoints = SeparableConv(in_channels, channels)
        self.centers = SeparableConv(in_channels, channels)
        self.final = nn.Conv2d(channels, keypoints, 1)
        self.final_center = nn.Conv2d(channels, 1, 1)

    def reset_parameters(self) -> None:
        """Next to nothing everywhere."""
        for last in (self.final, self.final_center):
            assert last.bias is not None
            nn.init.constant_(last.bias, math.log(_PRIOR / (1 - _PRIOR)))

    def forward(self, features: Tensor) -> Tensor:
        return self.from_transition(self.transition(features))

    def transition(self, features: Tensor) -> Tensor:
        """(B, 2 * channels, h, w): what the keypoints' maps are read from, then what the centers' are."""
        return torch.cat([self.keypoints(features), self.centers(features)], dim=1)

    def from_transition(self, maps: Tensor) -> Tensor:
        """``forward`` from the transition's maps on."""
        return torch.sigmoid(self.logits(maps))

    def logits(self, maps: Tensor) -> Tensor:
        """``from_transition`` before the sigmoid."""
        keypoints, centers = torch.split(maps, self.channels, dim=1)
        return torch.cat([self.final(keypoints), self.final_center(centers)], dim=1)
