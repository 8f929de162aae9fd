"""EfficientNet-Lite0 with a top-down path to stride 4: a backbone for phones and small data sets.

EfficientNet (Tan and Le, ICML 2019, arXiv 1905.11946); its Lite form has ReLU6 and no squeeze-and-excitation. The
top-down path follows feature pyramids (Lin et al., CVPR 2017, arXiv 1612.03144).
"""

from __future__ import annotations

from functools import partial
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from dekrpose.architectures.parts.backbone import Backbone, top_down
from dekrpose.architectures.parts.blocks import conv_bn
from dekrpose.config import EfficientNetLiteConfig

_STEM = 32
_STAGES = ((1, 16, 3, 1), (2, 24, 3, 2), (2, 40, 5, 2), (3, 80, 3, 2), (3, 112, 5, 1), (3, 192, 5, 2))
"""Blocks, channels, kernel size and stride of each stage. Lite0 has a fourth block of 192 channels and one of 320."""
_LEVELS = {2: 24, 4: 40, 10: 112, 13: 192}
"""Blocks after which a map leaves for the top-down path, at strides 4, 8, 16, 32, and its channels."""
_EXPANSION = 6
_conv_bn = partial(conv_bn, activation=nn.ReLU6, eps=1e-3)


class InvertedBottleneck(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection, and a shortcut where the shape stays."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.expand = _conv_bn(in_channels, inner, 1) if expansion > 1 else nn.Identity()
        self.depthwise = _conv_bn(inner, inner, kernel_size, stride, groups=inner)
        self.project = _conv_bn(inner, out_channels, 1, relu=False)
        self.stride = stride
        self.shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        inner = cast(Tensor, self.expand(x))
        thinned = self.training and self.stride > 1 and not x.is_cuda
        inner = self._thinned(inner) if thinned else self.depthwise(inner)
        out = cast(Tensor, self.project(inner))
        return out.add_(x) if self.shortcut else out

    def _thinned(self, x: Tensor) -> Tensor:
        """The strided convolution as every second pixel of one without stride: its gradient is far faster on CPUs."""
        conv = cast(nn.Conv2d, self.depthwise[0])
        out = F.conv2d(x, conv.weight, padding=conv.kernel_size[0] // 2, groups=conv.groups)
        return cast(Tensor, self.depthwise[1:](out[:, :, :: self.stride, :: self.stride]))


class EfficientNetLite(Backbone):
    """(B, 3, H, W) normalised RGB -> one map at stride 4, (B, channels, H/4, W/4). H and W: multiples of 32."""

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__()
        self.stem = _conv_bn(3, _STEM, 3, stride=2)
        blocks, channels = [], _STEM
        for stage, (count, width, kernel_size, stride) in enumerate(_STAGES):
            for index in range(count):
                step, expansion = (stride if index == 0 else 1), (_EXPANSION if stage else 1)
                blocks.append(InvertedBottleneck(channels, width, kernel_size, step, expansion))
                channels = width
        self.blocks = nn.ModuleList(blocks)
        self.laterals = nn.ModuleList(_conv_bn(width, config.channels, 1, relu=False) for width in _LEVELS.values())
        self.merges = nn.ModuleList(
            InvertedBottleneck(config.channels, config.channels, 3, 1, config.expansion) for _ in _LEVELS
        )
        self.map_channels = [config.channels]

    def forward(self, images: Tensor) -> list[Tensor]:
        x, levels = self.stem(images), []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in _LEVELS:
                levels.append(x)
        return [top_down(levels, self.laterals, self.merges)]

    def pretrained(self) -> list[nn.Module]:
        """What ImageNet's weights fill: all but the top-down path."""
        return [self.stem, self.blocks]

    def early_layers(self) -> list[nn.Module]:
        """What a short training leaves as it is: the layers before stride 4, and the 5x5 depthwise kernels.

        The kernels' gradients take a CPU as long as all others together.
        """
        kernels = [
            module for module in self.modules() if isinstance(module, nn.Conv2d) and module.kernel_size == (5, 5)
        ]
        return [self.stem, *self.blocks[:2], *kernels]
