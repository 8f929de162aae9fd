"""What a training step runs of the network, as one call."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dekrpose.config import IMAGE_MEAN, IMAGE_STD
from dekrpose.models.dekr import DEKR


class TrainingForward(nn.Module):
    """Crops to heatmaps and offsets; one call, because ``DistributedDataParallel`` wants every part used in it.

    Args:
        model: the network, which stays what it is.
        bfloat16_parts: run backbone, heatmap head and the offset head's transition in bfloat16.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, model: DEKR, bfloat16_parts: bool) -> None:
        super().__init__()
        self.model, self.bfloat16_parts = model, bfloat16_parts
        device = next(model.parameters()).device
        self.register_buffer("mean", torch.tensor(IMAGE_MEAN, device=device).view(1, 3, 1, 1) * 255)
        self.register_buffer("deviation", torch.tensor(IMAGE_STD, device=device).view(1, 3, 1, 1) * 255)

    def forward(self, crops: Tensor, pixels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Heatmaps and offsets.

        Args:
            crops: (B, 3, H, W) uint8 RGB.
            pixels: (B, P, 2) xy where offsets are wanted, heatmap pixels; None for everywhere.

        Returns:
            (B, K + 1, h, w) and (B, 2K, P), or (B, 2K, h, w) without pixels.
        """
        images = (crops.float() - self.mean) / self.deviation
        images = images.contiguous(memory_format=torch.channels_last)
        model = self.model
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=self.bfloat16_parts):
            features = model.features(images)
            heatmaps = model.heatmap_head(features)
            maps = None if pixels is None else model.offset_head.transition(features)
        if pixels is None or maps is None:
            offsets = model.offset_head(features.float())
        else:
            offsets = model.offset_head.at_transition(maps.float(), pixels)
        return heatmaps.float(), offsets
