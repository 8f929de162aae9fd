"""Weights files of every known format, built from seeded weights of a small network in the official layout."""

from __future__ import annotations

import json
import re
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.golden.mmpose_names import official_to_mmpose
from tests.golden.seeded_weights import seeded_rescore, seeded_state_dict

_W32 = Path(__file__).parent / "golden" / "data" / "shapes" / "coco_w32.json"
_FURTHER_MODULES = re.compile(r"layer1\.[1-9]|stage[34]\.[1-9]|.*branches\.\d\.[1-9]\.")


def w32_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the official DEKR-W32 for COCO."""
    return {name: tuple(shape) for name, shape, _ in json.loads(_W32.read_text())}


@cache
def official_shapes(width: int = 8, keypoints: int = 17) -> dict[str, tuple[int, ...]]:
    """The same network with one module per stage, one block per branch, and fewer channels and keypoints."""
    scaled = {size: size * width // 32 for size in (32, 64, 128, 256, 480)} | {18: keypoints + 1, 255: 15 * keypoints}
    shapes = {}
    for name, shape in w32_shapes().items():
        branch = re.match(r"offset_(?:feature_layers|final_layer)\.(\d+)\.", name)
        if _FURTHER_MODULES.match(name) or (branch and int(branch.group(1)) >= keypoints):
            continue
        shapes[name] = tuple(scaled.get(size, size) for size in shape)
    return shapes


def official(width: int = 8, keypoints: int = 17, seed: int = 3) -> dict[str, Tensor]:
    """A state dict as the official code saves it."""
    return {name: torch.from_numpy(array) for name, array in _seeded(width, keypoints, seed).items()}


def mmpose_1(width: int = 8, keypoints: int = 17, seed: int = 3) -> OrderedDict[str, Tensor]:
    """The same weights as mmpose 1.x saves them, with the version in its metadata."""
    arrays = official_to_mmpose(_seeded(width, keypoints, seed), keypoints)
    state_dict = OrderedDict((name, torch.from_numpy(array)) for name, array in arrays.items())
    state_dict._metadata = OrderedDict({"": {"version": 1}, "head": {"version": 2}})  # type: ignore[attr-defined]
    return state_dict


def mmpose_0(width: int = 8, keypoints: int = 17, seed: int = 3) -> OrderedDict[str, Tensor]:
    """The same weights as mmpose 0.x saves them: official sign, the center's channel first."""
    state_dict: OrderedDict[str, Tensor] = OrderedDict()
    for name, tensor in mmpose_1(width, keypoints, seed).items():
        if name.startswith("head.displacement_conv_layers.3."):
            tensor = -tensor
        elif name.startswith("head.heatmap_conv_layers.2."):
            tensor = tensor.roll(1, 0)
        state_dict[re.sub("^head", "keypoint_head", name).replace("displacement_conv", "offset_conv")] = tensor
    return state_dict


def scoring_net(features: int = 74) -> dict[str, Tensor]:
    """A scoring net's state dict as the official code saves it."""
    shapes = {"l1.weight": (256, features), "l1.bias": (256,), "l2.weight": (256, 256), "l2.bias": (256,)}
    shapes |= {"l3.weight": (1, 256), "l3.bias": (1,)}
    return {name: torch.from_numpy(array) for name, array in seeded_rescore(shapes, 5).items()}


@cache
def _seeded(width: int, keypoints: int, seed: int) -> dict[str, Any]:
    return seeded_state_dict(official_shapes(width, keypoints), seed)


def save_official(path: Path, state_dict: Mapping[str, Tensor], zipped: bool = True) -> Path:
    torch.save(dict(state_dict), path, _use_new_zipfile_serialization=zipped)
    return path


def save_official_training(path: Path, state_dict: Mapping[str, Tensor]) -> Path:
    """What the official training writes after an epoch: "model" is a name there, not weights."""
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([parameter])
    parameter.sum().backward()
    optimizer.step()
    content = {
        "epoch": 140,
        "model": "hrnet_dekr",
        "state_dict": {f"module.{name}": tensor for name, tensor in state_dict.items()},
        "best_state_dict": dict(state_dict),
        "perf": 0.68,
        "optimizer": optimizer.state_dict(),
    }
    torch.save(content, path)
    return path


def save_mmpose_1(path: Path, state_dict: Mapping[str, Tensor]) -> Path:
    """A zip with everything that mmengine's runner adds: NumPy values and the history of the log."""
    with _mmengine() as history_buffer:
        log = OrderedDict(loss=history_buffer([0.5, 0.25]), lr=history_buffer([1e-3]))
        meta = {"epoch": 140, "time": "20221228", "dataset_meta": {"sigmas": np.full(17, 0.05, np.float32)}}
        hub = {"log_scalars": log, "runtime_info": OrderedDict(best=np.float64(0.686), iters=np.int64(9))}
        torch.save({"meta": meta, "message_hub": hub, "state_dict": state_dict}, path)
    return path


def save_mmpose_0(path: Path, state_dict: Mapping[str, Tensor]) -> Path:
    """A file without zip, as PyTorch wrote before 1.6, whose NumPy values go by NumPy 1's names."""
    meta = {"env_info": "PyTorch: 1.5", "best_score": np.float64(0.686), "hook_msgs": {"sigmas": np.full(17, 0.05)}}
    torch.save({"meta": meta, "state_dict": state_dict}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    return path


@contextmanager
def _mmengine() -> Iterator[Any]:
    """mmengine's HistoryBuffer, importable only while a file is written: its state names its own methods."""

    class HistoryBuffer:
        def __init__(self, values: list[float]) -> None:
            self.max_length = 1_000_000
            self._log_history, self._count_history = np.array(values), np.ones(len(values), np.int64)

        def mean(self) -> float:
            raise AssertionError("nothing of a file may be called")

        def __getstate__(self) -> dict[str, Any]:
            return {**self.__dict__, "statistics_methods": {"mean": HistoryBuffer.mean}}

        def __setstate__(self, state: dict[str, Any]) -> None:
            raise AssertionError("nothing of a file may be called")

    name = "mmengine.logging.history_buffer"
    module = ModuleType(name)
    module.HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
    HistoryBuffer.__module__ = HistoryBuffer.mean.__module__ = name
    HistoryBuffer.__qualname__, HistoryBuffer.mean.__qualname__ = "HistoryBuffer", "HistoryBuffer.mean"
    parents = ("mmengine", "mmengine.logging")
    before = {key: sys.modules.get(key) for key in (*parents, name)}
    sys.modules.update({parent: ModuleType(parent) for parent in parents}, **{name: module})
    try:
        yield HistoryBuffer
    finally:
        for key, old in before.items():
            if old is None:
                del sys.modules[key]
            else:
                sys.modules[key] = old


def resnet() -> dict[str, Tensor]:
    """Names of a torchvision ResNet."""
    return {
        "conv1.weight": torch.zeros(64, 3, 7, 7), "bn1.weight": torch.zeros(64),
        "layer1.0.conv1.weight": torch.zeros(64, 64, 3, 3), "layer4.0.conv1.weight": torch.zeros(8, 8, 3, 3),
        "fc.weight": torch.zeros(10, 8), "fc.bias": torch.zeros(10),
    }  # fmt: skip


def hrnet_top_down() -> dict[str, Tensor]:
    """Names of an mmpose top-down HRNet: a whole backbone and one final layer."""
    backbone = {name: tensor for name, tensor in mmpose_1().items() if name.startswith("backbone.")}
    return {**backbone, "keypoint_head.final_layer.weight": torch.zeros(17, 8, 1, 1)}


def higher_hrnet() -> dict[str, Tensor]:
    """Names of the official HigherHRNet."""
    backbone = {
        name.removeprefix("backbone."): tensor for name, tensor in hrnet_top_down().items() if "head" not in name
    }
    return {**backbone, "final_layers.0.weight": torch.zeros(34, 8, 1, 1), "deconv_layers.0.0.0.weight": torch.zeros(1)}


def super_gradients() -> dict[str, Tensor]:
    """Names of super-gradients' DEKR: the official ones, but plain blocks in the branches."""
    plain = {name: tensor for name, tensor in official().items() if not name.startswith("offset_feature_layers.")}
    return {**plain, "offset_feature_layers.0.0.conv1.weight": torch.zeros(15, 15, 3, 3)}
