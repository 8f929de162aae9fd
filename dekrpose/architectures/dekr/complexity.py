"""What the parts of a DEKR network cost, without running it, and the variants that are worth comparing."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import torch
from torch import Tensor, nn

from dekrpose.architectures.dekr.adaptive_conv import AdaptiveConv
from dekrpose.architectures.dekr.temporal import TemporalDEKR, build_model
from dekrpose.config import ARCHITECTURES, OUTPUT_STRIDE, ModelConfig, TemporalConfig, with_head


def variants() -> dict[str, ModelConfig]:
    """The paper's ablations of W32's offset head ("Ablation Study"), and two with a memory."""
    w32 = ARCHITECTURES["dekr-w32-coco"]
    ablations = [
        with_head(w32, "dekr-w32-coco-baseline", adaptive=False, branches="shared"),
        with_head(w32, "dekr-w32-coco-adaptive", branches="shared"),
        with_head(w32, "dekr-w32-coco-separate", adaptive=False),
        with_head(w32, "dekr-w32-coco-grouped-13", branches="grouped_13"),
        with_head(w32, "dekr-w32-coco-grouped-5", branches="grouped_5"),
    ]
    video = [
        replace(ARCHITECTURES[name], name=f"{name}-video", temporal=TemporalConfig())
        for name in ("dekr-w32-coco", "tiny")
    ]
    return {config.name: config for config in (*ablations, *video)}


PARTS = ("backbone", "heatmap head", "offset head")
"""What a network is made of, in the order in which it runs."""
MEMORY = "memory"
"""What a network for video has besides."""


def gmacs_by_part(config: ModelConfig) -> dict[str, float]:
    """Multiply-accumulates of one image at the network's own input size, in 10^9, by ``PARTS``.

    Convolutional GRUs are ``MEMORY``, and counted for a frame that has one before it.

    Raises:
        ValueError: the network has a flat GRU, whose multiplications are no convolutions.
    """
    if config.temporal is not None and config.temporal.kind != "convgru":
        raise ValueError(f"only convolutional GRUs are counted, got {config.temporal.kind!r}")
    macs = dict.fromkeys(PARTS, 0)
    part = PARTS[0]

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, (nn.Conv2d, nn.Linear, AdaptiveConv)):
            positions = prod(output.shape[2:]) if output.ndim == 4 else 1
            macs[part] += module.weight.numel() * positions

    with torch.device("meta"):
        model = build_model(config).eval()
        for module in model.modules():
            module.register_forward_hook(count)
        # the parts one by one: forward sets autocast, which the meta device lacks
        features = model.features(torch.empty(1, 3, config.input_size, config.input_size))
        part = PARTS[1]
        model.heatmap_head(features)
        part = PARTS[2]
        model.offset_head(features)
        if isinstance(model, TemporalDEKR):
            part, macs[MEMORY] = MEMORY, 0
            side = config.input_size // OUTPUT_STRIDE
            for memory in (model.heatmap_memory, model.offset_memory):
                assert memory is not None
                hidden = torch.empty(1, sum(memory.splits), side, side)
                memory(hidden.unsqueeze(1), hidden, torch.zeros(1, 1, dtype=torch.bool, device="cpu"))
    return {name: value / 1e9 for name, value in macs.items()}
