"""Pose NMS on poses written by hand."""

from __future__ import annotations

import torch
from torch import Tensor

from dekrpose.architectures.parts.poses import neighbour_relation, pose_nms

KEYPOINTS = 10


def row_of_poses(lefts: list[float], sizes: list[float] | None = None) -> Tensor:
    """Poses on a horizontal line: keypoints evenly spread over each one's size."""
    spread = torch.linspace(0, 1, KEYPOINTS)
    poses = [
        torch.stack([left + size * spread, torch.zeros(KEYPOINTS)], dim=1)
        for left, size in zip(lefts, sizes or [100.0] * len(lefts), strict=True)
    ]
    return torch.stack(poses)


def suppress(poses: Tensor, heat: list[float], max_people: int = 30) -> list[float]:
    """The left ends of the poses that NMS keeps, threshold 5 % of the diagonal."""
    candidates = torch.cat([poses, torch.ones(*poses.shape[:2], 1)], dim=2)
    values = torch.tensor(heat)[:, None].expand(-1, KEYPOINTS)
    kept, _, _ = pose_nms(candidates, values, max_people=max_people)
    return kept[:, 0, 0].tolist()


def test_of_two_near_poses_the_hotter_is_kept() -> None:
    assert suppress(row_of_poses([0, 4]), [0.5, 0.6]) == [4]
    assert suppress(row_of_poses([0, 4]), [0.6, 0.5]) == [0]


def test_poses_at_the_threshold_are_not_near() -> None:
    assert suppress(row_of_poses([0, 5]), [0.5, 0.6]) == [0, 5]


def test_of_equally_hot_poses_the_first_is_kept() -> None:
    assert suppress(row_of_poses([3, 0]), [0.5, 0.5]) == [3]


def test_the_order_of_candidates_is_kept_not_that_of_heat() -> None:
    assert suppress(row_of_poses([0, 50, 100]), [0.1, 0.9, 0.5]) == [0, 50, 100]


def test_more_than_max_people_leave_the_hottest_sorted() -> None:
    assert suppress(row_of_poses([0, 50, 100]), [0.1, 0.5, 0.9], max_people=2) == [100, 50]


def test_nothing_is_kept_where_the_best_was_ignored_before() -> None:
    # 0 and 4 are near, 4 and 8 are near; 0 keeps itself and ignores 4; 8 then finds its best, 4, ignored.
    assert suppress(row_of_poses([0, 4, 8]), [0.9, 0.5, 0.1]) == [0]
    # Nobody else is ignored by that: 11.5, near 8 but not 4, is judged by itself, and its best is itself.
    assert suppress(row_of_poses([0, 4, 8, 11.5]), [0.9, 0.5, 0.1, 0.2]) == [0, 11.5]


def test_the_relation_is_measured_by_the_row() -> None:
    poses = torch.stack([torch.zeros(KEYPOINTS, 2), torch.zeros(KEYPOINTS, 2)])
    poses[0, 0], poses[1, 0] = torch.tensor([100.0, 0.0]), torch.tensor([20.0, 0.0])
    poses[1, 1:, 1] = 2.0
    relation = neighbour_relation(poses, threshold=0.05, min_keypoints=8)
    assert relation.tolist() == [[True, True], [False, True]]


def test_more_than_min_keypoints_must_be_near() -> None:
    poses = row_of_poses([0, 0])
    poses[1, 8:, 1] = 90.0
    assert not neighbour_relation(poses, threshold=0.05, min_keypoints=8)[0, 1]
    assert neighbour_relation(poses, threshold=0.05, min_keypoints=7)[0, 1]


def test_a_pose_without_size_neither_stays_nor_suppresses() -> None:
    poses = row_of_poses([0, 50, 50], [100, 0, 100])
    assert suppress(poses, [0.5, 0.9, 0.4]) == [0, 50]
    assert suppress(poses[1:2], [0.9]) == []


def test_few_keypoints_are_never_neighbours_but_stay() -> None:
    candidates = torch.cat([row_of_poses([0, 0]), torch.ones(2, KEYPOINTS, 1)], dim=2)[:, :5]
    assert len(pose_nms(candidates, torch.ones(2, 5))[0]) == 2


def test_scores_are_center_value_times_heat() -> None:
    candidates = torch.cat([row_of_poses([0]), torch.full((1, KEYPOINTS, 1), 0.5)], dim=2)
    heat = torch.linspace(-0.1, 0.8, KEYPOINTS)[None]
    _, keypoint_scores, scores = pose_nms(candidates, heat)
    assert torch.allclose(keypoint_scores, 0.5 * heat)
    assert torch.allclose(scores, 0.5 * heat.mean(1))


def test_no_candidates_give_no_poses() -> None:
    poses, keypoint_scores, scores = pose_nms(torch.zeros(0, KEYPOINTS, 3), torch.zeros(0, KEYPOINTS))
    assert poses.shape == (0, KEYPOINTS, 2)
    assert keypoint_scores.shape == (0, KEYPOINTS)
    assert scores.shape == (0,)
