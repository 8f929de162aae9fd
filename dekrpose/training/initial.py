"""Weights to start from: a model of the same or another skeleton, or an ImageNet backbone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from dekrpose.architectures.dekr.movenet import MOVENETS, read_movenet
from dekrpose.architectures.dekr.network import DEKR
from dekrpose.checkpoints import read_checkpoint, read_stored_config
from dekrpose.config import MobileNetConfig, ModelConfig
from dekrpose.errors import CheckpointError
from dekrpose.hub import models
from dekrpose.skeletons import COCO_17, Skeleton
from dekrpose.training.imagenet import BACKBONES, read_backbone

_STACKED = ("offset_head.transition.", "offset_head.groups.")
"""Where a head with a branch per keypoint holds one block of channels for each."""
_SHARED = "offset_head.transition.shared."
"""What all keypoints of an offset head share."""
INPUT_SIZE = 256
"""Short side of the input of networks that start from MoveNet, as MultiPose has it."""
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
        if name.startswith(_HEATMAPS) and config.head.heatmaps == "separable":
            state[name][to] = value[source].to(state[name].dtype)
        elif name.startswith(_HEATMAPS):
            state[name][to], state[name][-1] = value[source].to(state[name].dtype), value[-1].to(state[name].dtype)
        elif name.startswith(_STACKED) and not name.startswith(_SHARED) and value.ndim:
            blocks = state[name].reshape(len(new), -1, *value.shape[1:])
            blocks[to] = value.reshape(len(old), -1, *value.shape[1:])[source].to(blocks.dtype)
        else:
            state[name] = value
    return state


def read_initial(source: str, config: ModelConfig, skeleton: Skeleton) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Configuration and weights that a run starts from.

    Args:
        source: a model's name, folder or file, whose scoring net is left out; an ImageNet backbone's name; or
            "movenet-multipose=PATH", also lightning and thunder, see ``read_movenet``.
        config: the network to build around a backbone alone; models bring their own.
        skeleton: of the data.

    Raises:
        CheckpointError: the file is broken, or holds another network than the run needs.
        DekrPoseError: nothing has this name, or it cannot be fetched.
    """
    if source in BACKBONES:
        return config, read_backbone(source, config)
    kind, _, path = source.partition("=")
    if kind in MOVENETS and path:
        return _from_movenet(path, config, skeleton)
    checkpoint = read_checkpoint(models.resolve(source))
    weights = checkpoint.single()
    if checkpoint.config.skeleton.keypoints != skeleton.keypoints:
        weights = fit_to_skeleton(weights, checkpoint.config, skeleton)
    return for_skeleton(checkpoint.config, skeleton), weights


def starts_from_movenet(source: str) -> bool:
    """Whether a source of weights is a MoveNet, or one of our models that started from one."""
    if source.partition("=")[0] in MOVENETS:
        return True
    if source in BACKBONES:
        return False
    path = models.resolve(source)
    config = read_stored_config(path) if path.suffix == ".safetensors" else None
    return config is not None and isinstance(config.backbone, MobileNetConfig)


def _from_movenet(path: str, config: ModelConfig, skeleton: Skeleton) -> tuple[ModelConfig, dict[str, Tensor]]:
    """MoveNet's network with fresh branches, and a fresh path of its own."""
    # its keypoints are moved to the likeliest peaks, as MoveNet does
    decode = replace(config.decode, match_heatmap="weighted")
    shaped, found = read_movenet(path, replace(config, skeleton=COCO_17, decode=decode, input_size=INPUT_SIZE))
    state = DEKR(shaped).state_dict()
    wrong = [name for name, value in found.items() if name not in state or state[name].shape != value.shape]
    missing = [name for name in state if name.startswith(("backbone.blocks.", "heatmap_head.")) and name not in found]
    if wrong or missing:
        name = (wrong or missing)[0]
        raise CheckpointError(f"{path} is no MoveNet as published: {name} is missing or of another shape")
    state["offset_head.groups.0.final.weight"].zero_()  # the branches correct nothing yet
    weights = {**state, **found}
    if skeleton.keypoints != COCO_17.keypoints:
        weights = fit_to_skeleton(weights, shaped, skeleton)
    return for_skeleton(shaped, skeleton), weights
