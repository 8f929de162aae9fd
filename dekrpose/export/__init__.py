"""Exporting a model to one file that ONNX Runtime, OpenVINO or plain torch run: ``PoseEstimator.export``."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from dekrpose.engines.file import FORMATS, Exported, ExportedModel, Format, Offsets, describe
from dekrpose.errors import DekrPoseError
from dekrpose.export.check import compare
from dekrpose.export.network import ExportedNetwork, Sampling
from dekrpose.export.poses import ExportedCenters, ExportedPoses, PoseOutputs
from dekrpose.export.writers import OPSET, write

if TYPE_CHECKING:
    from dekrpose.estimator import PoseEstimator

__all__ = ["export"]

FASTEST: dict[Format, Sampling] = {"onnx": "deform_conv", "openvino": "grid_sample", "pt2": "grid_sample"}
"""How each runtime reads the taps of adaptive convolutions fastest; docs/export.md has the measurement."""
MOST_PEOPLE = 64
"""Places of the smallest map, 8x8 heatmap pixels."""


def export(
    estimator: PoseEstimator,
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
    sampling = _checked(path, file_format, max_people, half, opset, sampling)
    network = ExportedNetwork(estimator.model, sampling, offsets)
    poses = PoseOutputs(estimator.config, estimator.rescoring_net, max_people)
    rescoring = None if estimator.rescoring_net is None else estimator.rescoring_net.state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
    try:
        staging.mkdir()
        whole = ExportedPoses if offsets == "map" else ExportedCenters
        module = whole(network, poses).eval().requires_grad_(False)
        texts = describe(estimator.config, rescoring, offsets)
        write(module, file_format, staging / path.name, texts, opset=opset, half=half)
        differences = compare(estimator.model, poses, staging / path.name, half=half)
        names = sorted((item.name for item in staging.iterdir()), key=path.name.__eq__)  # the main file last
        for name in names:
            (staging / name).replace(path.parent / name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Exported(tuple(path.parent / name for name in reversed(names)), differences)


def _checked(
    path: Path, file_format: Format, max_people: int, half: bool, opset: int, sampling: Sampling | None
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
    sampling = FASTEST[file_format] if sampling is None else sampling
    if sampling not in get_args(Sampling):
        raise ValueError(f"sampling must be one of {', '.join(get_args(Sampling))}, got {sampling!r}")
    if sampling == "deform_conv" and file_format != "onnx":
        raise ValueError(f"{file_format} has no operation deform_conv for all branches; take grid_sample")
    least = 19 if sampling == "deform_conv" else 18
    if file_format != "pt2" and opset < least:
        raise ValueError(f"opset must be at least {least} for {sampling}, got {opset}")
    return sampling
