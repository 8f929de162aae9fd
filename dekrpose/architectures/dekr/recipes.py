"""How DEKR networks are trained: the recipes of this library and of the paper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from dekrpose.architectures.dekr.batches import TargetConfig
from dekrpose.architectures.learning import AugmentConfig, TrainConfig
from dekrpose.config import EfficientNetLiteConfig, MobileNetConfig


def tiny_recipe(on_device: bool = False) -> TrainConfig:
    """How a small network is trained: small crops, few offset pixels, mosaics.

    ``on_device``, for a GPU that makes the batches: more epochs and a larger batch of larger crops.
    """
    config = TrainConfig(
        epochs=20,
        batch_size=16,
        learning_rate=1e-3,
        warmup=300,
        offset_factor=0.04,  # balances the two losses' gradients in the backbone
        precision="auto",
        augment=AugmentConfig(
            size=160,
            rotation=25.0,
            scale=(0.6, 1.3),
            color=0.2,
            grey=0.1,
            mosaic=0.2,
            on_person=0.7,
            minimum_keypoints=3,
        ),
        targets=TargetConfig(sigma=1.5, center_sigma=2.0, radius=3, offset_pixels=160),
    )
    if not on_device:
        return config
    return replace(
        config,
        epochs=100,
        batch_size=128,
        learning_rate=2e-3,
        warmup=500,
        weight_decay=2e-2,
        augment=replace(config.augment, size=192, rotation=40.0, scale=(0.6, 1.5), color=0.3, mosaic=0.25),
        targets=replace(config.targets, offset_pixels=256),
    )


def movenet_recipe(on_device: bool = False) -> TrainConfig:
    """How a network that starts from MoveNet is trained: as ``tiny_recipe``, and MoveNet's own weights at a low rate.

    Its heatmaps are as wide as MoveNet's, whose peaks have a sigma of 1.2 to 1.4 heatmap pixels (centers: 1.1 to 1.6).
    """
    config = tiny_recipe(on_device)
    return replace(
        config,
        pretrained_rate=0.5,
        clip_norm=0.0,  # the norm is that of the smallest weights, and says nothing of the others
        augment=replace(config.augment, size=192, scale=(0.6, 1.5)),
        targets=replace(config.targets, sigma=1.3, center_sigma=1.5, background_weight=1.0, offset_pixels=96),
    )


RECIPES: dict[type, Callable[[bool], TrainConfig]] = {
    MobileNetConfig: movenet_recipe, EfficientNetLiteConfig: tiny_recipe
}  # fmt: skip
"""By the type of the backbone's configuration; the others have ``TrainConfig()``."""


def paper_recipe(size: int = 512, crowdpose: bool = False) -> TrainConfig:
    """Targets, augmentation, optimiser and schedule of the paper ("Training"); 40 crops are its whole batch."""
    return TrainConfig(
        epochs=300 if crowdpose else 140,
        batch_size=40,
        optimizer="adam",
        schedule="steps",
        milestones=(200, 260) if crowdpose else (90, 120),
        warmup=0,
        weight_decay=0.0,
        clip_norm=0.0,
        ema=0.0,
        augment=AugmentConfig(size=size),
    )
