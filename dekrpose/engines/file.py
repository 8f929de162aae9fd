"""Exported files behind the API of the network: .onnx through onnxruntime, .xml through OpenVINO, .pt2 through torch.

Such a file holds a graph with fixed weights, and as text the configuration and the scoring net. Runtimes get as many
threads as torch has when the file is loaded.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from dekrpose.architectures.exporting import Offsets, exporting_of
from dekrpose.config import IMAGE_MEAN, IMAGE_STD, Color3, ModelConfig
from dekrpose.engines.base import Stages
from dekrpose.engines.cpu import CPUEngine
from dekrpose.engines.runtimes import (
    CONFIG_KEY,
    FORMATS,
    LEAST_SIDE,
    OFFSETS_KEY,
    RESCORING_KEY,
    Format,
    Pictures,
    Runner,
    offsets_of,
    open_exported,
)
from dekrpose.errors import CheckpointError, DekrPoseError, counted
from dekrpose.images import Geometry
from dekrpose.options import Options

__all__ = [
    "FORMATS",
    "Differences",
    "Exported",
    "ExportedFile",
    "ExportedModel",
    "ExportedPeople",
    "Format",
    "Offsets",
    "describe",
    "exported_device",
    "is_exported",
    "offsets_of",
    "open_exported",
    "read_exported",
    "to_bytes",
]


class ExportedModel(nn.Module):
    """Stands in for the network: normalised (B, 3, H, W) -> its maps.

    The file takes pictures as bytes, so the input is rounded to the nearest of 256 values, which resized photos have.

    Args:
        config: as it stands in the file.
        runner: runs the file.
        path: the file, for messages.
    """

    def __init__(self, config: ModelConfig, runner: Runner, path: Path) -> None:
        super().__init__()
        self.config, self.runner, self.path = config, runner, path

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(map(torch.from_numpy, self.runner(to_bytes(images, self.config.mean, self.config.std))))

    def refuse(self, what: str) -> DekrPoseError:
        """The error of whoever wants what only weights can give."""
        return DekrPoseError(
            f"{self.path} is an exported file and cannot be {what}: its weights are merged into a graph; use the model "
            "that it was exported from"
        )


class ExportedPeople(ExportedModel):
    """A file that computes offsets at centers alone: normalised (B, 3, H, W) -> heatmaps, candidates (B, N, K, 3).

    Candidates are x and y in pixels of the pictures and the center's value, the highest first, 0 for nobody.
    """

    @cached_property
    def places(self) -> int:
        """N, as found out by running it once."""
        return int(self.runner(np.zeros((1, 3, LEAST_SIDE, LEAST_SIDE), np.uint8))[1].shape[1])


class FileEngine(CPUEngine):
    """Runs an exported file; one without an offset map finds its candidates by itself."""

    name = "file"

    def check(self, options: Options) -> None:
        super().check(options)
        model = self.model
        if not isinstance(model, ExportedPeople):
            return
        if options.flip_test or len(options.scales) > 1:
            raise ValueError(
                f"{model.path} gives people without their offset map, which flip test and several scales need; export "
                "the model with `--offsets map`"
            )
        if options.max_people > model.places:
            raise ValueError(
                f"{model.path} has {counted(model.places, 'place')} for people, got max_people={options.max_people}; "
                f"export the model with `--max-people {options.max_people}`, or with `--offsets map`"
            )

    @property
    def gives_candidates(self) -> bool:
        return isinstance(self.model, ExportedPeople) or super().gives_candidates

    def candidates(self, inputs: Tensor, geometry: Geometry, options: Options, stages: Stages) -> Any:
        if not isinstance(self.model, ExportedPeople):
            return super().candidates(inputs, geometry, options, stages)
        return exporting_of(self.config).file_candidates(self.model(inputs))


@dataclass(frozen=True)
class ExportedFile:
    """What ``read_exported`` gives: the network's stand-in and the scoring net's tensors, if the file has one."""

    model: ExportedModel
    rescoring: dict[str, Tensor] | None


@dataclass(frozen=True)
class Differences:
    """The largest differences between an exported file and torch.

    Args:
        keypoints: of the poses at the likeliest centers, input pixels.
        heatmaps: of all heatmap values.
        people: of the file's people from those that its own maps, or poses, give in torch, input pixels.
    """

    keypoints: float
    heatmaps: float
    people: float


@dataclass(frozen=True)
class Exported:
    """What was written: the files, the main one first, and how far the file's answers are from torch's."""

    files: tuple[Path, ...]
    differences: Differences


def to_bytes(images: Tensor, mean: Color3 = IMAGE_MEAN, std: Color3 = IMAGE_STD) -> Pictures:
    """Undo ``images.to_tensor``: normalised (B, 3, H, W) -> uint8 RGB of the same shape."""
    center, deviation = (255 * torch.tensor(values).reshape(3, 1, 1) for values in (mean, std))
    pixels = torch.addcmul(center, images.float().cpu(), deviation)
    return pixels.round_().clamp_(0, 255).to(torch.uint8).contiguous().numpy()


def is_exported(path: str | Path) -> bool:
    """Whether a file's ending is that of an exported file."""
    return Path(path).suffix.lower() in FORMATS


def exported_device(device: str | torch.device) -> str:
    """Where exported files run: the CPU.

    Raises:
        ValueError: another device was asked for.
    """
    if device != "auto" and torch.device(device).type != "cpu":
        raise ValueError(f'exported files run on the CPU, got device {str(device)!r}; pass "cpu", or load the weights')
    return "cpu"


def read_exported(path: str | Path, *, dtype: torch.dtype = torch.float32, trust_code: bool = False) -> ExportedFile:
    """Load an exported file for the CPU, in place of the network.

    Args:
        path: .onnx, .xml with its .bin beside it, or .pt2.
        dtype: float32; OpenVINO also runs backbone and heatmap head in bfloat16 or float16. Positions stay in float32.
        trust_code: read .pt2 files, which can run their author's code.

    Raises:
        CheckpointError: the file is missing, broken, not trusted, or was not written by ``PoseEstimator.export``.
        ImportError: the runtime is missing.
        ValueError: the format has no such dtype.
    """
    path = Path(path)
    runner, texts = open_exported(path, dtype=dtype, trust_code=trust_code)
    kind = ExportedPeople if offsets_of(texts) == "people" else ExportedModel
    return ExportedFile(kind(_config(path, texts), runner, path), _rescoring(path, texts))


def describe(config: ModelConfig, rescoring: dict[str, Tensor] | None, offsets: Offsets = "map") -> dict[str, str]:
    """The texts that go into an exported file."""
    texts = {CONFIG_KEY: json.dumps(config.to_dict()), OFFSETS_KEY: offsets}
    if rescoring is not None:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in rescoring.items()}
        texts[RESCORING_KEY] = base64.b64encode(safetensors.torch.save(tensors)).decode("ascii")
    return texts


def _config(path: Path, metadata: dict[str, str]) -> ModelConfig:
    text = metadata.get(CONFIG_KEY)
    if not text:
        raise CheckpointError(
            f"{path} was not exported by dekrpose: it carries no configuration; write one with `dekrpose export MODEL "
            f"{path.name}`"
        )
    try:
        return ModelConfig.from_json(text)
    except ValueError as error:
        raise CheckpointError(f"{path}: its configuration cannot be read: {error}") from error


def _rescoring(path: Path, metadata: dict[str, str]) -> dict[str, Tensor] | None:
    text = metadata.get(RESCORING_KEY)
    if not text:
        return None
    try:
        return safetensors.torch.load(base64.b64decode(text, validate=True))
    except (binascii.Error, SafetensorError) as error:
        raise CheckpointError(f"{path}: its scoring net cannot be read: {error}") from error
