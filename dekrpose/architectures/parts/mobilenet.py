"""MobileNetV2 with MoveNet's feature pyramid to stride 4, and a top-down path of the network's own beside it.

MobileNetV2 (Sandler et al., CVPR 2018, arXiv 1801.04381). The pyramid is that of Google's MoveNet, whose published
weights fit it: batch norm is folded into biases there, so there is none here.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dekrpose.architectures.parts.backbone import Backbone
from dekrpose.architectures.parts.blocks import InvertedBottleneck, SameConv, conv_bn, top_down
from dekrpose.config import MobileNetConfig

_STEM, _TOP = 32, 1280
_STAGES = ((1, 16, 1), (2, 24, 2), (3, 32, 2), (4, 64, 2), (3, 96, 1), (3, 160, 2), (1, 320, 1))
"""Blocks, channels at width 1 and stride of each stage."""
_EXPANSION = 6
_PYRAMID_BLOCKS = (2, 5, 9)
"""Blocks after which maps leave for the pyramid, at strides 4, 8, 16; the one at stride 32 comes from the top."""
_PATH_BLOCKS = (2, 5, 12, 16)
"""Blocks after which maps leave for the network's own path, at strides 4, 8, 16, 32."""
_LATERALS = (24, 32, 64, 64)
"""Channels of the pyramid's maps at strides 4, 8, 16, 32."""
PYRAMID_CHANNELS = 24
"""Of the pyramid's result, the maps that MoveNet's heads read."""


def scaled(channels: int, width: float) -> int:
    """Channels at another width: the nearest multiple of 8, never less than nine tenths of what was asked for."""
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise 3x3 convolution, linear 1x1 projection, and a shortcut where the shape stays."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.expand = nn.Conv2d(in_channels, inner, 1) if expansion > 1 else nn.Identity()
        self.relu1 = nn.ReLU6(inplace=True) if expansion > 1 else nn.Identity()
        self.depthwise = SameConv(inner, inner, stride, groups=inner)
        self.relu2 = nn.ReLU6()
        self.project = nn.Conv2d(inner, out_channels, 1)
        self.shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        out = cast(Tensor, self.project(self.relu2(self.depthwise(self.relu1(self.expand(x))))))
        return out.add_(x) if self.shortcut else out


class Pyramid(nn.Module):
    """MoveNet's top-down path: maps at strides 4, 8, 16, 32 -> (B, 24, H/4, W/4), which are never negative.

    Args:
        channels: of the four maps.
    """

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(
            nn.Conv2d(own, lateral, 1) for own, lateral in zip(channels, _LATERALS, strict=True)
        )
        self.depthwise = nn.ModuleList(
            nn.Conv2d(lateral, lateral, 3, padding=1, groups=lateral, bias=False) for lateral in _LATERALS[:-1]
        )
        self.pointwise = nn.ModuleList(
            nn.Conv2d(own, out, 1) for own, out in zip(_LATERALS[:-1], (PYRAMID_CHANNELS, *_LATERALS[:-2]), strict=True)
        )

    def forward(self, levels: list[Tensor]) -> Tensor:
        x = cast(Tensor, self.laterals[-1](levels[-1]))
        for level in (2, 1, 0):
            x = F.interpolate(x, size=levels[level].shape[-2:], mode="bilinear", align_corners=False)
            x = self.depthwise[level](self.laterals[level](levels[level]).add_(x))
            x = F.relu(self.pointwise[level](x), inplace=True)
        return x


class MobileNet(Backbone):
    """(B, 3, H, W) normalised RGB -> one map at stride 4: the pyramid's 24 channels, then the path's own.

    H and W must be multiples of 32.
    """

    def __init__(self, config: MobileNetConfig) -> None:
        super().__init__()
        channels = scaled(_STEM, config.width)
        self.stem, self.stem_relu = SameConv(3, channels, 2), nn.ReLU6(inplace=True)
        blocks: list[InvertedResidual] = []
        widths: list[int] = []
        for stage, (count, base, stride) in enumerate(_STAGES):
            for index in range(count):
                width, step = scaled(base, config.width), stride if index == 0 else 1
                blocks.append(InvertedResidual(channels, width, step, _EXPANSION if stage else 1))
                widths.append(width)
                channels = width
        self.blocks = nn.ModuleList(blocks)
        self.top, self.top_relu = nn.Conv2d(channels, _TOP, 1), nn.ReLU6(inplace=True)
        self.pyramid = Pyramid([*(widths[block] for block in _PYRAMID_BLOCKS), _TOP])
        self.laterals, self.merges = nn.ModuleList(), nn.ModuleList()
        if config.channels:
            own = config.channels
            self.laterals.extend(conv_bn(widths[block], own, 1, relu=False) for block in _PATH_BLOCKS)
            self.merges.extend(InvertedBottleneck(own, own, 3, 1, config.expansion) for _ in _PATH_BLOCKS)
        self.map_channels = [PYRAMID_CHANNELS + config.channels]

    def reset_parameters(self) -> None:
        """Weights that keep the size of what passes through, where no batch norm does."""
        for module in (self.stem, *self.blocks.modules(), self.top, *self.pyramid.modules()):
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, images: Tensor) -> list[Tensor]:
        x, levels = self.stem_relu(self.stem(images)), {}
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in (*_PYRAMID_BLOCKS, *_PATH_BLOCKS):
                levels[index] = x
        top = self.top_relu(self.top(x))
        maps = self.pyramid([*(levels[block] for block in _PYRAMID_BLOCKS), top])
        if not self.merges:
            return [maps]
        own = top_down([levels[block] for block in _PATH_BLOCKS], self.laterals, self.merges)
        return [torch.cat([maps, own], dim=1)]

    def early_layers(self) -> list[nn.Module]:
        """What a short training leaves as it is: the layers up to stride 4, which cost half of its time."""
        return [self.stem, *self.blocks[:3]]

    def pretrained(self) -> list[nn.Module]:
        """All but the network's own path: what published weights of MoveNet fill."""
        return [self.stem, self.blocks, self.top, self.pyramid]
