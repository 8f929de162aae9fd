"""The heads' first convolution, straight from the backbone's maps: their joined, upsampled map is never made."""

from __future__ import annotations

from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

BAND_BYTES = 2 * 2**20
"""Of the result, what is computed at once: it stays in the processor's nearest caches."""


class UpsampledConv:
    """A 1x1 convolution and ReLU of maps that ``concatenate`` would join at the size of the first.

    Both upsampling and a 1x1 convolution are linear, so each map is convolved at its own size, and the results are
    upsampled and added by matrix products: first the rows of each, then the columns of all at once.

    Args:
        weight: (O, C1 + C2 + ..., 1, 1), batch norm folded in.
        bias: (O,).
        widths: C1, C2, ...
    """

    def __init__(self, weight: Tensor, bias: Tensor, widths: list[int]) -> None:
        ends = list(accumulate(widths, initial=0))
        own, *others = (weight[:, start:end] for start, end in pairwise(ends))
        self.matrix = own.flatten(1).t().contiguous()
        self.weights = [other.contiguous(memory_format=torch.channels_last) for other in others]
        self.bias = bias

    def __call__(self, maps: list[Tensor], out: Tensor) -> None:
        """From float32 maps (B, C1, h, w), (B, C2, h2, w2), ... to ``out``, (B, h, w, O)."""
        _, height, width, channels = out.shape
        smaller = [F.conv2d(x, weight) for x, weight in zip(maps[1:], self.weights, strict=True)]
        tall = [upsampling(x.shape[2], height) for x in smaller]
        wide = torch.cat([upsampling(x.shape[3], width) for x in smaller], dim=1) if smaller else None
        rows = max(1, BAND_BYTES // (4 * width * channels))
        for index, (finest, answer) in enumerate(zip(maps[0], out, strict=True)):
            pixels = finest.permute(1, 2, 0)  # a product of matrices is faster than a 1x1 convolution
            flat = [x[index].permute(1, 2, 0).flatten(1) for x in smaller]
            for top in range(0, height, rows):
                band = slice(top, top + rows)
                total = torch.addmm(self.bias, pixels[band].flatten(0, 1), self.matrix).reshape(-1, width, channels)
                if wide is not None:
                    total.baddbmm_(wide.expand(len(total), -1, -1), _columns(tall, flat, band, channels))
                torch.clamp(total, min=0, out=answer[band])


def _columns(tall: list[Tensor], flat: list[Tensor], band: slice, channels: int) -> Tensor:
    """Some upsampled rows of all maps, one map's columns after the other's: (rows, w2 + w3 + ..., O)."""
    parts = [torch.mm(shares[band], x) for shares, x in zip(tall, flat, strict=True)]
    return torch.cat(parts, dim=1).reshape(len(parts[0]), -1, channels)


def upsampling(before: int, after: int) -> Tensor:
    """(after, before): the shares of each old pixel in each new one, bilinear along one side."""
    return F.interpolate(torch.eye(before, dtype=torch.float32)[None], size=after, mode="linear", align_corners=False)[
        0
    ].t()
