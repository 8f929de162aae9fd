"""Adaptive convolution against plain convolutions and against the same sums written as loops."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dekrpose.architectures.dekr.adaptive_conv import AdaptiveConv, pixel_grid, tap_positions

GRID = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]


def features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer(branches: int, channels: int, transform: tuple[float, ...] | None = None) -> AdaptiveConv:
    """A layer whose transform (a, b, c, d, t_y, t_x) is the same at every pixel; random ones without it."""
    conv = AdaptiveConv(branches, channels)
    generator = torch.Generator().manual_seed(1)
    bias = conv.transform.bias
    assert bias is not None
    with torch.no_grad():
        conv.weight.normal_(generator=generator)
        if transform is None:
            conv.transform.weight.normal_(std=0.1, generator=generator)
            bias.normal_(generator=generator)
        else:
            bias.copy_(torch.tensor(transform).repeat(branches))
    return conv


def pixel(channel: Tensor, row: int, column: int) -> float:
    height, width = channel.shape
    return float(channel[row, column]) if 0 <= row < height and 0 <= column < width else 0.0


def bilinear(channel: Tensor, y: float, x: float) -> float:
    """One value between four pixels; outside the map they are zero."""
    top, left = math.floor(y), math.floor(x)
    down, right = y - top, x - left
    return (
        pixel(channel, top, left) * (1 - down) * (1 - right)
        + pixel(channel, top, left + 1) * (1 - down) * right
        + pixel(channel, top + 1, left) * down * (1 - right)
        + pixel(channel, top + 1, left + 1) * down * right
    )


def looped(x: Tensor, weight: Tensor, transforms: Tensor) -> Tensor:
    """One image and one branch, pixel by pixel and tap by tap: (C, h, w), (C, C, 3, 3), (6, h, w) -> (C, h, w)."""
    channels, height, width = x.shape
    out = torch.zeros(channels, height, width)
    for row in range(height):
        for column in range(width):
            a, b, c, d, t_y, t_x = transforms[:, row, column].tolist()
            for tap, (dy, dx) in enumerate(GRID):
                y, x_ = row + a * dy + b * dx + t_y, column + c * dy + d * dx + t_x
                values = torch.tensor([bilinear(x[channel], y, x_) for channel in range(channels)])
                out[:, row, column] += weight[:, :, tap // 3, tap % 3] @ values
    return out


def test_identity_transform_is_a_plain_convolution() -> None:
    conv, x = layer(3, 4, (1, 0, 0, 1, 0, 0)), features(2, 12, 7, 9)
    torch.testing.assert_close(conv(x), F.conv2d(x, conv.weight, padding=1, groups=3))


def test_whole_translation_reads_the_summed_kernel_at_the_shifted_pixel() -> None:
    """A = 0 and t = v: every tap reads q + v, so the kernel's nine weights add up."""
    down, right = 2, -1
    conv, x = layer(2, 3, (0, 0, 0, 0, down, right)), features(1, 6, 8, 8)
    shifted = torch.zeros_like(x)
    shifted[:, :, :-down, -right:] = x[:, :, down:, :right]  # zero where q + v lies outside
    summed = conv.weight.sum((2, 3), keepdim=True)
    torch.testing.assert_close(conv(x), F.conv2d(shifted, summed, groups=2))


def test_fractional_translation_reads_between_the_pixels() -> None:
    conv, x = layer(1, 2, (0, 0, 0, 0, 0.25, 1.5)), features(1, 2, 6, 7)
    read = torch.tensor(
        [[[bilinear(x[0, c], row + 0.25, column + 1.5) for column in range(7)] for row in range(6)] for c in range(2)]
    )
    torch.testing.assert_close(conv(x)[0], F.conv2d(read[None], conv.weight.sum((2, 3), keepdim=True))[0])


def test_everything_outside_the_map_is_zero() -> None:
    x = features(1, 2, 5, 6)
    for down, right in ((100.0, 0.0), (0.0, -6.0), (-4.5, -7.25)):
        out = layer(1, 2, (0, 0, 0, 0, down, right))(x)
        read = [[bilinear(x[0, 0], row + down, column + right) for column in range(6)] for row in range(5)]
        seen = torch.tensor(read) != 0
        torch.testing.assert_close(out[0][:, ~seen], torch.zeros_like(out[0][:, ~seen]), rtol=0, atol=1e-5)
    half = layer(1, 2, (0, 0, 0, 0, 0.0, -0.5))
    summed = half.weight.sum((2, 3))
    torch.testing.assert_close(half(x)[0, :, :, 0], summed @ x[0, :, :, 0] / 2)  # half of it lies left of the map


def test_rows_of_the_transform_are_y_and_x() -> None:
    """A sheared, per-pixel transform tells rows from columns; the loop writes the official convention out."""
    conv, x = layer(1, 3), features(2, 3, 5, 6)
    transforms = conv.transform(x)
    expected = torch.stack([looped(*pair) for pair in zip(x, [conv.weight] * 2, transforms, strict=True)])
    torch.testing.assert_close(conv(x), expected, rtol=1e-4, atol=1e-4)


def test_a_fresh_layer_looks_at_the_pixel_itself_with_all_taps() -> None:
    conv, x = AdaptiveConv(2, 3), features(1, 6, 4, 5)
    transforms = conv.transform(x)
    assert not transforms.any()
    positions = tap_positions(transforms.reshape(2, 6, -1), pixel_grid(4, 5))
    torch.testing.assert_close(positions, pixel_grid(4, 5).expand(2, 9, 20, 2))
    torch.testing.assert_close(conv(x), F.conv2d(x, conv.weight.sum((2, 3), keepdim=True), groups=2))


def test_a_fresh_layer_draws_its_kernel_as_a_plain_convolution_does() -> None:
    bound = 1 / math.sqrt(8 * 9)  # kaiming-uniform with a = sqrt(5)
    weight = AdaptiveConv(4, 8).weight.detach()
    assert 0.9 * bound < float(weight.abs().max()) <= bound
    assert float(weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_branches_at_once_equal_a_loop_over_branches() -> None:
    """The grouped layer and one layer per branch: same outputs, same gradients of input, kernels and transforms."""
    branches, channels = 3, 4
    conv, x = layer(branches, channels), features(2, branches * channels, 6, 5).requires_grad_()
    whole = conv(x)
    target = features(*whole.shape, seed=5)
    (whole * target).sum().backward()

    alone_x = x.detach().clone().requires_grad_()
    for branch, part in enumerate(alone_x.chunk(branches, dim=1)):
        single = AdaptiveConv(1, channels)
        kernel, transform = slice(branch * channels, (branch + 1) * channels), slice(branch * 6, (branch + 1) * 6)
        bias, single_bias = conv.transform.bias, single.transform.bias
        assert bias is not None
        assert single_bias is not None
        pairs = [
            (single.weight, conv.weight, kernel),
            (single.transform.weight, conv.transform.weight, transform),
            (single_bias, bias, transform),
        ]
        with torch.no_grad():
            for mine, stacked, rows in pairs:
                mine.copy_(stacked[rows])
        out = single(part)
        torch.testing.assert_close(out, whole[:, kernel])
        (out * target[:, kernel]).sum().backward()
        for mine, stacked, rows in pairs:
            assert mine.grad is not None
            assert stacked.grad is not None
            assert bool(mine.grad.any())
            torch.testing.assert_close(mine.grad, stacked.grad[rows], rtol=1e-4, atol=1e-4)
    assert x.grad is not None
    torch.testing.assert_close(alone_x.grad, x.grad, rtol=1e-4, atol=1e-4)


def test_some_pixels_equal_the_whole_map() -> None:
    conv, x = layer(2, 3), features(2, 6, 7, 5)
    pixels = torch.tensor([[[0, 0], [4, 6], [2, 3]], [[1, 5], [1, 5], [4, 0]]])  # xy, per image
    out, whole = conv.at(x, pixels), conv(x)
    for image, places in enumerate(pixels.tolist()):
        for place, (column, row) in enumerate(places):
            torch.testing.assert_close(out[image, :, place], whole[image, :, row, column])


def test_nobody_to_look_at_gives_an_empty_answer() -> None:
    assert layer(2, 3).at(features(1, 6, 4, 4), torch.zeros(1, 0, 2, dtype=torch.long)).shape == (1, 6, 0)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1)])
def test_maps_of_a_single_row_or_column_stay_finite(size: tuple[int, int]) -> None:
    conv, x = layer(1, 3, (1, 0, 0, 1, 0, 0)), features(1, 3, *size)
    torch.testing.assert_close(conv(x), F.conv2d(x, conv.weight, padding=1))


def test_the_memory_layout_of_the_input_does_not_matter() -> None:
    conv, x = layer(3, 4), features(2, 12, 6, 7)
    torch.testing.assert_close(conv(x.contiguous(memory_format=torch.channels_last)), conv(x))
