"""Weights to start from: a model of the same or another skeleton, or an ImageNet backbone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from dekrpose import hub
from dekrpose.checkpoint_pickles import read_tensors
from dekrpose.checkpoints import read_checkpoint
from dekrpose.config import ModelConfig
from dekrpose.errors import CheckpointError
from dekrpose.models.dekr import DEKR
from dekrpose.published import PUBLISHED, fetch
from dekrpose.skeletons import Skeleton

_STACKED = ("offset_head.transition.", "offset_head.groups.0.")
"""Where a head with a branch per keypoint holds one block of channels for each."""
_HEATMAPS = "heatmap_head.final."


def for_skeleton(config: ModelConfig, skeleton: Skeleton) -> ModelConfig:
    """The same network for other keypoints; poses are neighbours when more than half of them are near, as published."""
    if config.skeleton == skeleton:
        return config
    return replace(config, skeleton=skeleton, decode=replace(config.decode, nms_min_keypoints=len(skeleton) // 2))


def fit_to_skeleton(weights: Mapping[str, Tensor], config: ModelConfig, skeleton: Skeleton) -> dict[str, Tensor]:
    """The weights of a model for another skeleton: what belongs to keypoints of the same name is kept.

    Keypoints that the model does not know start from fresh weights; the center's heatmap is kept.

    Args:
        weights: our names, of a network that fits ``config``.
        config: with a branch per keypoint.
        skeleton: the new one.

    Raises:
        CheckpointError: the branches regress several keypoints, which cannot be taken apart.
    """
    if config.head.branches != "per_keypoint":
        raise CheckpointError(
            f"{config.name} regresses several keypoints per branch ({config.head.branches}), so its head cannot be "
            f"changed to the skeleton {skeleton.name}; start from a model with a branch per keypoint"
        )
    old, new = config.skeleton.keypoints, skeleton.keypoints
    pairs = [(position, old.index(name)) for position, name in enumerate(new) if name in old]
    to, source = (
        torch.tensor(column, dtype=torch.long) for column in (zip(*pairs, strict=True) if pairs else ((), ()))
    )
    state = DEKR(ModelConfig(skeleton=skeleton, backbone=config.backbone, head=config.head)).state_dict()
    for name, value in weights.items():
        if name.startswith(_HEATMAPS):
            state[name][to], state[name][-1] = value[source].to(state[name].dtype), value[-1].to(state[name].dtype)
        elif name.startswith(_STACKED) and value.ndim:
            blocks = state[name].reshape(len(new), -1, *value.shape[1:])
            blocks[to] = value.reshape(len(old), -1, *value.shape[1:])[source].to(blocks.dtype)
        else:
            state[name] = value
    return state


def read_backbone(source: str | Path, config: ModelConfig) -> dict[str, Tensor]:
    """A fresh network with an ImageNet HRNet as its backbone.

    Args:
        source: a published name such as "hrnet-w32-imagenet", or a file with the names of HRNet's authors (mmpose's
            prefix "backbone." is taken off); its classifier is left out.
        config: the network.

    Raises:
        CheckpointError: the file does not hold this backbone.
    """
    path = fetch(PUBLISHED[str(source)]) if str(source) in PUBLISHED else Path(source)
    found = {name.removeprefix("backbone."): value for name, value in read_tensors(path)[0].items()}
    model = DEKR(config)
    expected = model.backbone.state_dict()
    wrong = [name for name, value in expected.items() if name not in found or found[name].shape != value.shape]
    if wrong:
        raise CheckpointError(
            f"{path} holds no HRNet-W{config.backbone.width} backbone: {len(wrong)} of its {len(expected)} tensors are "
            f"missing or of another shape (first: {wrong[0]})"
        )
    model.backbone.load_state_dict({name: found[name] for name in expected})
    return model.state_dict()


def read_initial(source: str, config: ModelConfig, skeleton: Skeleton) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Configuration and weights that a run starts from.

    Args:
        source: a model's name, folder or file, or an ImageNet backbone's name.
        config: the network to build around a backbone alone; models bring their own.
        skeleton: of the data.

    Raises:
        CheckpointError: the file is broken, or holds another network than the run needs.
        DekrPoseError: nothing has this name, or it cannot be fetched.
    """
    if source in PUBLISHED and PUBLISHED[source].kind == "backbone":
        return config, read_backbone(source, config)
    checkpoint = read_checkpoint(hub.resolve(source))
    weights = {
        name: value.float() if value.is_floating_point() else value for name, value in checkpoint.state_dict.items()
    }
    if checkpoint.config.skeleton.keypoints != skeleton.keypoints:
        weights = fit_to_skeleton(weights, checkpoint.config, skeleton)
    return for_skeleton(checkpoint.config, skeleton), weights
