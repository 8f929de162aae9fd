"""How DEKR is trained: what ``Learning`` asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from dekrpose.architectures.contract import Network
from dekrpose.architectures.dekr import teacher as teaching
from dekrpose.architectures.dekr.batches import MapBatch, TargetConfig
from dekrpose.architectures.dekr.initial import fit_to_skeleton, start
from dekrpose.architectures.dekr.losses import OFFSET_FACTORS, heatmap_loss, offset_loss, probability_loss
from dekrpose.architectures.dekr.movenet import MOVENETS
from dekrpose.architectures.dekr.network import DEKR
from dekrpose.architectures.dekr.recipes import RECIPES
from dekrpose.architectures.dekr.recipes import paper_recipe as paper
from dekrpose.architectures.learning import TrainConfig, normalised
from dekrpose.config import MobileNetConfig, ModelConfig
from dekrpose.skeletons import CROWDPOSE_14

__all__ = [
    "LOSSES", "STARTS", "TrainingForward", "fit_to_skeleton", "forward", "losses", "official", "paper_recipe", "recipe",
    "start", "teacher",
]  # fmt: skip
LOSSES = {"heat": "heatmap loss", "offset": "offset loss"}
STARTS = {name: ModelConfig(backbone=MobileNetConfig(width=width)) for name, width in MOVENETS.items()}


def recipe(config: ModelConfig, on_device: bool) -> TrainConfig | None:
    """Of networks with this library's own backbones."""
    own = RECIPES.get(type(config.backbone))
    return None if own is None else own(on_device)


def paper_recipe(config: ModelConfig) -> TrainConfig:
    """See ``recipes.paper_recipe``."""
    return paper(config.input_size, config.skeleton == CROWDPOSE_14)


def official(config: TrainConfig) -> TrainConfig:
    """The targets of the released training code, with its weight of the offset loss."""
    targets = replace(cast(TargetConfig, config.targets), mode="official")
    return replace(config, targets=targets, offset_factor=OFFSET_FACTORS["official"])


class TrainingForward(nn.Module):
    """Crops to heatmaps and offsets; one call, because ``DistributedDataParallel`` wants every part used in it.

    Args:
        model: the network, which stays what it is.
        bfloat16_parts: run backbone, heatmap head and the offset head's transition in bfloat16.
    """

    def __init__(self, model: DEKR, bfloat16_parts: bool) -> None:
        super().__init__()
        self.model, self.bfloat16_parts = model, bfloat16_parts

    def forward(self, batch: MapBatch) -> tuple[Tensor, Tensor]:
        """Heatmaps (B, K + 1, h, w), and offsets (B, 2K, P) at the batch's pixels or (B, 2K, h, w)."""
        model, pixels = self.model, batch.pixels
        images = normalised(batch.images, model.config)
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=self.bfloat16_parts):
            features = model.features(images)
            heatmaps = model.heatmap_head(features)
            maps = None if pixels is None else model.offset_head.transition(features)
        if pixels is None or maps is None:
            offsets = model.offset_head(features.float())
        else:
            offsets = model.offset_head.at_transition(maps.float(), pixels)
        return heatmaps.float(), offsets


def forward(network: Network, half: bool) -> TrainingForward:
    """See ``TrainingForward``."""
    return TrainingForward(cast(DEKR, network), half)


def losses(
    answer: tuple[Tensor, Tensor],
    batch: MapBatch,
    config: TrainConfig,
    model: ModelConfig,
    mean: Callable[[Tensor], Tensor],
) -> dict[str, Tensor]:
    """Heatmap loss, of the form that goes with the network's head, and weighted offset loss."""
    heatmaps, offsets = answer
    heat_loss = probability_loss if model.head.heatmaps == "separable" else heatmap_loss
    heat = heat_loss(heatmaps, batch.heatmaps, batch.heatmap_weights)
    count = mean((batch.offset_weights > 0).sum()).clamp(min=1e-6)  # below what one weight in any process gives
    return {
        "heat": heat,
        "offset": config.offset_factor * offset_loss(offsets, batch.offsets, batch.offset_weights, count),
    }


def teacher(network: Network, config: TrainConfig, device: torch.device) -> teaching.Teacher:
    """See ``Teacher``."""
    background = cast(TargetConfig, config.targets).background_weight
    return teaching.Teacher(cast(DEKR, network), config.teacher_share, device, background)
