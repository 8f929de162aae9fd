"""Weights as small integers, a quarter of the size of single precision."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dekrpose.errors import CheckpointError

LARGEST = 127
"""Integers go from -LARGEST to LARGEST."""

_STEP = ".step"
_SMALLEST_TENSOR = 10_000
"""Numbers; smaller tensors stay as they are: little is gained, and networks without batch norm lose much by it."""


def with_integers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of convolutions and linear layers as int8 and, named ``<name>.step``, one step for each output channel.

    A number is its integer times its channel's step, the step a channel's largest absolute value / LARGEST; the output
    channel comes first. Everything else, such as biases and statistics, stays as it is. CheckpointError if a tensor
    holds a number that is not finite.
    """
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.ndim < 2 or tensor.numel() < _SMALLEST_TENSOR or not tensor.is_floating_point():
            stored[name] = tensor
            continue
        rows = tensor.detach().float().flatten(1)
        if not bool(rows.isfinite().all()):
            raise CheckpointError(f"{name} holds numbers that are not finite; write it as float32")
        steps = rows.abs().amax(dim=1) / LARGEST
        integers = (rows / steps.clamp_min(torch.finfo(steps.dtype).tiny)[:, None]).round().clamp(-LARGEST, LARGEST)
        stored[name] = integers.to(torch.int8).view(tensor.shape)
        stored[name + _STEP] = steps
    return stored


def without_integers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of ``with_integers``: float32 in the place of int8 and its steps; other tensors as they are.

    CheckpointError if steps do not fit their tensor.
    """
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        steps = tensors.get(name + _STEP) if tensor.dtype == torch.int8 else None
        if steps is not None:
            if steps.shape != tensor.shape[:1]:
                found = f"{tuple(steps.shape)} for {tuple(tensor.shape)}"
                raise CheckpointError(f"{name} is stored as integers with {found} steps; expected one for each channel")
            plain[name] = tensor.float() * steps.float().view(-1, *[1] * (tensor.ndim - 1))
        elif not (name.endswith(_STEP) and name.removesuffix(_STEP) in tensors):
            plain[name] = tensor
    return plain
