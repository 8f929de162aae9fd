"""What several architectures share."""

from __future__ import annotations

from dekrpose.architectures.parts.backbone import Backbone
from dekrpose.architectures.parts.efficientnet_lite import EfficientNetLite
from dekrpose.architectures.parts.hrnet import HRNet
from dekrpose.architectures.parts.mobilenet import MobileNet
from dekrpose.architectures.parts.resnet import ResNet
from dekrpose.config import Backbone as BackboneSettings
from dekrpose.config import BackboneConfig, EfficientNetLiteConfig, MobileNetConfig, ResNetConfig

__all__ = ["BACKBONES", "Backbone", "make_backbone"]

BACKBONES = {
    BackboneConfig: HRNet, EfficientNetLiteConfig: EfficientNetLite, MobileNetConfig: MobileNet, ResNetConfig: ResNet,
}  # fmt: skip
"""By the type of their configuration."""


def make_backbone(config: BackboneSettings) -> Backbone:
    """The backbone that a configuration describes, with fresh weights."""
    backbone: Backbone = BACKBONES[type(config)](config)  # type: ignore[arg-type]
    return backbone
