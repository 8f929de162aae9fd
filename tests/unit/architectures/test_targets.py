"""Training targets and the augmentation's affine map."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dekrpose.architectures.dekr.targets import (
    TargetMode,
    drop_small_centers,
    heatmap_targets,
    official_areas,
    official_center_sigma,
    offset_targets,
    person_centers,
)
from dekrpose.skeletons import COCO_17
from dekrpose.training.crops import training_affine

SIZE = (24, 32)


def person(*points: tuple[float, float, float]) -> torch.Tensor:
    return torch.tensor(points)


def people(*members: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    keypoints = torch.stack(members)
    return keypoints, person_centers(keypoints)


LEFT = person((6.0, 10.0, 2.0), (10.0, 14.0, 1.0))  # center (8, 12)
RIGHT = person((10.0, 6.0, 2.0), (14.0, 18.0, 2.0))  # center (12, 12), larger


def test_center_is_the_mean_of_the_labelled_keypoints_only() -> None:
    centers = person_centers(person((2.0, 4.0, 2.0), (6.0, 8.0, 1.0), (100.0, 100.0, 0.0))[None])
    assert centers.tolist() == [[4.0, 6.0, 1.0]]


def test_person_without_labels_has_no_center_but_the_official_code_puts_it_at_the_origin() -> None:
    unlabelled = person((5.0, 5.0, 0.0), (9.0, 9.0, 0.0))[None]
    assert person_centers(unlabelled).tolist() == [[0.0, 0.0, 0.0]]
    assert person_centers(unlabelled, mode="official").tolist() == [[0.0, 0.0, 1.0]]


def test_small_people_lose_their_center_and_keep_its_position() -> None:
    centers = torch.tensor([[3.0, 4.0, 1.0], [5.0, 6.0, 1.0], [0.0, 0.0, 0.0]])
    kept = drop_small_centers(centers, torch.tensor([1023.0, 1024.0, 5000.0]))
    assert kept.tolist() == [[3.0, 4.0, 0.0], [5.0, 6.0, 1.0], [0.0, 0.0, 0.0]]


def test_official_area_contains_the_origin() -> None:
    keypoints = person((30.0, 10.0, 2.0), (20.0, 40.0, 2.0))[None]
    assert official_areas(keypoints).tolist() == [30.0**2 + 40.0**2]


def test_official_center_is_drawn_small_for_skeletons_shorter_than_coco() -> None:
    assert official_center_sigma(17) == 4.0
    assert official_center_sigma(14) == 2.0


def test_heatmap_is_a_gaussian_around_the_sub_pixel_position() -> None:
    keypoints, centers = people(person((7.25, 9.5, 2.0), (7.25, 9.5, 2.0)))
    heatmaps, _ = heatmap_targets(keypoints, centers, SIZE)
    assert heatmaps.dtype == torch.float32
    for channel, sigma in ((0, 2.0), (1, 2.0), (2, 4.0)):
        expected = math.exp(-((9 - 7.25) ** 2 + (8 - 9.5) ** 2) / (2 * sigma**2))
        assert heatmaps[channel, 8, 9].item() == pytest.approx(expected, abs=1e-6)


def test_heatmap_weights_are_one_in_a_channels_own_window_and_a_tenth_elsewhere() -> None:
    keypoints, centers = people(person((16.0, 12.0, 2.0), (16.0, 12.0, 0.0)))
    heatmaps, weights = heatmap_targets(keypoints, centers, SIZE)
    assert torch.unique(weights).tolist() == pytest.approx([0.1, 1.0])
    assert weights[0, 12].gt(0.5).nonzero().flatten().tolist() == list(range(9, 24))  # [16 - 7, 16 + 8)
    assert not heatmaps[1].any()
    assert weights[1].max().item() == pytest.approx(0.1)


def test_heatmaps_of_two_people_merge_to_the_larger_value() -> None:
    keypoints, centers = people(LEFT, RIGHT)
    both, _ = heatmap_targets(keypoints, centers, SIZE)
    alone = [heatmap_targets(keypoints[[i]], centers[[i]], SIZE)[0] for i in (0, 1)]
    assert torch.equal(both, torch.maximum(*alone))


def test_ignored_regions_have_no_weight_in_any_channel_and_keep_their_heat() -> None:
    keypoints, centers = people(LEFT)
    ignored = torch.zeros(SIZE, dtype=torch.bool)
    ignored[8:16, :12] = True
    heatmaps, weights = heatmap_targets(keypoints, centers, SIZE, ignored=ignored)
    free_heatmaps, free_weights = heatmap_targets(keypoints, centers, SIZE)
    assert not weights[:, ignored].any()
    assert torch.equal(weights[:, ~ignored], free_weights[:, ~ignored])
    assert torch.equal(heatmaps, free_heatmaps)


@pytest.mark.parametrize("mode", ["paper", "official"])
def test_nobody_gives_zeros(mode: TargetMode) -> None:
    keypoints, centers = torch.zeros((0, 3, 3)), person_centers(torch.zeros((0, 3, 3)))
    areas = official_areas(keypoints) if mode == "official" else None
    heatmaps, heat_weights = heatmap_targets(keypoints, centers, SIZE)
    offsets, weights = offset_targets(keypoints, centers, SIZE, mode=mode, areas=areas)
    assert heatmaps.shape == heat_weights.shape == (4, *SIZE)
    assert offsets.shape == weights.shape == (6, *SIZE)
    assert not heatmaps.any()
    assert not offsets.any()
    assert not weights.any()
    assert torch.unique(heat_weights).tolist() == pytest.approx([0.1])


@pytest.mark.parametrize("mode", ["paper", "official"])
def test_unlabelled_person_changes_nothing(mode: TargetMode) -> None:
    keypoints = torch.stack([LEFT, LEFT * torch.tensor([1.0, 1.0, 0.0])])
    centers = person_centers(keypoints)
    areas = official_areas(keypoints) if mode == "official" else None
    with_it = offset_targets(keypoints, centers, SIZE, mode=mode, areas=areas)
    without = offset_targets(keypoints[:1], centers[:1], SIZE, mode=mode, areas=None if areas is None else areas[:1])
    assert all(torch.equal(a, b) for a, b in zip(with_it, without, strict=True))
    heat = heatmap_targets(keypoints, centers, SIZE), heatmap_targets(keypoints[:1], centers[:1], SIZE)
    assert all(torch.equal(a, b) for a, b in zip(*heat, strict=True))


def test_paper_region_is_a_disc_and_official_region_a_half_open_square() -> None:
    keypoints, centers = people(person((15.0, 11.5, 2.0), (16.9, 12.3, 2.0)))  # truncated center (15, 11)
    _, disc = offset_targets(keypoints, centers, SIZE)
    _, square = offset_targets(keypoints, centers, SIZE, mode="official", areas=official_areas(keypoints))
    rows, columns = disc[0].nonzero(as_tuple=True)
    assert len(rows) == 49
    assert ((columns - 15) ** 2 + (rows - 11) ** 2).max() == 16
    rows, columns = square[0].nonzero(as_tuple=True)
    assert [rows.min().item(), rows.max().item(), columns.min().item(), columns.max().item()] == [7, 14, 11, 18]
    assert len(rows) == 64


def test_offset_is_pixel_minus_keypoint() -> None:
    keypoints, centers = people(LEFT)
    offsets, _ = offset_targets(keypoints, centers, SIZE)
    assert offsets[:, 13, 7].tolist() == [7 - 6, 13 - 10, 7 - 10, 13 - 14]


def test_where_two_people_meet_the_nearer_center_wins_in_the_paper() -> None:
    keypoints, centers = people(RIGHT, LEFT)  # centers at x = 12 and x = 8
    offsets, weights = offset_targets(keypoints, centers, SIZE)
    assert offsets[0, 12, 9].item() == 9 - 6
    assert offsets[0, 12, 11].item() == 11 - 10
    assert weights[0, 12, 9].item() == pytest.approx(1 / math.hypot(4, 4))
    assert weights[0, 12, 11].item() == pytest.approx(1 / math.hypot(4, 12))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_where_two_people_meet_the_smaller_one_wins_in_the_official_code(order: tuple[int, int]) -> None:
    keypoints, centers = people(LEFT, RIGHT)
    areas = torch.tensor([100.0, 400.0])
    keypoints, centers, areas = keypoints[list(order)], centers[list(order)], areas[list(order)]
    offsets, weights = offset_targets(keypoints, centers, SIZE, mode="official", areas=areas)
    assert offsets[0, 12, 11].item() == 11 - 6  # nearer to the larger person
    assert weights[0, 12, 11].item() == pytest.approx(1 / 10)
    assert weights[0, 12, 13].item() == pytest.approx(1 / 20)


def test_official_owner_of_a_pixel_is_shared_by_all_keypoints() -> None:
    def labelled(*visibilities: int) -> torch.Tensor:
        return person(*((10.0 + index, 14.0, visibility) for index, visibility in enumerate(visibilities)))

    keypoints = torch.stack([labelled(1, 0, 0), labelled(0, 0, 1), labelled(1, 1, 1)])
    centers = torch.tensor([[12.0, 12.0, 1.0]] * 3)
    areas = torch.tensor([400.0, 25.0, 100.0])  # large, small, medium
    _, weights = offset_targets(keypoints, centers, SIZE, mode="official", areas=areas)
    # The small person owns the pixels when the medium one comes, so the large one keeps keypoint 0; having
    # then won the empty keypoint 1 the medium person owns them and takes keypoint 2 from the small one.
    assert weights[::2, 12, 12].tolist() == pytest.approx([1 / 20, 1 / 10, 1 / 10])


def test_official_areas_are_compared_in_single_precision() -> None:
    twins = torch.stack([LEFT, LEFT]).double()
    twins[1, :, 0] += 1.0
    centers = torch.tensor([[8.0, 12.0, 1.0]] * 2).double()
    for area, winner in ((796.2624, 0), (100.0, 1), (2211.84, 1)):  # float32 rounds down, not at all, up
        areas = torch.full((2,), area, dtype=torch.float64)
        offsets, _ = offset_targets(twins, centers, SIZE, mode="official", areas=areas)
        assert offsets[[0, 2], 12, 8].tolist() == (8 - twins[winner, :, 0]).tolist()


@pytest.mark.parametrize("mode", ["paper", "official"])
def test_keypoint_outside_the_crop_has_no_weight_and_no_heat(mode: TargetMode) -> None:
    keypoints, centers = people(person((30.0, 10.0, 2.0), (32.0, 14.0, 2.0)))
    areas = official_areas(keypoints) if mode == "official" else None
    offsets, weights = offset_targets(keypoints, centers, SIZE, mode=mode, areas=areas)
    heatmaps, _ = heatmap_targets(keypoints, centers, SIZE)
    assert weights[:2].any()
    assert not weights[2:].any()
    assert not offsets[2:].any()
    assert heatmaps[0].any()
    assert not heatmaps[1].any()


@pytest.mark.parametrize("mode", ["paper", "official"])
def test_person_at_the_border_gets_the_part_of_its_region_that_is_inside(mode: TargetMode) -> None:
    keypoints, centers = people(person((0.0, 10.0, 2.0), (2.0, 14.0, 2.0)))  # center (1, 12)
    areas = official_areas(keypoints) if mode == "official" else None
    _, weights = offset_targets(keypoints, centers, SIZE, mode=mode, areas=areas)
    assert weights[0, 12].nonzero().flatten().tolist() == list(range(6 if mode == "paper" else 5))


@pytest.mark.parametrize("mode", ["paper", "official"])
def test_person_whose_center_is_outside_writes_no_offsets_but_keeps_keypoint_heat(mode: TargetMode) -> None:
    keypoints, centers = people(person((1.0, 10.0, 2.0), (-9.0, 14.0, 2.0)))
    areas = official_areas(keypoints) if mode == "official" else None
    _, weights = offset_targets(keypoints, centers, SIZE, mode=mode, areas=areas)
    heatmaps, _ = heatmap_targets(keypoints, centers, SIZE)
    assert not weights.any()
    assert heatmaps[0].any()
    assert not heatmaps[2].any()


def test_paper_diagonal_counts_keypoints_outside_the_crop_and_has_a_floor() -> None:
    keypoints, centers = people(person((20.0, 10.0, 2.0), (20.0, 34.0, 2.0)), person((5.0, 5.0, 2.0), (0.0, 0.0, 0.0)))
    _, weights = offset_targets(keypoints, centers, SIZE)
    assert weights[0, 22, 20].item() == pytest.approx(1 / 24)
    assert weights[0, 5, 5].item() == pytest.approx(1 / 4)


def test_mirroring_people_mirrors_paper_targets() -> None:
    height, width = size = (48, 64)
    order = list(COCO_17.flip_indices)
    generator = torch.Generator().manual_seed(0)
    keypoints = torch.rand((4, 17, 3), generator=generator) * torch.tensor([width - 1.0, height - 1.0, 2.0])
    keypoints[..., 2] = keypoints[..., 2].round()
    centers = torch.tensor([[8.0, 6.0, 1.0], [20.0, 10.0, 1.0], [23.0, 12.0, 1.0], [40.0, 30.0, 1.0]])

    def mirror(points: torch.Tensor) -> torch.Tensor:
        return torch.cat([width - 1 - points[..., :1], points[..., 1:]], dim=-1)

    flipped, flipped_centers = mirror(keypoints)[:, order], mirror(centers)
    for maps, mirrored in zip(
        heatmap_targets(keypoints, centers, size), heatmap_targets(flipped, flipped_centers, size), strict=True
    ):
        assert torch.allclose(mirrored.flip(2)[[*order, 17]], maps, atol=1e-5)
    offsets, weights = (maps.view(17, 2, height, width) for maps in offset_targets(keypoints, centers, size))
    mirrored, mirrored_weights = (
        maps.flip(2).view(17, 2, height, width)[order] for maps in offset_targets(flipped, flipped_centers, size)
    )
    assert torch.allclose(mirrored * torch.tensor([-1.0, 1.0]).view(2, 1, 1), offsets, atol=1e-4)
    assert torch.allclose(mirrored_weights, weights)


def test_wrong_arguments_say_what_was_expected() -> None:
    keypoints, centers = people(LEFT)
    with pytest.raises(ValueError, match=r"\(P, K, 3\)"):
        person_centers(keypoints[0])
    with pytest.raises(ValueError, match="one per person"):
        heatmap_targets(keypoints, centers[:0], SIZE)
    with pytest.raises(ValueError, match="ignored must be"):
        heatmap_targets(keypoints, centers, SIZE, ignored=torch.zeros((2, 2), dtype=torch.bool))
    with pytest.raises(ValueError, match="sigmas"):
        heatmap_targets(keypoints, centers, SIZE, sigma=0.1)
    with pytest.raises(ValueError, match="mode must be"):
        offset_targets(keypoints, centers, SIZE, mode="mixed")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="official_areas"):
        offset_targets(keypoints, centers, SIZE, mode="official")
    with pytest.raises(ValueError, match="official_areas"):
        offset_targets(keypoints, centers, SIZE, areas=torch.ones(1))
    with pytest.raises(ValueError, match="areas must be"):
        offset_targets(keypoints, centers, SIZE, mode="official", areas=torch.ones(2))


def test_arguments_are_not_changed() -> None:
    keypoints, centers = people(LEFT, RIGHT)
    before = keypoints.clone(), centers.clone()
    heatmap_targets(keypoints, centers, SIZE)
    offset_targets(keypoints, centers, SIZE)
    offset_targets(keypoints, centers, SIZE, mode="official", areas=official_areas(keypoints))
    assert torch.equal(keypoints, before[0])
    assert torch.equal(centers, before[1])


@pytest.mark.parametrize("rotation", [0.0, 25.0, -140.0])
@pytest.mark.parametrize("size", [(128, 128), (96, 160)])
def test_affine_brings_the_center_to_the_middle_and_scales_areas(size: tuple[int, int], rotation: float) -> None:
    matrix, area_factor = training_affine((310.0, 190.0), 1.5, size, rotation)
    middle = matrix @ np.array([310.0, 190.0, 1.0])
    assert middle == pytest.approx([size[1] / 2, size[0] / 2])
    assert np.linalg.det(matrix[:, :2]) == pytest.approx(area_factor)
    assert area_factor == pytest.approx((min(size) / 300) ** 2)


def test_positive_rotation_turns_the_photo_counter_clockwise() -> None:
    matrix, _ = training_affine((100.0, 100.0), 1.0, (200, 200), 90.0)
    assert matrix @ np.array([150.0, 100.0, 1.0]) == pytest.approx([100.0, 50.0])  # right goes up


def test_affine_refuses_an_empty_scale() -> None:
    with pytest.raises(ValueError, match="scale"):
        training_affine((1.0, 1.0), 0.0, (64, 64), 0.0)
