"""MoveNet MultiPose: backbone, pyramid and heads of the published graph on one picture.

The recording is the whole set's; the published weights come with neither. ``DEKRPOSE_MOVENET`` names their JSON file or
its folder, see docs/training.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import torch

from dekrpose.architectures.dekr.network import DEKR, SeparableHeatmapHead, SharedTransition
from dekrpose.config import HeadConfig, MobileNetConfig, ModelConfig
from dekrpose.images import to_tensor
from dekrpose.skeletons import COCO_17
from dekrpose.training.initial import read_initial
from tests.golden.support import Row, largest

NAME = "movenet_multipose"
NEEDS = "the whole set of goldens and DEKRPOSE_MOVENET, a path to MoveNet's published weights"


def rows(folder: Path) -> Iterator[Row]:
    weights = os.environ.get("DEKRPOSE_MOVENET")
    if weights is None or not (folder / f"{NAME}.npz").exists():
        return
    with np.load(folder / f"{NAME}.npz") as file:
        recorded = {key: file[key] for key in file.files}
    alone = ModelConfig(backbone=MobileNetConfig(channels=0), head=HeadConfig(keypoint_channels=1, blocks=1))
    config, state = read_initial(f"movenet-multipose={weights}", alone, COCO_17)
    model = DEKR(config).eval()
    model.load_state_dict(state)
    with torch.inference_mode():
        features = model.features(to_tensor(recorded["image"], config.mean, config.std)[None])
        head = cast(SeparableHeatmapHead, model.heatmap_head)
        logits = head.logits(head.transition(features))[0]
        shared = cast(SharedTransition, model.offset_head.transition).shared(features)
        offsets = model.offset_head.groups[-1](shared)[0]
    regressed = -offsets.reshape(-1, 2, *offsets.shape[1:]).flip(1).flatten(0, 1)  # theirs: keypoint - pixel, y first
    found = {"feature": features[0], "kpt_heatmap": logits[:-1], "center": logits[-1:], "kpt_regress": regressed}
    for name, maps in found.items():
        yield Row(NAME, name, largest(maps, recorded[name]), 1e-4)
