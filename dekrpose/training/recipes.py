"""Optimisers and learning rates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from dekrpose.architectures.learning import TrainConfig

_SMALLEST = 2.0**-12
"""Weights below it, such as biases of zero, are taken for this large."""


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
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": partial(torch.optim.SGD, momentum=0.9),
    }  # fmt: skip
    kind = kinds[config.optimizer]
    own_size = config.optimizer != "sgd"  # whose steps are as small as gradients are
    slow = {id(value) for layer in pretrained for value in layer.parameters()}
    by_rate: dict[float, list[nn.Parameter]] = {1.0: []}
    for value in model.parameters():
        rate = config.pretrained_rate * (_size(value) if own_size else 1.0) if id(value) in slow else 1.0
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
    if config.schedule == "linear":
        return config.learning_rate * (1 - share)
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
