"""A weights file of a small, untrained network, for tests that need a model but not a good one."""

from __future__ import annotations

from pathlib import Path

import torch

from dekrpose.architectures.dekr.network import DEKR
from dekrpose.checkpoints import write_checkpoint
from dekrpose.config import BackboneConfig, HeadConfig, ModelConfig

SMALL = ModelConfig(
    name="small",
    input_size=64,
    backbone=BackboneConfig(width=8, stem_channels=8, layer1_channels=8, layer1_blocks=1, modules=(1, 1, 1), blocks=1),
    head=HeadConfig(heatmap_channels=8, keypoint_channels=4, blocks=1),
)


def write_small_model(path: Path, config: ModelConfig = SMALL) -> Path:
    """Write a network that sees people everywhere, each spread over some heatmap pixels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = DEKR(config)
        with torch.no_grad():
            assert model.heatmap_head.final.bias is not None
            model.heatmap_head.final.bias.fill_(0.5)
            for group in model.offset_head.groups:
                group.final.bias.normal_(std=3.0)  # type: ignore[union-attr, operator]
    write_checkpoint(path, config, model.state_dict())
    return path
