"""Pose NMS: of several candidates for one person, keep the one with the hottest keypoints."""

from __future__ import annotations

import torch
from torch import Tensor


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
) -> tuple[Tensor, Tensor, Tensor]:
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
