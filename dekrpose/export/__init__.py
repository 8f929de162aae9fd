"""Exporting a model to one file that ONNX Runtime, OpenVINO or plain torch run, and running it beside the network."""

from __future__ import annotations

import shutil
import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dekrpose.architectures.contract import Network
from dekrpose.architectures.exporting import Exporting, Offsets, Sampling, exporting_of
from dekrpose.engines import file
from dekrpose.engines.file import FORMATS, Differences, Exported, ExportedModel, Format
from dekrpose.errors import DekrPoseError
from dekrpose.export.writers import OPSET, write

if TYPE_CHECKING:
    from dekrpose.hub.pretrained import Pretrained

FASTEST: dict[Format, Sampling] = {"onnx": "deform_conv", "openvino": "grid_sample", "pt2": "grid_sample"}
"""How each runtime reads the taps of adaptive convolutions fastest; docs/export.md has the measurement."""
MOST_PEOPLE = 64
"""Places of the smallest map, 8x8 heatmap pixels."""
LARGEST_SHIFT = 0.05
"""Input pixels by which a keypoint may differ."""
LARGEST_HEAT = 0.001
"""By which heatmaps and scores may differ."""
HALF_FACTOR = 10
"""How many times more weights that were rounded to float16 may differ."""
_SHAPES = ((1, 192, 256), (2, 128, 96))


def export(
    estimator: Pretrained,
    file_format: Format,
    path: str | Path,
    *,
    max_people: int = 30,
    half: bool = False,
    opset: int = OPSET,
    sampling: Sampling | None = None,
    offsets: Offsets = "map",
) -> Exported:
    """Write a model as ``PoseEstimator.export`` says.

    Raises:
        DekrPoseError: the written file answers differently from torch; nothing is left behind.
        ImportError: what writes or runs this format is missing.
        ValueError: an option is out of range, or the file's ending belongs to another format.
    """
    path = Path(path)
    if isinstance(estimator.model, ExportedModel):
        raise estimator.model.refuse("exported again")
    if estimator.config.temporal is not None:
        raise DekrPoseError(f"{estimator.config.name} remembers frames, which files cannot yet; export an image model")
    if offsets not in get_args(Offsets):
        raise ValueError(f"offsets must be one of {', '.join(get_args(Offsets))}, got {offsets!r}")
    exporting = exporting_of(estimator.config)
    exporting.outputs(estimator.config, offsets)  # refuses what it does not have
    sampling = _checked(path, file_format, max_people, half, opset, sampling, exporting)
    graph = exporting.graph(estimator.model, estimator.rescoring_net, max_people, sampling, offsets)
    rescoring = None if estimator.rescoring_net is None else estimator.rescoring_net.state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
    try:
        staging.mkdir()
        module = graph.eval().requires_grad_(False)
        config = estimator.config
        if offsets == "people":  # which several scales cannot be read from
            config = replace(config, decode=replace(config.decode, scales=(1.0,)))
        texts = file.describe(config, rescoring, offsets)
        write(module, file_format, staging / path.name, texts, opset=opset, half=half)
        differences = compare(estimator.model, module, staging / path.name, half=half)
        names = sorted((item.name for item in staging.iterdir()), key=path.name.__eq__)  # the main file last
        for name in names:
            (staging / name).replace(path.parent / name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Exported(tuple(path.parent / name for name in reversed(names)), differences)


def _checked(
    path: Path,
    file_format: Format,
    max_people: int,
    half: bool,
    opset: int,
    sampling: Sampling | None,
    exporting: Exporting,
) -> Sampling:
    if file_format not in get_args(Format):
        raise ValueError(f"format must be one of {', '.join(get_args(Format))}, got {file_format!r}")
    ending = next(suffix for suffix, kind in FORMATS.items() if kind == file_format)
    if path.suffix.lower() != ending:
        raise ValueError(f"a file in the format {file_format} ends in {ending}, got {path.name!r}")
    if not 1 <= max_people <= MOST_PEOPLE:
        raise ValueError(f"max_people must be 1 to {MOST_PEOPLE}, got {max_people}")
    if half and file_format != "openvino":
        raise ValueError(f"half=True is for OpenVINO, got format {file_format}; leave it out")
    known = exporting.SAMPLINGS
    if sampling is None:
        sampling = FASTEST[file_format] if FASTEST[file_format] in known else known[0]
    if sampling not in known:
        raise ValueError(f"sampling must be one of {', '.join(known)}, got {sampling!r}")
    if sampling == "deform_conv" and file_format != "onnx":
        raise ValueError(f"{file_format} has no operation deform_conv for all branches; take grid_sample")
    least = 19 if sampling == "deform_conv" else 18
    if file_format != "pt2" and opset < least:
        raise ValueError(f"opset must be at least {least} for {sampling}, got {opset}")
    return sampling


def compare(model: Network, graph: nn.Module, path: Path, *, half: bool) -> Differences:
    """Run a new file and torch on the same pictures; ``half``: the file's weights were rounded to float16.

    Raises:
        DekrPoseError: they differ by more than rounding; the message says how much.
        ImportError: what runs the file is missing.
    """
    runner, texts = file.open_exported(path, people=True, trust_code=True)
    offsets, found = file.offsets_of(texts), []
    least = exporting_of(model.config).least_side(model.config)
    for pictures in (_pictures((count, *(max(side, least) for side in sides))) for count, *sides in _SHAPES):
        answer = tuple(map(torch.from_numpy, runner(pictures)))
        keypoints, maps, people = exporting_of(model.config).differences(model, graph, answer, pictures, offsets)
        found.append((keypoints, maps, _people_apart(people, answer[-3:])))
    largest = Differences(*np.max(found, axis=0).tolist())
    factor = HALF_FACTOR if half else 1
    # not "larger than", which would let differences that are not a number pass
    fits = largest.keypoints <= factor * LARGEST_SHIFT and largest.heatmaps <= factor * LARGEST_HEAT
    if not (fits and largest.people <= LARGEST_SHIFT):
        raise DekrPoseError(
            f"{path.name} answered differently from torch, so it was not kept: keypoints by {largest.keypoints:.3g} "
            f"input pixels (at most {factor * LARGEST_SHIFT:g}), heatmaps by {largest.heatmaps:.3g} (at most "
            f"{factor * LARGEST_HEAT:g}), people by {largest.people:.3g} input pixels (at most {LARGEST_SHIFT:g})"
        )
    return largest


def _pictures(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """(B, 3, H, W) smooth coloured noise, with light and dark places as large as people."""
    batch, height, width = shape
    noise = torch.rand(batch, 3, height // 16, width // 16, generator=torch.Generator().manual_seed(0))
    smooth = nn.functional.interpolate(noise, size=(height, width), mode="bilinear")
    return (255 * smooth).to(torch.uint8).numpy()


def _people_apart(expected: tuple[Tensor, Tensor, Tensor], people: tuple[Tensor, ...]) -> float:
    """How far the farthest person is from the nearest in the other answer, input pixels."""
    apart = 0.0
    for poses, scores, own_poses, own_scores in zip(expected[0], expected[2], people[0], people[2], strict=True):
        kept, own_kept = poses[scores != 0], own_poses[own_scores != 0]
        if len(kept) != len(own_kept):
            return float("inf")
        if len(kept):
            distances = (kept[:, None] - own_kept).abs().amax((2, 3))
            apart = max(apart, float(distances.amin(1).max()), float(distances.amin(0).max()))
    return apart
