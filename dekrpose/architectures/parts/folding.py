"""Batch norm folded into the convolutions before it: the same network for inference, with half as many layers."""

from __future__ import annotations

import copy
from functools import cache
from itertools import chain, pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dekrpose.architectures.parts.blocks import ActivatedConv

Network = TypeVar("Network", bound=nn.Module)


def fold_batch_norm(network: Network, dtype: torch.dtype = torch.float32) -> Network:
    """A copy for inference whose convolutions have the batch norms behind them in their weights and biases.

    Args:
        network: stays as it is.
        dtype: of the copy's weights.

    Returns:
        The copy, channels-last, without gradients; what has no weights is shared with the original.
    """
    tensors: dict[int, Tensor] = {id(tensor): tensor for tensor in chain(network.parameters(), network.buffers())}
    twin = copy.deepcopy(network, dict(tensors)).eval()  # copies the modules, not their tensors
    for parent in list(twin.modules()):
        for (name, conv), (norm_name, norm) in pairwise(list(parent.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, name, _detached(fuse_conv_bn_eval(conv, norm), dtype))
                setattr(parent, norm_name, nn.Identity())
    for module in twin.modules():
        if isinstance(module, nn.Conv2d) and id(module.weight) in tensors:  # without a batch norm behind it
            module.weight, bias = nn.Parameter(module.weight.detach().clone(), requires_grad=False), module.bias
            module.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
            _detached(module, dtype)
    return twin


def fold_for_cpu(network: Network, dtype: torch.dtype = torch.float32) -> Network:
    """``fold_batch_norm``, and activations that go with the convolutions before them: on CPUs alone."""
    twin = fold_batch_norm(network, dtype)
    for parent in list(twin.modules()) if _activates(dtype) else ():
        layers = [item for item in parent.named_children() if not isinstance(item[1], nn.Identity)]
        for (name, conv), (activation_name, activation) in pairwise(layers):
            if isinstance(conv, nn.Conv2d) and isinstance(activation, (nn.ReLU, nn.ReLU6)):
                setattr(parent, name, ActivatedConv(conv, activation))
                setattr(parent, activation_name, nn.Identity())
    return twin


@cache
def _activates(dtype: torch.dtype) -> bool:
    """Whether this build of torch, on this CPU, has what ``ActivatedConv`` calls, which only its compiler does else."""
    with torch.random.fork_rng(devices=[]):  # the caller's numbers stay as they are
        x, conv = torch.ones(1, 8, 6, 6, dtype=dtype), nn.Conv2d(8, 8, 3, padding=1, dtype=dtype).requires_grad_(False)
    try:
        return torch.allclose(ActivatedConv(conv, nn.ReLU())(x), conv(x).relu(), atol=1e-2)
    except (RuntimeError, AttributeError):
        return False


def _detached(conv: nn.Conv2d, dtype: torch.dtype) -> nn.Conv2d:
    return conv.requires_grad_(False).to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
