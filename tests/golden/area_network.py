"""The network: input tensor, heatmaps and offsets, and the tensors on the way to find the layer that differs."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dekrpose.architectures.dekr.foreign_names import config_from_shapes, official_to_ours
from dekrpose.architectures.dekr.network import DEKR
from dekrpose.config import HeadConfig
from dekrpose.images import Geometry, resize, to_tensor
from tests.golden.seeded_weights import seeded_state_dict
from tests.golden.support import BUNDLED, Case, Row, cases, photo, relative, stats

TOLERANCE = 1e-4
"""Of a map's largest value."""
Tap = tuple[str, slice]
"""One of our modules and the channels of its output that a recorded tensor holds."""

_BRANCH = re.compile(r"offset_(feature_layers|final_layer)\.(\d+)(?:\.(\d+))?(?:\.(\w+))?")
_STAGE = re.compile(r"(stage\d)\.out(\d)")
_HEADS = {
    "transition_heatmap": "heatmap_head.transition",
    "head_heatmap.0": "heatmap_head.block",
    "head_heatmap.1": "heatmap_head.final",
    "transition_offset": "offset_head.transition",
}


def official_weights(folder: Path, arch: str, seed: int) -> dict[str, Tensor] | None:
    """The recordings' weights under their official names; None when their shapes are not at hand."""
    paths = [place / "shapes" / f"{arch}.json" for place in (folder, BUNDLED)]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        return None
    shapes = {name: tuple(shape) for name, shape, _ in json.loads(path.read_text())}
    arrays = seeded_state_dict(shapes, seed)  # type: ignore[no-untyped-call]
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def our_tap(name: str, head: HeadConfig) -> Tap | None:
    """Where our network has an official module's output; None when it has no such tensor."""
    if name in _HEADS:
        return _HEADS[name], slice(None)
    branch = _BRANCH.fullmatch(name)
    if branch is None:
        return f"backbone.{name}", slice(None)
    layer, keypoint, block, part = branch.groups()
    if layer == "final_layer":
        return "offset_head.groups.0.final", _part(keypoint, 2)
    module = f"offset_head.groups.0.blocks.{block}"
    return {
        None: (module, _part(keypoint, head.keypoint_channels)),
        "bn": (f"{module}.bn", _part(keypoint, head.keypoint_channels)),
        "adapt_conv": (f"{module}.conv", _part(keypoint, head.keypoint_channels)),
        "transform_matrix_conv": (f"{module}.conv.transform", _part(keypoint, 6, 0, 4)),
        "translation_conv": (f"{module}.conv.transform", _part(keypoint, 6, 4, 6)),
    }.get(part)


def _part(keypoint: str, width: int, start: int = 0, stop: int | None = None) -> slice:
    first = int(keypoint) * width
    return slice(first + start, first + (width if stop is None else stop))


def _listen(model: DEKR, name: str, found: dict[str, Tensor]) -> None:
    """Keep a copy of one recorded tensor at the next forward pass, if our network has it."""

    def keep(pick: Callable[[Any], Tensor]) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            found[name] = pick(output).clone()  # a ReLU in place may follow

        return hook

    stage = _STAGE.fullmatch(name)
    if stage:
        module, branch = getattr(model.backbone, stage[1])[-1], int(stage[2])
        module.register_forward_hook(keep(lambda output: output[branch]))
        return
    place = our_tap(name, model.config.head)
    module = None if place is None else dict(model.named_modules()).get(place[0])
    if place is not None and module is not None:
        module.register_forward_hook(keep(lambda output: output[:, place[1]]))


def _input(case: Case) -> np.ndarray | None:
    image = photo(case)
    size = case.info.get("input_size")
    return image if image is None or size is None else resize(image, Geometry.fit(image.shape[0], image.shape[1], size))


def _input_rows(case: Case, warped: np.ndarray, tensor: Tensor) -> Iterator[Row]:
    if "warped_sha256" in case.info:
        same = hashlib.sha256(np.ascontiguousarray(warped).tobytes()).hexdigest() == case.info["warped_sha256"]
        yield Row(case.name, "input sha256", float(not same), 0.0)
    if "input_stats" in case.arrays:
        yield Row(case.name, "input statistics", relative(stats(tensor), case.arrays["input_stats"]), 1e-6)


def _rows(case: Case) -> Iterator[Row]:
    weights = official_weights(case.folder, case.info["arch"], case.info["seed"])
    warped = _input(case)
    if weights is None or warped is None:
        return
    ours = official_to_ours(weights)
    model = DEKR(config_from_shapes({name: tuple(tensor.shape) for name, tensor in ours.items()})).eval()
    model.load_state_dict(ours, strict=True)
    arrays, found = case.arrays, dict[str, Tensor]()
    for name in case.info.get("taps", {}):
        _listen(model, name, found)
    tensor = to_tensor(warped)
    yield from _input_rows(case, warped, tensor)
    with torch.inference_mode():
        heatmaps, offsets = model(tensor[None])
    for name, actual in found.items():
        tap = case.info["taps"][name]
        start, step = tap["offset"], tap["stride"]
        sampled = actual[:, :: tap["channel_stride"], start::step, start::step]
        if f"tap:{name}" in arrays:
            yield Row(case.name, name, relative(sampled, arrays[f"tap:{name}"]), TOLERANCE)
        if f"tapstats:{name}" in arrays:
            yield Row(case.name, f"{name} stats", relative(stats(actual), arrays[f"tapstats:{name}"]), TOLERANCE)
    for name, actual in (("heatmap", heatmaps), ("offset", offsets)):
        if name in arrays:
            yield Row(case.name, name, relative(actual, arrays[name]), TOLERANCE)


def rows(folder: Path) -> Iterator[Row]:
    for case in cases(folder, "network"):
        yield from _rows(case)
