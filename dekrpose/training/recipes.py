"""What a training run is made of: the recipes of this library and of the paper, optimisers and learning rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import nn

from dekrpose.architectures.dekr.losses import OFFSET_FACTORS
from dekrpose.training.augment import AugmentConfig
from dekrpose.training.loader import TargetConfig

_SMALLEST = 2.0**-12
"""Weights below it, such as biases of zero, are taken for this large."""


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Args:
        epochs, batch_size, seed: as usual; the last incomplete batch of an epoch is left out. Where several processes
            train together, ``batch_size`` is that of each.
        optimizer: "adamw", or "adam" as in the paper.
        schedule: "cosine" to 1 % of the peak, or "steps": a tenth at each of ``milestones``.
        milestones: epochs.
        learning_rate: its peak, reached after ``warmup`` steps.
        weight_decay: of convolutions' weights.
        clip_norm: largest gradient norm; 0 leaves gradients as they are.
        ema: decay per step of the averaged weights, which are the ones that are saved; 0 saves the last ones.
        offset_factor: weight of the offset loss (the paper's lambda for true diagonals).
        precision: "float32" or "bfloat16" for backbone and heatmap head, "auto" for what is faster on this machine;
            the offset head stays in float32.
        pretrained_rate: learning rate of what published weights fill, as a share of the others' and of the weights' own
            size (0.5 and a rate of 0.001: a step changes a weight of 0.1 by 0.00005 at most); 0 leaves it as it is.
        teacher_share: weight of a teacher's heatmaps and offsets against the labels, see ``Teacher``.
        keep_early_layers: the backbone's first layers and their statistics stay as they are in the initial weights.
        workers: processes that prepare batches.
        on_device: make batches on the device, where all photos then lie as uint8, instead of in processes.
        compiled: backbone and heatmap head go through ``torch.compile``: a minute at the start, then faster steps.
        checkpoint_minutes: how often the state is saved.
        limit: use only the first photos (ablations, tests).
        augment, targets: see their classes.
    """

    epochs: int = 140
    batch_size: int = 16
    seed: int = 0
    optimizer: Literal["adamw", "adam"] = "adamw"
    schedule: Literal["cosine", "steps"] = "cosine"
    milestones: tuple[int, ...] = (90, 120)
    learning_rate: float = 1e-3
    warmup: int = 500
    weight_decay: float = 1e-2
    clip_norm: float = 5.0
    ema: float = 0.999
    offset_factor: float = OFFSET_FACTORS["paper"]
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    pretrained_rate: float = 1.0
    teacher_share: float = 0.3
    keep_early_layers: bool = False
    workers: int = 1
    on_device: bool = False
    compiled: bool = False
    checkpoint_minutes: float = 5.0
    limit: int | None = None
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    targets: TargetConfig = field(default_factory=TargetConfig)


def tiny_recipe(on_device: bool = False) -> TrainConfig:
    """How ``tiny`` is trained: small crops, few offset pixels, mosaics.

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


RECIPES = {"tiny": tiny_recipe, "tiny-mobilenet": movenet_recipe}
"""Of this library's own networks, by name; the others have ``TrainConfig()``."""


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


def make_optimizer(
    model: nn.Module, config: TrainConfig, pretrained: Sequence[nn.Module] = ()
) -> torch.optim.Optimizer:
    """AdamW or Adam over the network's parameters.

    Args:
        model: the network.
        config: the run.
        pretrained: layers whose learning rate is ``config.pretrained_rate`` times that of the others, times the size
            of their weights: where batch norm was folded into them, some are 0.0005 and others 30, and a step of one
            size for all would wipe the small ones out.
    """
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    slow = {id(value) for layer in pretrained for value in layer.parameters()}
    by_rate: dict[float, list[nn.Parameter]] = {1.0: []}
    for value in model.parameters():
        rate = config.pretrained_rate * _size(value) if id(value) in slow else 1.0
        by_rate.setdefault(rate, []).append(value)
    groups = [group for rate, values in by_rate.items() for group in _groups(values, config.weight_decay, rate)]
    try:
        return kind(groups, config.learning_rate, fused=True)
    except RuntimeError:  # not every device has it
        return kind(groups, config.learning_rate)


def learning_rate(config: TrainConfig, step: int, epoch_steps: int) -> float:
    """The rate of a step: warm-up, for a fifth of a short run at most, then the schedule."""
    total = config.epochs * epoch_steps
    warmup = min(config.warmup, total // 5)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    if config.schedule == "steps":
        return config.learning_rate * 0.1 ** sum(step >= epoch * epoch_steps for epoch in config.milestones)
    share = (step - warmup) / max(1, total - warmup)
    return config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))))


def _size(value: nn.Parameter) -> float:
    """The power of two next to the size of a tensor's weights: of the channels' root mean squares, the median."""
    rows = value.detach().reshape(len(value), -1) if value.ndim > 1 else value.detach()[None]
    size = float(rows.square().mean(1).sqrt().median())
    return 2.0 ** round(math.log2(max(size, _SMALLEST)))


def _groups(values: Sequence[nn.Parameter], weight_decay: float, rate: float) -> list[dict[str, Any]]:
    """Weight decay for convolutions only, not for biases and batch norm; ``rate`` is a share of the learning rate."""
    decayed = [value for value in values if value.ndim > 1]
    others = [value for value in values if value.ndim <= 1]
    return [
        {"params": decayed, "weight_decay": weight_decay, "rate": rate},
        {"params": others, "weight_decay": 0.0, "rate": rate},
    ]
