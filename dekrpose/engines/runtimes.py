"""What runs exported files: onnxruntime, OpenVINO, torch. Each gives a function and the texts in the file."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from dekrpose.architectures.exporting import Offsets, exporting_of
from dekrpose.config import ModelConfig
from dekrpose.errors import CheckpointError, DekrPoseError, unquoted

Format = Literal["onnx", "openvino", "pt2"]

FORMATS: dict[str, Format] = {".onnx": "onnx", ".xml": "openvino", ".pt2": "pt2"}
"""File endings of exported files."""
PEOPLE = 3
"""The last outputs of exported files: keypoints, keypoint scores, scores."""
LEAST_SIDE = 64
"""Pixels; torch.export fixes dimensions that may be 1, as the coarsest map's is for smaller pictures."""
CONFIG_KEY, RESCORING_KEY, OFFSETS_KEY = "dekrpose", "dekrpose_rescoring_net", "dekrpose_offsets"
"""Under which the configuration, the scoring net, and where offsets are computed stand in the file."""
_KEYS = (CONFIG_KEY, RESCORING_KEY, OFFSETS_KEY)

_PIP = "run: pip install 'dekrpose[{}]'"

Pictures = NDArray[np.uint8]
Answer = tuple[NDArray[np.float32], ...]
Runner = Callable[[Pictures], Answer]
"""Pictures (B, 3, H, W) uint8 RGB -> the outputs that were asked for."""


def offsets_of(texts: Mapping[str, str]) -> Offsets:
    """Where the file with these texts computes offsets."""
    return "people" if texts.get(OFFSETS_KEY) == "people" else "map"


def outputs_of(texts: Mapping[str, str], people: bool = True) -> tuple[str, ...]:
    """What the file with these texts answers, in this order; with or without the people at the end."""
    config = config_of(texts)
    known = exporting_of(config).outputs(config, offsets_of(texts))
    return known if people else known[:-PEOPLE]


def config_of(texts: Mapping[str, str]) -> ModelConfig:
    """What a file says of its network; one that says nothing, or nonsense, is refused later."""
    try:
        return ModelConfig.from_json(texts.get(CONFIG_KEY) or "{}")
    except ValueError:
        return ModelConfig()


def open_exported(
    path: Path, *, dtype: torch.dtype = torch.float32, people: bool = False, trust_code: bool = False
) -> tuple[Runner, dict[str, str]]:
    """A function that runs an exported file, and the texts in it. Raises as ``read_exported`` does.

    Args:
        path: see ``read_exported``.
        dtype: see ``read_exported``; other types than float32 never give people.
        people: the function returns all outputs; otherwise all but the people.
        trust_code: see ``read_exported``.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}")
    file_format = FORMATS[path.suffix.lower()]
    if file_format == "pt2" and not trust_code:
        raise CheckpointError(
            f"{path} was not opened: a .pt2 can run whatever code its author put inside. If you trust them, pass "
            "trust_code=True (--trust-code); weights, .onnx and .xml run none"
        )
    if file_format == "openvino":
        return _open_openvino(path, dtype, people)
    if dtype != torch.float32:
        raise ValueError(
            f'{path.name} runs in float32, got dtype {dtype}; export to OpenVINO (.xml) for "bfloat16" and "float16"'
        )
    return (_open_onnx if file_format == "onnx" else _open_pt2)(path, people)


def _open_onnx(path: Path, people: bool) -> tuple[Runner, dict[str, str]]:
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
        raise CheckpointError(f"{path} is broken or no ONNX file: {unquoted(error)}") from error
    except errors.NotImplemented as error:
        raise CheckpointError(
            f"onnxruntime {onnxruntime.__version__} cannot run {path}: {unquoted(error)}; {_PIP.format('onnx')} "
            "--upgrade, or export with --sampling grid_sample"
        ) from error
    wanted = onnxruntime.RunOptions()
    wanted.only_execute_path_to_fetches = True

    texts = dict(session.get_modelmeta().custom_metadata_map)
    outputs = outputs_of(texts, people)

    def run(pictures: Pictures) -> Answer:
        return tuple(session.run(outputs, {"images": pictures}, wanted))

    return run, texts


def _open_openvino(path: Path, dtype: torch.dtype, people: bool) -> tuple[Runner, dict[str, str]]:
    try:
        import openvino
    except ImportError:
        raise ImportError(f"OpenVINO, which runs {path.name}, is missing; {_PIP.format('openvino')}") from None
    if not path.with_suffix(".bin").is_file():
        raise CheckpointError(f"{path} needs {path.with_suffix('.bin').name} beside it; copy both")
    core = openvino.Core()
    model = _read(core, path)
    information = model.get_rt_info()
    texts = {key: str(information[key].value) for key in _KEYS if key in information}
    if CONFIG_KEY not in texts:
        return _never, texts
    outputs = outputs_of(texts, people)
    if dtype == torch.float32:
        part = openvino.Model([model.output(name) for name in outputs], model.get_parameters())
        request = _compiled(core, part, "f32")

        def run(pictures: Pictures) -> Answer:
            request.infer({0: pictures})
            return tuple(_copy(request, index) for index in range(len(outputs)))

        return run, texts
    if not exporting_of(config_of(texts)).HALVES:
        raise ValueError(f"{path.name} runs in float32, got dtype {dtype}; its positions need it everywhere")
    trunk, head = _split(model, _read(core, path), outputs[1])
    first = _compiled(core, trunk, "bf16" if dtype == torch.bfloat16 else "f16")
    second = _compiled(core, head, "f32")

    def run_in_halves(pictures: Pictures) -> Answer:
        first.infer({0: pictures})
        for index in range(len(head.inputs)):
            second.set_input_tensor(index, first.get_output_tensor(1 + index))
        second.infer()
        return _copy(first, 0), _copy(second, 0)

    return run_in_halves, texts


def _read(core: Any, path: Path) -> Any:
    try:
        return core.read_model(path)
    except RuntimeError as error:
        raise CheckpointError(f"{path} is broken or no OpenVINO model: {unquoted(error)}") from error


def _compiled(core: Any, model: Any, precision: str) -> Any:
    # without the hint, OpenVINO takes bfloat16 where the processor has it
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    return core.compile_model(model, "CPU", settings).create_infer_request()


def _copy(request: Any, index: int) -> NDArray[np.float32]:
    # the next call writes into the same memory
    return np.array(request.get_output_tensor(index).data, np.float32)


def _split(model: Any, again: Any, output: str) -> tuple[Any, Any]:
    """Cut a graph in two: images -> heatmaps and features, features -> offsets. Its precision goes by whole graphs.

    The offset head is what offsets depend on and heatmaps do not.

    Args:
        model, again: the same file, read twice.
        output: offsets, or poses in their place.
    """
    import openvino

    shared = _ancestors(again.output("heatmaps").get_node())
    features: dict[tuple[str, int], Any] = {}
    for name, node in _ancestors(again.output(output).get_node()).items():
        for port in node.inputs() if name not in shared else ():
            source = port.get_source_output()
            key = (source.get_node().get_friendly_name(), source.get_index())
            if key[0] in shared and source.get_node().get_type_name() != "Constant":
                if key not in features:
                    features[key] = openvino.opset13.parameter(
                        source.get_partial_shape(), source.get_element_type(), name=f"features_{len(features)}"
                    )
                port.replace_source_output(features[key].output(0))
    head = openvino.Model([again.output(output)], list(features.values()))
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


def _open_pt2(path: Path, people: bool) -> tuple[Runner, dict[str, str]]:
    extra_files = dict.fromkeys(_KEYS, "")
    try:
        program = torch.export.load(path, extra_files=extra_files)
    except (RuntimeError, ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} is broken or no exported torch program: {unquoted(error)}") from error
    module, config = program.module(), config_of(extra_files)
    least = exporting_of(config).least_side(config)

    def run(pictures: Pictures) -> Answer:
        if min(pictures.shape[2:]) < least:
            raise DekrPoseError(
                f"{path.name} takes pictures of at least {least} by {least} pixels, got "
                f"{' by '.join(map(str, pictures.shape[2:]))}; take a larger input_size or scale"
            )
        with torch.inference_mode():
            answer = module(torch.from_numpy(pictures))
        return tuple(part.numpy() for part in (answer if people else answer[:-PEOPLE]))

    return run, extra_files


def _never(pictures: Pictures) -> Answer:
    raise AssertionError("a file without configuration is refused before it runs")
