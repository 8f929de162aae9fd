"""DEKR's two costly convolutions in the form that suits CPUs.

The heads' first convolution comes straight from the backbone's maps: their joined, upsampled map is never made.

In adaptive convolutions taps are read as weighted sums of table rows, which PyTorch does several times faster. A
pixel's channels in one branch are one row of a table. A tap is the weighted sum of four rows, the pixels around it:
what ``embedding_bag`` computes for word vectors, in one vectorised, parallel loop over contiguous memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dekrpose.architectures.dekr.adaptive_conv import AdaptiveConv
from dekrpose.architectures.parts.blocks import TAPS, neighbourhoods, regular_grid

BAND_BYTES = 2 * 2**20
"""Of the heads' first convolution, what is computed at once: it stays in the processor's nearest caches."""
LANES = 8
"""Branches are padded to a multiple of this many channels, so that rows of the table fill vector registers."""
CHUNK_BYTES = 5 * 2**20
"""Taps that are held at once: what fits the processor's nearest caches is written and read without going to memory."""
CONVOLVED_CHUNKS = 8
"""Chunks whose transforms are convolved at once, because convolutions of a few rows are slow."""
MARGIN = 2
"""Rows and columns of zeros around the map: where a position leaves the map its four pixels are among them."""


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


def padded_channels(channels: int) -> int:
    """Channels per branch with padding."""
    return -(-channels // LANES) * LANES


def frame(batch: int, height: int, width: int, channels: int) -> Tensor:
    """Memory for maps (B, h + 4, w + 4, C) with a margin of zeros; see ``inside``."""
    with torch.inference_mode(False):  # else it could not be written to outside of inference mode
        maps = torch.empty(batch, height + 2 * MARGIN, width + 2 * MARGIN, channels, dtype=torch.float32)
    for side in (maps[:, :MARGIN], maps[:, -MARGIN:], maps[:, :, :MARGIN], maps[:, :, -MARGIN:]):
        side.zero_()
    return maps


def inside(maps: Tensor) -> Tensor:
    """The part of framed maps within the margin, (B, h, w, C): a view."""
    return maps[:, MARGIN:-MARGIN, MARGIN:-MARGIN]


class GatheredBlock:
    """A block of the offset head: adaptive convolution, batch norm, shortcut, ReLU.

    Args:
        conv: its weights are copied.
        norm: its batch norm.
    """

    def __init__(self, conv: AdaptiveConv, norm: nn.BatchNorm2d) -> None:
        assert conv.transform.bias is not None
        branches, channels, padded = conv.branches, conv.channels, padded_channels(conv.channels)
        more = padded - channels
        scale, shift = scale_and_shift(norm)
        kernel = (conv.weight * scale[:, None, None, None]).reshape(branches, channels, channels, TAPS)
        kernel = F.pad(kernel.transpose(2, 3), (0, more, 0, 0, 0, more))  # (G, C out, 9, C in)
        self.weight = kernel.reshape(branches * padded, TAPS * padded, 1, 1).contiguous()
        self.bias = F.pad(shift.reshape(branches, channels), (0, more)).flatten()
        transform = F.pad(conv.transform.weight, (0, 0, 0, 0, 0, more))
        self.transform_weight = transform.contiguous(memory_format=torch.channels_last)
        self.transform_bias = conv.transform.bias
        self.branches, self.channels = branches, padded
        self.spread = _spread()
        shifts = transform.reshape(branches, 6, padded, TAPS).permute(0, 3, 2, 1).reshape(branches, TAPS * padded, 6)
        self.shift_weight = (shifts @ self.spread).contiguous()  # to all 18 steps at once, for single pixels
        self.shift_bias = self.transform_bias.reshape(branches, 1, 6) @ self.spread
        self.kernel = kernel.reshape(branches, padded, TAPS * padded).transpose(1, 2).contiguous()

    def __call__(self, x: Tensor, out: Tensor) -> None:
        """Compute the block on framed maps (see ``frame``): from x (B, h + 4, w + 4, G * padded channels) into out."""
        height, width = x.shape[1] - 2 * MARGIN, x.shape[2] - 2 * MARGIN
        rows = min(height, max(1, CHUNK_BYTES // (4 * TAPS * x.shape[3] * width)))
        layout = _layout(height, width, self.branches, rows)
        for image, answer in zip(x, out, strict=True):
            table = image.reshape(-1, self.channels)
            for top, steps in zip(range(0, height, rows), self._transforms(image, height, rows), strict=True):
                taps = self._taps(table, steps, layout, top)
                product = F.conv2d(taps, self.weight, self.bias, groups=self.branches)[0].permute(1, 2, 0)
                here = slice(top + MARGIN, top + len(steps) + MARGIN), slice(MARGIN, -MARGIN)
                torch.clamp(product.add_(image[here]), min=0, out=answer[here])

    def at(self, maps: Tensor, pixels: Tensor, matrix: Tensor | None = None) -> Tensor:
        """The block at some pixels of framed maps only.

        Args:
            maps: (B, h + 4, w + 4, G * padded channels); with ``matrix``, features (B, h + 4, w + 4, F).
            pixels: (B, P, 2) integer xy, heatmap pixels; P is at least 1.
            matrix: (F, G * padded channels): its product with a pixel's features, after ReLU, are the block's channels.

        Returns:
            (G, B * P, padded channels).
        """
        batch, rows, stride, width = maps.shape
        table, first = maps.reshape(-1, width), torch.arange(0, batch * rows * stride, rows * stride).reshape(-1, 1, 1)
        centers = pixels.flip(2).unsqueeze(3) + MARGIN  # y and x, (B, P, 2, 1)
        patches = neighbourhoods(maps.permute(0, 3, 1, 2), pixels + MARGIN).flatten(0, 1)
        patches = patches if matrix is None else torch.mm(patches, matrix).clamp_(min=0)
        patches = patches.reshape(-1, TAPS, self.branches, self.channels).permute(2, 0, 1, 3).flatten(2)
        shifts = torch.baddbmm(self.shift_bias, patches, self.shift_weight).reshape(-1, *centers.shape[:3], TAPS)
        floors = shifts.floor()
        y, x = (floors.int() + centers).unbind(3)
        upper_left = first + y.clamp_(0, rows - 2) * stride + x.clamp_(0, stride - 2)
        corners = upper_left.unsqueeze(4) + torch.tensor([0, 1, stride, stride + 1])  # (G, B, P, 9, 4)
        if matrix is None:
            rows_of_branches = corners * self.branches + torch.arange(self.branches).reshape(-1, 1, 1, 1, 1)
            values = table.reshape(-1, self.channels).index_select(0, rows_of_branches.flatten())
        else:
            values = table.index_select(0, corners.flatten()).reshape(self.branches, -1, width)
            values = torch.bmm(values, matrix.reshape(width, self.branches, -1).transpose(0, 1)).clamp_(min=0)
        values = values.reshape(self.branches, -1, TAPS, 2, 2, self.channels)
        down, right = (shifts - floors).flatten(1, 2).unsqueeze(4).unbind(2)
        upper, lower = torch.lerp(values[..., 0, :], values[..., 1, :], right.unsqueeze(3)).unbind(3)
        taps = torch.lerp(upper, lower, down).flatten(2)
        own = patches[..., TAPS // 2 * self.channels : (TAPS // 2 + 1) * self.channels]
        return torch.baddbmm(self.bias.reshape(self.branches, 1, -1), taps, self.kernel).add_(own).clamp_(min=0)

    def _transforms(self, image: Tensor, height: int, rows: int) -> Iterator[Tensor]:
        """(rows, w, 6 * G) of a framed image, chunk by chunk."""
        band = rows * CONVOLVED_CHUNKS
        for top in range(0, height, band):
            around = image[None, top + MARGIN - 1 : min(top + band, height) + MARGIN + 1].permute(0, 3, 1, 2)
            steps = F.conv2d(around, self.transform_weight, self.transform_bias, groups=self.branches)
            yield from torch.split(steps[0, :, :, 1:-1].permute(1, 2, 0), rows)

    def _taps(self, table: Tensor, transforms: Tensor, layout: _Layout, top: int) -> Tensor:
        """The taps (1, G * 9 * C, rows, w) of some rows from ``top`` on; transforms (rows, w, 6 * G)."""
        rows, width, _ = transforms.shape
        shifts = torch.mm(transforms.reshape(-1, 6), self.spread)
        floors = shifts.floor()
        shifts -= floors
        corners = self._corners(floors.int(), layout, top)
        shares = _corner_shares(shifts[:, :TAPS], shifts[:, TAPS:]).flatten()
        taps = F.embedding_bag(
            corners.flatten(), table, layout.ends[: len(corners) + 1], mode="sum", per_sample_weights=shares,
            include_last_offset=True,
        )  # fmt: skip
        return taps.reshape(1, rows, width, -1).permute(0, 3, 1, 2)

    def _corners(self, steps: Tensor, layout: _Layout, top: int) -> Tensor:
        """Rows of the table that hold the four pixels around each tap: (N * G * 9, 4) from whole steps (N * G, 18)."""
        rows = len(steps) // (layout.width * self.branches)
        steps.view(rows, layout.width, self.branches, -1).add_(layout.pixels[top : top + rows])
        torch.clamp(steps, layout.first, layout.last, out=steps)
        stride = layout.width + 2 * MARGIN
        pixel = torch.add(steps[:, TAPS:], steps[:, :TAPS], alpha=stride).view(-1, self.branches, TAPS)
        upper_left = torch.add(layout.branches, pixel, alpha=self.branches).flatten()
        lower_left = upper_left + stride * self.branches
        around = [upper_left, upper_left + self.branches, lower_left, lower_left + self.branches]
        return torch.stack(around, dim=-1)


@dataclass(frozen=True)
class _Layout:
    """What depends on the map's size alone, all int32.

    Attributes:
        width: of the map within its frame.
        pixels: (h, w, 1, 18), each pixel's y nine times and its x nine times, in the frame.
        first, last: (18,), the range of upper left corners.
        branches: (G, 1), numbers from 0.
        ends: where the corners of each tap begin in a chunk, and where the last ones end.
    """

    width: int
    pixels: Tensor
    first: Tensor
    last: Tensor
    branches: Tensor
    ends: Tensor


@lru_cache(maxsize=16)
def _layout(height: int, width: int, branches: int, rows: int) -> _Layout:
    with torch.inference_mode(False):
        pixels = torch.empty(height, width, 1, 2 * TAPS, dtype=torch.int32)
        pixels[..., :TAPS] = torch.arange(height).reshape(-1, 1, 1, 1) + MARGIN
        pixels[..., TAPS:] = torch.arange(width).reshape(-1, 1, 1) + MARGIN
        last = torch.tensor([height + MARGIN] * TAPS + [width + MARGIN] * TAPS, dtype=torch.int32)
        ends = torch.arange(0, 4 * (rows * width * branches * TAPS + 1), 4, dtype=torch.int32)
        numbers = torch.arange(branches, dtype=torch.int32)[:, None]
        return _Layout(width, pixels, torch.zeros_like(last), last, numbers, ends)


def _corner_shares(down: Tensor, right: Tensor) -> Tensor:
    """Bilinear weights (..., 4) of the pixels upper left, upper right, lower left, lower right."""
    shares = torch.empty(*down.shape, 4, dtype=torch.float32)
    both = torch.mul(down, right, out=shares[..., 3])
    low = torch.sub(down, both, out=shares[..., 2])
    torch.sub(right, both, out=shares[..., 1])
    torch.sub(1.0 - right, low, out=shares[..., 0])
    return shares


def _spread() -> Tensor:
    """(6, 18): from A row by row and t to the taps' nine steps down and nine to the right."""
    dy, dx = regular_grid()
    zero, one = (torch.full((TAPS,), value, dtype=torch.float32) for value in (0.0, 1.0))
    down = torch.stack([dy, dx, zero, zero, one, zero])
    right = torch.stack([zero, zero, dy, dx, zero, one])
    return torch.cat([down, right], dim=1)


def scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """What a batch norm multiplies by and adds in evaluation: two (C,)."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale
