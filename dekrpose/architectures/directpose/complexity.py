"""What the parts of a DirectPose network cost, without running it, and the variants that are worth comparing."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import cast

import torch
from torch import Tensor, nn

from dekrpose.architectures.directpose.kpalign import GroupedLinear
from dekrpose.architectures.directpose.network import DirectPose
from dekrpose.config import ARCHITECTURES, DirectPoseHeadConfig, ModelConfig

PARTS = ("backbone", "pyramid", "head")


def variants() -> dict[str, ModelConfig]:
    """The R50 network without keypoint alignment, and with a box branch."""
    whole = ARCHITECTURES["directpose-r50"]
    head = cast(DirectPoseHeadConfig, whole.head)
    changed = {"naive": replace(head, aligned=False), "boxes": replace(head, boxes=True)}
    return {
        f"{whole.name}-{word}": replace(whole, name=f"{whole.name}-{word}", head=own) for word, own in changed.items()
    }


def gmacs_by_part(config: ModelConfig) -> dict[str, float]:
    """Multiply-accumulates of one square image, in 10^9, by ``PARTS``; what is asked in training alone is left out."""
    macs = dict.fromkeys(PARTS, 0)
    part = PARTS[0]

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, (nn.Conv2d, GroupedLinear)):
            macs[part] += module.weight.numel() * prod(output.shape[2:])

    with torch.device("meta"):
        model = DirectPose(config).eval()
        for module in model.modules():
            module.register_forward_hook(count)
        maps = model.backbone(torch.empty(1, 3, config.input_size, config.input_size))
        part = PARTS[1]
        levels = model.pyramid(maps)
        part = PARTS[2]
        model.head(levels)
    return {name: value / 1e9 for name, value in macs.items()}
