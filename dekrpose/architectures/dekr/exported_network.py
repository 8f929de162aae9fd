"""The network as it is exported: batch norm folded into convolutions, adaptive convolutions in few operations.

It takes pictures as bytes and answers with the network's maps; ``poses.py`` adds what reads people from them.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dekrpose.architectures.dekr.adaptive_conv import AdaptiveConv
from dekrpose.architectures.dekr.network import DEKR, BranchGroup, RegressionBlock
from dekrpose.architectures.exporting import Offsets, Sampling
from dekrpose.architectures.parts.blocks import TAPS, regular_grid
from dekrpose.architectures.parts.folding import fold_batch_norm


class ExportedNetwork(nn.Module):
    """Pictures (B, 3, H, W) uint8 RGB -> heatmaps (B, K+1, H/4, W/4), offsets (B, 2K, H/4, W/4), both float32.

    Args:
        model: the network; its weights are copied.
        sampling: how adaptive convolutions read their taps.
        offsets: "people" prepares it for ``offsets_at`` instead of ``forward``.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, model: DEKR, sampling: Sampling, offsets: Offsets = "map") -> None:
        super().__init__()
        with torch.device("meta"):
            network = DEKR(model.config)
        state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
        network.load_state_dict(state, assign=True)
        _replace_adaptive(network.requires_grad_(False), sampling, offsets)
        self.network = fold_batch_norm(network)
        self.widths = self.network.backbone.map_channels
        if len(self.widths) > 1:
            for head in (self.network.heatmap_head, self.network.offset_head):
                conv = cast(nn.Sequential, head.transition)[0]
                assert isinstance(conv, nn.Conv2d)
                cast(nn.Sequential, head.transition)[0] = _UpsampledConv(conv, self.widths)
        std = torch.tensor(model.config.std)
        self.register_buffer("scale", (1 / (255 * std)).reshape(3, 1, 1))
        self.register_buffer("shift", (-torch.tensor(model.config.mean) / std).reshape(3, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        heatmaps, maps = self.heatmaps(images)
        return heatmaps, self.network.offset_head(maps)

    def heatmaps(self, images: Tensor) -> tuple[Tensor, Any]:
        """Heatmaps (B, K+1, H/4, W/4), and the backbone's maps for ``offsets_at``."""
        maps: Any = self.network.backbone(images.float() * self.scale + self.shift)
        if len(self.widths) == 1:
            maps = maps[0]
        return self.network.heatmap_head(maps), maps

    def offsets_at(self, maps: Any, pixels: Tensor) -> Tensor:
        """Offsets (B, 2K, P) at (B, P, 2) integer xy, heatmap pixels: gathers, and grid sampling of few points."""
        return self.network.offset_head.at(maps, pixels)


def _replace_adaptive(network: DEKR, sampling: Sampling, offsets: Offsets) -> None:
    for group in network.offset_head.groups:
        blocks = cast(BranchGroup, group).blocks
        for index, block in enumerate(blocks):
            last = index == len(blocks) - 1
            if not (last and offsets == "people") and isinstance(cast(RegressionBlock, block).conv, AdaptiveConv):
                blocks[index] = _AdaptiveBlock(cast(RegressionBlock, block), sampling)


class _UpsampledConv(nn.Module):
    """A 1x1 convolution of maps that ``concatenate`` would join: each at its own size, then upsampled and added.

    Both are linear, so the result is the same, with fewer multiplications and no joined map. ``widths`` are the
    channels of each map, finest first.
    """

    def __init__(self, conv: nn.Conv2d, widths: list[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(width, conv.out_channels, 1, bias=index == 0) for index, width in enumerate(widths)
        )
        for own, weight in zip(self.convs, torch.split(conv.weight.detach(), widths, dim=1), strict=True):
            own.load_state_dict({"weight": weight, "bias": conv.bias} if own is self.convs[0] else {"weight": weight})
        self.requires_grad_(False)

    def forward(self, maps: list[Tensor]) -> Tensor:
        total: Tensor = self.convs[0](maps[0])
        size = total.shape[-2:]
        for conv, x in zip(self.convs[1:], maps[1:], strict=True):
            total = total + F.interpolate(conv(x), size=size, mode="bilinear", align_corners=False)
        return total


class _AdaptiveBlock(nn.Module):
    """``RegressionBlock`` for export: (B, G * C, h, w) -> (B, G * C, h, w).

    Batch norm goes into the product's weights and bias.
    """

    bias: Tensor

    def __init__(self, block: RegressionBlock, sampling: Sampling) -> None:
        super().__init__()
        conv, norm = block.conv, block.bn
        assert isinstance(conv, AdaptiveConv)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        self.branches, self.channels, self.sampling = conv.branches, conv.channels, sampling
        factor = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        self.weight = nn.Parameter(conv.weight * factor[:, None, None, None], requires_grad=False)
        self.register_buffer("bias", norm.bias - norm.running_mean * factor)
        self.transform = _tap_shifts(conv) if sampling == "deform_conv" else _pairwise_transform(conv)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu((self._deform_conv(x) if self.sampling == "deform_conv" else self._grid_sample(x)) + x)

    def _deform_conv(self, x: Tensor) -> Tensor:
        attributes: dict[str, Any] = {
            "group": self.branches, "offset_group": self.branches, "kernel_shape": [3, 3], "pads": [1, 1, 1, 1],
        }  # fmt: skip
        return torch.onnx.ops.symbolic(
            "DeformConv",
            (x, self.weight, self.transform(x), self.bias),
            attributes,
            dtype=x.dtype,
            shape=x.shape,
            version=19,
        )

    def _grid_sample(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        sizes = torch.stack([torch.full((), 1.0) * width, torch.full((), 1.0) * height])
        # rows hold x, y, x, y, ...: long rows are what runtimes add and multiply fast
        scale = (2.0 / sizes).expand(width, 2).reshape(2 * width)
        rows = torch.arange(height, dtype=torch.float32).reshape(height, 1).expand(height, width)
        columns = torch.arange(width, dtype=torch.float32).reshape(1, width).expand(height, width)
        # align_corners=False: -1 is the left edge of the first pixel, 1 the right edge of the last
        pixels = torch.stack([columns, rows], dim=-1).reshape(height, 2 * width) * scale + scale / 2 - 1.0
        dy, dx = regular_grid().reshape(2, TAPS, 1, 1)
        transforms = self.transform(x).reshape(batch * self.branches * 3, 2, height * width).transpose(1, 2)
        transforms = transforms.reshape(batch, self.branches, 3, height, 2 * width) * scale
        by_dy, by_dx, shift = (part.unbind(1) for part in torch.split(transforms, 1, dim=2))
        weights = self.weight.reshape(self.branches, self.channels, -1).unbind()
        out = []
        # branch by branch, so that its taps are still in the cache when they are multiplied
        for index, maps in enumerate(x.reshape(batch, self.branches, self.channels, height, width).unbind(1)):
            places = by_dy[index] * dy + by_dx[index] * dx + (shift[index] + pixels)
            grid = places.reshape(batch, TAPS * height, width, 2)
            taps = F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
            out.append(torch.matmul(weights[index], taps.reshape(batch, self.channels * TAPS, -1)))
        return torch.cat(out, dim=1).reshape(x.shape) + self.bias.reshape(1, -1, 1, 1)


def _tap_shifts(conv: AdaptiveConv) -> nn.Conv2d:
    """A convolution to the y and x by which each tap is away from its place in the regular grid, heatmap pixels.

    The taps' shifts are linear in the six numbers of the affine map, and these in the input: one convolution does.
    """
    dy, dx = regular_grid()
    zero, one = torch.zeros(TAPS), torch.ones(TAPS)
    # the transform's channels: A row by row, then t_y, t_x
    y = torch.stack([dy, dx, zero, zero, one, zero], dim=1)
    x = torch.stack([zero, zero, dy, dx, zero, one], dim=1)
    return _recombined(conv, torch.stack([y, x], dim=1).flatten(0, 1), -torch.stack([dy, dx], dim=1).flatten())


def _pairwise_transform(conv: AdaptiveConv) -> nn.Conv2d:
    """The transform with its channels in pairs of x and y: what goes with a tap's dy, with its dx, and the shift."""
    return _recombined(conv, torch.eye(6)[[2, 0, 3, 1, 5, 4]], torch.zeros(6))


def _recombined(conv: AdaptiveConv, matrix: Tensor, bias: Tensor) -> nn.Conv2d:
    """The transform followed by ``matrix`` (S, 6) and plus ``bias`` (S,) in each branch, as one convolution."""
    assert conv.transform.bias is not None
    branches, outputs = conv.branches, len(matrix)
    width = branches * conv.channels
    merged = nn.Conv2d(width, branches * outputs, 3, padding=1, groups=branches)
    assert merged.bias is not None
    weight = torch.einsum("sk,gkn->gsn", matrix, conv.transform.weight.reshape(branches, 6, -1))
    merged.weight = nn.Parameter(weight.reshape(merged.weight.shape), requires_grad=False)
    merged.bias = nn.Parameter((conv.transform.bias.reshape(branches, 6) @ matrix.T + bias).flatten(), False)
    return merged
