"""The rescoring net: judges a pose by its shape and keypoint scores.

The official one predicts its OKS, which poses' scores are multiplied by ("Rescoring" of the published tables). A
calibrated one, which is ours, says probabilities, which are the scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

HIDDEN = 256
TORSO_EDGES = (9, 11)
"""Edges whose mean length is the unit. For COCO the two sides of the trunk; for CrowdPose a thigh and a shin, and the
published net was trained so."""


class OKSScoreNet(nn.Module):
    """Two hidden layers of 256 with ReLU, linear to 1, or to 1 + K in a calibrated net.

    Args:
        features: input width, 3 per edge plus 1 per keypoint (COCO 74, CrowdPose 59).
        keypoints: K of a calibrated net; 0 makes an official one.

    Attributes:
        calibrated: whether the net says probabilities.
    """

    def __init__(self, features: int, keypoints: int = 0) -> None:
        super().__init__()
        self.l1 = nn.Linear(features, HIDDEN)
        self.l2 = nn.Linear(HIDDEN, HIDDEN)
        self.l3 = nn.Linear(HIDDEN, 1 + keypoints)
        self.calibrated = keypoints > 0

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> OKSScoreNet:
        """The net that these weights belong to, with them."""
        with torch.device("meta"):  # real layers would draw from the caller's random numbers
            net = cls(tensors["l1.weight"].shape[1], len(tensors["l3.bias"]) - 1)
        net.load_state_dict({name: value.float() for name, value in tensors.items()}, assign=True)
        return net

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, features), see ``pose_features``, to the predicted OKS (N,), not clipped.

        A calibrated net gives logits (N, 1 + K): that the pose fits somebody with an OKS of at least 0.5, and that each
        keypoint lies where it would have half of the highest similarity, or nearer.
        """
        hidden = torch.relu(self.l1(features))
        hidden = torch.relu(self.l2(hidden))
        said = torch.as_tensor(self.l3(hidden))
        return said if self.calibrated else said[:, 0]

    def scored(self, features: Tensor, keypoint_scores: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Score poses: what an official net says is a factor, what a calibrated one says is the score.

        Args:
            features: (N, features), see ``pose_features``.
            keypoint_scores: (N, K) raw.
            scores: (N,) raw.

        Returns:
            Scores (N,), 0 where they are not a number, and keypoint scores (N, K); N may be 0.
        """
        said = self(features)
        if self.calibrated:
            said = said.sigmoid()
            scores, keypoint_scores = said[:, 0], said[:, 1:]
        else:
            scores = scores * said
        return torch.where(scores.isnan(), 0.0, scores), keypoint_scores


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
