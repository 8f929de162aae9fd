"""ResNet (He et al., CVPR 2016), with torchvision's names and its form: the 3x3 convolution has the stride."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from dekrpose.architectures.parts.backbone import Backbone
from dekrpose.architectures.parts.blocks import Bottleneck
from dekrpose.config import ResNetConfig

_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
_CHANNELS = (64, 128, 256, 512)


class ResNet(Backbone):
    """(B, 3, H, W) normalised RGB -> maps at strides 4, 8, 16, 32 with 256, 512, 1024, 2048 channels."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        width = _CHANNELS[0]
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        stages: list[nn.Sequential] = []
        for channels, count in zip(_CHANNELS, _BLOCKS[config.depth], strict=True):
            stride = 2 if stages else 1
            blocks = [Bottleneck(width, channels, stride)]
            width = Bottleneck.expansion * channels
            stages.append(nn.Sequential(*blocks, *(Bottleneck(width, channels) for _ in range(count - 1))))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.map_channels = [Bottleneck.expansion * channels for channels in _CHANNELS]

    def forward(self, images: Tensor) -> list[Tensor]:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(images)), inplace=True), 3, stride=2, padding=1)
        maps = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            maps.append(x)
        return maps

    def pretrained(self) -> list[nn.Module]:
        """What ImageNet's weights fill: all of it."""
        return [self]

    def early_layers(self) -> list[nn.Module]:
        """What a short training leaves as it is: the stem and the first stage."""
        return [self.conv1, self.bn1, self.layer1]
