"""Adaptive convolution: a 3x3 convolution whose nine taps an affine map per pixel moves to where it looks.

DEKR paper, "Disentangled Keypoint Regression": at pixel q the taps lie at q + A(q) G + t(q), where G is the regular
3x3 grid, A a 2x2 matrix and t a translation, both predicted by a 3x3 convolution. All branches of equal width are one
grouped computation in plain PyTorch, so it runs and exports wherever grid sampling does.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dekrpose.architectures.parts.blocks import TAPS, neighbourhoods, regular_grid


def tap_positions(transforms: Tensor, pixels: Tensor) -> Tensor:
    """Where the nine taps of P pixels lie: (N, 9, P, 2) xy, heatmap pixels: pixel + A (dy; dx) + t, rows are y and x.

    Per pixel ``transforms`` (N, 6, P) hold the matrix A row by row (a b; c d) and then t_y, t_x; ``pixels`` are (P, 2)
    or (N, P, 2) xy, heatmap pixels.
    """
    dy, dx = regular_grid(transforms.device).to(transforms.dtype)[:, :, None]
    a, b, c, d, t_y, t_x = transforms.unsqueeze(2).unbind(1)
    y = (pixels[..., 1].unsqueeze(-2) + t_y) + a * dy + b * dx
    x = (pixels[..., 0].unsqueeze(-2) + t_x) + c * dy + d * dx
    return torch.stack([x, y], dim=-1)


def pixel_grid(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """(h * w, 2) xy of every pixel, row by row."""
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2).float()


def sample(features: Tensor, positions: Tensor) -> Tensor:
    """Read (N, C, h, w) maps bilinearly at (N, ..., 2) xy, heatmap pixels: (N, C, ...); outside they are zero."""
    height, width = features.shape[-2:]
    # filled where it lies, because a copy from the CPU would wait for a GPU
    size = torch.cat([positions.new_full((1,), length) for length in (width, height)])
    # align_corners=False, because it stays finite for maps of one pixel
    grid = (2.0 * positions + 1.0) / size - 1.0
    flat = grid.reshape(grid.shape[0], -1, 1, 2)
    values = F.grid_sample(features, flat, mode="bilinear", padding_mode="zeros", align_corners=False)
    return values.reshape(*values.shape[:2], *positions.shape[1:-1])


def adaptive_product(features: Tensor, transforms: Tensor, weight: Tensor, pixels: Tensor | None = None) -> Tensor:
    """Sample nine taps per pixel and multiply them by the kernel, G branches at once: all but the transform.

    Args:
        features: (B, G * C, h, w); zero outside.
        transforms: (B, 6G, P), per pixel and branch the matrix A row by row (a b; c d) and then t_y, t_x.
        weight: (G * C, C, 3, 3).
        pixels: (B, P, 2) integer xy, heatmap pixels, whose result is wanted; None: all h * w, row by row.

    Returns:
        (B, G * C, P).
    """
    if features.is_cuda:
        from dekrpose.architectures.dekr import adaptive_triton

        if adaptive_triton.available(features, weight.shape[1]):
            return adaptive_triton.adaptive_conv_triton(features, transforms, weight, pixels)
    return plain_product(features, transforms, weight, pixels)


def plain_product(features: Tensor, transforms: Tensor, weight: Tensor, pixels: Tensor | None = None) -> Tensor:
    """``adaptive_product`` in plain PyTorch, on any device."""
    batch, _, height, width = features.shape
    channels = weight.shape[1]
    branches = weight.shape[0] // channels
    grid = pixel_grid(height, width, features.device)
    places = grid if pixels is None else pixels.repeat_interleave(branches, dim=0)
    # at least float32: half precision cannot tell neighbouring pixels of a large map apart
    exact = torch.promote_types(features.dtype, torch.float32)
    positions = tap_positions(transforms.to(exact).reshape(batch * branches, 6, -1), places)
    maps = features.reshape(batch * branches, channels, height, width).to(exact)
    taps = sample(maps, positions).reshape(batch, branches, channels * TAPS, -1)
    kernel = weight.reshape(1, branches, channels, channels * TAPS)
    return torch.matmul(kernel.to(features.dtype), taps.to(features.dtype)).reshape(batch, branches * channels, -1)


class AdaptiveConv(nn.Module):
    """Adaptive 3x3 convolutions of G branches at once: (B, G * C, h, w) -> (B, G * C, h, w).

    Args:
        branches: G.
        channels: C, channels per branch in and out.
    """

    def __init__(self, branches: int, channels: int) -> None:
        super().__init__()
        self.branches, self.channels = branches, channels
        self.transform = nn.Conv2d(branches * channels, branches * 6, 3, padding=1, groups=branches)
        self.weight = nn.Parameter(torch.empty(branches * channels, channels, 3, 3))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """All taps start at the pixel itself: A and t are zero, as in the official code."""
        nn.init.zeros_(self.transform.weight)
        assert self.transform.bias is not None
        nn.init.zeros_(self.transform.bias)
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        return adaptive_product(x, self.transform(x).flatten(2), self.weight).reshape(x.shape)

    def at(self, x: Tensor, pixels: Tensor) -> Tensor:
        """The same, (B, G * C, P), at (B, P, 2) integer xy, heatmap pixels, only."""
        return adaptive_product(x, self._transform_at(x, pixels), self.weight, pixels)

    def _transform_at(self, x: Tensor, pixels: Tensor) -> Tensor:
        """The transform's (B, 6G, P) at some pixels, from their 3x3 neighbourhoods only."""
        batch = x.shape[0]
        patches = neighbourhoods(x, pixels)
        patches = patches.reshape(-1, TAPS, self.branches, self.channels).permute(2, 0, 1, 3).flatten(2)
        weight = self.transform.weight.reshape(self.branches, 6, self.channels, TAPS).permute(0, 3, 2, 1).flatten(1, 2)
        assert self.transform.bias is not None
        out = torch.baddbmm(self.transform.bias.reshape(self.branches, 1, 6), patches, weight)
        return out.reshape(self.branches, batch, -1, 6).permute(1, 0, 3, 2).flatten(1, 2)
