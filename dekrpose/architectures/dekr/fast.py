"""DEKR for inference on CPUs: the same maps up to rounding, in less time.

Batch norm is folded into the convolutions, the heads' first convolutions run before the maps are upsampled
and adaptive convolutions gather their taps as rows of a table (``fast_convolutions``).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dekrpose.architectures.dekr.adaptive_conv import AdaptiveConv
from dekrpose.architectures.dekr.fast_convolutions import (
    MARGIN,
    GatheredBlock,
    UpsampledConv,
    frame,
    inside,
    padded_channels,
)
from dekrpose.architectures.dekr.network import (
    DEKR,
    BranchGroup,
    HeatmapHead,
    OffsetHead,
    Pair,
    Pick,
    RegressionBlock,
    SeparableHeatmapHead,
    SharedGroup,
    SharedTransition,
)
from dekrpose.architectures.parts.blocks import TAPS, SeparableConv, concatenate, gather_pixels
from dekrpose.architectures.parts.folding import fold_batch_norm, fold_for_cpu

SPARE_BYTES = 64 * 2**20
"""Most memory that a width of branches keeps between images."""
FAST_DTYPES = (torch.float32, torch.bfloat16)

Between = Callable[[int | None, Tensor], None]
"""Changes maps (B, h, w, channels) behind a head's first convolution in place: None stands for those of the heatmap
head, a number for those of the offset head's branches of one width, whose channels are padded."""


class FastHeatmapHead(nn.Module):
    """The backbone's maps -> (B, K+1, h, w) heatmaps. The first convolution is float32, the rest in ``dtype``."""

    def __init__(self, head: HeatmapHead, widths: list[int], dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        weight, bias = _fused(head.transition)
        self.transition, self.channels = UpsampledConv(weight, bias, widths), len(bias)
        self.block, self.final = fold_for_cpu(head.block, dtype), fold_batch_norm(head.final, dtype)

    def forward(self, maps: list[Tensor], between: Between | None = None) -> Tensor:
        batch, _, height, width = maps[0].shape
        x = torch.empty(batch, height, width, self.channels, dtype=torch.float32)
        self.transition(maps, x)
        if between is not None:
            between(None, x)
        return cast(Tensor, self.final(self.block(x.permute(0, 3, 1, 2).to(self.dtype))))


class FastSeparableHead(nn.Module):
    """The backbone's maps -> (B, K+1, h, w) heatmaps, from a separable head; everything in ``dtype``."""

    def __init__(self, head: SeparableHeatmapHead, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype, self.head = dtype, fold_for_cpu(head, dtype)

    def forward(self, maps: list[Tensor], between: Between | None = None) -> Tensor:
        x = self.head.transition(concatenate(maps).to(self.dtype))
        if between is not None:
            between(None, x.permute(0, 2, 3, 1))
        return self.head.from_transition(x)


class FastShared(nn.Module):
    """What the shared group adds to the branches' offsets, from the backbone's maps; float32."""

    def __init__(self, transition: SeparableConv, group: SharedGroup, index: int) -> None:
        super().__init__()
        self.transition, self.group, self.index = fold_for_cpu(transition), fold_batch_norm(group), index

    def forward(self, maps: list[Tensor], between: Between | None = None, pixels: Tensor | None = None) -> Tensor:
        features = concatenate(maps)
        if pixels is not None:
            return cast(Tensor, self.group.final(self.transition.at(features, pixels).unsqueeze(-1)).squeeze(-1))
        x = self.transition(features)
        if between is not None:
            between(self.index, x.permute(0, 2, 3, 1))
        return cast(Tensor, self.group(x))


class FastOffsetHead(nn.Module):
    """The backbone's maps -> (B, 2K, h, w) offsets, for adaptive heads; everything in float32.

    With pixels (B, P, 2), integer xy in heatmap pixels, offsets (B, 2K, P) there: the last block is computed at these
    only, the others at every pixel.
    """

    def __init__(self, head: OffsetHead, widths: list[int]) -> None:
        super().__init__()
        count = len(head.groups) - head.shared
        groups = [cast(BranchGroup, group) for group in head.groups[:count]]
        splits = head.splits[:count]
        self.shared: FastShared | None = None
        branches_transition = head.transition
        if head.shared:
            transition, shared = cast(SharedTransition, head.transition), cast(SharedGroup, head.groups[-1])
            self.shared, branches_transition = FastShared(transition.shared, shared, count), transition.branches
        self.blocks = [
            [GatheredBlock(block.conv, block.bn) for block in cast(list[Any], group.blocks)] for group in groups
        ]
        branches = [blocks[0].branches for blocks in self.blocks]
        channels = [split // count for split, count in zip(splits, branches, strict=True)]
        weight, bias = _fused(cast(nn.Sequential, branches_transition))
        padded = [
            (_with_padding(rows, count, width), _with_padding(shifts, count, width))
            for rows, shifts, count, width in zip(
                torch.split(weight, splits), torch.split(bias, splits), branches, channels, strict=True
            )
        ]
        self.transitions = [UpsampledConv(rows, shifts, widths) for rows, shifts in padded]
        single = len(widths) == 1 and all(len(blocks) == 1 for blocks in self.blocks)
        self.matrices = [
            torch.cat([rows.flatten(1), shifts[:, None]], dim=1).t().contiguous() for rows, shifts in padded if single
        ]
        self.finals = [_dense_final(group.final, width) for group, width in zip(groups, channels, strict=True)]
        self.finals_at = [_final_at(group.final, width) for group, width in zip(groups, channels, strict=True)]
        self.channel_order = head.channel_order
        self._spare: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}

    def forward(self, maps: list[Tensor], between: Between | None = None, pixels: Tensor | None = None) -> Tensor:
        offsets = self._of_features(maps, pixels) if pixels is not None and between is None else []
        offsets = offsets or self._of_groups(maps, between, pixels)
        joined = offsets[0] if len(offsets) == 1 else torch.cat(offsets, dim=1)
        joined = joined if self.channel_order is None else joined[:, self.channel_order]
        return joined if self.shared is None else joined + self.shared(maps, between, pixels)

    def _of_features(self, maps: list[Tensor], pixels: Tensor) -> list[Tensor]:
        """Offsets of each group at a few pixels, the first convolution computed where single blocks look from there;
        none where that takes longer than the convolution everywhere, or where it is needed."""
        height, width = maps[0].shape[2:]
        if not self.matrices or 12 * TAPS * pixels.shape[1] > height * width:  # 36 places each, at three times the cost
            return []
        framed = F.pad(maps[0].permute(0, 2, 3, 1), (0, 1, *[MARGIN] * 4))
        inside(framed)[..., -1] = 1  # for the bias, which is not in the margin
        return [self._at(framed, index, pixels, matrix) for index, matrix in enumerate(self.matrices)]

    def _of_groups(self, maps: list[Tensor], between: Between | None, pixels: Tensor | None) -> list[Tensor]:
        """Offsets of each group, at all pixels or some, from the first convolution at all of them."""
        batch, _, height, width = maps[0].shape
        offsets: list[Tensor] = []
        for index, (transition, blocks) in enumerate(zip(self.transitions, self.blocks, strict=True)):
            size = batch, height, width, blocks[0].branches * blocks[0].channels
            frames = self._spare.pop(size, None) or (frame(*size), frame(*size))  # popped: nobody else has them
            x, out = frames
            transition(maps, inside(x))
            if between is not None:
                between(index, inside(x))
            for block in blocks if pixels is None else blocks[:-1]:
                block(x, out)
                x, out = out, x
            offsets.append(self._whole(x, index) if pixels is None else self._at(x, index, pixels))
            self._keep(size, frames)
        return offsets

    def _whole(self, x: Tensor, index: int) -> Tensor:
        """Offsets (B, 2 * keypoints, h, w) from the last block's framed maps."""
        weight, bias = self.finals[index]
        framed = F.conv2d(x.permute(0, 3, 1, 2), weight, bias)
        return inside(framed.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def _at(self, x: Tensor, index: int, pixels: Tensor, matrix: Tensor | None = None) -> Tensor:
        """Offsets (B, 2 * keypoints, P) from the framed maps before the last block; see its ``at``."""
        weight, bias = self.finals_at[index]
        found = torch.baddbmm(bias, self.blocks[index][-1].at(x, pixels, matrix), weight)
        return found.reshape(len(weight), *pixels.shape[:2], -1).permute(1, 0, 3, 2).flatten(1, 2)

    def _keep(self, size: tuple[int, ...], frames: tuple[Tensor, Tensor]) -> None:
        """Memory for the next images of this size, because fresh memory costs as much time as filling it."""
        if 2 * frames[0].nbytes <= SPARE_BYTES:
            if len(self._spare) >= len(self.blocks):
                self._spare.clear()
            self._spare[size] = frames


class JoinedMaps(nn.Module):
    """Any other offset head, on the joined maps in float32; at pixels as ``FastOffsetHead``."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, maps: list[Tensor], between: None = None, pixels: Tensor | None = None) -> Tensor:
        offsets = cast(Tensor, self.head(concatenate(maps)))
        return offsets if pixels is None else gather_pixels(offsets, pixels)


class FastDEKR(nn.Module):
    """Normalised RGB (B, 3, H, W) -> heatmaps (B, K+1, H/4, W/4) and offsets (B, 2K, H/4, W/4), as ``DEKR`` gives them.

    Args:
        model: its weights are copied, but for an offset head of a foreign type.
        dtype: of the backbone and the heatmap head, float32 or bfloat16; offsets are always computed in float32.
    """

    def __init__(self, model: DEKR, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.backbone = fold_for_cpu(model.backbone, dtype)
        widths = model.backbone.map_channels
        heatmap_head = model.heatmap_head
        self.heatmap_head: FastSeparableHead | FastHeatmapHead = (
            FastSeparableHead(heatmap_head, dtype)
            if isinstance(heatmap_head, SeparableHeatmapHead)
            else FastHeatmapHead(heatmap_head, widths, dtype)
        )
        head = model.offset_head
        adaptive = isinstance(head, OffsetHead) and all(isinstance(m.conv, AdaptiveConv) for m in _blocks(head))
        self.offset_head = FastOffsetHead(head, widths) if adaptive else JoinedMaps(head)

    def forward(self, images: Tensor, between: Between | None = None, *, pick: Pick | None = None) -> Pair:
        """The maps, with the heads' maps changed on the way, which wants adaptive convolutions; or, with ``pick``, the
        heatmaps, and offsets (B, 2K, P) at the pixels that it picks.
        """
        with torch.autocast("cpu", enabled=False):
            images = images.to(self.dtype).contiguous(memory_format=torch.channels_last)
            maps = [x.float() for x in self.backbone(images)]
            heatmaps = self.heatmap_head(maps, between)
            return heatmaps, self.offset_head(maps, between, None if pick is None else pick(heatmaps))


class FastPath:
    """Keeps a network's ``FastDEKR`` of each dtype, for as long as its weights stay what they are."""

    def __init__(self) -> None:
        self._networks: dict[torch.dtype, FastDEKR] = {}
        self._tensors: list[Tensor] = []
        self._norms: list[nn.BatchNorm2d] = []
        self._hooks: list[object] = []
        self._stamp: object = None

    def __reduce__(self) -> tuple[type[FastPath], tuple[()]]:
        return FastPath, ()  # copies and files of a network make their own

    def network(self, model: DEKR, images: Tensor) -> FastDEKR | None:
        """What to run in the network's place, or None where the network itself must run.

        That is for training, gradients, tracing, other devices than CPUs, other dtypes than ``FAST_DTYPES``, and while
        a part of the network has hooks. Weights changed in place are noticed, unless through ``.data``.
        """
        traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
        if type(images) is not Tensor or images.dtype != torch.float32 or not images.is_cpu or model.training or traced:
            return None
        dtype = torch.mm(images.new_ones(1, 1), images.new_ones(1, 1)).dtype  # what autocast makes of it
        if self._stamp != self._stamp_of(model):
            self._watch(model)
        learns = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (images, *self._tensors))
        watched = any(self._hooks) or any(norm.training for norm in self._norms)
        if learns or watched or dtype not in FAST_DTYPES or not all(tensor.is_cpu for tensor in self._tensors):
            return None
        return self._networks.get(dtype) or self._made(model, dtype)

    def _made(self, model: DEKR, dtype: torch.dtype) -> FastDEKR:
        with torch.inference_mode(False), torch.no_grad(), torch.autocast("cpu", enabled=False):
            self._networks[dtype] = FastDEKR(model, dtype).eval().requires_grad_(False)
        return self._networks[dtype]

    def _stamp_of(self, model: DEKR) -> object:
        """Changes when a part is replaced, all tensors are, or one of them moves or is written to."""
        parts = model.backbone, model.heatmap_head, model.offset_head, next(model.parameters())
        versions = [(tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in self._tensors]
        return [*map(id, parts), *versions]

    def _watch(self, model: DEKR) -> None:
        self._networks.clear()
        self._tensors = [tensor for tensor in chain(model.parameters(), model.buffers()) if tensor.is_floating_point()]
        modules = [module for module in model.modules() if module is not model]
        self._norms = [module for module in modules if isinstance(module, nn.BatchNorm2d)]
        self._hooks = [hooks for m in modules for hooks in (m._forward_hooks, m._forward_pre_hooks)]
        self._stamp = self._stamp_of(model)


def _blocks(head: OffsetHead) -> list[RegressionBlock]:
    groups = head.groups[: len(head.groups) - head.shared]
    return [cast(RegressionBlock, block) for group in groups for block in cast(BranchGroup, group).blocks]


def _fused(transition: nn.Sequential) -> tuple[Tensor, Tensor]:
    """Weight and bias of a 1x1 convolution with its batch norm."""
    conv, norm = transition[0], transition[1]
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    fused = fuse_conv_bn_eval(conv, norm)
    assert fused.bias is not None
    return fused.weight.detach(), fused.bias.detach()


def _with_padding(rows: Tensor, branches: int, channels: int) -> Tensor:
    """Zeros behind the rows of each branch, up to its padded channels."""
    padded = rows.new_zeros(branches, padded_channels(channels), *rows.shape[1:])
    padded[:, :channels] = rows.reshape(branches, channels, *rows.shape[1:])
    return padded.flatten(0, 1)


def _dense_final(final: nn.Conv2d, channels: int) -> tuple[Tensor, Tensor | None]:
    """A grouped 1x1 convolution as one over all padded channels, which is faster: weight and bias."""
    branches = final.groups
    rows = final.weight.detach().reshape(branches, -1, channels)
    weight = rows.new_zeros(branches, rows.shape[1], branches, padded_channels(channels))
    for branch, own in enumerate(rows):
        weight[branch, :, branch, :channels] = own
    return weight.reshape(branches * rows.shape[1], -1, 1, 1), final.bias


def _final_at(final: nn.Conv2d, channels: int) -> tuple[Tensor, Tensor]:
    """A grouped 1x1 convolution branch by branch: weight (G, padded channels, 2 * keypoints) and bias (G, 1, ...)."""
    rows = final.weight.detach().reshape(final.groups, -1, channels)
    assert final.bias is not None
    more = padded_channels(channels) - channels
    return F.pad(rows, (0, more)).transpose(1, 2).contiguous(), final.bias.detach().reshape(final.groups, 1, -1)
