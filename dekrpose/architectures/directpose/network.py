"""DirectPose: at every location of a feature pyramid, whether somebody is there, and that person's keypoints.

Tian, Chen, Shen, "DirectPose: Direct End-to-End Multi-Person Pose Estimation", arXiv 1911.07451.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dekrpose.architectures.contract import Network
from dekrpose.architectures.directpose.feature_pyramid import FeaturePyramid
from dekrpose.architectures.directpose.groups import keypoint_groups
from dekrpose.architectures.directpose.kpalign import GroupedLinear, sample_aligned
from dekrpose.architectures.parts import make_backbone
from dekrpose.config import DirectPoseHeadConfig, ModelConfig

_PRIOR = 0.01
"""What a fresh network gives every location, so that the many empty ones do not drown the others."""
_DEPTH = 4
"""Convolutions of the keypoint tower."""
_NORM_CHANNELS, _GROUP_NORM_CHANNELS = 8, 4
"""Channels that group norm takes together, in the class tower and in the groups of keypoints."""
Levels = list[Tensor]


def conv_norm(in_channels: int, channels: int, norm_channels: int, groups: int = 1) -> nn.Sequential:
    """A 3x3 convolution, group norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 3, padding=1, groups=groups),
        nn.GroupNorm(channels // norm_channels, channels),
        nn.ReLU(inplace=True),
    )


class KeypointHead(nn.Module):
    """Pyramid levels -> keypoints (B, 2K, h, w) of each: x0, y0, x1, ... relative to the location, in cells."""

    def __init__(self, channels: int, groups: tuple[tuple[int, ...], ...], config: DirectPoseHeadConfig) -> None:
        super().__init__()
        count, width = len(groups), len(groups) * config.group_channels
        grouped = [conv_norm(width, width, _GROUP_NORM_CHANNELS, count) for _ in range(_DEPTH - 1)]
        self.tower = nn.Sequential(conv_norm(channels, width, _GROUP_NORM_CHANNELS), *grouped)
        self.exact = config.exact_alignment
        self.locator: nn.Conv2d | None = None
        if config.aligned:
            self.locator = nn.Conv2d(width, 2 * count, 3, padding=1, groups=count)
            self.sampler = conv_norm(width, width, _GROUP_NORM_CHANNELS, count)
            self.predictor: nn.Module = GroupedLinear(groups, config.group_channels)
        else:
            self.predictor = nn.Conv2d(width, 2 * sum(map(len, groups)), 3, padding=1)
        of_keypoint = {keypoint: group for group, own in enumerate(groups) for keypoint in own}
        self.channels = [2 * of_keypoint[keypoint] + xy for keypoint in range(len(of_keypoint)) for xy in (0, 1)]

    def forward(self, levels: Levels) -> Levels:
        towers = [self.tower(level) for level in levels]
        if self.locator is None:
            return [self.predictor(tower).float() for tower in towers]
        features = [self.sampler(tower) for tower in towers]
        return [self._aligned(tower, level, features) for level, tower in enumerate(towers)]

    def _aligned(self, tower: Tensor, level: int, features: Levels) -> Tensor:
        assert self.locator is not None
        bases = self.locator(tower).float()
        factor = 2 if level else 1  # the finest level has no finer one to read
        read = sample_aligned(features[max(level - 1, 0)], bases, factor, exact=self.exact)
        return cast(Tensor, bases[:, self.channels] + self.predictor(read) / factor)


class PoseHead(nn.Module):
    """Pyramid levels -> what each location says, and what is asked in training alone. All levels share its weights.

    Args:
        channels: of the levels.
        groups: see ``keypoint_groups``.
    """

    def __init__(self, channels: int, groups: tuple[tuple[int, ...], ...], config: DirectPoseHeadConfig) -> None:
        super().__init__()
        self.class_tower = nn.Sequential(
            *(conv_norm(channels, channels, _NORM_CHANNELS) for _ in range(config.class_depth))
        )
        self.classes, self.centers = (nn.Conv2d(channels, 1, 3, padding=1) for _ in range(2))
        self.keypoints = KeypointHead(channels, groups, config)
        self.boxes = nn.Conv2d(channels, 4, 3, padding=1) if config.boxes else None
        self.heatmaps: nn.Sequential | None = None
        if config.heatmaps:
            width = config.heatmap_channels
            layers = [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True)]
            self.heatmaps = nn.Sequential(*layers, nn.Conv2d(width, sum(map(len, groups)), 3, padding=1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None and not module.weight.is_meta:
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)
        priors = [self.classes, *([] if self.heatmaps is None else [self.heatmaps[-1]])]
        for last in priors:
            assert isinstance(last, nn.Conv2d)
            assert last.bias is not None
            if not last.bias.is_meta:
                nn.init.constant_(last.bias, -math.log((1 - _PRIOR) / _PRIOR))

    def forward(self, levels: Levels) -> Levels:
        """(B, 2 + 2K, h, w) of each level: logits of class and centerness, keypoints."""
        towers = [self.class_tower(level) for level in levels]
        return self._joined(towers, levels)

    def taught(self, levels: Levels) -> tuple[Levels, Levels | None, Tensor | None]:
        """``forward``; each level's boxes (B, 4, h, w), cells to left, top, right, bottom; and heatmap logits."""
        towers = [self.class_tower(level) for level in levels]
        boxes = None if self.boxes is None else [F.softplus(self.boxes(tower)).float() for tower in towers]
        heatmaps = None if self.heatmaps is None else self.heatmaps(levels[0]).float()
        return self._joined(towers, levels), boxes, heatmaps

    def _joined(self, towers: Levels, levels: Levels) -> Levels:
        keypoints = self.keypoints(levels)
        logits = [torch.cat([self.classes(tower), self.centers(tower)], dim=1).float() for tower in towers]
        return [torch.cat(pair, dim=1) for pair in zip(logits, keypoints, strict=True)]


class DirectPose(Network):
    """Normalised RGB (B, 3, H, W) -> for each level, finest first, (B, 2 + 2K, h, w).

    Channels: logits of the class (somebody is here) and of the centerness, then x0, y0, x1, ... of the keypoints,
    relative to the location, in cells of the level; see ``locations``. H and W must be multiples of 32.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        head = cast(DirectPoseHeadConfig, config.head)
        self.backbone = make_backbone(config.backbone)
        if not next(self.backbone.parameters()).is_meta:
            self.backbone.reset_parameters()
        self.pyramid = FeaturePyramid(self.backbone.map_channels, head.channels, head.levels)
        self.head = PoseHead(head.channels, keypoint_groups(config.skeleton), head)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        levels = self.pyramid(self.backbone(images))
        with torch.autocast(images.device.type, enabled=False):  # half precision would move keypoints by pixels
            return tuple(self.head([level.float() for level in levels]))

    def pretrained(self) -> list[nn.Module]:
        """The backbone, all of it: what it starts from was trained for poses, or on ImageNet."""
        return [self.backbone]
