"""DEKR: a heatmap head that finds people's centers, an offset head that regresses each keypoint by its own branch.

DEKR paper (Geng et al., CVPR 2021, arXiv 2104.02300), "Disentangled Keypoint Regression".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import groupby
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dekrpose.architectures.contract import Network
from dekrpose.architectures.dekr.adaptive_conv import AdaptiveConv
from dekrpose.architectures.parts import Backbone, make_backbone
from dekrpose.architectures.parts.blocks import BasicBlock, SeparableConv, concatenate, conv_bn, gather_pixels
from dekrpose.config import Branches, HeadConfig, ModelConfig

if TYPE_CHECKING:
    from dekrpose.architectures.dekr.fast import FastPath

Pair = tuple[Tensor, Tensor]
"""Heatmaps, and offsets or positions."""
Pick = Callable[[Tensor], Tensor]
"""Heatmaps (B, K+1, h, w) -> (B, P, 2) integer xy, heatmap pixels, at which offsets are wanted; P is at least 1."""

_PRIOR = 0.01
"""What fresh heads say everywhere: from a half on, hundreds of steps would do nothing but empty the background."""
_HEAD, _LEFT_ARM, _RIGHT_ARM, _LEFT_LEG, _RIGHT_LEG = (
    (0, 1, 2, 3, 4), (5, 7, 9), (6, 8, 10), (11, 13, 15), (12, 14, 16),
)  # fmt: skip


def branch_keypoints(branches: Branches, keypoints: int) -> list[tuple[int, ...]]:
    """Which keypoints each branch of the offset head regresses (paper, ablation of the separate regression).

    Raises:
        ValueError: a grouped head was asked for a skeleton without COCO's 17 keypoints.
    """
    if branches == "shared":
        return [tuple(range(keypoints))]
    if branches == "per_keypoint":
        return [(index,) for index in range(keypoints)]
    if keypoints != 17:
        raise ValueError(f"branches={branches!r} is defined for COCO's 17 keypoints, got {keypoints}")
    if branches == "grouped_5":
        return [_HEAD, _LEFT_ARM, _RIGHT_ARM, _LEFT_LEG, _RIGHT_LEG]
    return [_HEAD, *((index,) for index in range(5, 17))]


class HeatmapHead(nn.Module):
    """(B, C, h, w) features -> (B, K+1, h, w) heatmaps; the last channel holds the centers. No sigmoid."""

    def __init__(self, in_channels: int, keypoints: int, config: HeadConfig) -> None:
        super().__init__()
        self.transition = conv_bn(in_channels, config.heatmap_channels, 1)
        self.block = BasicBlock(config.heatmap_channels)
        self.final = nn.Conv2d(config.heatmap_channels, keypoints + 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        return self.from_transition(self.transition(features))

    def from_transition(self, maps: Tensor) -> Tensor:
        """``forward`` from the transition's (B, heatmap_channels, h, w) maps on."""
        return cast(Tensor, self.final(self.block(maps)))


class SeparableHeatmapHead(nn.Module):
    """MoveNet's form of a ``HeatmapHead``; its heatmaps are from 0 to 1.

    Keypoints and centers have a separable convolution each.
    """

    def __init__(self, in_channels: int, keypoints: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.keypoints = SeparableConv(in_channels, channels)
        self.centers = SeparableConv(in_channels, channels)
        self.final = nn.Conv2d(channels, keypoints, 1)
        self.final_center = nn.Conv2d(channels, 1, 1)

    def reset_parameters(self) -> None:
        """Next to nothing everywhere."""
        for last in (self.final, self.final_center):
            assert last.bias is not None
            nn.init.constant_(last.bias, math.log(_PRIOR / (1 - _PRIOR)))

    def forward(self, features: Tensor) -> Tensor:
        return self.from_transition(self.transition(features))

    def transition(self, features: Tensor) -> Tensor:
        """(B, 2 * channels, h, w): what the keypoints' maps are read from, then what the centers' are."""
        return torch.cat([self.keypoints(features), self.centers(features)], dim=1)

    def from_transition(self, maps: Tensor) -> Tensor:
        """``forward`` from the transition's maps on."""
        return torch.sigmoid(self.logits(maps))

    def logits(self, maps: Tensor) -> Tensor:
        """``from_transition`` before the sigmoid."""
        keypoints, centers = torch.split(maps, self.channels, dim=1)
        return torch.cat([self.final(keypoints), self.final_center(centers)], dim=1)


class RegressionBlock(nn.Module):
    """(Adaptive) 3x3 convolution, batch norm, shortcut, ReLU for G branches of C channels at once."""

    def __init__(self, branches: int, channels: int, adaptive: bool) -> None:
        super().__init__()
        width = branches * channels
        self.conv = (
            AdaptiveConv(branches, channels)
            if adaptive
            else nn.Conv2d(width, width, 3, padding=1, groups=branches, bias=False)
        )
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)) + x, inplace=True)

    def at(self, x: Tensor, pixels: Tensor) -> Tensor:
        """The same at (B, P, 2) pixels only: (B, G * C, P)."""
        out = self.conv.at(x, pixels) if isinstance(self.conv, AdaptiveConv) else gather_pixels(self.conv(x), pixels)
        return F.relu(self.bn(out.unsqueeze(-1)).squeeze(-1) + gather_pixels(x, pixels), inplace=True)


class BranchGroup(nn.Module):
    """The branches of one width: blocks, then a 1x1 convolution to two offsets per keypoint.

    Args:
        branches: G.
        channels: width of each branch.
        keypoints: keypoints that each branch regresses.
    """

    def __init__(self, branches: int, channels: int, keypoints: int, config: HeadConfig) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(RegressionBlock(branches, channels, config.adaptive) for _ in range(config.blocks))
        )
        self.final = nn.Conv2d(branches * channels, branches * keypoints * 2, 1, groups=branches)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.final(self.blocks(x)))

    def at(self, x: Tensor, pixels: Tensor) -> Tensor:
        """Offsets (B, 2 * keypoints, P) at (B, P, 2) pixels; only the blocks before the last see every pixel."""
        x = cast(Tensor, self.blocks[:-1](x))
        out = cast(RegressionBlock, self.blocks[-1]).at(x, pixels)
        return cast(Tensor, self.final(out.unsqueeze(-1)).squeeze(-1))


class SharedGroup(nn.Module):
    """One convolution to the offsets of all keypoints, which the branches then correct; no adaptive blocks."""

    def __init__(self, channels: int, keypoints: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential()
        self.final = nn.Conv2d(channels, 2 * keypoints, 1)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.final(x))

    def at(self, x: Tensor, pixels: Tensor) -> Tensor:
        """Offsets (B, 2K, P) at (B, P, 2) pixels."""
        return cast(Tensor, self.final(gather_pixels(x, pixels).unsqueeze(-1)).squeeze(-1))


class SharedTransition(nn.Module):
    """What the branches read, then what the shared group reads: (B, C, h, w) -> (B, branches + shared, h, w)."""

    def __init__(self, in_channels: int, branches: int, shared: int) -> None:
        super().__init__()
        self.branches = conv_bn(in_channels, branches, 1)
        self.shared = SeparableConv(in_channels, shared)

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([self.branches(features), self.shared(features)], dim=1)


class OffsetHead(nn.Module):
    """(B, C, h, w) features -> (B, 2K, h, w) offsets, pixel - keypoint in heatmap pixels, channels x0, y0, x1, ..."""

    def __init__(self, in_channels: int, keypoints: int, config: HeadConfig) -> None:
        super().__init__()
        per_branch = branch_keypoints(config.branches, keypoints)
        groups = [list(group) for _, group in groupby(per_branch, key=len)]
        widths = [
            config.shared_channels if config.branches == "shared" else config.keypoint_channels * len(group[0])
            for group in groups
        ]
        self.splits = [len(group) * width for group, width in zip(groups, widths, strict=True)]
        self.shared = config.shared_offsets > 0
        self.transition: nn.Module = (
            SharedTransition(in_channels, sum(self.splits), config.shared_offsets)
            if self.shared
            else conv_bn(in_channels, sum(self.splits), 1)
        )
        self.groups = nn.ModuleList(
            BranchGroup(len(group), width, len(group[0]), config) for group, width in zip(groups, widths, strict=True)
        )
        if self.shared:
            self.groups.append(SharedGroup(config.shared_offsets, keypoints))
            self.splits.append(config.shared_offsets)
        order = [keypoint for branch in per_branch for keypoint in branch]
        positions = sorted(range(len(order)), key=order.__getitem__)
        channels = [2 * position + xy for position in positions for xy in (0, 1)]
        self.channel_order = None if channels == list(range(2 * keypoints)) else channels

    def forward(self, features: Tensor) -> Tensor:
        return self.from_transition(self.transition(features))

    def from_transition(self, maps: Tensor) -> Tensor:
        """``forward`` from the transition's (B, sum of ``splits``, h, w) maps on."""
        return self._join([group(part) for group, part in zip(self.groups, self._split(maps), strict=True)])

    def at(self, features: Tensor, pixels: Tensor) -> Tensor:
        """Offsets (B, 2K, P) at (B, P, 2) integer xy heatmap pixels, equal to the map's values there."""
        return self.at_transition(self.transition(features), pixels)

    def at_transition(self, maps: Tensor, pixels: Tensor) -> Tensor:
        """``at`` from the transition's maps on, for training that runs the transition in half precision."""
        groups = zip(self.groups, self._split(maps), strict=True)
        return self._join([cast(BranchGroup | SharedGroup, group).at(part, pixels) for group, part in groups])

    def _split(self, maps: Tensor) -> tuple[Tensor, ...]:
        # exported, a split into one part would be a copy
        return (maps,) if len(self.splits) == 1 else torch.split(maps, self.splits, dim=1)

    def _join(self, parts: list[Tensor]) -> Tensor:
        own = parts[:-1] if self.shared else parts
        offsets = own[0] if len(own) == 1 else torch.cat(own, dim=1)
        offsets = offsets if self.channel_order is None else offsets[:, self.channel_order]
        return offsets + parts[-1] if self.shared else offsets


def offsets_at(head: nn.Module, features: Tensor, pixels: Tensor) -> Tensor:
    """Offsets (B, 2K, P) at (B, P, 2) integer xy heatmap pixels; foreign heads and those with hooks see every pixel."""
    watched = any(module._forward_hooks or module._forward_pre_hooks for module in head.modules())
    if isinstance(head, OffsetHead) and not watched:
        return head.at(features, pixels)
    return gather_pixels(head(features), pixels)


class DEKR(Network):
    """Normalised RGB (B, 3, H, W) -> heatmaps (B, K+1, H/4, W/4) and offsets (B, 2K, H/4, W/4).

    Heatmaps: one channel per keypoint, the last for the centers; as they are taught, without a sigmoid, but for the
    separable head, which ends in one. Offsets: pixel - keypoint in heatmap
    pixels, channels x0, y0, x1, ... (the official code's convention). H and W must be multiples of 32.
    """

    picks = True
    """Whether it gives offsets at picked pixels alone, see ``forward``."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        keypoints = len(config.skeleton)
        self.backbone = make_backbone(config.backbone)
        self.heatmap_head = _heatmap_head(self.backbone.out_channels, keypoints, config.head)
        self.offset_head = OffsetHead(self.backbone.out_channels, keypoints, config.head)
        self.apply(_initialise)  # children first, so an adaptive convolution resets its transform last
        self.fast_path: FastPath | None = None

    def forward(self, images: Tensor, *, pick: Pick | None = None) -> Pair:
        """The maps; or, with ``pick``, the heatmaps, and offsets (B, 2K, P) at the pixels that it picks in them."""
        return self.running(images)(images, pick=pick)

    def running(self, images: Tensor) -> Callable[..., Pair]:
        """What computes the maps of these images here and now: the fast network where it can, ``plain`` elsewhere."""
        fast = None if self.fast_path is None else self.fast_path.network(self, images)
        return self.plain if fast is None else fast

    def plain(self, images: Tensor, *, pick: Pick | None = None) -> Pair:
        """``forward`` layer by layer, as the network is trained and exported."""
        features = self.features(images)
        heatmaps = self.heatmap_head(features)
        with torch.autocast(images.device.type, enabled=False):  # half precision would move keypoints by pixels
            features = features.to(torch.promote_types(features.dtype, torch.float32))
            if pick is not None:
                return heatmaps, offsets_at(self.offset_head, features, pick(heatmaps))
            return heatmaps, self.offset_head(features)

    def pretrained(self) -> list[nn.Module]:
        """What published weights fill: the backbone, and heads of MoveNet's form."""
        layers = self.backbone.pretrained()
        if isinstance(self.heatmap_head, SeparableHeatmapHead):
            layers += self.heatmap_head.children()
        if self.offset_head.shared:
            layers += [cast(SharedTransition, self.offset_head.transition).shared, self.offset_head.groups[-1]]
        return layers

    def compilable(self) -> list[nn.Module]:
        """Backbone and heatmap head: their numbers may be rounded."""
        return [self.backbone, self.heatmap_head]

    def features(self, images: Tensor) -> Tensor:
        """The backbone's maps joined at stride 4: (B, C, H/4, W/4), C = 15 * width for HRNet."""
        return concatenate(self.backbone(images))


def takes_pick(network: Callable[..., object]) -> bool:
    """Whether a network gives offsets at picked pixels (see ``DEKR.forward``), and nobody waits for its whole maps.

    Hooks on its answer want the maps, and compiled networks, whose wrappers have their attributes but not their class,
    cannot be left in their middle.
    """
    if not isinstance(network, nn.Module) or not hasattr(type(network), "picks"):
        return False
    watched = network._forward_hooks or getattr(network, "_compiled_call_impl", None) is not None
    return bool(network.picks) and not watched


def _heatmap_head(in_channels: int, keypoints: int, config: HeadConfig) -> HeatmapHead | SeparableHeatmapHead:
    if config.heatmaps == "separable":
        return SeparableHeatmapHead(in_channels, keypoints, config.heatmap_channels)
    return HeatmapHead(in_channels, keypoints, config)


def _initialise(module: nn.Module) -> None:
    """The official initialisation: small normal weights; layers without batch norm behind them keep their own."""
    if any(parameter.is_meta for parameter in module.parameters()):
        return  # random numbers for nothing: they load half a compiler, a second's work
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=0.001)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, (AdaptiveConv, Backbone, SeparableConv, SeparableHeatmapHead)):
        module.reset_parameters()
