"""The naive formulation of DEKR, as a reference: one branch after the other, one deformable sampling each.

It is what the official code computes, in eager float32 with plain memory layout and batch norm as a layer of its own.
Nothing of the library's own offset head is used but its weights, so it stays what it is when that one gets faster.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dekrpose.architectures.contract import Network
from dekrpose.architectures.dekr.network import DEKR, OffsetHead
from dekrpose.architectures.parts.blocks import concatenate
from dekrpose.errors import DekrPoseError


def deformable_conv(x: Tensor, transforms: Tensor, weight: Tensor) -> Tensor:
    """An adaptive 3x3 convolution of one branch: (B, C, h, w) -> (B, C', h, w).

    The transforms (B, 6, h, w) are per pixel the matrix A row by row (a b; c d) and then t_y, t_x, heatmap pixels; the
    weight is (C', C, 3, 3).
    """
    batch, channels, height, width = x.shape
    a, b, c, d, t_y, t_x = transforms.unsqueeze(2).unbind(1)
    step = torch.tensor([-1.0, 0.0, 1.0], device=x.device)
    dy, dx = step.repeat_interleave(3).reshape(9, 1, 1), step.repeat(3).reshape(9, 1, 1)
    rows = torch.arange(height, device=x.device, dtype=x.dtype).reshape(-1, 1)
    columns = torch.arange(width, device=x.device, dtype=x.dtype)
    y = rows + t_y + a * dy + b * dx
    x_position = columns + t_x + c * dy + d * dx
    grid = torch.stack([(2 * x_position + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    taps = F.grid_sample(x, grid.reshape(batch, 9 * height, width, 2), align_corners=False)
    taps = taps.reshape(batch, channels * 9, height * width)
    return torch.matmul(weight.flatten(1), taps).reshape(batch, -1, height, width)


class NaiveBlock(nn.Module):
    """One block of one branch: (adaptive) convolution, batch norm, shortcut, ReLU.

    It takes its weights from the library's block, which has all branches of one width at once.
    """

    def __init__(self, block: nn.Module, branch: int, branches: int) -> None:
        super().__init__()
        conv = cast(nn.Module, block.conv)
        transform = getattr(conv, "transform", None)
        self.weight = _share(conv.weight, branch, branches)
        self.transform_weight = None if transform is None else _share(transform.weight, branch, branches)
        self.transform_bias = None if transform is None else _share(transform.bias, branch, branches)
        full = cast(nn.BatchNorm2d, block.bn)
        self.bn = nn.BatchNorm2d(full.num_features // branches, eps=full.eps)
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(self.bn, name).data = _share(getattr(full, name), branch, branches).data

    def forward(self, x: Tensor) -> Tensor:
        if self.transform_weight is None:
            out = F.conv2d(x, self.weight, padding=1)
        else:
            transforms = F.conv2d(x, self.transform_weight, self.transform_bias, padding=1)
            out = deformable_conv(x, transforms, self.weight)
        return F.relu(self.bn(out) + x)


class LoopOverBranches(nn.Module):
    """A head's weights, used as the official code does: (B, C, h, w) features -> (B, 2K, h, w) offsets."""

    def __init__(self, head: OffsetHead) -> None:
        super().__init__()
        self.transition, self.shared = head.transition, head.shared
        self.branches = nn.ModuleList()
        self.widths: list[int] = []
        for group, width in zip(head.groups, head.splits, strict=True):
            final = cast(nn.Conv2d, group.final)
            count = final.groups
            for branch in range(count):
                last = nn.Conv2d(width // count, final.out_channels // count, 1)
                last.weight, last.bias = _share(final.weight, branch, count), _share(final.bias, branch, count)
                blocks = [NaiveBlock(block, branch, count) for block in cast(nn.Sequential, group.blocks)]
                self.branches.append(nn.Sequential(*blocks, last))
                self.widths.append(width // count)
        self.channel_order = head.channel_order

    def forward(self, features: Tensor) -> Tensor:
        parts = self.transition(features).split(self.widths, dim=1)
        found = [branch(part) for branch, part in zip(self.branches, parts, strict=True)]
        added = found.pop() if self.shared else None
        offsets = torch.cat(found, dim=1)
        offsets = offsets if self.channel_order is None else offsets[:, self.channel_order]
        return offsets if added is None else offsets + added


class NaiveDEKR(nn.Module):
    """A network's weights with the naive offset head; takes and gives what ``DEKR`` does. DekrPoseError: it is none."""

    def __init__(self, model: Network) -> None:
        super().__init__()
        if not isinstance(model, DEKR):
            raise DekrPoseError(f"the naive formulation exists for DEKR, got {model.config.name}")
        self.config = model.config
        self.backbone = model.backbone
        self.heatmap_head = model.heatmap_head
        self.offset_head = LoopOverBranches(model.offset_head)
        self.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = concatenate(self.backbone(images.contiguous()))
        return self.heatmap_head(features), self.offset_head(features)


def _share(values: object, branch: int, branches: int) -> nn.Parameter:
    """One branch's part of the weights that all branches of one width share a tensor for."""
    return nn.Parameter(cast(Tensor, values).detach().chunk(branches)[branch].clone(), requires_grad=False)
