"""The fast network for CPUs gives the plain one's maps, and steps aside where it would not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dekrpose.architectures.dekr import fast_convolutions
from dekrpose.architectures.dekr.fast import FastDEKR, FastPath
from dekrpose.architectures.dekr.fast_convolutions import GatheredBlock, UpsampledConv, frame, inside, padded_channels
from dekrpose.architectures.dekr.network import DEKR, RegressionBlock
from dekrpose.architectures.parts import folding
from dekrpose.architectures.parts.blocks import ActivatedConv, SameConv, concatenate
from dekrpose.architectures.parts.folding import fold_batch_norm
from dekrpose.config import Branches, EfficientNetLiteConfig, ModelConfig
from tests.movenet_files import OWN
from tests.small_model import SMALL


def network(*, seed: int = 0, config: ModelConfig = SMALL, branches: Branches = "per_keypoint") -> DEKR:
    """A small network with random batch norms and transforms, ready for inference."""
    torch.manual_seed(seed)
    model = DEKR(replace(config, head=replace(config.head, branches=branches, shared_channels=8))).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.normal_(module.bias)
    model.fast_path = FastPath()
    return model.requires_grad_(False)


def pictures(*size: int) -> Tensor:
    return torch.randn(*(size or (2, 3, 64, 96)), generator=torch.Generator().manual_seed(1))


def assert_near(found: Tensor, expected: Tensor, share: float = 1e-5) -> None:
    """Equal up to a share of the range of values."""
    spread = float(expected.max() - expected.min())
    assert spread > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=share * spread)


def both(model: DEKR, images: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The maps of the fast path with those of the plain one."""
    with torch.inference_mode():
        assert isinstance(model.running(images), FastDEKR)
        return list(zip(model(images), model.plain(images), strict=True))


@pytest.mark.parametrize("branches", get_args(Branches))
def test_fast_maps_are_the_plain_ones_whatever_the_branches(branches: Branches) -> None:
    for found, expected in both(network(branches=branches), pictures()):
        assert_near(found, expected)


def test_fast_maps_are_the_plain_ones_without_adaptive_convolutions() -> None:
    config = replace(SMALL, head=replace(SMALL.head, adaptive=False))
    for found, expected in both(network(config=config), pictures()):
        assert_near(found, expected)


def test_fast_maps_are_the_plain_ones_with_a_backbone_of_one_map() -> None:
    config = replace(SMALL, backbone=EfficientNetLiteConfig(channels=16, expansion=1))
    for found, expected in both(network(config=config), pictures()):
        assert_near(found, expected)


def test_fast_maps_are_the_plain_ones_with_movenets_heads() -> None:
    for found, expected in both(network(config=OWN), pictures()):
        assert_near(found, expected, share=1e-4)  # without batch norm the values within are large, before a sigmoid


def test_a_batch_is_its_images_one_by_one() -> None:
    model, images = network(), pictures(3, 3, 64, 32)
    with torch.inference_mode():
        whole = model(images)
        for index in range(3):
            for found, alone in zip(whole, model(images[index : index + 1]), strict=True):
                assert_near(found[index], alone[0])


@pytest.mark.parametrize("chunk", [1, 3000, 2**30])
def test_how_many_rows_are_computed_at_once_changes_nothing(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_convolutions, "CHUNK_BYTES", chunk)
    for found, expected in both(network(), pictures()):
        assert_near(found, expected)


def blocks(channels: int, bias: Callable[[Tensor], object]) -> tuple[RegressionBlock, GatheredBlock]:
    torch.manual_seed(2)
    block = RegressionBlock(2, channels, adaptive=True).eval().requires_grad_(False)
    nn.init.normal_(block.conv.transform.weight, std=0.1)  # type: ignore[union-attr,arg-type]
    bias(block.conv.transform.bias)  # type: ignore[union-attr,arg-type]
    return block, GatheredBlock(block.conv, block.bn)  # type: ignore[arg-type]


def gathered(block: GatheredBlock, x: Tensor, channels: int) -> Tensor:
    """A gathered block on maps (B, 2 * channels, h, w) without margin and padding."""
    batch, _, height, width = x.shape
    more = padded_channels(channels) - channels
    maps, out = (frame(batch, height, width, 2 * (channels + more)) for _ in range(2))
    x = F.pad(x.reshape(batch, 2, channels, height, width), (0, 0, 0, 0, 0, more))
    inside(maps)[:] = x.flatten(1, 2).permute(0, 2, 3, 1)
    block(maps, out)
    result = inside(out).permute(0, 3, 1, 2).reshape(batch, 2, channels + more, height, width)
    return result[:, :, :channels].flatten(1, 2)


@pytest.mark.parametrize("channels", [3, 8, 15])
@pytest.mark.parametrize("reach", [0.0, 1.0, 30.0, 1e6, 1e30])
def test_positions_near_and_far_outside_the_map(channels: int, reach: float) -> None:
    plain, fast = blocks(channels, lambda bias: nn.init.normal_(bias, std=reach))
    x = pictures(2, 2 * channels, 6, 9)
    torch.testing.assert_close(gathered(fast, x, channels), plain(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1)])
def test_maps_of_a_single_row_or_column(size: tuple[int, int]) -> None:
    plain, fast = blocks(3, lambda bias: nn.init.normal_(bias))
    x = pictures(1, 6, *size)
    torch.testing.assert_close(gathered(fast, x, 3), plain(x), rtol=1e-4, atol=1e-4)


def test_whole_pixels_are_read_without_their_neighbours() -> None:
    """All positions are whole numbers, where the lower and the upper pixel are one."""
    plain, fast = blocks(3, lambda bias: nn.init.constant_(bias, 1.0))
    nn.init.zeros_(plain.conv.transform.weight)  # type: ignore[union-attr,arg-type]
    fast = GatheredBlock(plain.conv, plain.bn)  # type: ignore[arg-type]
    x = pictures(1, 6, 5, 8)
    torch.testing.assert_close(gathered(fast, x, 3), plain(x), rtol=1e-5, atol=1e-5)


def test_broken_numbers_stay_in_their_picture_and_do_not_crash() -> None:
    _, fast = blocks(3, lambda bias: nn.init.normal_(bias))
    x = pictures(2, 6, 5, 8)
    whole = gathered(fast, x, 3)
    x[0, :, 2, 3] = float("nan")
    broken = gathered(fast, x, 3)
    assert bool(broken[0].isnan().any())
    assert torch.equal(broken[1], whole[1])


def test_a_convolution_before_upsampling_is_one_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = [pictures(2, 4 * 2**level, 16 >> level, 24 >> level) for level in range(4)]
    conv = nn.Conv2d(60, 7, 1).requires_grad_(False)
    assert conv.bias is not None
    for rows in (1, 5, 16):
        monkeypatch.setattr(fast_convolutions, "BAND_BYTES", 4 * 24 * 7 * rows)
        found = torch.empty(2, 16, 24, 7)
        UpsampledConv(conv.weight, conv.bias, [4, 8, 16, 32])(maps, found)
        assert_near(found.permute(0, 3, 1, 2), conv(concatenate(maps)).relu())


def test_a_folded_copy_leaves_the_original_as_it_is() -> None:
    model = network().backbone
    before = copy.deepcopy(model.state_dict())
    folded = fold_batch_norm(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    for found, expected in zip(folded(pictures()), model(pictures()), strict=True):
        assert_near(found, expected)
    for weight in folded.parameters():
        weight.fill_(1)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU6()])
@pytest.mark.parametrize("conv", [SameConv(8, 8, 2, 8), SameConv(3, 8, 2), SameConv(8, 8, 1), nn.Conv2d(8, 5, 1)])
def test_an_activation_that_goes_with_its_convolution_gives_the_same(conv: nn.Conv2d, activation: nn.Module) -> None:
    x = 4 * torch.randn(1, conv.in_channels, 6, 10, generator=torch.Generator().manual_seed(1))
    conv = conv.requires_grad_(False).eval()
    assert_near(ActivatedConv(conv, activation)(x), activation(conv(x)))


def test_a_build_of_torch_without_its_compilers_convolution_folds_batch_norm_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(folding, "_activates", lambda dtype: False)
    model = network().backbone
    folded = folding.fold_for_cpu(model)
    assert not any(isinstance(module, (ActivatedConv, nn.BatchNorm2d)) for module in folded.modules())
    assert_near(folded(pictures())[0], model(pictures())[0])


def test_bfloat16_backbone_and_heatmap_head_give_nearly_the_same() -> None:
    model, images = network(), pictures()
    with torch.inference_mode():
        expected = model.plain(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert isinstance(model.running(images), FastDEKR)
            heatmaps, offsets = model(images)
    assert heatmaps.dtype == torch.bfloat16
    assert offsets.dtype == torch.float32
    assert_near(heatmaps.float(), expected[0], share=0.03)
    assert_near(offsets, expected[1], share=0.1)


def change_in_place(model: DEKR) -> None:
    nn.init.normal_(model.backbone.early_layers()[0].weight)  # type: ignore[arg-type]


def load_other_weights(model: DEKR) -> None:
    model.load_state_dict(network(seed=3).state_dict())


def assign_other_weights(model: DEKR) -> None:
    model.load_state_dict(network(seed=3).state_dict(), assign=True)


def replace_a_head(model: DEKR) -> None:
    model.offset_head = network(seed=3).offset_head


@pytest.mark.parametrize("change", [change_in_place, load_other_weights, assign_other_weights, replace_a_head])
def test_changed_weights_are_noticed(change: Callable[[DEKR], None]) -> None:
    model, images = network(), pictures()
    (_, _), (before, _) = both(model, images)
    change(model)
    for found, expected in both(model, images):
        assert_near(found, expected)
    assert not torch.allclose(model(images)[1], before)


def test_a_foreign_offset_head_is_used() -> None:
    class Zeros(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            return features[:, :2] * 0

    model = network()
    model.offset_head = Zeros()  # type: ignore[assignment]
    with torch.inference_mode():
        assert not model(pictures())[1].any()


def test_training_gradients_hooks_tracing_and_other_dtypes_run_the_network_itself() -> None:
    model, images = network(), pictures()

    def fast(given: Tensor = images) -> bool:
        return isinstance(model.running(given), FastDEKR)

    assert fast()
    assert not fast(images.clone().requires_grad_())
    assert not fast(images.double())
    with torch.autocast("cpu", dtype=torch.float16):
        assert not fast()
    model.train()
    assert not fast()
    model.eval()
    norm = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    norm.train()
    assert not fast()
    norm.eval()
    handle = model.heatmap_head.block.register_forward_hook(lambda *_: None)
    assert not fast()
    handle.remove()
    assert fast()
    model.offset_head.requires_grad_(True)
    assert not fast()
    with torch.no_grad():
        assert fast()
    assert not isinstance(DEKR(SMALL).eval().running(images), FastDEKR)  # nobody asked for it


def test_gradients_of_the_input_come_through() -> None:
    images = pictures().requires_grad_()
    network()(images)[1].sum().backward()
    assert images.grad is not None
    assert bool(images.grad.any())


@pytest.mark.slow
def test_an_exported_program_holds_the_plain_network() -> None:
    model, images = network(), pictures(1, 3, 64, 64)
    model(images)
    program = torch.export.export(model, (images,))
    parts = [part for part in program.graph_module.modules() if isinstance(part, torch.fx.GraphModule)]
    targets = {str(node.target) for part in parts for node in part.graph.nodes}
    assert any("grid_sampler" in target for target in targets)
    assert not any("embedding_bag" in target for target in targets)


def test_copies_and_saved_weights_know_nothing_of_the_fast_network() -> None:
    model, images = network(), pictures()
    names = list(DEKR(model.config).state_dict())
    model(images)
    assert list(model.state_dict()) == names
    twin = copy.deepcopy(model)
    change_in_place(twin)
    for one in (model, twin):
        for found, expected in both(one, images):
            assert_near(found, expected)


def test_weights_made_in_inference_mode_are_used_too() -> None:
    with torch.inference_mode():
        model = network()
    for found, expected in both(model, pictures()):
        assert_near(found, expected)
