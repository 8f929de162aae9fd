"""DirectPose's losses: focal ones for classes and heatmaps, cross entropy for centerness, L1 for keypoints."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

ALPHA, GAMMA = 0.25, 2.0
"""Of the focal loss (Lin et al., ICCV 2017)."""


def focal_loss(logits: Tensor, target: Tensor, counted: Tensor) -> Tensor:
    """The sum over what is counted; logits of any shape, target and counted boolean."""
    cross = functional.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")
    probability = logits.sigmoid()
    wrong = torch.where(target, 1 - probability, probability)
    weight = torch.where(target, ALPHA, 1 - ALPHA) * wrong**GAMMA
    return (weight * cross * counted).sum()


def keypoint_loss(predicted: Tensor, target: Tensor, labelled: Tensor, weights: Tensor) -> Tensor:
    """The mean L1 distance over labelled coordinates of each location, weighted over the locations.

    Args:
        predicted, target: (N, K, 2) cells.
        labelled: (N, K) bool.
        weights: (N,), such as centerness.

    Returns:
        A scalar; 0 when nobody is there.
    """
    distances = ((predicted - target).abs().sum(2) * labelled).sum(1) / (2 * labelled.sum(1)).clamp(min=1)
    return (distances * weights).sum() / weights.sum().clamp(min=1e-6)


def box_loss(predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Minus the logarithm of the overlap of boxes around the same point, (N, 4) left, top, right, bottom, weighted."""
    common = torch.minimum(predicted, target)
    area, own, other = (_area(sides) for sides in (common, predicted, target))
    overlap = (area + 1e-6) / (own + other - area + 1e-6)
    return (-overlap.log() * weights).sum() / weights.sum().clamp(min=1e-6)


def _area(sides: Tensor) -> Tensor:
    return (sides[:, 0] + sides[:, 2]) * (sides[:, 1] + sides[:, 3])
