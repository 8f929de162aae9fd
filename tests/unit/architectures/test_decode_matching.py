"""Matching to heatmaps drawn by hand."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import leastsq
from torch import Tensor

from dekrpose.architectures.dekr.candidates import (
    Choice,
    average_heatmaps,
    cell_peaks,
    choose_poses,
    move_by_weight,
    refine,
)
from dekrpose.architectures.dekr.gaussian_fit import fit_gaussians
from dekrpose.architectures.dekr.matching import find_peaks, match, move_to_peaks, read_peaks, window_maximum


def match_to_heatmaps(poses: Tensor, keypoint_scores: Tensor, heatmaps: Tensor, mode: Any = "official") -> Tensor:
    return match(poses, keypoint_scores, read_peaks(heatmaps), mode == "official")


def spots(points: list[tuple[float, float]], height: int = 96, width: int = 160, sigma: float = 8.0) -> Tensor:
    """One heatmap (1, H, W) with a Gaussian at each point."""
    ys, xs = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    heatmap = torch.zeros(height, width)
    for x, y in points:
        heatmap = torch.maximum(heatmap, 0.9 * torch.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * sigma**2)))
    return heatmap[None]


def matched(point: tuple[float, float], heatmap: Tensor, mode: str = "paper", score: float = 0.5) -> list[float]:
    poses = torch.tensor([[point]])
    return match_to_heatmaps(poses, torch.tensor([[score]]), heatmap, mode=mode)[0, 0].tolist()  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["official", "paper"])
def test_a_keypoint_moves_to_the_exact_middle_of_its_spot(mode: str) -> None:
    assert matched((58.0, 45.0), spots([(60.3, 40.8)]), mode) == pytest.approx([60.3, 40.8], abs=1e-3)


def test_the_nearest_peak_wins_not_the_highest() -> None:
    heatmap = spots([(100.0, 40.0)]) + 0.5 * spots([(40.0, 40.0)])
    assert move_to_peaks(np.array([[[50.0, 44.0]]], np.float32), *find_peaks(heatmap)).tolist() == [[[40.0, 40.0]]]


def test_by_weight_a_clear_peak_wins_over_a_faint_one_that_is_nearer() -> None:
    heatmaps = torch.cat([spots([(100.0, 40.0)]) + 0.1 * spots([(50.0, 40.0)]), spots([]), spots([(20.0, 10.0)])])
    poses = torch.tensor([[[75.0, 40.0], [60.0, 20.0], [150.0, 88.0]]])  # in a box of 90 x 68 pixels
    moved, weights = move_by_weight(poses, read_peaks(heatmaps))
    assert moved.tolist() == [[[100.0, 40.0], [60.0, 20.0], [150.0, 88.0]]]
    squared_diagonal = 90**2 + 68**2
    expected = 0.9 * np.exp(-0.5 * 25**2 / (0.15**2 * squared_diagonal))
    assert weights[0].tolist() == pytest.approx([expected, 0, 0], abs=1e-5)


def test_by_weight_of_two_poses_on_the_same_peaks_the_likelier_stays_with_its_weights_as_scores() -> None:
    heatmaps = torch.cat([spots([(40.0, 40.0)]), spots([(100.0, 60.0)])])
    near, far = ([[41.0, 40.0], [100.0, 61.0]], [[49.0, 34.0], [90.0, 64.0]])
    candidates = torch.cat([torch.tensor([far, near]), torch.full((2, 2, 1), 0.5)], dim=2)
    choice = Choice(match="weighted", nms_min_keypoints=1)
    poses, scores, _ = choose_poses(candidates, [heatmaps], (96, 160), choice)
    np.testing.assert_allclose(poses.numpy(), [[[40.0, 40.0], [100.0, 60.0]]], atol=1e-4)
    _, weights = move_by_weight(torch.tensor([near]), read_peaks(heatmaps))
    torch.testing.assert_close(scores, 0.5 * weights)


@pytest.mark.parametrize("spacing", [4, 2, 1])
def test_a_refined_peak_is_the_exact_middle_of_its_spot(spacing: int) -> None:
    heatmaps = torch.cat([spots([(60.3, 40.8)], sigma=6.0), spots([(98.2, 21.1)])])
    peaks = cell_peaks(heatmaps[:, ::spacing, ::spacing], spacing) if spacing > 1 else read_peaks(heatmaps)
    moved, weights = move_by_weight(torch.tensor([[[55.0, 42.0], [95.0, 20.0]]]), peaks)
    np.testing.assert_allclose(refine(moved, weights, peaks).numpy(), [[[60.3, 40.8], [98.2, 21.1]]], atol=1e-3)
    assert torch.equal(refine(moved, torch.zeros(1, 2), peaks), moved)


def test_a_refined_peak_at_the_border_is_the_same_without_enlarging() -> None:
    cells = torch.cat([spots([(158.0, 50.0)]), spots([(70.0, 95.0)]), spots([(159.0, 96.0)])])[:, ::4, ::4]
    poses = torch.tensor([[[150.0, 52.0], [72.0, 90.0], [157.0, 93.0]], [[159.0, 44.0], [75.0, 95.0], [159.0, 95.0]]])
    refined = []
    for peaks in (cell_peaks(cells), read_peaks(average_heatmaps([cells], (96, 160)))):
        refined.append(refine(*move_by_weight(poses, peaks), peaks))
    torch.testing.assert_close(refined[0], refined[1])
    assert refined[0][0, :, 0].tolist() == pytest.approx([158, 70, 158], abs=0.1)  # halfway over the last cell
    assert refined[0][0, :, 1].tolist() == pytest.approx([50, 94, 94], abs=0.1)


def test_by_weight_a_pose_without_size_stays() -> None:
    poses = torch.full((1, 1, 2), 50.0)
    moved, weights = move_by_weight(poses, read_peaks(spots([(60.0, 40.0)])))
    assert moved.tolist() == poses.tolist()
    assert weights.tolist() == [[0.0]]


def test_a_peak_75_pixels_away_is_somebody_elses() -> None:
    heatmap = spots([(20.0, 40.0)])
    assert move_to_peaks(np.array([[[95.0, 40.0]]], np.float32), *find_peaks(heatmap)).tolist() == [[[95.0, 40.0]]]
    assert move_to_peaks(np.array([[[94.9, 40.0]]], np.float32), *find_peaks(heatmap)).tolist() == [[[20.0, 40.0]]]


def test_a_weak_keypoint_moves_but_is_not_fitted() -> None:
    assert matched((58.0, 45.0), spots([(60.3, 40.8)]), score=0.05) == [60.0, 41.0]


@pytest.mark.parametrize("mode", ["official", "paper"])
def test_an_empty_heatmap_leaves_the_keypoint(mode: str) -> None:
    assert matched((58.25, 45.5), torch.zeros(1, 96, 160), mode) == [58.25, 45.5]


def test_a_keypoint_far_outside_the_image_is_fitted_where_its_heat_was_read() -> None:
    assert matched((260.0, 45.0), spots([(157.2, 40.8)])) == pytest.approx([157.2, 40.8], abs=1e-3)


@pytest.mark.parametrize("mode", ["official", "paper"])
def test_a_keypoint_outside_the_image_without_heat_stays_there(mode: str) -> None:
    heatmap = spots([(150.0, 40.0)], sigma=4)
    assert matched((-100.5, 40.0), heatmap, mode) == [-100.5, 40.0]
    assert matched((float("nan"), 40.0), heatmap, mode)[1] == 40.0


def test_official_and_paper_agree_inside_and_differ_at_borders() -> None:
    inside, border = spots([(60.3, 40.8)]), spots([(60.3, 2.4)])
    assert matched((58.0, 45.0), inside, "official") == matched((58.0, 45.0), inside, "paper")
    assert matched((58.0, 5.0), border, "paper") == pytest.approx([60.3, 2.4], abs=1e-3)
    official = torch.tensor(matched((58.0, 5.0), border, "official"))
    assert (official - torch.tensor([60.3, 2.4])).norm() > 1


def test_people_who_share_a_keypoint_get_one_fit() -> None:
    poses = torch.tensor([[[58.0, 45.0]], [[63.0, 39.0]]])
    with patch("scipy.optimize.leastsq", wraps=leastsq) as fit:
        result = match_to_heatmaps(poses, torch.full((2, 1), 0.5), spots([(60.3, 40.8)]))
    assert fit.call_count == 1
    assert torch.equal(result[0], result[1])


def test_nobody_and_small_maps_work() -> None:
    assert match_to_heatmaps(torch.zeros(0, 1, 2), torch.zeros(0, 1), spots([])).shape == (0, 1, 2)
    assert matched((0.75, 0.5), torch.ones(1, 1, 2)) in ([0.0, 0.0], [1.0, 0.0])


def test_inputs_are_not_modified() -> None:
    poses, heatmap = torch.tensor([[[58.0, 45.0]]]), spots([(60.3, 40.8)])
    poses_before, heatmap_before = poses.clone(), heatmap.clone()
    match_to_heatmaps(poses, torch.tensor([[0.5]]), heatmap)
    assert torch.equal(poses, poses_before)
    assert torch.equal(heatmap, heatmap_before)


def test_all_fits_at_once_equal_one_least_squares_fit_each() -> None:
    generator = np.random.default_rng(3)
    rows, columns = np.mgrid[:13, :13].astype(float)
    windows, expected = [], []
    for center_x, center_y in generator.uniform(4, 8, (20, 2)):
        squared = (columns - center_x) ** 2 + 1.3 * (rows - center_y) ** 2
        window = 0.7 * np.exp(-squared / 12) + generator.normal(0, 0.02, (13, 13))

        def residuals(parameters: NDArray[np.float64], values: NDArray[np.float64] = window) -> NDArray[np.float64]:
            height, x, y, sigma = parameters
            fitted = height * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
            return np.asarray(fitted - values).ravel()

        windows.append(window)
        expected.append(leastsq(residuals, (window[6, 6], 6.0, 6.0, 2.0))[0])
    start = np.array([(window[6, 6], 6.0, 6.0, 2.0) for window in windows])
    everything = np.ones((20, 13), dtype=bool)
    fits, converged = fit_gaussians(np.array(windows), everything, everything, start)
    assert converged.all()
    np.testing.assert_allclose(fits[:, 1:3], np.array(expected)[:, 1:3], atol=1e-3)


def test_a_flat_window_has_no_fit() -> None:
    everything = np.ones((1, 5), dtype=bool)
    _, converged = fit_gaussians(np.zeros((1, 5, 5)), everything, everything, np.array([[0.0, 2.0, 2.0, 2.0]]))
    assert not converged.any()


@pytest.mark.parametrize("size", [(3, 12, 9), (2, 1, 3), (1, 1, 1)])
def test_window_maximum_equals_max_pooling(size: tuple[int, int, int]) -> None:
    heatmaps = torch.randn(size, generator=torch.Generator().manual_seed(0))
    assert torch.equal(window_maximum(heatmaps), F.max_pool2d(heatmaps[None], 5, stride=1, padding=2)[0])


def test_peaks_of_cells_are_higher_than_all_around_them() -> None:
    heatmap = torch.zeros(1, 40, 40)
    for y in range(3, 40, 8):
        for x in range(3, 40, 8):
            heatmap[0, y - 1 : y + 2 : 2, x - 1 : x + 2 : 2] = 1.0  # higher than their neighbours, but for one
            heatmap[0, y, x] = 5.0
    heatmap[0, -1, -1] = 2.0
    peaks = cell_peaks(heatmap)
    assert peaks.heat[0].tolist() == [5.0] * 25 + [2.0] + [0.0] * 4
    assert {tuple(place) for place in (peaks.places[0, :25] / 4 % 8).tolist()} == {(3.0, 3.0)}
    assert peaks.places[0, 25].tolist() == [156.0, 156.0]
    assert cell_peaks(torch.zeros(2, 1, 3)).heat.tolist() == [[0.0] * 3] * 2
