"""Weights that DEKR starts from: a model of another skeleton, or a MoveNet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from dekrpose.architectures.dekr.movenet import MOVENETS, read_movenet
from dekrpose.architectures.dekr.network import DEKR
from dekrpose.config import MobileNetConfig, ModelConfig
from dekrpose.errors import CheckpointError
from dekrpose.skeletons import COCO_17, Skeleton

_STACKED = ("offset_head.transition.", "offset_head.groups.")
"""Where a head with a branch per keypoint holds one block of channels for each."""
_SHARED = "offset_head.transition.shared."
"""What all keypoints of an offset head share."""
INPUT_SIZE = 256
"""Short side of the input of networks that start from MoveNet, as MultiPose has it."""
_LICENSE = "Apache-2.0 for what comes from Google's MoveNet; check your data's terms"
_DATA = "COCO and an internal set (Active) by Google"
"""As MoveNet's model page says."""
_HEATMAPS = "heatmap_head.final."


def fit_to_skeleton(weights: Mapping[str, Tensor], config: ModelConfig, skeleton: Skeleton) -> dict[str, Tensor]:
    """The weights of a model for another skeleton: what belongs to keypoints of the same name is kept.

    NaN stands for what belongs to keypoints that the model does not know; the center's heatmap is kept.

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
    state = dict(weights)
    for name, value in weights.items():
        of_heatmaps = name.startswith(_HEATMAPS)
        if not of_heatmaps and (not name.startswith(_STACKED) or name.startswith(_SHARED) or not value.ndim):
            continue
        center = int(of_heatmaps and config.head.heatmaps != "separable")  # where it is the last of the heatmaps
        rows = value[: len(value) - center].reshape(len(old), -1, *value.shape[1:])
        kept = torch.full((len(new), *rows.shape[1:]), torch.nan, dtype=value.dtype)
        kept[to] = rows[source]
        state[name] = torch.cat([kept.flatten(0, 1), value[len(value) - center :]])
    return state


def start(kind: str, path: str, config: ModelConfig) -> tuple[ModelConfig, dict[str, Tensor]]:
    """MoveNet's network with fresh branches, and a fresh path of its own."""
    # its keypoints are moved to the likeliest peaks, as MoveNet does
    decode = replace(config.decode, match_heatmap="weighted")
    shaped, found = read_movenet(path, replace(config, skeleton=COCO_17, decode=decode, input_size=INPUT_SIZE))
    true = next(name for name, width in MOVENETS.items() if width == cast(MobileNetConfig, shaped.backbone).width)
    if true != kind:
        raise CheckpointError(f"{path} is {true}, not {kind}; give {true}={path}")
    shaped = replace(shaped, license=_LICENSE, training_data=_DATA)
    state = DEKR(shaped).state_dict()
    wrong = [name for name, value in found.items() if name not in state or state[name].shape != value.shape]
    missing = [name for name in state if name.startswith(("backbone.blocks.", "heatmap_head.")) and name not in found]
    if wrong or missing:
        name = (wrong or missing)[0]
        raise CheckpointError(f"{path} is no MoveNet as published: {name} is missing or of another shape")
    state["offset_head.groups.0.final.weight"].zero_()  # the branches correct nothing yet
    return shaped, {**state, **found}
