"""How DirectPose networks are trained: this library's recipe for the small one, and the paper's."""

from __future__ import annotations

from dekrpose.architectures.directpose.targets import LocationTargets
from dekrpose.architectures.learning import AugmentConfig, TrainConfig


def tiny_recipe(levels: int) -> TrainConfig:
    """As DEKR's ``tiny`` is trained: small crops, mosaics."""
    augment = AugmentConfig(
        size=160, rotation=25.0, scale=(0.6, 1.3), color=0.2, grey=0.1, mosaic=0.2, on_person=0.7, minimum_keypoints=3
    )
    return TrainConfig(
        epochs=20, batch_size=16, learning_rate=1e-3, warmup=300, precision="float32", augment=augment,
        targets=LocationTargets(levels=levels),
    )  # fmt: skip


def paper_recipe(levels: int, photos_per_epoch: int = 64115) -> TrainConfig:
    """The paper's 180,000 steps of 32 crops on COCO train2017, whose photos of people are 64,115.

    Its learning rate is 0.01, ten times that for the head; ``learning_rate`` is the head's.
    """
    return TrainConfig(
        epochs=round(180_000 * 32 / photos_per_epoch), batch_size=32, optimizer="sgd", schedule="linear",
        learning_rate=0.1, warmup=1000, weight_decay=1e-4, clip_norm=5.0, ema=0.0, pretrained_rate=0.1,
        augment=AugmentConfig(size=800, rotation=0.0, scale=(0.5, 1.67), translation=40.0),
        targets=LocationTargets(levels=levels),
    )  # fmt: skip
