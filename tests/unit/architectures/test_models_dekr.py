"""The whole network: map sizes, the order of keypoints in every head, names of its tensors."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from dekrpose.architectures.dekr.adaptive_conv import AdaptiveConv
from dekrpose.architectures.dekr.foreign_names import official_to_ours
from dekrpose.architectures.dekr.network import DEKR, branch_keypoints
from dekrpose.config import ARCHITECTURES, BackboneConfig, Branches, HeadConfig, ModelConfig
from dekrpose.skeletons import CROWDPOSE_14
from tests.checkpoint_fixtures import w32_shapes

ALL: tuple[Branches, ...] = ("per_keypoint", "grouped_13", "grouped_5", "shared")
SMALL = ModelConfig(
    name="small",
    input_size=64,
    backbone=BackboneConfig(width=4, stem_channels=8, layer1_channels=4, layer1_blocks=1, modules=(1, 1, 1), blocks=1),
    head=HeadConfig(heatmap_channels=6, keypoint_channels=3, shared_channels=12),
)
HEAD = (0, 1, 2, 3, 4)
BRANCHES: dict[Branches, list[tuple[int, ...]]] = {
    "per_keypoint": [(keypoint,) for keypoint in range(17)],
    "grouped_13": [HEAD, *((keypoint,) for keypoint in range(5, 17))],
    "grouped_5": [HEAD, (5, 7, 9), (6, 8, 10), (11, 13, 15), (12, 14, 16)],
    "shared": [tuple(range(17))],
}


def network(branches: Branches = "per_keypoint", *, adaptive: bool = True, seed: int = 0) -> DEKR:
    """A small network whose every number is random, batch norms and transforms too."""
    model = DEKR(replace(SMALL, head=replace(SMALL.head, branches=branches, adaptive=adaptive))).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 1.5, generator=generator)
            elif value.is_floating_point():
                value.normal_(std=0.3, generator=generator)
    return model


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (160, 32)])
def test_maps_have_a_quarter_of_the_inputs_size(size: tuple[int, int]) -> None:
    height, width = size
    heatmaps, offsets = network()(torch.rand(2, 3, height, width))
    assert heatmaps.shape == (2, 18, height // 4, width // 4)
    assert offsets.shape == (2, 34, height // 4, width // 4)


def test_crowdpose_has_14_keypoints_and_a_center() -> None:
    heatmaps, offsets = DEKR(replace(SMALL, skeleton=CROWDPOSE_14)).eval()(torch.rand(1, 3, 32, 32))
    assert heatmaps.shape == (1, 15, 8, 8)
    assert offsets.shape == (1, 28, 8, 8)


@pytest.mark.parametrize("branches", ALL)
def test_branches_regress_the_keypoints_that_the_paper_groups(branches: Branches) -> None:
    assert branch_keypoints(branches, 17) == BRANCHES[branches]


@pytest.mark.parametrize("branches", ["grouped_13", "grouped_5"])
def test_groups_need_cocos_keypoints(branches: Branches) -> None:
    with pytest.raises(ValueError, match="17 keypoints, got 14"):
        DEKR(replace(SMALL, skeleton=CROWDPOSE_14, head=replace(SMALL.head, branches=branches)))


@pytest.mark.parametrize("branches", ALL)
def test_offsets_come_in_keypoint_order_whatever_the_branches(branches: Branches) -> None:
    """Every branch says which keypoint it is for, as a bias; the map lists them x0, y0, x1, ..."""
    model = network(branches)
    with torch.no_grad():
        names = iter([keypoint for branch in BRANCHES[branches] for keypoint in branch])
        for group in model.offset_head.groups:
            final = group.final
            assert isinstance(final, nn.Conv2d)
            assert final.bias is not None
            final.weight.zero_()
            keypoints = [next(names) for _ in range(len(final.bias) // 2)]
            final.bias.copy_(torch.tensor([100.0 * keypoint + xy for keypoint in keypoints for xy in (0, 1)]))
        features = torch.rand(1, model.backbone.out_channels, 3, 2)
        offsets, at = model.offset_head(features), model.offset_head.at(features, torch.tensor([[[1, 2]]]))
    expected = torch.tensor([100.0 * keypoint + xy for keypoint in range(17) for xy in (0, 1)])
    assert torch.equal(offsets, expected[None, :, None, None].expand_as(offsets))
    assert torch.equal(at, expected[None, :, None])


@pytest.mark.parametrize("branches", ALL)
def test_a_keypoint_depends_on_its_own_branch_alone(branches: Branches) -> None:
    model = network(branches)
    width = 12 if branches == "shared" else None
    first = 0
    parts: dict[int, range] = {}
    for branch in BRANCHES[branches]:
        channels = width or 3 * len(branch)
        parts |= {keypoint: range(first, first + channels) for keypoint in branch}
        first += channels
    channels_in = torch.rand(1, first, 4, 4).requires_grad_()
    model.offset_head.transition = nn.Sequential(nn.Identity())
    offsets = model.offset_head(channels_in)
    for keypoint, own in parts.items():
        both = offsets[:, 2 * keypoint : 2 * keypoint + 2].sum()
        (gradient,) = torch.autograd.grad(both, channels_in, retain_graph=True)
        used = gradient.abs().sum((0, 2, 3)).nonzero().flatten().tolist()
        assert used == list(own)


@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize("branches", ALL)
def test_offsets_at_some_pixels_equal_the_map(branches: Branches, adaptive: bool) -> None:
    model = network(branches, adaptive=adaptive)
    pixels = torch.tensor([[[0, 0], [7, 5], [3, 2]], [[4, 4], [4, 4], [0, 5]]])  # xy
    with torch.inference_mode():
        features = model.features(torch.rand(2, 3, 32, 32))
        offsets, at = model.offset_head(features), model.offset_head.at(features, pixels)
    for image, places in enumerate(pixels.tolist()):
        for place, (column, row) in enumerate(places):
            torch.testing.assert_close(at[image, :, place], offsets[image, :, row, column], rtol=1e-4, atol=1e-4)


def test_a_batch_gives_what_its_images_give() -> None:
    model, images = network(), torch.rand(3, 3, 64, 32)
    with torch.inference_mode():
        heatmaps, offsets = model(images)
        for index in range(3):
            alone = model(images[index : index + 1])
            torch.testing.assert_close(alone[0][0], heatmaps[index], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(alone[1][0], offsets[index], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("branches", ALL)
def test_training_reaches_every_parameter(branches: Branches) -> None:
    model = network(branches).train()
    heatmaps, offsets = model(torch.rand(2, 3, 64, 64))
    (heatmaps.square().sum() + offsets.square().sum()).backward()
    without = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert without == []


def test_a_fresh_network_starts_as_the_official_one() -> None:
    model = DEKR(ARCHITECTURES["tiny-lite"])
    for name, module in model.named_modules():
        if isinstance(module, AdaptiveConv):
            assert module.transform.bias is not None
            assert not module.transform.weight.any(), name
            assert not module.transform.bias.any(), name
            assert float(module.weight.detach().abs().max()) > 0.05, name  # not the small normal of the others
        elif isinstance(module, nn.BatchNorm2d):
            assert bool((module.weight == 1).all()), name
            assert not module.bias.any(), name
        elif isinstance(module, nn.Conv2d) and not name.endswith(".transform"):
            assert module.bias is None or not module.bias.any(), name
            if module.weight.numel() > 1000:
                assert float(module.weight.detach().std()) == pytest.approx(0.001, rel=0.15), name


def test_tensor_names_are_those_of_the_official_network_translated() -> None:
    with torch.device("meta"):
        ours = {name: tuple(value.shape) for name, value in DEKR(ARCHITECTURES["dekr-w32-coco"]).state_dict().items()}
        official = {name: torch.empty(shape) for name, shape in w32_shapes().items()}
        assert {name: tuple(value.shape) for name, value in official_to_ours(official).items()} == ours


@pytest.mark.parametrize(("branches", "groups"), [("grouped_13", 2), ("grouped_5", 2), ("shared", 1)])
def test_tensor_names_of_the_heads_stay_as_saved_files_have_them(branches: Branches, groups: int) -> None:
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    block = ["conv.weight", "conv.transform.weight", "conv.transform.bias", *(f"bn.{leaf}" for leaf in norm)]
    head = ["transition.0.weight", *(f"transition.1.{leaf}" for leaf in norm)]
    for group in range(groups):
        head += [f"groups.{group}.blocks.{index}.{leaf}" for index in range(2) for leaf in block]
        head += [f"groups.{group}.final.weight", f"groups.{group}.final.bias"]
    assert set(network(branches).offset_head.state_dict()) == set(head)
