"""HRNet: strides, widths, and that every branch hears of every other."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dekrpose.architectures.parts.blocks import BasicBlock, Bottleneck, concatenate
from dekrpose.architectures.parts.hrnet import HRModule, HRNet
from dekrpose.config import BackboneConfig

SMALL = BackboneConfig(width=4, stem_channels=8, layer1_channels=4, layer1_blocks=1, modules=(1, 1, 1), blocks=1)


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (160, 32)])
def test_branches_have_strides_4_to_32_and_doubling_widths(size: tuple[int, int]) -> None:
    height, width = size
    maps = HRNet(SMALL).eval()(torch.rand(2, 3, height, width))
    assert [tuple(x.shape) for x in maps] == [(2, 4 * 2**i, height // 4 // 2**i, width // 4 // 2**i) for i in range(4)]


def test_the_joined_maps_have_15_times_the_width() -> None:
    network = HRNet(SMALL).eval()
    joined = concatenate(network(torch.rand(1, 3, 64, 32)))
    assert joined.shape == (1, 60, 16, 8)
    assert network.out_channels == 60


def test_coarse_maps_are_joined_bilinearly_without_aligned_corners() -> None:
    maps = [torch.rand(1, 2 * 2**level, 16 // 2**level, 8 // 2**level) for level in range(4)]
    joined = concatenate(maps)
    parts = torch.split(joined, [2, 4, 8, 16], dim=1)
    assert torch.equal(parts[0], maps[0])
    torch.testing.assert_close(parts[1][..., 0, 0], maps[1][..., 0, 0])  # the corner repeats the border
    between = (9 * maps[1][..., 0, 0] + 3 * (maps[1][..., 0, 1] + maps[1][..., 1, 0]) + maps[1][..., 1, 1]) / 16
    torch.testing.assert_close(parts[1][..., 1, 1], between)


def test_every_branch_of_the_last_module_receives_all_branches() -> None:
    module = HRModule([3, 6, 12, 24], blocks=1).eval()
    maps = [torch.rand(1, 3 * 2**level, 16 // 2**level, 16 // 2**level).requires_grad_() for level in range(4)]
    for fused in module(list(maps)):
        gradients = torch.autograd.grad(fused.square().sum(), maps, retain_graph=True)
        assert all(bool(gradient.any()) for gradient in gradients)


def test_fusion_brings_coarse_maps_up_by_nearest_neighbour_and_rectifies_the_sum() -> None:
    module = HRModule([2, 4], blocks=1).eval()
    maps = [torch.randn(1, 2, 8, 8), torch.randn(1, 4, 4, 4)]
    fine, coarse = (branch(x) for branch, x in zip(module.branches, maps, strict=True))
    rows: Tensor = list(next(iter(module.fuse_layers)).children())[1](coarse)
    expected = F.relu(fine + rows.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))
    torch.testing.assert_close(module(maps)[0], expected)


def test_a_batch_gives_what_its_images_give() -> None:
    network, images = HRNet(SMALL).eval(), torch.rand(3, 3, 64, 64)
    for level, maps in enumerate(network(images)):
        for index in range(3):
            torch.testing.assert_close(maps[index], network(images[index : index + 1])[level][0])


def test_blocks_keep_their_input() -> None:
    """Shortcuts add the untouched input; a ReLU in place must not reach back into it."""
    for block in (BasicBlock(8).eval(), Bottleneck(8, 2).eval(), Bottleneck(8, 4).eval()):
        x = torch.randn(1, 8, 4, 4)
        before = x.clone()
        block(x)
        assert torch.equal(x, before)
