"""The two losses and their factors."""

from __future__ import annotations

import pytest
import torch

from dekrpose.architectures.dekr.losses import heatmap_loss, offset_loss


def test_heatmap_loss_averages_over_all_elements_also_unweighted_ones() -> None:
    predicted = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 2, 2)
    weights = torch.tensor([1.0, 0.1, 0.0, 0.0]).view(1, 1, 2, 2)
    assert heatmap_loss(predicted, torch.zeros_like(predicted), weights).item() == pytest.approx((1 + 0.4) / 4)


def test_ignored_pixels_send_no_gradient() -> None:
    predicted = torch.ones((1, 1, 2, 2), requires_grad=True)
    weights = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    heatmap_loss(predicted, torch.zeros((1, 1, 2, 2)), weights).backward()
    assert predicted.grad is not None
    assert predicted.grad[..., 1].abs().max().item() == 0
    assert predicted.grad[..., 0].abs().min().item() > 0


def test_offset_loss_is_quadratic_near_zero_and_linear_beyond_a_ninth() -> None:
    zero, one = torch.zeros((1, 1, 1, 1)), torch.ones((1, 1, 1, 1))
    assert offset_loss(zero + 0.05, zero, one).item() == pytest.approx(0.5 * 9 * 0.05**2)
    assert offset_loss(zero - 2.0, zero, one).item() == pytest.approx(2 - 0.5 / 9)


def test_offset_loss_divides_by_the_weighted_elements_of_the_whole_batch() -> None:
    predicted = torch.full((2, 2, 3, 3), 1.0)
    weights = torch.zeros((2, 2, 3, 3))
    weights[0, 0, 0, :3] = 0.5
    weights[1, 1, 2, 2] = 0.25
    expected = (3 * 0.5 + 0.25) * (1 - 0.5 / 9) / 4
    assert offset_loss(predicted, torch.zeros_like(predicted), weights).item() == pytest.approx(expected)


def test_nobody_in_the_batch_costs_nothing_and_sends_zero_gradients() -> None:
    predicted = torch.randn((2, 4, 3, 3), requires_grad=True)
    loss = offset_loss(predicted, torch.zeros((2, 4, 3, 3)), torch.zeros((2, 4, 3, 3)))
    loss.backward()
    assert loss.item() == 0
    assert predicted.grad is not None
    assert not predicted.grad.any()


def test_half_precision_predictions_are_compared_in_single_precision() -> None:
    predicted = torch.full((1, 1, 2, 2), 300.0, dtype=torch.float16)  # its square overflows in half precision
    one = torch.ones((1, 1, 2, 2))
    assert heatmap_loss(predicted, one - 1, one).item() == pytest.approx(90000)
    assert offset_loss(predicted, one - 1, one).dtype == torch.float32
