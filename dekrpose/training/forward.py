"""What a training step runs of the network, as one call."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dekrpose.architectures.dekr.network import DEKR
from dekrpose.config import ModelConfig
from dekrpose.images.on_device import normalise


def normalised(crops: Tensor, config: ModelConfig) -> Tensor:
    """(B, 3, H, W) uint8 RGB as a network takes them: float32, channels-last."""
    return normalise(crops.permute(0, 2, 3, 1), config.mean, config.std)


class TrainingForward(nn.Module):
    """Crops to heatmaps and offsets; one call, because ``DistributedDataParallel`` wants every part used in it.

    Args:
        model: the network, which stays what it is.
        bfloat16_parts: run backbone, heatmap head and the offset head's transition in bfloat16.
    """

    def __init__(self, model: DEKR, bfloat16_parts: bool) -> None:
        super().__init__()
        self.model, self.bfloat16_parts = model, bfloat16_parts

    def forward(self, crops: Tensor, pixels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Heatmaps and offsets.

        Args:
            crops: (B, 3, H, W) uint8 RGB.
            pixels: (B, P, 2) xy where offsets are wanted, heatmap pixels; None for everywhere.

        Returns:
            (B, K + 1, h, w) and (B, 2K, P), or (B, 2K, h, w) without pixels.
        """
        model = self.model
        images = normalised(crops, model.config)
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=self.bfloat16_parts):
            features = model.features(images)
            heatmaps = model.heatmap_head(features)
            maps = None if pixels is None else model.offset_head.transition(features)
        if pixels is None or maps is None:
            offsets = model.offset_head(features.float())
        else:
            offsets = model.offset_head.at_transition(maps.float(), pixels)
        return heatmaps.float(), offsets
