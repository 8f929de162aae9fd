"""How DirectPose is trained: what ``Learning`` asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from dekrpose.architectures.contract import Network, build
from dekrpose.architectures.directpose import recipes
from dekrpose.architectures.directpose.losses import box_loss, focal_loss, keypoint_loss
from dekrpose.architectures.directpose.network import DirectPose, Levels
from dekrpose.architectures.directpose.targets import LocationBatch, LocationTargets
from dekrpose.architectures.learning import Teacher, TrainConfig, normalised
from dekrpose.config import DirectPoseHeadConfig, ModelConfig, ResNetConfig
from dekrpose.errors import DekrPoseError
from dekrpose.skeletons import Skeleton

LOSSES = {
    "class": "class loss", "center": "centerness loss", "keypoint": "keypoint loss", "heat": "heatmap loss",
    "box": "box loss",
}  # fmt: skip
STARTS: dict[str, ModelConfig] = {}
Answer = tuple[Levels, Levels | None, Tensor | None]


def recipe(config: ModelConfig, on_device: bool) -> TrainConfig | None:
    """See ``recipes``: the paper's goes with its ResNets."""
    own = recipes.paper_recipe if isinstance(config.backbone, ResNetConfig) else recipes.tiny_recipe
    return own(_head(config).levels)


def paper_recipe(config: ModelConfig) -> TrainConfig:
    """See ``recipes.paper_recipe``."""
    return recipes.paper_recipe(_head(config).levels)


def official(config: TrainConfig) -> TrainConfig:
    """There are no others."""
    raise DekrPoseError(
        "official targets are those of DEKR's released code; DirectPose has one kind: leave out --targets"
    )


def start(kind: str, path: str, config: ModelConfig) -> tuple[ModelConfig, dict[str, Tensor]]:
    """There is nothing to read."""
    raise DekrPoseError(f"DirectPose starts from models and backbones, not from {path}")


class TrainingForward(nn.Module):
    """Crops to the answer of all branches; ``half``: backbone and pyramid in bfloat16."""

    def __init__(self, model: DirectPose, half: bool) -> None:
        super().__init__()
        self.model, self.bfloat16_parts = model, half

    def forward(self, batch: LocationBatch) -> Answer:
        """See ``PoseHead.taught``."""
        images = normalised(batch.images, self.model.config)
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=self.bfloat16_parts):
            levels = self.model.pyramid(self.model.backbone(images))
        return self.model.head.taught([level.float() for level in levels])


def forward(network: Network, half: bool) -> TrainingForward:
    """See ``TrainingForward``."""
    return TrainingForward(cast(DirectPose, network), half)


def losses(
    answer: Answer, batch: LocationBatch, config: TrainConfig, model: ModelConfig, mean: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """Each divided by what it is a mean of; sums of focal losses by positive locations (and, for classes, images)."""
    levels, boxes, heatmaps = answer
    targets = cast(LocationTargets, config.targets)
    flat = torch.cat([level.flatten(2) for level in levels], dim=2).transpose(1, 2)
    positive, weights = batch.positive, batch.centerness[batch.positive]
    count = mean(positive.sum().float())
    found = {"class": focal_loss(flat[..., 0], positive, batch.counted) / (count + len(flat))}
    own = flat[positive]
    center = nn.functional.binary_cross_entropy_with_logits(own[:, 1], weights, reduction="sum")
    found["center"] = center / count.clamp(min=1)
    keypoints = own[:, 2:].reshape(len(own), own.shape[1] // 2 - 1, 2)
    found["keypoint"] = keypoint_loss(keypoints, batch.keypoints[positive], batch.labelled[positive], weights)
    if heatmaps is not None:
        focal = focal_loss(heatmaps, batch.heat, batch.heat_counted[:, None])
        found["heat"] = targets.heat_factor * focal / mean(batch.heat.sum().float()).clamp(min=1)
    if boxes is not None:
        sides = torch.cat([level.flatten(2) for level in boxes], dim=2).transpose(1, 2)
        found["box"] = targets.box_factor * box_loss(sides[positive], batch.boxes[positive], weights)
    return found


def teacher(network: Network, config: TrainConfig, device: torch.device) -> Teacher:
    """There is none."""
    raise DekrPoseError("DirectPose is taught by labels alone; leave out --teacher")


def fit_to_skeleton(weights: Mapping[str, Tensor], config: ModelConfig, skeleton: Skeleton) -> dict[str, Tensor]:
    """All but the layers that belong to keypoints, which start anew."""
    shaped = ModelConfig(
        architecture=config.architecture, backbone=config.backbone, head=config.head, skeleton=skeleton
    )
    with torch.device("meta"):
        new = build(shaped).state_dict()
    anew = ("head.keypoints.", "head.heatmaps.")
    fitting = (name for name in weights if new[name].shape == weights[name].shape)
    return {name: weights[name] for name in fitting if not name.startswith(anew)}


def _head(config: ModelConfig) -> DirectPoseHeadConfig:
    return cast(DirectPoseHeadConfig, config.head)
