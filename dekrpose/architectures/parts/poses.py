"""Poses, whatever finds them: suppression keeps one of several for a person, and the scoring net judges a pose.

The net sees a pose's shape and its keypoints' scores. The official one predicts its OKS, which poses' scores are
multiplied by ("Rescoring" of the published tables). A calibrated one, which is ours, says probabilities, which are the
scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

Scored = tuple[Tensor, Tensor, Tensor]
"""Poses (N, K, 2) xy, keypoint scores (N, K), and scores (N,) of the poses."""
HIDDEN = 256
TORSO_EDGES = (9, 11)
"""Edges whose mean length is the unit. For COCO the two sides of the trunk; for CrowdPose a thigh and a shin, and the
published net was trained so."""


def neighbour_relation(poses: Tensor, *, threshold: float, min_keypoints: int) -> Tensor:
    """Tell which poses are near which, measured by the row's size.

    Row i marks pose j when more than ``min_keypoints`` keypoints lie nearer than ``threshold`` times the diagonal
    of pose i's box, so the relation is not symmetric. A pose is near itself, except that a pose whose keypoints all
    coincide has no size: its row and column are empty.

    Args:
        poses: (N, K, 2) xy, input pixels.
        threshold: share of the diagonal.
        min_keypoints: keypoints that are not yet enough.

    Returns:
        (N, N) bool.
    """
    diagonals = (poses.amax(1) - poses.amin(1)).square().sum(1).sqrt()
    distances = (poses[:, None] - poses[None]).square().sum(3).sqrt()
    near = (distances < threshold * diagonals[:, None, None]).sum(2) > min_keypoints
    has_size = diagonals > 0
    near |= torch.eye(len(poses), dtype=torch.bool, device=poses.device)
    return near & has_size[:, None] & has_size[None]


def pose_nms(
    candidates: Tensor, heat: Tensor, threshold: float = 0.05, min_keypoints: int = 8, max_people: int = 30
) -> Scored:
    """Keep one candidate per neighbourhood, and score what is kept.

    The official walk: candidates in order, the ignored skipped. Of each neighbourhood the pose of highest mean heat
    is kept and the whole neighbourhood ignored from then on; but if that pose was ignored before, nothing is kept
    and nobody else is ignored. A pose whose keypoints all coincide is dropped. The answer keeps the order of the
    walk; only when more than ``max_people`` are left, the hottest are taken, hottest first.

    Args:
        candidates: (N, K, 3): x, y in input pixels, center value.
        heat: (N, K) heatmap values at the keypoints.
        threshold: share of a pose's box diagonal that counts as near.
        min_keypoints: poses are neighbours when more than this many keypoints are near.
        max_people: most poses in the answer.

    Returns:
        Poses (M, K, 2) in input pixels; keypoint scores (M, K), center value times heat; pose scores (M,), their
        means; M may be 0.
    """
    mean_heat = heat.mean(1)
    relation = neighbour_relation(candidates[..., :2], threshold=threshold, min_keypoints=min_keypoints)
    kept = _walk([row.nonzero()[0].tolist() for row in relation.cpu().numpy()], mean_heat.tolist())
    if len(kept) > max_people:
        hottest = mean_heat[kept].topk(max_people).indices
        kept = [kept[index] for index in hottest.tolist()]
    poses = candidates[kept]
    keypoint_scores = poses[..., 2] * heat[kept]
    return poses[..., :2], keypoint_scores, keypoint_scores.mean(1)


def _walk(neighbours: list[list[int]], mean_heat: list[float]) -> list[int]:
    ignored: set[int] = set()
    kept = []
    for index, neighbourhood in enumerate(neighbours):
        best = max(neighbourhood, key=mean_heat.__getitem__, default=index)
        if neighbourhood and not ignored & {index, best}:
            kept.append(best)
            ignored.update(neighbourhood)
    return kept


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
        hidden = torch.relu(self.l2(torch.relu(self.l1(features))))
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
        if self.calibrated:
            said = self(features).sigmoid()
            scores, keypoint_scores = said[:, 0], said[:, 1:]
        else:
            scores = scores * self(features)
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
