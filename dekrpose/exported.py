"""Exported files behind the API of the network: .onnx through onnxruntime, .xml through OpenVINO, .pt2 through torch.

Such a file holds a graph with fixed weights, and as text the configuration and the scoring net. Runtimes get as many
threads as torch has when the file is loaded.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn

from dekrpose.config import IMAGE_MEAN, IMAGE_STD, ModelConfig
from dekrpose.errors import CheckpointError, DekrPoseError

Format = Literal["onnx", "openvino", "pt2"]

FORMATS: dict[str, Format] = {".onnx": "onnx", ".xml": "openvino", ".pt2": "pt2"}
"""File endings of exported files."""
OUTPUTS = ("heatmaps", "offsets", "keypoints", "keypoint_scores", "scores")
"""What an exported file answers, in this order."""
CONFIG_KEY, RESCORING_KEY = "dekrpose", "dekrpose_rescoring_net"
"""Under which the configuration and the scoring net stand in the file."""

_PIP = "run: pip install 'dekrpose[{}]'"

Pictures = NDArray[np.uint8]
Answer = tuple[NDArray[np.float32], ...]
Runner = Callable[[Pictures], Answer]
"""Pictures (B, 3, H, W) uint8 RGB -> the outputs that were asked for."""


class ExportedModel(nn.Module):
    """Stands in for ``DEKR``: normalised (B, 3, H, W) -> heatmaps (B, K+1, H/4, W/4), offsets (B, 2K, H/4, W/4).

    The file takes pictures as bytes, so the input is rounded to the nearest of 256 values, which resized photos have.

    Args:
        config: as it stands in the file.
        runner: runs the file.
        path: the file, for messages.
    """

    def __init__(self, config: ModelConfig, runner: Runner, path: Path) -> None:
        super().__init__()
        self.config, self.runner, self.path = config, runner, path

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        heatmaps, offsets = self.runner(to_bytes(images))
        return torch.from_numpy(heatmaps), torch.from_numpy(offsets)

    def refuse(self, what: str) -> DekrPoseError:
        """The error of whoever wants what only weights can give."""
        return DekrPoseError(
            f"{self.path} is an exported file and cannot be {what}: its weights are merged into a graph; use the model "
            "that it was exported from"
        )


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
        people: of the file's people from those that its own maps give in torch, input pixels.
    """

    keypoints: float
    heatmaps: float
    people: float


@dataclass(frozen=True)
class Exported:
    """What was written: the files, the main one first, and how far the file's answers are from torch's."""

    files: tuple[Path, ...]
    differences: Differences


def to_bytes(images: Tensor) -> Pictures:
    """Undo ``images.to_tensor``: normalised (B, 3, H, W) -> uint8 RGB of the same shape."""
    std = torch.tensor(IMAGE_STD).reshape(3, 1, 1)
    mean = torch.tensor(IMAGE_MEAN).reshape(3, 1, 1)
    pixels = torch.addcmul(255 * mean, images.float().cpu(), 255 * std)
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


def read_exported(path: str | Path, *, dtype: torch.dtype = torch.float32) -> ExportedFile:
    """Load an exported file for the CPU, in place of the network.

    Args:
        path: .onnx, .xml with its .bin beside it, or .pt2.
        dtype: float32; OpenVINO also runs backbone and heatmap head in bfloat16 or float16. Positions stay in float32.

    Raises:
        CheckpointError: the file is missing, broken, or was not written by ``PoseEstimator.export``.
        ImportError: the runtime is missing.
        ValueError: the format has no such dtype.
    """
    path = Path(path)
    runner, texts = open_exported(path, dtype=dtype)
    return ExportedFile(ExportedModel(_config(path, texts), runner, path), _rescoring(path, texts))


def open_exported(
    path: Path, *, dtype: torch.dtype = torch.float32, outputs: Sequence[str] = OUTPUTS[:2]
) -> tuple[Runner, dict[str, str]]:
    """A function that runs an exported file, and the texts in it. Raises as ``read_exported`` does.

    Args:
        path: see ``read_exported``.
        dtype: see ``read_exported``; other types than float32 give heatmaps and offsets alone.
        outputs: what the function returns.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}")
    file_format = FORMATS[path.suffix.lower()]
    if file_format == "openvino":
        return _open_openvino(path, dtype, outputs)
    if dtype != torch.float32:
        raise ValueError(
            f'{path.name} runs in float32, got dtype {dtype}; export to OpenVINO (.xml) for "bfloat16" and "float16"'
        )
    return (_open_onnx if file_format == "onnx" else _open_pt2)(path, outputs)


def describe(config: ModelConfig, rescoring: dict[str, Tensor] | None) -> dict[str, str]:
    """The texts that go into an exported file."""
    texts = {CONFIG_KEY: json.dumps(config.to_dict())}
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
        return ModelConfig.from_dict(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path}: its configuration cannot be read: {error}") from error


def _rescoring(path: Path, metadata: dict[str, str]) -> dict[str, Tensor] | None:
    text = metadata.get(RESCORING_KEY)
    if not text:
        return None
    try:
        return safetensors.torch.load(base64.b64decode(text, validate=True))
    except (binascii.Error, SafetensorError) as error:
        raise CheckpointError(f"{path}: its scoring net cannot be read: {error}") from error


def _open_onnx(path: Path, outputs: Sequence[str]) -> tuple[Runner, dict[str, str]]:
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as errors
    except ImportError:
        raise ImportError(f"onnxruntime, which runs {path.name}, is missing; {_PIP.format('onnx')}") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # threads that wait by spinning would take the cores from torch, which decodes
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    broken = (errors.InvalidProtobuf, errors.InvalidGraph, errors.NoSuchFile, errors.Fail, errors.InvalidArgument)
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except broken as error:
        raise CheckpointError(f"{path} is broken or no ONNX file: {error}") from error
    except errors.NotImplemented as error:
        raise CheckpointError(
            f"onnxruntime {onnxruntime.__version__} cannot run {path}: {error}; {_PIP.format('onnx')} --upgrade, or "
            "export with --sampling grid_sample"
        ) from error
    wanted = onnxruntime.RunOptions()
    wanted.only_execute_path_to_fetches = True

    def run(pictures: Pictures) -> Answer:
        return tuple(session.run(list(outputs), {"images": pictures}, wanted))

    return run, dict(session.get_modelmeta().custom_metadata_map)


def _open_openvino(path: Path, dtype: torch.dtype, outputs: Sequence[str]) -> tuple[Runner, dict[str, str]]:
    try:
        import openvino
    except ImportError:
        raise ImportError(f"OpenVINO, which runs {path.name}, is missing; {_PIP.format('openvino')}") from None
    if not path.with_suffix(".bin").is_file():
        raise CheckpointError(f"{path} needs {path.with_suffix('.bin').name} beside it; copy both")
    core = openvino.Core()

    def read() -> Any:
        try:
            return core.read_model(path)
        except RuntimeError as error:
            raise CheckpointError(f"{path} is broken or no OpenVINO model: {str(error)[-300:]}") from error

    def compiled(model: Any, precision: str) -> Any:
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        return core.compile_model(model, "CPU", settings).create_infer_request()

    model = read()
    information = model.get_rt_info()
    metadata = {key: str(information[key].value) for key in (CONFIG_KEY, RESCORING_KEY) if key in information}
    if CONFIG_KEY not in metadata:
        return _never, metadata
    if dtype == torch.float32:
        request = compiled(openvino.Model([model.output(name) for name in outputs], model.get_parameters()), "f32")

        def run(pictures: Pictures) -> Answer:
            request.infer({0: pictures})
            return tuple(_copy(request, index) for index in range(len(outputs)))

        return run, metadata
    trunk, head = _split(model, read())
    first, second = compiled(trunk, "bf16" if dtype == torch.bfloat16 else "f16"), compiled(head, "f32")

    def run_in_halves(pictures: Pictures) -> Answer:
        first.infer({0: pictures})
        for index in range(len(head.inputs)):
            second.set_input_tensor(index, first.get_output_tensor(1 + index))
        second.infer()
        return _copy(first, 0), _copy(second, 0)

    return run_in_halves, metadata


def _copy(request: Any, index: int) -> NDArray[np.float32]:
    # the next call writes into the same memory
    return np.array(request.get_output_tensor(index).data, np.float32)


def _split(model: Any, again: Any) -> tuple[Any, Any]:
    """Cut a graph in two: images -> heatmaps and features, features -> offsets. Its precision goes by whole graphs.

    The offset head is what offsets depend on and heatmaps do not.

    Args:
        model, again: the same file, read twice.
    """
    import openvino

    shared = _ancestors(again.output("heatmaps").get_node())
    features: dict[tuple[str, int], Any] = {}
    for name, node in _ancestors(again.output("offsets").get_node()).items():
        for port in node.inputs() if name not in shared else ():
            source = port.get_source_output()
            key = (source.get_node().get_friendly_name(), source.get_index())
            if key[0] in shared and source.get_node().get_type_name() != "Constant":
                if key not in features:
                    features[key] = openvino.opset13.parameter(
                        source.get_partial_shape(), source.get_element_type(), name=f"features_{len(features)}"
                    )
                port.replace_source_output(features[key].output(0))
    head = openvino.Model([again.output("offsets")], list(features.values()))
    nodes = {node.get_friendly_name(): node for node in model.get_ops()}
    cut = [nodes[name].output(index) for name, index in features]
    return openvino.Model([model.output("heatmaps"), *cut], model.get_parameters()), head


def _ancestors(node: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if node.get_friendly_name() not in found:
            found[node.get_friendly_name()] = node
            waiting += [port.get_source_output().get_node() for port in node.inputs()]
    return found


def _open_pt2(path: Path, outputs: Sequence[str]) -> tuple[Runner, dict[str, str]]:
    extra_files = {CONFIG_KEY: "", RESCORING_KEY: ""}
    try:
        program = torch.export.load(path, extra_files=extra_files)
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        raise CheckpointError(f"{path} is broken or no exported torch program: {str(error)[:300]}") from error
    module = program.module()

    def run(pictures: Pictures) -> Answer:
        with torch.inference_mode():
            answer = dict(zip(OUTPUTS, module(torch.from_numpy(pictures)), strict=True))
        return tuple(answer[name].numpy() for name in outputs)

    return run, extra_files


def _never(pictures: Pictures) -> Answer:
    raise AssertionError("a file without configuration is refused before it runs")
