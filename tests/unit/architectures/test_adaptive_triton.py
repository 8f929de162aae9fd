"""The Triton kernel of the adaptive convolution computes what the plain path does, forward and backward.

Triton's interpreter runs it on the CPU. That has to be asked for before Triton is imported, so the tests run in a
process of their own, which shows each:
``TRITON_INTERPRET=1 python -m pytest tests/unit/architectures/test_adaptive_triton.py``.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from importlib.util import find_spec
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dekrpose.architectures.dekr import adaptive_triton
from dekrpose.architectures.dekr.adaptive_conv import AdaptiveConv
from dekrpose.architectures.dekr.adaptive_conv import plain_product as plain
from dekrpose.architectures.dekr.adaptive_triton import adaptive_conv_triton

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="pip install triton")
in_interpreter = pytest.mark.skipif(not INTERPRETED, reason="runs in a process of its own")

TOLERANCES = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
"""Share of the largest value: roundings of float32 sums in another order; two roundings of a half-precision result."""


if INTERPRETED:
    from triton.runtime.interpreter import InterpreterBuilder, _convert_float

    own_product = InterpreterBuilder.create_dot

    def product_of_bfloat16_too(self, a, b, *rest):  # type: ignore[no-untyped-def]
        """Triton 3.9's interpreter multiplies the bits of bfloat16 numbers as if they were integers."""
        import triton.language as tl

        for factor in (a, b):
            if factor.dtype.scalar == tl.bfloat16:
                factor.data = _convert_float(factor.data, tl.bfloat16, tl.float32, None).view("float32")
                factor.dtype = tl.float32
        return own_product(self, a, b, *rest)

    InterpreterBuilder.create_dot = product_of_bfloat16_too


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="this is that process")
def test_the_kernel_in_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-1000:]


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled in the interpreter")
@pytest.mark.parametrize(("dtype", "capability"), [("fp32", 80), ("fp16", 80), ("bf16", 90)])
@pytest.mark.parametrize("ones", ["f_c o_c g_c", "t_p f_x branches images height width count splits"])
@pytest.mark.parametrize("name", ["forward_kernel", "backward_kernel", "weight_kernel"])
def test_the_kernels_compile_for_gpus_that_are_not_here(name: str, ones: str, dtype: str, capability: int) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from dekrpose.architectures.dekr import adaptive_kernels

    kernel = getattr(adaptive_kernels, name)
    constants = {"channels": 15, "padded": 16, "tile": adaptive_triton.TILE, "some_pixels": True}
    constants |= {"want_features": True, "want_transforms": True}
    single = ("transforms", "transform_gradient", "feature_gradient", "parts")
    types = dict.fromkeys(single, "*fp32") | {"pixels": "*i64"}
    types |= dict.fromkeys(("features", "weight", "gradient", "out"), f"*{dtype}")
    # numbers that are 1 are compiled in: strides of channels-last maps, sizes of tiny ones
    constants |= dict.fromkeys(ones.split(), 1)
    types |= dict.fromkeys(constants, "constexpr")
    signature = {argument: types.get(argument, "i32") for argument in kernel.arg_names}
    source = ASTSource(kernel, signature, {key: value for key, value in constants.items() if key in signature})
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=dict(adaptive_triton.LAUNCH))
    assert compiled.asm["cubin"]


def inputs(
    branches: int = 2,
    channels: int = 15,
    height: int = 7,
    width: int = 11,
    *,
    images: int = 1,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = True,
    some_pixels: bool = False,
    gradients: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Taps lie between pixels, across borders, and far outside."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(images, branches * channels, height, width, generator=generator).to(dtype)
    if channels_last:
        features = features.contiguous(memory_format=torch.channels_last)
    pixels = None
    if some_pixels:
        pixels = torch.stack(
            [torch.randint(side, (images, 5), generator=generator) for side in (width, height)], dim=-1
        )
    count = 5 if some_pixels else height * width
    transforms = 3 * torch.randn(images, 6 * branches, count, generator=generator)
    transforms[:, 4, 0], transforms[:, 5, 1], transforms[:, 5, 2] = -1.3, width - 0.1, 1e12
    weight = torch.randn(branches * channels, channels, 3, 3, generator=generator).to(dtype)
    for tensor in (features, transforms, weight):
        tensor.requires_grad_(gradients)
    return features, transforms, weight, pixels


def assert_near(ours: Tensor, expected: Tensor, tolerance: float) -> None:
    assert ours.dtype == expected.dtype
    torch.testing.assert_close(ours, expected, rtol=0, atol=tolerance * expected.abs().max().item())


@in_interpreter
@pytest.mark.parametrize("channels", [4, 8, 15, 20])
@pytest.mark.parametrize(("channels_last", "some_pixels"), list(product([True, False], repeat=2)))
def test_forward_is_the_plain_path(channels: int, channels_last: bool, some_pixels: bool) -> None:
    given = inputs(channels=channels, channels_last=channels_last, some_pixels=some_pixels, images=2)
    assert_near(adaptive_conv_triton(*given), plain(*given), 1e-5)


@in_interpreter
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_features_and_result_only(dtype: torch.dtype) -> None:
    given = inputs(dtype=dtype)
    ours, expected = adaptive_conv_triton(*given), plain(*given)
    assert_near(ours, expected, TOLERANCES[dtype])
    exact = plain(given[0].float(), given[1], given[2].float())
    assert_near(ours.float(), exact, TOLERANCES[dtype])  # positions in half precision would be off by whole pixels


@in_interpreter
def test_half_precision_transforms_are_computed_with_in_single() -> None:
    features, transforms, weight, _ = inputs(height=3, width=400, branches=1, channels=4)
    half = transforms.half()
    half[half.isinf()] = 0
    assert_near(adaptive_conv_triton(features, half, weight), plain(features, half.float(), weight), 1e-4)


@in_interpreter
def test_several_blocks_of_pixels() -> None:
    given = inputs(branches=1, channels=8, height=13, width=17)
    assert given[1].shape[-1] > 2 * adaptive_triton.TILE
    assert_near(adaptive_conv_triton(*given), plain(*given), 1e-5)


@in_interpreter
def test_the_identity_matrix_gives_an_ordinary_convolution() -> None:
    features, transforms, weight, _ = inputs()
    transforms = torch.zeros_like(transforms)
    transforms[:, 0::6] = transforms[:, 3::6] = 1
    ordinary = F.conv2d(features, weight, padding=1, groups=2).flatten(2)
    assert_near(adaptive_conv_triton(features, transforms, weight), ordinary, 1e-5)


@in_interpreter
@pytest.mark.parametrize("dtype", list(TOLERANCES))
@pytest.mark.parametrize(("channels_last", "some_pixels"), [(True, False), (False, True)])
def test_gradients_are_those_of_the_plain_path(dtype: torch.dtype, channels_last: bool, some_pixels: bool) -> None:
    given = inputs(dtype=dtype, channels_last=channels_last, some_pixels=some_pixels, gradients=True)
    outer = torch.randn(plain(*given).shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    ours, expected = (
        torch.autograd.grad(function(*given), given[:3], outer) for function in (adaptive_conv_triton, plain)
    )
    for own, other in zip(ours, expected, strict=True):
        assert_near(own, other, TOLERANCES[dtype])


@in_interpreter
def test_the_weight_gradient_adds_up_all_blocks_and_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptive_triton, "_SPLITS", 3)
    given = inputs(branches=1, channels=8, height=13, width=17, images=2, gradients=True)
    ours, expected = (
        torch.autograd.grad(function(*given).square().sum(), given[2])[0] for function in (adaptive_conv_triton, plain)
    )
    assert_near(ours, expected, 1e-5)


@in_interpreter
@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_one_gradient_alone(wanted: int) -> None:
    given = inputs(height=3, width=4)
    given[wanted].requires_grad_()  # type: ignore[union-attr]
    ours, expected = (
        torch.autograd.grad(function(*given).sum(), given[wanted])[0] for function in (adaptive_conv_triton, plain)
    )
    assert_near(ours, expected, 1e-5)


@in_interpreter
@pytest.mark.parametrize("channels_last", [True, False])
def test_the_result_keeps_the_memory_order(channels_last: bool) -> None:
    features, transforms, weight, _ = inputs(2, 4, 3, 5, images=2, channels_last=channels_last)
    out = adaptive_conv_triton(features, transforms, weight).reshape(features.shape)
    assert out.stride() == features.stride()


@in_interpreter
def test_no_pixels_give_nothing_and_no_gradient() -> None:
    features, _, weight, _ = inputs(gradients=True)
    out = adaptive_conv_triton(features, torch.zeros(1, 12, 0), weight, torch.zeros(1, 0, 2, dtype=torch.long))
    assert out.shape == (1, 30, 0)
    out.sum().backward()
    assert weight.grad is not None
    assert not weight.grad.any()


@in_interpreter
@pytest.mark.parametrize("some_pixels", [True, False])
def test_the_operator_tells_compilers_the_truth(some_pixels: bool) -> None:
    given = inputs(1, 4, 3, 4, some_pixels=some_pixels, gradients=True)
    torch.library.opcheck(torch.ops.dekrpose.adaptive_conv.default, given)


@in_interpreter
def test_compilers_and_exporters_see_one_operator() -> None:
    given = inputs(1, 4, 3, 4)[:3]

    class Twice(torch.nn.Module):
        def forward(self, features: Tensor, transforms: Tensor, weight: Tensor) -> Tensor:
            return 2 * adaptive_conv_triton(features, transforms, weight)

    compiled = torch.compile(Twice(), backend="aot_eager", fullgraph=True)
    assert_near(compiled(*given), 2 * plain(*given), 1e-5)
    exported = torch.export.export(Twice(), given)
    assert "dekrpose.adaptive_conv.default" in str(exported.graph)
    assert_near(exported.module()(*given), 2 * plain(*given), 1e-5)


@in_interpreter
@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("dtype", list(TOLERANCES))
def test_the_probe_finds_that_kernel_and_plain_path_agree(dtype: torch.dtype, gradients: bool) -> None:
    assert adaptive_triton._agrees(torch.device("cpu"), dtype, 8, gradients)


@pytest.fixture
def nothing_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptive_triton, "_probed", {})
    monkeypatch.setenv(adaptive_triton.SWITCH, "1")


def probe() -> bool:
    return adaptive_triton._probe(torch.device("cpu"), torch.float32, 15, False)


@pytest.mark.usefixtures("nothing_probed")
def test_a_kernel_that_does_not_compile_is_reported_once_and_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Tensor) -> Tensor:
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(adaptive_triton, "adaptive_conv_triton", fail)
    with caplog.at_level(logging.WARNING):
        assert not probe()
        assert not probe()
    assert len(caplog.records) == 1
    assert "no such instruction" in caplog.text


@pytest.mark.usefixtures("nothing_probed")
def test_a_kernel_with_other_numbers_is_reported_and_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(adaptive_triton, "adaptive_conv_triton", lambda *given: 1.1 * plain(*given))
    assert not probe()
    assert "differ" in caplog.text


@pytest.mark.usefixtures("nothing_probed")
def test_the_kernel_is_off_unless_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(adaptive_triton, "adaptive_conv_triton", plain)
    assert probe()
    monkeypatch.delenv(adaptive_triton.SWITCH)
    assert not probe()
    assert not caplog.records


@pytest.mark.usefixtures("nothing_probed")
def test_compilers_take_the_probe_for_a_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptive_triton, "adaptive_conv_triton", plain)

    def ask(x: Tensor) -> Tensor:
        return 2 * x if adaptive_triton._probe(x.device, x.dtype, 15, torch.is_grad_enabled()) else x

    assert torch.compile(ask, backend="eager", fullgraph=True)(torch.ones(1)).item() == 2


def test_cpus_take_the_plain_path() -> None:
    assert not adaptive_triton.available(torch.zeros(1, 15, 4, 4), 15)


@pytest.mark.parametrize(
    ("features", "transforms", "weight", "pixels"),
    [
        ((1, 8, 4, 4), (1, 12, 15), (8, 4, 3, 3), None),
        ((1, 8, 4, 4), (1, 12, 16), (8, 8, 3, 3), None),
        ((1, 8, 4, 4), (2, 12, 16), (8, 4, 3, 3), None),
        ((1, 8, 4, 4), (1, 12, 16), (8, 4, 3, 3), (1, 15, 2)),
    ],
)
def test_shapes_that_do_not_belong_together_are_refused(
    features: tuple[int, ...], transforms: tuple[int, ...], weight: tuple[int, ...], pixels: tuple[int, ...] | None
) -> None:
    spots = None if pixels is None else torch.zeros(pixels, dtype=torch.long)
    with pytest.raises(ValueError, match="belong together"):
        adaptive_conv_triton(torch.zeros(features), torch.zeros(transforms), torch.zeros(weight), spots)


def test_double_precision_is_refused() -> None:
    features, transforms, weight, _ = inputs()
    with pytest.raises(ValueError, match="plain path"):
        adaptive_conv_triton(features.double(), transforms, weight)


@pytest.mark.parametrize("usable", [True, False])
def test_a_network_on_a_gpu_takes_the_kernel_where_it_can(usable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def kernel(features: Tensor, transforms: Tensor, weight: Tensor, pixels: Tensor | None = None) -> Tensor:
        calls.append(transforms.shape[-1])
        return plain(features, transforms, weight, pixels)

    monkeypatch.setattr(Tensor, "is_cuda", property(lambda _: True))
    monkeypatch.setattr(adaptive_triton, "_probe", lambda *_: usable)
    monkeypatch.setattr(adaptive_triton, "adaptive_conv_triton", kernel)
    conv, x = AdaptiveConv(2, 4), torch.randn(1, 8, 5, 6)
    whole = conv(x)
    some = conv.at(x, torch.tensor([[[3, 2], [0, 4]]]))
    assert calls == ([30, 2] if usable else [])
    torch.testing.assert_close(some, whole[:, :, [2, 4], [3, 0]])


def test_wide_branches_take_the_plain_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "is_cuda", property(lambda _: True))
    monkeypatch.setattr(adaptive_triton, "_probe", lambda *_: True)
    assert adaptive_triton.available(torch.zeros(1, 15, 4, 4), 15)
    assert not adaptive_triton.available(torch.zeros(1, 75, 4, 4), 75)
