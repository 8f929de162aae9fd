"""The heads' first convolution, straight from the backbone's maps: their joined, upsampled map is never made."""

from __future__ import annotations

from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor


class UpsampledConv:
    """A 1x1 convolution of maps that ``hrnet.concatenate`` would join at the size of the first.

    Both upsampling and a 1x1 convolution are linear, so each map is convolved at its own size, and the results are
    upsampled and added by matrix products: first the rows of each, then the columns of all at once.

    Args:
        weight: (O, C1 + C2 + ..., 1, 1), batch norm folded in.
        bias: (O,).
        widths: C1, C2, ...
    """

    def __init__(self, weight: Tensor, bias: Tensor, widths: list[int]) -> None:
        ends = list(accumulate(widths))
        self.weights = [
            weight[:, end - width : end].contiguous(memory_format=torch.channels_last)
            for end, width in zip(ends, widths, strict=True)
        ]
        self.bias = bias

    def __call__(self, maps: list[Tensor]) -> Tensor:
        """Float32 maps (B, C1, h, w), (B, C2, h2, w2), ... -> (B, h, w, O)."""
        finest = maps[0]
        batch, _, height, width = finest.shape
        out = F.conv2d(finest, self.weights[0], self.bias).permute(0, 2, 3, 1).contiguous()
        if len(maps) > 1:
            rows, shares = [], []
            for x, weight in zip(maps[1:], self.weights[1:], strict=True):
                small = F.conv2d(x, weight).permute(0, 2, 3, 1).contiguous()
                tall = torch.matmul(upsampling(x.shape[2], height), small.flatten(2))
                rows.append(tall.reshape(batch * height, x.shape[3], -1))
                shares.append(upsampling(x.shape[3], width))
            columns = torch.cat(shares, dim=1).expand(batch * height, -1, -1)
            out = out.reshape(batch * height, width, -1).baddbmm_(columns, torch.cat(rows, dim=1))
        return out.reshape(batch, height, width, -1)


def upsampling(before: int, after: int) -> Tensor:
    """(after, before): the shares of each old pixel in each new one, bilinear along one side."""
    return F.interpolate(torch.eye(before)[None], size=after, mode="linear", align_corners=False)[0].t()
