"""MoveNet's published files, tfjs graph models: a JSON file, and its weights as float16 beside it, in our names."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dekrpose.config import MobileNetConfig, ModelConfig
from dekrpose.errors import CheckpointError

MOVENETS = {"movenet-multipose": 1.5, "movenet-lightning": 1.0, "movenet-thunder": 1.75}
"""Google's models of these names, which are the files' own too, and the width that tells them apart."""
STEP = 0.007843017578125
"""MoveNet's input is RGB of 0 to 255, times this, less 1."""
CHANNELS = 96
"""Of the separable convolutions in its heads."""
_WIDTHS = {32: 1.0, 48: 1.5, 56: 1.75}
_MOST_BYTES = 2**28
_TYPES = {"float16": "<f2", "float32": "<f4", "int32": "<i4", "bool": "|b1"}
_MODEL = "feature_extractor/model_1/"
_HEADS = {
    "center_0": ("heatmap_head.centers", "heatmap_head.final_center"),
    "kpt_heatmap_0": ("heatmap_head.keypoints", "heatmap_head.final"),
    "kpt_regress_0": ("offset_head.transition.shared", "offset_head.groups.1.final"),
}
"""Heads of MoveNet, and where their separable convolution and their last one belong."""


def read_movenet(path: str | Path, config: ModelConfig) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The backbone, pyramid and heads of a MoveNet.

    Args:
        path: the JSON file, or a folder that holds exactly one ``movenet-*.json``.
        config: the network to fill, of COCO's keypoints. It gets MoveNet's backbone, beside which the network's own
            path stays as wide as it is; heads of MoveNet's form; and its input's mean and deviation.

    Returns:
        The configuration, and float32 tensors by our names; those of the network's own path and of the branches are
        missing. Where the heads' convolutions read the path they are zero.

    Raises:
        CheckpointError: the files are missing, broken, or hold something else.
    """
    path = _json_file(Path(path))
    try:
        found = _translated(_tensors(path))
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        raise CheckpointError(f"{path} is no MoveNet as published for tfjs: {error}") from error
    stem = found.get("backbone.stem.weight")
    if stem is None or len(stem) not in _WIDTHS:
        raise CheckpointError(f"{path} is no MoveNet: its first convolution is missing or of an unknown width")
    backbone = config.backbone if isinstance(config.backbone, MobileNetConfig) else MobileNetConfig()
    backbone = replace(backbone, width=_WIDTHS[len(stem)])
    deviation = 1 / (255 * STEP)
    return replace(
        config,
        backbone=backbone,
        head=replace(config.head, heatmaps="separable", heatmap_channels=CHANNELS, shared_offsets=CHANNELS),
        mean=(deviation,) * 3,
        std=(deviation,) * 3,
    ), _with_path(found, backbone.channels)


def _json_file(path: Path) -> Path:
    if not path.is_dir():
        if not path.is_file():
            raise CheckpointError(f"{path} does not exist; pass MoveNet's JSON file, or the folder that it lies in")
        return path
    files = sorted(path.glob("movenet-*.json"))
    if len(files) != 1:
        raise CheckpointError(f"{path} holds {len(files)} files movenet-*.json; pass the one that is wanted")
    return files[0]


def _tensors(path: Path) -> dict[str, NDArray[Any]]:
    """What the manifest lists, by TensorFlow's names."""
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError("the file is too large")
    manifest = json.loads(path.read_text(encoding="utf-8"))["weightsManifest"]
    found: dict[str, NDArray[Any]] = {}
    for group in manifest:
        files = [path.parent / Path(str(name)).name for name in group["paths"]]  # never outside the folder
        if sum(file.stat().st_size for file in files) > _MOST_BYTES:
            raise ValueError("its weights are too large")
        data = b"".join(file.read_bytes() for file in files)
        start = 0
        for entry in group["weights"]:
            stored = entry.get("quantization", {}).get("dtype", entry["dtype"])
            if stored not in _TYPES:
                raise ValueError(f"{entry['name']} is stored as {stored}; expected {', '.join(_TYPES)}")
            kind, shape = np.dtype(_TYPES[stored]), [int(side) for side in entry["shape"]]
            end = start + math.prod(shape) * kind.itemsize
            if min(shape, default=0) < 0 or end > len(data):
                raise ValueError(f"the weights end within {entry['name']}")
            found[entry["name"]] = np.frombuffer(data[start:end], kind).reshape(shape)
            start = end
    return found


def _translated(found: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    """Our names and layouts; what we have no use for is left out."""
    ours: dict[str, Tensor] = {}
    for name, values in found.items():
        place = _backbone_place(name) or _head_place(name)
        if place is None or not np.issubdtype(values.dtype, np.floating):
            continue
        tensor = torch.from_numpy(values.astype(np.float32))
        if tensor.ndim == 4:
            depthwise = tensor.shape[3] == 1 and tensor.shape[0] == 3
            tensor = tensor.permute(2, 3, 0, 1) if depthwise else tensor.permute(3, 2, 0, 1)
        if place.startswith("offset_head.groups."):
            # theirs is keypoint - pixel, y first
            tensor = -tensor.reshape(-1, 2, *tensor.shape[1:]).flip(1).flatten(0, 1)
        ours[place] = tensor.contiguous()
    return ours


def _backbone_place(name: str) -> str | None:
    if _MODEL not in name:
        return None
    name = name.split(_MODEL)[1]
    leaf = "bias" if "offset" in name.rsplit("/", 1)[-1] or "BiasAdd" in name else "weight"
    block = re.match(r"model/(?:block_(\d+)|expanded_conv)_(expand|depthwise|project)/", name)
    if block:
        return f"backbone.blocks.{block[1] or 0}.{block[2]}.{leaf}"
    for theirs, ours in (("model/Conv1/", "stem"), ("model/Conv_1/", "top")):
        if name.startswith(theirs):
            return f"backbone.{ours}.{leaf}"
    lateral = re.match(r"conv2d(?:_(\d))?/", name)
    if lateral:
        return f"backbone.pyramid.laterals.{3 - int(lateral[1] or 0)}.{leaf}"
    smooth = re.match(r"separable_conv2d(?:_(\d))?/separable_conv2d", name)
    if smooth:
        part = "depthwise" if name.endswith("ReadVariableOp") else "pointwise"
        return f"backbone.pyramid.{part}.{2 - int(smooth[1] or 0)}.{leaf}"
    return None


def _head_place(name: str) -> str | None:
    match = re.search(r"(\w+_0)/(separable_)?conv2d_\d+/(.+)", name)
    if match is None or match[1] not in _HEADS:
        return None
    separable, final = _HEADS[match[1]]
    if not match[2]:
        return f"{final}.{'bias' if 'BiasAdd' in match[3] else 'weight'}"
    if match[3].startswith("BiasAdd"):
        return f"{separable}.pointwise.bias"
    return f"{separable}.{'pointwise' if match[3].endswith('_1') else 'depthwise'}.weight"


def _with_path(found: Mapping[str, Tensor], channels: int) -> dict[str, Tensor]:
    """The heads' convolutions with room for the maps of the network's own path, which they do not look at yet."""
    wider = dict(found)
    for separable, _ in _HEADS.values():
        for part, axis in (("depthwise", 0), ("pointwise", 1)):
            name = f"{separable}.{part}.weight"
            if name in found:
                shape = list(found[name].shape)
                shape[axis] = channels
                # the depthwise kernels look at their pixel, so that the zeros behind them can learn
                more = torch.zeros(shape)
                if part == "depthwise":
                    more[:, :, 1, 1] = 1.0
                wider[name] = torch.cat([found[name], more], dim=axis)
    return wider
