"""HRNet, the backbone that keeps a stride-4 branch from the first layer to the last (Sun et al., CVPR 2019)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from dekrpose.architectures.parts.backbone import Backbone
from dekrpose.architectures.parts.blocks import BasicBlock, Bottleneck, conv_bn
from dekrpose.config import BackboneConfig


def _fuse_down(source: list[int], finer: int, coarser: int) -> nn.Sequential:
    """Strided 3x3 convolutions from a finer branch to a coarser one; only the last changes the width."""
    steps = coarser - finer
    layers = [conv_bn(source[finer], source[finer], 3, stride=2) for _ in range(steps - 1)]
    return nn.Sequential(*layers, conv_bn(source[finer], source[coarser], 3, stride=2, relu=False))


class HRModule(nn.Module):
    """Parallel branches of basic blocks, then every branch receives the sum of all.

    Args:
        channels: width of each branch, finest first.
        blocks: basic blocks per branch.
    """

    def __init__(self, channels: list[int], blocks: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*(BasicBlock(width) for _ in range(blocks))) for width in channels)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self._fuse_layer(channels, target, source) for source in range(len(channels)))
            for target in range(len(channels))
        )

    @staticmethod
    def _fuse_layer(channels: list[int], target: int, source: int) -> nn.Module:
        if source == target:
            return nn.Identity()
        if source < target:
            return _fuse_down(channels, source, target)
        return conv_bn(channels[source], channels[target], 1, relu=False)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        return [self._fuse(layers, target, maps) for target, layers in enumerate(self.fuse_layers)]

    @staticmethod
    def _fuse(layers: nn.Module, target: int, maps: list[Tensor]) -> Tensor:
        height, width = maps[target].shape[-2:]
        total: Tensor | None = None
        for source, layer in enumerate(layers.children()):
            part = layer(maps[source])
            if source > target:
                part = F.interpolate(part, size=(height, width), mode="nearest")
            # the first part may be a map that others need, the sum of two is nobody else's
            total = part if total is None else total + part if source == 1 else total.add_(part)
        assert total is not None
        return F.relu(total, inplace=True)


class HRNet(Backbone):
    """(B, 3, H, W) normalised RGB -> four maps at strides 4, 8, 16, 32 with C, 2C, 4C, 8C channels.

    H and W must be multiples of 32.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        stem, inner = config.stem_channels, config.layer1_channels
        self.conv1 = nn.Conv2d(3, stem, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(stem, stem, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(stem)
        self.relu2 = nn.ReLU(inplace=True)
        expanded = inner * Bottleneck.expansion
        self.layer1 = nn.Sequential(
            *(Bottleneck(stem if index == 0 else expanded, inner) for index in range(config.layer1_blocks))
        )
        channels = [config.width * 2**level for level in range(4)]
        self.transition1 = self._transition([expanded], channels[:2])
        self.transition2 = self._transition(channels[:2], channels[:3])
        self.transition3 = self._transition(channels[:3], channels)
        self.stage2, self.stage3, self.stage4 = (
            nn.ModuleList(HRModule(channels[: index + 2], config.blocks) for _ in range(modules))
            for index, modules in enumerate(config.modules)
        )
        self.map_channels = channels

    @staticmethod
    def _transition(before: list[int], after: list[int]) -> nn.ModuleList:
        """Adapt existing branches to their new width and make the new, coarser branch from the last one."""
        layers: list[nn.Module] = []
        for level, width in enumerate(after):
            if level >= len(before):
                layers.append(nn.Sequential(conv_bn(before[-1], width, 3, stride=2)))
            elif before[level] != width:
                layers.append(conv_bn(before[level], width, 3))
            else:
                layers.append(nn.Identity())
        return nn.ModuleList(layers)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.relu1(self.bn1(self.conv1(images)))
        x = self.relu2(self.bn2(self.conv2(x)))
        maps = [self.layer1(x)]
        for transition, stage in (
            (self.transition1, self.stage2),
            (self.transition2, self.stage3),
            (self.transition3, self.stage4),
        ):
            maps = [layer(maps[min(level, len(maps) - 1)]) for level, layer in enumerate(transition)]
            for module in stage:
                maps = module(maps)
        return maps

    def pretrained(self) -> list[nn.Module]:
        """What ImageNet's weights fill: all of it."""
        return [self]

    def early_layers(self) -> list[nn.Module]:
        """What a short training leaves as it is: the layers before the branches part."""
        return [self.conv1, self.bn1, self.conv2, self.bn2, self.layer1]
