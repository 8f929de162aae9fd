"""The adaptive convolution as one Triton kernel: positions, sampling and product of all branches in one launch.

The same function as the plain path in ``adaptive_conv``, which stays the fallback and the check. Positions are
float32 and live in registers; features may be half precision, sums are float32. Registered as PyTorch operators with
shapes and gradients, so that ``torch.compile`` and ``torch.export`` see through them.
"""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from dekrpose.architectures.dekr.adaptive_conv import plain_product

logger = logging.getLogger(__name__)

MAX_CHANNELS = 32
"""Wider branches would not fit into a program's registers."""
SWITCH = "DEKRPOSE_TRITON"
"""Environment variable; "1" turns the kernel on, which has not run on a GPU yet."""
TILE = 64
"""Pixels per program."""
LAUNCH = {"num_warps": 8, "num_stages": 1}
"""Chosen by the compiler's count of registers (80 forward, at most 176 backward, none spilled), not by measurement."""
_SPLITS = 64
"""Programs that share the sum of one tap's weight gradient."""
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_PROBE_TOLERANCE = 2e-2
"""Share of the largest value; TF32 and half precision stay far below, a wrong kernel does not."""

_probed: dict[tuple[torch.device, torch.dtype, int, bool], bool] = {}


def adaptive_conv_triton(features: Tensor, transforms: Tensor, weight: Tensor, pixels: Tensor | None = None) -> Tensor:
    """Adaptive 3x3 convolutions of G branches at once, forward and backward.

    Args:
        features: (B, G * C, h, w) float32, float16 or bfloat16; zero outside. Fastest in channels_last.
        transforms: (B, 6G, P), per pixel and branch the matrix A row by row (a b; c d) and then t_y, t_x, heatmap
            pixels; any floating dtype, computed with in float32.
        weight: (G * C, C, 3, 3); rounded to the features' dtype.
        pixels: (B, P, 2) integer xy, heatmap pixels, whose result is wanted; None: all h * w, row by row.

    Returns:
        (B, G * C, P) in the features' dtype, and in their memory order.

    Raises:
        ValueError: the shapes do not belong together, or the features' dtype is another.
    """
    _check(features, transforms, weight, pixels)
    result: Tensor = _forward(features, transforms, weight, pixels)
    return result


def available(features: Tensor, channels: int) -> bool:
    """Whether ``adaptive_conv_triton`` can be used: on CUDA, with Triton, and with DEKRPOSE_TRITON=1.

    The first question about a device, dtype and width (``channels`` of one branch) compiles the kernel, runs it on a
    small map and compares it with the plain path; where that fails a warning is logged, once, and the answer is no.
    Networks that are being exported take the plain path.
    """
    usable = features.is_cuda and features.dtype in _DTYPES and channels <= MAX_CHANNELS and not _into_a_file()
    return usable and _probe(features.device, features.dtype, channels, torch.is_grad_enabled())


def _into_a_file() -> bool:
    """Whether the network is being exported: a file shall run where this library is not."""
    exporting = getattr(torch.compiler, "is_exporting", None)  # from PyTorch 2.7 on
    return torch.jit.is_tracing() or (exporting is not None and exporting())  # type: ignore[no-untyped-call, attr-defined]


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator, unused-ignore]
def _probe(device: torch.device, dtype: torch.dtype, channels: int, gradients: bool) -> bool:
    if os.environ.get(SWITCH) != "1" or find_spec("triton") is None:
        return False
    key = (device, dtype, channels, gradients)
    if key not in _probed:
        try:
            _probed[key] = _agrees(*key)
            problem = "its numbers differ from the plain path's"
        except Exception as error:  # a compiler fails in many ways; the plain path needs none of it
            _probed[key], problem = False, f"{type(error).__name__}: {error}"
        if not _probed[key]:
            logger.warning(
                "the Triton kernel of the adaptive convolution is not used for %s on %s, the plain path is: %s",
                dtype, device, problem,
            )  # fmt: skip
    return _probed[key]


@torch.inference_mode(False)
def _agrees(device: torch.device, dtype: torch.dtype, channels: int, gradients: bool) -> bool:
    """Whether kernel and plain path give the same on a small map."""
    generator = torch.Generator().manual_seed(0)  # the caller's random numbers stay what they are

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    with torch.enable_grad(), torch.autocast(device.type, enabled=False):
        drawn = (
            draw(1, 2 * channels, 7, 9).to(dtype).contiguous(memory_format=torch.channels_last),
            3 * draw(1, 12, 63),
            draw(2 * channels, channels, 3, 3).to(dtype),
        )
        inputs = [tensor.requires_grad_(gradients) for tensor in drawn]
        results = [function(*inputs) for function in (adaptive_conv_triton, plain_product)]
        pairs: list[Any] = [results]
        if gradients:
            pairs += zip(*(torch.autograd.grad(result.sum(), inputs) for result in results), strict=True)
    return all(_near(ours, plain) for ours, plain in pairs)


def _near(ours: Tensor, plain: Tensor) -> bool:
    ours, plain = ours.detach().float(), plain.detach().float()
    return bool((ours - plain).abs().amax() <= _PROBE_TOLERANCE * plain.abs().amax())


def _check(features: Tensor, transforms: Tensor, weight: Tensor, pixels: Tensor | None) -> None:
    batch, total, height, width = features.shape
    branches, count = transforms.shape[1] // 6, transforms.shape[-1]
    wanted = (height * width,) if pixels is None else (pixels.shape[1],)
    fits = transforms.shape == (batch, 6 * branches, *wanted) and branches > 0
    fits = fits and weight.shape == (total, total // branches, 3, 3) and total % branches == 0
    if not fits or (pixels is not None and pixels.shape != (batch, count, 2)):
        raise ValueError(
            f"features (B, G * C, h, w), transforms (B, 6G, P), weight (G * C, C, 3, 3) and pixels (B, P, 2) do not "
            f"belong together: {tuple(features.shape)}, {tuple(transforms.shape)}, {tuple(weight.shape)}, "
            f"{None if pixels is None else tuple(pixels.shape)}"
        )
    if features.dtype not in _DTYPES:
        raise ValueError(f"features must be float32, float16 or bfloat16, got {features.dtype}; use the plain path")


def _empty_result(features: Tensor, transforms: Tensor) -> Tensor:
    batch, channels = features.shape[:2]
    count = transforms.shape[-1]
    if features.stride(1) == 1:
        return features.new_empty(batch, count, channels).transpose(1, 2)
    return features.new_empty(batch, channels, count)


def _sizes(features: Tensor, transforms: Tensor, pixels: Tensor | None) -> tuple[int, int, int, dict[str, Any]]:
    """Branches, pixels per image, programs to start, and what all kernels are told at compile time."""
    branches, count = transforms.shape[1] // 6, transforms.shape[-1]
    channels = features.shape[1] // branches
    padded = max(16, 1 << (channels - 1).bit_length())
    programs = features.shape[0] * branches * -(-count // TILE)
    options = {"channels": channels, "padded": padded, "tile": TILE, "some_pixels": pixels is not None}
    return branches, count, programs, {**options, **LAUNCH}


@torch.library.custom_op(
    "dekrpose::adaptive_conv",
    mutates_args=(),
    schema="(Tensor features, Tensor transforms, Tensor weight, Tensor? pixels) -> Tensor",
)
def _forward(features: Tensor, transforms: Tensor, weight: Tensor, pixels: Tensor | None) -> Tensor:
    from dekrpose.architectures.dekr.adaptive_kernels import forward_kernel

    out = _empty_result(features, transforms)
    branches, count, programs, options = _sizes(features, transforms, pixels)
    if programs:
        with _on(features.device):
            forward_kernel[(programs,)](
                features, *features.stride(), transforms, *transforms.stride(), weight.contiguous(),
                features if pixels is None else pixels.contiguous(), out, *out.stride(),
                branches, *features.shape[2:], count, **options,
            )  # fmt: skip
    return out


@_forward.register_fake
def _(features: Tensor, transforms: Tensor, weight: Tensor, pixels: Tensor | None) -> Tensor:
    return _empty_result(features, transforms)


@torch.library.custom_op(
    "dekrpose::adaptive_conv_backward",
    mutates_args=(),
    schema="(Tensor gradient, Tensor features, Tensor transforms, Tensor weight, Tensor? pixels, bool[] wanted) "
    "-> (Tensor, Tensor, Tensor)",
)
def _backward(
    gradient: Tensor, features: Tensor, transforms: Tensor, weight: Tensor, pixels: Tensor | None, wanted: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of features, transforms and weight; empty where not wanted."""
    from dekrpose.architectures.dekr.adaptive_kernels import backward_kernel, weight_kernel

    branches, count, programs, options = _sizes(features, transforms, pixels)
    of_features, of_transforms, of_weight = _empty_gradients(features, transforms, weight, wanted)
    sums = torch.zeros_like(features, dtype=torch.float32) if wanted[0] else features.new_empty(0, 0, 0, 0)
    by_transform = transforms.new_empty(transforms.shape if wanted[1] else 0, dtype=torch.float32)
    size = (branches, *features.shape[2:])
    spots = features if pixels is None else pixels.contiguous()
    sources = (gradient, *gradient.stride(), features, *features.stride(), transforms, *transforms.stride())
    with _on(features.device):
        if programs and (wanted[0] or wanted[1]):
            backward_kernel[(programs,)](
                *sources, weight.contiguous(), spots, sums, *sums.stride(), by_transform, *size, count,
                want_features=wanted[0], want_transforms=wanted[1], **options,
            )  # fmt: skip
        if wanted[2]:
            padded, channels = options["padded"], options["channels"]
            splits = max(1, min(_SPLITS, programs // branches))
            parts = features.new_empty(splits, 9, branches, padded, padded, dtype=torch.float32)
            weight_kernel[(splits * 9 * branches,)](
                *sources, spots, parts, len(features), branches, splits, *size[1:], count, **options
            )
            own = parts.sum(0)[..., :channels, :channels]
            of_weight.copy_(own.permute(1, 2, 3, 0).reshape(weight.shape))
    if wanted[0]:
        of_features.copy_(sums)
    if wanted[1]:
        of_transforms.copy_(by_transform)
    return of_features, of_transforms, of_weight


@_backward.register_fake
def _(
    gradient: Tensor, features: Tensor, transforms: Tensor, weight: Tensor, pixels: Tensor | None, wanted: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_gradients(features, transforms, weight, wanted)


def _empty_gradients(
    features: Tensor, transforms: Tensor, weight: Tensor, wanted: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    first, second, third = (
        torch.empty_like(tensor) if want else tensor.new_empty(0)
        for tensor, want in zip((features, transforms, weight), wanted, strict=True)
    )
    return first, second, third


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
    features, transforms, weight, pixels = ctx.saved_tensors
    wanted = list(ctx.needs_input_grad[:3])
    results = _backward(gradient, features, transforms, weight, pixels, wanted)
    first, second, third = (result if want else None for result, want in zip(results, wanted, strict=True))
    return first, second, third, None


_forward.register_autograd(_differentiate, setup_context=_setup_context)


def _on(device: torch.device) -> torch.cuda.device:
    """Triton launches on the current device, which need not be the tensors'."""
    return torch.cuda.device(device if device.type == "cuda" else -1)
