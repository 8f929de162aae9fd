"""The rescoring net: predicts a pose's OKS from its shape and keypoint scores.

Source: the official code's final scoring ("Rescoring" of the published tables).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

HIDDEN = 256
TORSO_EDGES = (9, 11)
"""Edges whose mean length is the unit. For COCO the two sides of the trunk; for CrowdPose a thigh and a shin, and the
published net was trained so."""


class OKSScoreNet(nn.Module):
    """Two hidden layers of 256 with ReLU, linear to 1.

    Args:
        features: input width, 3 per edge plus 1 per keypoint (COCO 74, CrowdPose 59).
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.l1 = nn.Linear(features, HIDDEN)
        self.l2 = nn.Linear(HIDDEN, HIDDEN)
        self.l3 = nn.Linear(HIDDEN, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, features), see ``pose_features``; returns the predicted OKS (N,), not clipped."""
        hidden = torch.relu(self.l1(features))
        hidden = torch.relu(self.l2(hidden))
        return torch.as_tensor(self.l3(hidden))[:, 0]


def pose_features(keypoints: Tensor, keypoint_scores: Tensor, edges: Sequence[tuple[int, int]]) -> Tensor:
    """Describe poses by their relative limb vectors, limb lengths and keypoint scores.

    Vectors and lengths are divided by the mean length of edges 9 and 11, at least 1 pixel.

    Args:
        keypoints: (N, K, 2) xy, image pixels.
        keypoint_scores: (N, K) raw.
        edges: the skeleton's E edges in their own order; at least 12.

    Returns:
        (N, 3E + K): x0, y0, x1, ... of the E vectors, E lengths, K scores; N may be 0.

    Raises:
        ValueError: fewer than 12 edges.
    """
    if len(edges) <= max(TORSO_EDGES):
        raise ValueError(f"the rescoring net measures by edges 9 and 11, but there are {len(edges)} edges")
    first, second = torch.tensor(edges, device=keypoints.device).T
    vectors = keypoints[:, first] - keypoints[:, second]
    lengths = vectors.square().sum(2).sqrt()
    unit = lengths[:, TORSO_EDGES].mean(1, keepdim=True).clamp(min=1.0)
    return torch.cat([(vectors / unit[..., None]).flatten(1), lengths / unit, keypoint_scores], dim=1)


def rescore(
    net: nn.Module,
    keypoints: Tensor,
    keypoint_scores: Tensor,
    scores: Tensor,
    edges: Sequence[tuple[int, int]],
) -> Tensor:
    """Multiply pose scores by the net's prediction; what is not a number becomes 0.

    Args:
        net: an ``OKSScoreNet``.
        keypoints: (N, K, 2) xy, image pixels.
        keypoint_scores: (N, K) raw.
        scores: (N,) raw.
        edges: the skeleton's edges.

    Returns:
        (N,) raw scores; N may be 0.
    """
    with torch.inference_mode():
        rescored: Tensor = scores * net(pose_features(keypoints, keypoint_scores, edges))
    return torch.where(rescored.isnan(), 0.0, rescored)
