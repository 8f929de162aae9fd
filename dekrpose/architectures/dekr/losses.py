"""The two losses of DEKR: squared error on heatmaps, smooth L1 on offsets (paper, "Loss functions")."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from dekrpose.architectures.dekr.targets import TargetMode

SMOOTH_L1_BETA = 1 / 9
"""Offsets below this many heatmap pixels are penalised quadratically."""
OFFSET_FACTORS: dict[TargetMode, float] = {"official": 0.03, "paper": 0.002}
"""Lambda by target mode: 0.03 belongs to the official weights (1 / Z with Z from the image origin in input
pixels), 0.002 to the paper's (Z the diagonal of the keypoint box in heatmap pixels)."""


def heatmap_loss(predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Weighted squared error, averaged over all elements, also those of weight 0.

    Args:
        predicted: (B, K + 1, h, w).
        target: same shape, from ``heatmap_targets``.
        weights: same shape, from ``heatmap_targets``.

    Returns:
        A scalar.
    """
    return (weights * (predicted.float() - target).square()).mean()


def probability_loss(predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Weighted Kullback-Leibler divergence of heatmaps that are probabilities, averaged over all elements.

    Its gradient before the sigmoid is prediction - target, also where the prediction is sure and wrong; that of a
    squared error fades away there.

    Args:
        predicted: (B, K + 1, h, w) from 0 to 1, as a separable head gives them.
        target, weights: as for ``heatmap_loss``.

    Returns:
        A scalar, 0 where target and prediction agree.
    """
    with torch.autocast(predicted.device.type, enabled=False):
        cross = functional.binary_cross_entropy(predicted.float(), target, reduction="none")
        least = functional.binary_cross_entropy(target, target, reduction="none")
    return (weights * (cross - least)).mean()


def offset_loss(predicted: Tensor, target: Tensor, weights: Tensor, count: Tensor | None = None) -> Tensor:
    """Smooth L1 times weight, summed, divided by the number of weighted elements of the whole batch.

    Args:
        predicted: (B, 2K, h, w), heatmap pixels.
        target: same shape, from ``offset_targets``.
        weights: same shape, from ``offset_targets``.
        count: divide by this scalar instead, when the whole batch is more than what is given.

    Returns:
        A scalar; 0 with zero gradients when nothing is weighted.
    """
    errors = functional.smooth_l1_loss(predicted.float(), target, reduction="none", beta=SMOOTH_L1_BETA)
    if count is None:
        count = (weights > 0).sum().clamp(min=1)
    return (errors * weights).sum() / count
