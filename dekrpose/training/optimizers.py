"""Optimisers and learning rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from dekrpose.training.recipes import TrainConfig


def make_optimizer(
    model: nn.Module, config: TrainConfig, pretrained: Sequence[nn.Module] = ()
) -> torch.optim.Optimizer:
    """AdamW or Adam over the network's parameters.

    Args:
        model: the network.
        config: the run.
        pretrained: layers whose learning rate is ``config.pretrained_rate`` times that of the others.
    """
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    slow = {id(value) for layer in pretrained for value in layer.parameters()}
    parts = [[value for value in model.parameters() if (id(value) in slow) == is_slow] for is_slow in (False, True)]
    groups = _parameter_groups(parts[0], config.weight_decay, 1.0)
    if parts[1]:
        groups += _parameter_groups(parts[1], config.weight_decay, config.pretrained_rate)
    try:
        return kind(groups, config.learning_rate, fused=True)
    except RuntimeError:  # torch before 2.4 has it for CUDA only
        return kind(groups, config.learning_rate)


def learning_rate(config: TrainConfig, step: int, epoch_steps: int) -> float:
    """The rate of a step: warm-up, then the schedule."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    if config.schedule == "steps":
        return config.learning_rate * 0.1 ** sum(step >= epoch * epoch_steps for epoch in config.milestones)
    share = (step - config.warmup) / max(1, config.epochs * epoch_steps - config.warmup)
    return config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))))


def _parameter_groups(values: Sequence[nn.Parameter], weight_decay: float, rate: float) -> list[dict[str, Any]]:
    """Weight decay for convolutions only, not for biases and batch norm; ``rate`` is a share of the learning rate."""
    decayed = [value for value in values if value.ndim > 1]
    others = [value for value in values if value.ndim <= 1]
    return [
        {"params": decayed, "weight_decay": weight_decay, "rate": rate},
        {"params": others, "weight_decay": 0.0, "rate": rate},
    ]
