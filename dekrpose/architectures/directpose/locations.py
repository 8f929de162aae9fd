"""Where people are predicted: the cells of all levels, and the points of the input that they stand for."""

from __future__ import annotations

import torch
from torch import Tensor

FIRST_STRIDE = 8
"""Input pixels per cell of the finest level; each next level has twice as many."""


def strides(levels: int) -> tuple[int, ...]:
    """Input pixels per cell, finest level first."""
    return tuple(FIRST_STRIDE << level for level in range(levels))


def map_sizes(height: int, width: int, levels: int) -> list[tuple[int, int]]:
    """(h, w) of each level's maps for an input of height x width pixels, which are multiples of 32."""
    return [(-(-height // stride), -(-width // stride)) for stride in strides(levels)]


def locations(height: int, width: int, stride: int, device: torch.device | None = None) -> Tensor:
    """(height * width, 2) xy, input pixels, of a level's cells, row by row: cell (i, j) is at S * (j, i) + S // 2."""
    ys, xs = (
        torch.arange(count, device=device, dtype=torch.float32) * stride + stride // 2 for count in (height, width)
    )
    return torch.stack([xs.expand(height, width), ys.unsqueeze(1).expand(height, width)], dim=-1).reshape(-1, 2)
