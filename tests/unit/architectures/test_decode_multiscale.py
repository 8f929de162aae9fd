"""Flip test and scales on maps drawn by hand."""

from __future__ import annotations

import pytest
import torch

from dekrpose.architectures.dekr.candidates import average_heatmaps, heat_values, pool_scales, upsample_aligned
from dekrpose.architectures.dekr.decode import pose_map
from dekrpose.architectures.dekr.flip import flip_input, merge_flipped

FLIP_INDICES = (0, 2, 1)


def test_flipping_twice_changes_nothing_but_the_last_three_columns() -> None:
    images = torch.rand(2, 3, 8, 16)
    assert torch.equal(flip_input(flip_input(images))[..., :-3], images[..., :-3])


def test_the_flipped_input_puts_cells_on_cells() -> None:
    images = torch.arange(16.0).expand(1, 3, 8, 16)
    assert flip_input(images)[0, 0, 0, ::4].tolist() == [12, 8, 4, 0]
    assert flip_input(images)[0, 0, 0, -3:].tolist() == [2, 1, 0]


def test_merging_with_ones_own_mirror_image_changes_nothing() -> None:
    heatmaps, positions = torch.rand(2, 4, 5, 6), pose_map(torch.randn(2, 6, 5, 6))
    mirrored_heatmaps = heatmaps[:, [0, 2, 1, 3]].flip(-1)
    mirrored = positions[:, [0, 1, 4, 5, 2, 3]].flip(-1)
    mirrored[:, 0::2] = 5 - mirrored[:, 0::2]
    merged = merge_flipped(heatmaps, mirrored_heatmaps, positions, mirrored, FLIP_INDICES)
    assert torch.allclose(merged[0], heatmaps)
    assert torch.allclose(merged[1], positions, atol=1e-5)


def test_merging_works_without_a_batch() -> None:
    heatmaps, positions = torch.rand(4, 5, 6), torch.rand(6, 5, 6)
    merged = merge_flipped(heatmaps, heatmaps, positions, positions, FLIP_INDICES)
    batched = merge_flipped(heatmaps[None], heatmaps[None], positions[None], positions[None], FLIP_INDICES)
    assert all(torch.equal(one, other[0]) for one, other in zip(merged, batched, strict=True))


def test_merging_refuses_a_skeleton_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match="2 flip indices"):
        merge_flipped(torch.rand(4, 5, 6), torch.rand(4, 5, 6), torch.rand(6, 5, 6), torch.rand(6, 5, 6), (0, 1))


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_enlarged_cells_land_on_multiples_of_the_factor(factor: int) -> None:
    maps = torch.rand(3, 5, 7)
    larger = upsample_aligned(maps, (5 * factor, 7 * factor))
    assert torch.allclose(larger[:, ::factor, ::factor], maps, atol=1e-6)


@pytest.mark.parametrize("sizes", [[(6, 8)], [(12, 16), (6, 8), (3, 4)], [(9, 12), (6, 8)], [(1, 1)], [(48, 64)]])
def test_heat_at_points_equals_the_enlarged_average(sizes: list[tuple[int, int]]) -> None:
    heatmaps = [torch.rand(3, *size) for size in sizes]
    points = torch.rand(50, 3, 2) * torch.tensor([48.0, 40.0]) - 8
    average = average_heatmaps(heatmaps, (24, 32))
    xs, ys = points[..., 0].floor().long().clamp(0, 31), points[..., 1].floor().long().clamp(0, 23)
    expected = average[torch.arange(3), ys, xs]
    assert torch.allclose(heat_values(heatmaps, points, (24, 32)), expected, atol=1e-6)


def test_other_scales_are_measured_by_scale_1() -> None:
    candidates = [torch.full((2, 3, 3), 0.5), torch.full((1, 3, 3), 0.8), torch.zeros(0, 3, 3)]
    candidates[0][1, :, 2] = 0.25
    pooled = pool_scales(candidates, [2.0, 1.0, 0.5], other_scale_factor=0.9)
    assert torch.allclose(pooled[:, 0, 2], torch.tensor([0.72, 0.36, 0.8]))
    assert torch.equal(pooled[:2, :, :2], candidates[0][..., :2])
    assert candidates[0][0, 0, 2] == 0.5


def test_nobody_at_scale_1_leaves_the_others() -> None:
    pooled = pool_scales([torch.full((1, 3, 3), 0.5), torch.zeros(0, 3, 3)], [2.0, 1.0], other_scale_factor=0.9)
    assert torch.allclose(pooled[..., 2], torch.tensor(0.9))
