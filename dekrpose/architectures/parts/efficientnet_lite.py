"""EfficientNet-Lite0 with a top-down path to stride 4: a backbone for phones and small data sets.

EfficientNet (Tan and Le, ICML 2019, arXiv 1905.11946); its Lite form has ReLU6 and no squeeze-and-excitation. The
top-down path follows feature pyramids (Lin et al., CVPR 2017, arXiv 1612.03144).
"""

from __future__ import annotations

from torch import Tensor, nn

from dekrpose.architectures.parts.backbone import Backbone
from dekrpose.architectures.parts.blocks import InvertedBottleneck, conv_bn6, top_down
from dekrpose.config import EfficientNetLiteConfig

_STEM = 32
_STAGES = ((1, 16, 3, 1), (2, 24, 3, 2), (2, 40, 5, 2), (3, 80, 3, 2), (3, 112, 5, 1), (3, 192, 5, 2))
"""Blocks, channels, kernel size and stride of each stage. Lite0 has a fourth block of 192 channels and one of 320."""
_LEVELS = {2: 24, 4: 40, 10: 112, 13: 192}
"""Blocks after which a map leaves for the top-down path, at strides 4, 8, 16, 32, and its channels."""
_EXPANSION = 6


class EfficientNetLite(Backbone):
    """(B, 3, H, W) normalised RGB -> one map at stride 4, (B, channels, H/4, W/4). H and W: multiples of 32."""

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__()
        self.stem = conv_bn6(3, _STEM, 3, stride=2)
        blocks, channels = [], _STEM
        for stage, (count, width, kernel_size, stride) in enumerate(_STAGES):
            for index in range(count):
                step, expansion = (stride if index == 0 else 1), (_EXPANSION if stage else 1)
                blocks.append(InvertedBottleneck(channels, width, kernel_size, step, expansion))
                channels = width
        self.blocks = nn.ModuleList(blocks)
        self.laterals = nn.ModuleList(conv_bn6(width, config.channels, 1, relu=False) for width in _LEVELS.values())
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
