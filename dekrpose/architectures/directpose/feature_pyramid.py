"""Feature pyramids (Lin et al., CVPR 2017, arXiv 1612.03144), as FCOS has them, behind any backbone."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from dekrpose.architectures.parts.blocks import conv_bn

_OF_BACKBONE = 4
"""Maps that a pyramid starts from: strides 4, which it does not use itself, 8, 16 and 32."""


class FeaturePyramid(nn.Module):
    """Maps of a backbone, the first at stride 4 -> maps at strides 8, 16, ...

    Maps that a backbone lacks are made of its last one by strided convolutions.

    Args:
        map_channels: of the backbone's maps.
        channels: of the pyramid's.
        levels: how many, at least 3; those after stride 32 are strided convolutions of the one before.
    """

    def __init__(self, map_channels: list[int], channels: int, levels: int = 5) -> None:
        super().__init__()
        widths = map_channels[:_OF_BACKBONE]
        missing = _OF_BACKBONE - len(widths)
        self.reductions = nn.ModuleList(
            conv_bn(widths[-1] if index == 0 else channels, channels, 3, stride=2) for index in range(missing)
        )
        widths = [*widths, *([channels] * missing)]
        self.laterals = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in widths[1:])
        self.outputs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in widths[1:])
        coarser = levels - len(widths) + 1
        self.coarser = nn.ModuleList(nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in range(coarser))
        for module in (*self.laterals, *self.outputs, *self.coarser):
            assert isinstance(module, nn.Conv2d)
            assert module.bias is not None
            if not module.weight.is_meta:
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        maps = maps[:_OF_BACKBONE]
        for reduction in self.reductions:
            maps = [*maps, reduction(maps[-1])]
        merged: Tensor | None = None
        levels: list[Tensor] = []
        for own, lateral, output in zip(maps[:0:-1], self.laterals[::-1], self.outputs[::-1], strict=True):
            x = lateral(own)
            merged = x if merged is None else x + F.interpolate(merged, size=x.shape[-2:], mode="nearest")
            levels.insert(0, output(merged))
        for index, conv in enumerate(self.coarser):
            levels.append(conv(F.relu(levels[-1]) if index else levels[-1]))
        return levels
