"""Decoding of maps drawn by hand: from heatmap cells to scored poses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from dekrpose.architectures.dekr.candidates import Choice, average_heatmaps, find_centers, points_of
from dekrpose.architectures.dekr.decode import candidate_poses, decode, pose_map
from dekrpose.architectures.parts.blocks import gather_pixels

KEYPOINTS = 10
# A person seen from the front, xy relative to the center in units of its size.
BODY = torch.tensor(
    [
        (0, -1),
        (-0.3, -0.6),
        (0.3, -0.6),
        (-0.5, 0),
        (0.5, 0),
        (-0.2, 0.1),
        (0.2, 0.1),
        (-0.2, 0.9),
        (0.2, 0.9),
        (0, 0.3),
    ]
)


def draw(
    people: list[tuple[float, float, float, float]], height: int = 24, width: int = 32
) -> tuple[Tensor, Tensor, Tensor]:
    """Heatmaps, positions and poses (N, K, 2) for people given as x, y, size (heatmap pixels) and brightness."""
    ys, xs = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    heatmaps = torch.zeros(KEYPOINTS + 1, height, width)
    positions = torch.stack([xs, ys] * KEYPOINTS)
    poses = []
    for x, y, size, brightness in people:
        pose = BODY * size + torch.tensor([x, y])
        poses.append(pose)
        spots = torch.cat([pose, torch.tensor([[x, y]])])
        squared = (xs - spots[:, 0, None, None]) ** 2 + (ys - spots[:, 1, None, None]) ** 2
        heatmaps = torch.maximum(heatmaps, brightness * torch.exp(-squared / 8))
        own = squared[-1] < 4
        positions = torch.where(own, pose.reshape(-1, 1, 1), positions)
    return heatmaps, positions, torch.stack(poses) if poses else torch.zeros(0, KEYPOINTS, 2)


def pad(maps: Tensor, height: int, width: int, value: float) -> Tensor:
    padded = torch.full((maps.shape[0], height, width), value)
    padded[:, : maps.shape[1], : maps.shape[2]] = maps
    return padded


def test_finds_one_person_where_it_was_drawn() -> None:
    heatmaps, positions, expected = draw([(12, 11, 8, 0.8)])
    poses, keypoint_scores, scores = decode([(heatmaps, positions)])
    assert torch.allclose(poses, 4 * expected, atol=1e-4)
    assert keypoint_scores.shape == (1, KEYPOINTS)
    assert torch.allclose(scores, keypoint_scores.mean(1))
    assert 0.5 < scores.item() <= 0.64


def test_nobody_there_gives_empty_tensors() -> None:
    poses, keypoint_scores, scores = decode([draw([])[:2]])
    assert poses.shape == (0, KEYPOINTS, 2)
    assert keypoint_scores.shape == (0, KEYPOINTS)
    assert scores.shape == (0,)


@pytest.mark.parametrize("match", [None, "official", "paper", "weighted"])
def test_nobody_there_at_any_of_three_scales(match: str | None) -> None:
    maps = [draw([], 24, 32)[:2], draw([], 12, 16)[:2], draw([], 6, 8)[:2]]
    poses, _, _ = decode(maps, (2, 1, 0.5), Choice(match=match))  # type: ignore[arg-type]
    assert poses.shape == (0, KEYPOINTS, 2)


def test_two_overlapping_people_are_both_found() -> None:
    heatmaps, positions, expected = draw([(12, 11, 8, 0.8), (17, 12, 8, 0.7)])
    poses, _, scores = decode([(heatmaps, positions)])
    assert torch.allclose(poses, 4 * expected, atol=1e-4)
    assert scores[0] > scores[1]


def test_two_centers_of_one_person_give_one_pose() -> None:
    heatmaps, positions, expected = draw([(12, 11, 8, 0.8)])
    heatmaps[-1, 11, 15] = 0.9
    positions[:, 11, 15] = expected[0].reshape(-1) + 0.1
    poses, _, _ = decode([(heatmaps, positions)])
    assert len(poses) == 1


def test_a_pose_whose_keypoints_all_coincide_is_dropped() -> None:
    heatmaps, positions, expected = draw([(12, 11, 8, 0.8), (26, 5, 0, 0.9)])
    poses, _, _ = decode([(heatmaps, positions)])
    assert torch.allclose(poses, 4 * expected[:1], atol=1e-4)


def test_keypoints_outside_the_image_stay_outside() -> None:
    heatmaps, positions, expected = draw([(2, 3, 8, 0.8), (30, 21, 8, 0.7)])
    poses, keypoint_scores, _ = decode([(heatmaps, positions)])
    assert torch.allclose(poses, 4 * expected, atol=1e-4)
    assert poses.min() < 0
    assert poses[..., 0].max() > 4 * 32
    assert keypoint_scores.isfinite().all()


def test_a_keypoint_that_is_not_a_number_does_not_break_the_others() -> None:
    heatmaps, positions, expected = draw([(8, 11, 8, 0.8), (24, 11, 8, 0.7)])
    positions[0, 11, 24] = float("nan")
    poses, _, _ = decode([(heatmaps, positions)])
    assert torch.allclose(poses[0], 4 * expected[0], atol=1e-4)


def centers_of(center_map: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """Places (N, 2) and values (N,) of one map's centers."""
    found = find_centers(center_map[None], **options)
    return found.xy[found.present], found.values[found.present]


def test_a_plateau_gives_several_centers() -> None:
    center_map = torch.zeros(8, 9)
    center_map[3, 4:7] = 0.5
    centers, scores = centers_of(center_map)
    assert sorted(centers.tolist()) == [[4, 3], [5, 3], [6, 3]]
    assert scores.tolist() == [0.5] * 3


def test_centers_come_highest_first_and_at_most_max_people() -> None:
    center_map = torch.zeros(9, 40)
    center_map[4, ::4] = torch.arange(1, 11) / 10
    centers, scores = centers_of(center_map, max_centers=3)
    assert centers.tolist() == [[36, 4], [32, 4], [28, 4]]
    assert torch.allclose(scores, torch.tensor([1.0, 0.9, 0.8]))


def test_a_map_with_fewer_than_30_pixels_works() -> None:
    center_map = torch.zeros(4, 5)
    center_map[1, 2] = 0.4
    centers, scores = centers_of(center_map)
    assert centers.tolist() == [[2, 1]]
    assert torch.allclose(scores, torch.tensor([0.4]))


def test_centers_must_exceed_the_threshold() -> None:
    center_map = torch.zeros(8, 8)
    center_map[2, 2], center_map[6, 6] = 0.5, 0.25
    assert centers_of(center_map, threshold=0.25)[0].tolist() == [[2, 2]]


def test_negative_maps_with_a_negative_threshold_still_give_peaks_only() -> None:
    center_map = torch.full((8, 8), -0.5)
    center_map[2, 2] = 0.25
    centers, _ = centers_of(center_map, threshold=-0.1)
    assert centers.tolist() == [[2, 2]]


@pytest.mark.parametrize(("side", "reach"), [(200, 1), (202, 2), (302, 3)])
def test_the_window_grows_with_the_map(side: int, reach: int) -> None:
    center_map = torch.zeros(side, side)
    center_map[50, 50], center_map[50, 50 + reach] = 0.5, 0.4
    center_map[90, 90], center_map[90, 91 + reach] = 0.5, 0.4
    centers, _ = centers_of(center_map)
    assert sorted(centers.tolist()) == [[50, 50], [90, 90], [91 + reach, 90]]


def test_positions_are_pixel_minus_offset() -> None:
    offsets = torch.zeros(2, 4, 3, 5)
    offsets[1, 0, 2, 4], offsets[1, 1, 2, 4] = 1.5, -2.0
    positions = pose_map(offsets)
    assert points_of(gather_pixels(positions[1:], torch.tensor([[[4, 2], [0, 1]]])))[0].tolist() == [
        [[2.5, 4.0], [4.0, 2.0]],
        [[0.0, 1.0], [0.0, 1.0]],
    ]


def test_candidates_are_in_input_pixels_of_scale_1() -> None:
    heatmaps, positions, expected = draw([(12, 11, 8, 0.8)])
    candidates = candidate_poses(heatmaps[None], positions[None], scale=2).of(0)
    assert torch.allclose(candidates[..., :2], 2 * expected)
    assert torch.allclose(candidates[..., 2], torch.tensor(0.8))


def test_heat_is_read_as_from_the_enlarged_map() -> None:
    torch.manual_seed(0)
    heatmaps, positions, _ = draw([(8, 8, 6, 0.8), (17, 12, 8, 0.7), (29, 20, 9, 0.6)])
    heatmaps[:-1] += 0.1 * torch.rand(KEYPOINTS, 24, 32)
    poses, keypoint_scores, _ = decode([(heatmaps, positions)])
    enlarged = average_heatmaps([heatmaps[:-1]], (96, 128))
    xs = poses[..., 0].floor().long().clamp(0, 127)
    ys = poses[..., 1].floor().long().clamp(0, 95)
    expected = enlarged[torch.arange(KEYPOINTS), ys, xs] * torch.tensor([[0.8], [0.7], [0.6]])
    assert torch.allclose(keypoint_scores, expected, atol=1e-6)


@pytest.mark.parametrize("match", [None, "official", "paper", "weighted"])
def test_padding_in_a_batch_changes_nothing(match: str | None) -> None:
    scales = (2.0, 1.0, 0.5)
    people = [(8.0, 11.0, 6.0, 0.8), (30.0, 20.0, 6.0, 0.7)]
    maps, padded = [], []
    for scale in scales:
        height, width = int(24 * scale), int(32 * scale)
        heatmaps, positions, _ = draw(
            [(x * scale, y * scale, size * scale, brightness) for x, y, size, brightness in people], height, width
        )
        maps.append((heatmaps, positions))
        larger = int(40 * scale), int(48 * scale)
        padded.append((pad(heatmaps, *larger, 0.95), pad(positions, *larger, -7.0)))
    alone = decode(maps, scales, Choice(match=match))  # type: ignore[arg-type]
    in_batch = decode(padded, scales, Choice(match=match), valid_size=(96, 128))  # type: ignore[arg-type]
    assert len(alone[0]) >= 2
    for one, other in zip(alone, in_batch, strict=True):
        assert torch.equal(one, other)


def test_the_order_in_which_scales_are_given_does_not_matter() -> None:
    large = draw([(24, 22, 16, 0.8)], 48, 64)[:2]
    small = draw([(12, 11, 8, 0.8)])[:2]
    for one, other in zip(decode([large, small], (2, 1)), decode([small, large], (1, 2)), strict=True):
        assert torch.equal(one, other)


def test_half_precision_maps_decode_in_single_precision() -> None:
    heatmaps, positions, expected = draw([(12, 11, 8, 0.8)])
    poses, _, scores = decode([(heatmaps.bfloat16(), positions.bfloat16())])
    assert poses.dtype == scores.dtype == torch.float32
    assert torch.allclose(poses, 4 * expected, atol=0.5)


@pytest.mark.parametrize("match", [None, "official", "paper", "weighted"])
def test_inputs_are_not_modified(match: str | None) -> None:
    maps = [draw([(24, 22, 16, 0.8)], 48, 64)[:2], draw([(12, 11, 8, 0.8), (17, 12, 8, 0.7)])[:2]]
    before = [[part.clone() for part in pair] for pair in maps]
    decode(maps, (2, 1), Choice(match=match))  # type: ignore[arg-type]
    for pair, copies in zip(maps, before, strict=True):
        assert all(torch.equal(part, copy) for part, copy in zip(pair, copies, strict=True))


def test_scale_1_must_be_there() -> None:
    with pytest.raises(ValueError, match="contain 1"):
        decode([draw([])[:2]], (2.0,))


def test_maps_that_do_not_belong_together_are_refused() -> None:
    heatmaps, positions, _ = draw([])
    with pytest.raises(ValueError, match="do not belong together"):
        decode([(heatmaps[1:], positions)])
    with pytest.raises(ValueError, match="2K"):
        pose_map(positions[1:])
