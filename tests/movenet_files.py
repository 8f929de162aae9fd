"""A stand-in for MoveNet's published files: random weights under TensorFlow's names and in its layouts."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dekrpose.architectures.dekr.network import DEKR
from dekrpose.config import HeadConfig, MobileNetConfig, ModelConfig

MOVENET = ModelConfig(
    backbone=MobileNetConfig(width=1.0, channels=0),
    head=HeadConfig(heatmaps="separable", heatmap_channels=96, shared_offsets=96, keypoint_channels=1, blocks=1),
)
"""What MoveNet Lightning has, and branches that it has not."""

HEAD = HeadConfig(heatmaps="separable", heatmap_channels=8, shared_offsets=8, keypoint_channels=4, blocks=1)
OWN = ModelConfig(name="own", input_size=64, backbone=MobileNetConfig(width=0.25, channels=8), head=HEAD)
"""A small network of this kind, for tests."""

_CALL = "StatefulPartitionedCall/"
_BODY = f"{_CALL}center_net_mobile_net_v2fpn_feature_extractor/model_1/"
_HEADS = {
    "heatmap_head.centers": ("center_0", 3),
    "heatmap_head.final_center": ("center_0", 4),
    "heatmap_head.keypoints": ("kpt_heatmap_0", 6),
    "heatmap_head.final": ("kpt_heatmap_0", 7),
    "offset_head.transition.shared": ("kpt_regress_0", 7),
    "offset_head.groups.1.final": ("kpt_regress_0", 8),
}


def write_movenet(folder: Path, kind: str = "movenet-lightning") -> tuple[Path, dict[str, Tensor]]:
    """Write ``movenet-lightning.json``, say, and its weights; return the file and what it holds, by our names."""
    torch.manual_seed(0)
    width = {"movenet-lightning": 1.0, "movenet-multipose": 1.5}[kind]
    state = DEKR(replace(MOVENET, backbone=MobileNetConfig(width=width, channels=0))).state_dict()
    names = {name: their_name for name in state if (their_name := _their_name(name))}
    held = {name: (state[name] + 0.01 * torch.randn_like(state[name])).half().float() for name in names}
    entries, data = [], b""
    for name, tensor in held.items():
        values = _their_layout(name, tensor)
        entries.append(
            {
                "name": names[name], "shape": list(values.shape), "dtype": "float32",
                "quantization": {"dtype": "float16", "original_dtype": "float32"},
            }
        )  # fmt: skip
        data += values.astype("<f2").tobytes()
    entries.insert(0, {"name": f"{_CALL}strided_slice/stack", "shape": [2], "dtype": "int32"})
    data = np.array([1, 2], "<i4").tobytes() + data
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{kind}.bin").write_bytes(data)
    path = folder / f"{kind}.json"
    manifest = [{"paths": [f"{kind}.bin"], "weights": entries}]
    path.write_text(json.dumps({"format": "graph-model", "weightsManifest": manifest}))
    return path, held


def _their_name(name: str) -> str | None:
    place, leaf = name.rsplit(".", 1)
    for ours, theirs in (("backbone.stem", "Conv1"), ("backbone.top", "Conv_1")):
        if place == ours:
            return f"{_BODY}model/{theirs}/Conv2D_{'weights' if leaf == 'weight' else 'bn_offset'}"
    block = re.fullmatch(r"backbone\.blocks\.(\d+)\.(\w+)", place)
    if block:
        where = f"block_{block[1]}" if int(block[1]) else "expanded_conv"
        kind = "depthwise" if block[2] == "depthwise" else "Conv2D"
        return f"{_BODY}model/{where}_{block[2]}/{kind}_{'weights' if leaf == 'weight' else 'bn_offset'}"
    lateral = re.fullmatch(r"backbone\.pyramid\.laterals\.(\d)", place)
    if lateral:
        number = 3 - int(lateral[1])
        operation = "Conv2D" if leaf == "weight" else "BiasAdd"
        return f"{_BODY}conv2d{f'_{number}' if number else ''}/{operation}/ReadVariableOp"
    smooth = re.fullmatch(r"backbone\.pyramid\.(depthwise|pointwise)\.(\d)", place)
    if smooth:
        number = 2 - int(smooth[2])
        ending = {"depthwise": "/ReadVariableOp"}.get(smooth[1], "_weights" if leaf == "weight" else "_bn_offset")
        return f"{_BODY}separable_conv2d{f'_{number}' if number else ''}/separable_conv2d{ending}"
    final = _HEADS.get(place)
    if final:
        operation = "Conv2D" if leaf == "weight" else "BiasAdd"
        return f"{_CALL}{final[0]}/conv2d_{final[1]}/{operation}/ReadVariableOp"
    head, _, part = place.rpartition(".")
    if head in _HEADS:
        theirs = f"{_CALL}{_HEADS[head][0]}/separable_conv2d_{_HEADS[head][1]}"
        if leaf == "bias":
            return f"{theirs}/BiasAdd/ReadVariableOp"
        return f"{theirs}/separable_conv2d/ReadVariableOp{'_1' if part == 'pointwise' else ''}"
    return None


def _their_layout(name: str, tensor: Tensor) -> np.ndarray:
    if name.startswith("offset_head.groups."):
        tensor = -tensor.reshape(-1, 2, *tensor.shape[1:]).flip(1).flatten(0, 1)
    if tensor.ndim == 4:
        tensor = tensor.permute(2, 3, 0, 1) if ".depthwise." in name else tensor.permute(2, 3, 1, 0)
    return tensor.contiguous().numpy()
