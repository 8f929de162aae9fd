"""Optimisers and learning rates."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from dekrpose.training.recipes import TrainConfig


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW or Adam over the network's parameters."""
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    groups = _parameter_groups(model, config.weight_decay)
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


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for convolutions only, not for biases and batch norm."""
    decayed = [value for value in model.parameters() if value.ndim > 1]
    others = [value for value in model.parameters() if value.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
