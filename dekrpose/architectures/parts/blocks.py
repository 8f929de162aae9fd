"""What networks are built of: blocks of convolutions, maps that are joined, and maps that are read at some pixels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TAPS = 9
"""Taps of a 3x3 kernel, row by row."""


def conv_bn(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    groups: int = 1,
    relu: bool = True,
    *,
    activation: type[nn.ReLU | nn.ReLU6] = nn.ReLU,
    eps: float = 1e-5,
) -> nn.Sequential:
    """A convolution without bias that keeps the size (up to its stride), batch norm, and an activation if ``relu``."""
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels, eps=eps),
    ]
    if relu:
        layers.append(activation(inplace=True))
    return nn.Sequential(*layers)


conv_bn6 = partial(conv_bn, activation=nn.ReLU6, eps=1e-3)
"""As in EfficientNet-Lite."""


class SameConv(nn.Conv2d):
    """A 3x3 convolution padded as TensorFlow does ("SAME"): with stride 2 at the right and bottom alone."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, groups: int = 1) -> None:
        super().__init__(in_channels, out_channels, 3, stride, padding=2 - stride, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] == 1:
            return super().forward(x)
        if self.groups > 1 and self.training and not x.is_cuda:
            # every second pixel of a convolution without stride: its gradient is far faster on CPUs
            return F.conv2d(x, self.weight, self.bias, padding=1, groups=self.groups)[:, :, 1::2, 1::2]
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class ActivatedConv(nn.Module):
    """A convolution with ReLU or ReLU6 in one pass over memory, on CPUs and without gradients."""

    def __init__(self, conv: nn.Conv2d, activation: nn.Module) -> None:
        super().__init__()
        self.weight, self.bias, padding = conv.weight, conv.bias, conv.padding
        if isinstance(conv, SameConv) and conv.stride[0] == 2:  # zeros in the kernel cost less than a padded copy
            padded = F.pad(conv.weight.detach(), (1, 0, 1, 0)).contiguous(memory_format=torch.channels_last)
            self.weight, padding = nn.Parameter(padded, requires_grad=False), (1, 1)
        kind: tuple[str, list[float]] = ("hardtanh", [0.0, 6.0]) if isinstance(activation, nn.ReLU6) else ("relu", [])
        self.settings = padding, conv.stride, conv.dilation, conv.groups, *kind, ""

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, torch.ops.mkldnn._convolution_pointwise(x, self.weight, self.bias, *self.settings))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut: (B, C, h, w) -> (B, C, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x
        return F.relu(out, inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions with a shortcut: (B, C, h, w) -> (B, 4 * channels, h / stride, w / stride)."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        changes = stride > 1 or in_channels != out_channels
        self.downsample = conv_bn(in_channels, out_channels, 1, stride, relu=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.relu2(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else cast(Tensor, self.downsample(x))
        return F.relu(out, inplace=True)


class InvertedBottleneck(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection, and a shortcut where the shape stays."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.expand = conv_bn6(in_channels, inner, 1) if expansion > 1 else nn.Identity()
        self.depthwise = conv_bn6(inner, inner, kernel_size, stride, groups=inner)
        self.project = conv_bn6(inner, out_channels, 1, relu=False)
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


class SeparableConv(nn.Module):
    """A depthwise 3x3 convolution, a 1x1 convolution and ReLU: (B, C, h, w) -> (B, channels, h, w).

    MoveNet's heads are made of them; there is no batch norm.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
        self.pointwise = nn.Conv2d(in_channels, channels, 1)
        self.relu = nn.ReLU(inplace=True)

    def reset_parameters(self) -> None:
        """Weights that keep the size of what passes through."""
        nn.init.normal_(self.depthwise.weight, std=1 / 3)
        nn.init.kaiming_normal_(self.pointwise.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.relu(self.pointwise(self.depthwise(x))))

    def at(self, x: Tensor, pixels: Tensor) -> Tensor:
        """The same at (B, P, 2) integer xy pixels only: (B, channels, P)."""
        weight = self.depthwise.weight.flatten(1).t()
        mixed = (neighbourhoods(x, pixels) * weight).sum(1)
        out = F.relu(F.linear(mixed, self.pointwise.weight.flatten(1), self.pointwise.bias))
        return out.reshape(*pixels.shape[:2], -1).transpose(1, 2)


def concatenate(maps: list[Tensor]) -> Tensor:
    """Join a backbone's maps at stride 4: (B, C1 + C2 + ..., h, w), coarser ones upsampled bilinearly."""
    size = maps[0].shape[-2:]
    others = [F.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in maps[1:]]
    return torch.cat([maps[0], *others], dim=1) if others else maps[0]


def top_down(levels: Sequence[Tensor], laterals: nn.ModuleList, merges: nn.ModuleList) -> Tensor:
    """Maps from fine to coarse, joined from the coarsest on, each by its lateral and its merge."""
    merged: Tensor = merges[-1](laterals[-1](levels[-1]))
    for level, lateral, merge in zip(levels[-2::-1], laterals[-2::-1], merges[-2::-1], strict=True):
        x = lateral(level)
        merged = merge(x.add_(F.interpolate(merged, size=x.shape[-2:], mode="nearest")))
    return merged


def regular_grid(device: torch.device | None = None) -> Tensor:
    """(2, 9): the rows are the taps' dy and dx, in pixels, as in the official code."""
    step = torch.arange(-1.0, 2.0, dtype=torch.float32, device=device)
    return torch.stack([step.repeat_interleave(3), step.repeat(3)])


def gather_pixels(maps: Tensor, pixels: Tensor) -> Tensor:
    """Read (B, C, h, w) maps at (B, P, 2) integer xy pixels: (B, C, P)."""
    index = pixels[..., 1].long() * maps.shape[-1] + pixels[..., 0].long()
    return maps.flatten(2).gather(2, index.unsqueeze(1).expand(-1, maps.shape[1], -1))


def neighbourhoods(maps: Tensor, pixels: Tensor) -> Tensor:
    """The 3x3 pixels around (B, P, 2) integer xy pixels of (B, C, h, w) maps, zero outside: (B * P, 9, C)."""
    height, width = maps.shape[2:]
    dy, dx = regular_grid(maps.device).long()
    x, y = pixels[..., :1].long() + dx, pixels[..., 1:].long() + dy
    inside: Tensor = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    image = torch.arange(maps.shape[0], device=maps.device).reshape(-1, 1, 1)
    patches = maps.permute(0, 2, 3, 1)[image, y.clamp(0, height - 1), x.clamp(0, width - 1)]
    return (patches * inside.unsqueeze(-1)).flatten(0, 1)
