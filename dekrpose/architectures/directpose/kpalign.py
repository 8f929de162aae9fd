"""KPAlign: the features that predict a keypoint are read where the keypoint seems to be.

DirectPose paper, "Keypoint Alignment Module": the locator says, for each group of keypoints, about where they are; the
sampler's features are read there; the predictor makes the keypoints of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sample_aligned(features: Tensor, bases: Tensor, factor: int, *, exact: bool = False) -> Tensor:
    """Read every group's features where its base offset points, all groups at once.

    Args:
        features: (B, G * C, h', w') of the level that is read, zero outside.
        bases: (B, 2G, h, w) base offsets x0, y0, x1, ..., in cells of the level that asks.
        factor: s, cells of ``features`` per cell of the level that asks, along one side.
        exact: half a cell is (s - 1) / 2, as the cells' points lie; the published code takes s // 2.

    Returns:
        (B, G * C, h, w): the bilinear values at s * cell + s * base + half a cell.
    """
    batch, doubled, height, width = bases.shape
    groups, (source_height, source_width) = doubled // 2, features.shape[-2:]
    half = (factor - 1) / 2 if exact else factor // 2
    ys, xs = (torch.arange(count, device=bases.device, dtype=torch.float32) for count in (height, width))
    cells = torch.stack([xs.expand(height, width), ys.unsqueeze(1).expand(height, width)])
    offsets = bases.float().reshape(batch * groups, 2, height, width)
    places = (factor * (cells + offsets) + half).permute(0, 2, 3, 1)
    size = torch.stack([torch.full((), 1.0, device=bases.device) * side for side in (source_width, source_height)])
    grid = (2.0 * places + 1.0) / size - 1.0  # align_corners=False: -1 is the left edge of the first cell
    maps = features.float().reshape(batch * groups, -1, source_height, source_width)
    values = F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return values.reshape(batch, -1, height, width)


class GroupedLinear(nn.Module):
    """From each group's C features to the x and y of its keypoints: (B, G * C, h, w) -> (B, 2K, h, w), x0, y0, x1, ...

    Args:
        groups: the keypoints of each group.
        channels: C.
    """

    def __init__(self, groups: Sequence[Sequence[int]], channels: int) -> None:
        super().__init__()
        outputs, most = 2 * sum(map(len, groups)), max(map(len, groups))
        self.groups = len(groups)
        # each group has rows for as many keypoints as the largest one; unused ones are the row behind the last
        padded = [(*group, *[outputs] * (most - len(group))) for group in groups]
        self.rows = [
            min(2 * keypoint, outputs) + xy * (keypoint < outputs)
            for own in padded
            for keypoint in own
            for xy in (0, 1)
        ]
        self.order = [self.rows.index(output) for output in range(outputs)]
        self.weight = nn.Parameter(torch.empty(outputs, channels))
        self.bias = nn.Parameter(torch.empty(outputs))
        if not self.weight.is_meta:
            nn.init.normal_(self.weight, std=0.01)
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        rows = F.pad(self.weight, (0, 0, 0, 1))[self.rows].reshape(self.groups, -1, self.weight.shape[1])
        out = torch.matmul(rows, x.reshape(batch, self.groups, -1, height * width)).flatten(1, 2)
        return (out[:, self.order] + self.bias.unsqueeze(1)).reshape(batch, -1, height, width)
