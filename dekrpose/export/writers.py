"""Writing the graph: torch.export first, then ONNX or OpenVINO from its program, or the program itself."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dekrpose.architectures.exporting import exporting_of
from dekrpose.engines.runtimes import Format, config_of, outputs_of

SIZE_STEP = 32
"""Height and width of the input are multiples of this."""
OPSET = 20
"""ONNX operator set; DeformConv came with 19."""
_MOST_BATCH, _MOST_STEPS = 1024, 1024


def traced(module: nn.Module, least_side: int) -> torch.export.ExportedProgram:
    """The program of a module that takes pictures, with dynamic batch, height and width (multiples of 32)."""
    dim = torch.export.Dim
    sizes = {
        0: dim("batch", min=1, max=_MOST_BATCH),
        2: SIZE_STEP * dim("rows", min=least_side // SIZE_STEP, max=_MOST_STEPS),
        3: SIZE_STEP * dim("columns", min=least_side // SIZE_STEP, max=_MOST_STEPS),
    }
    example = torch.zeros(
        2, 3, max(4 * SIZE_STEP, least_side), max(6 * SIZE_STEP, least_side + SIZE_STEP), dtype=torch.uint8
    )
    program = torch.export.export(module, (example,), dynamic_shapes=(sizes,))
    _fix_upsampling(program)
    return program


def _fix_upsampling(program: torch.export.ExportedProgram) -> None:
    """Upsample by fixed factors instead of to computed sizes: runtimes then keep their fast memory layout."""
    for node in program.graph.nodes:
        if node.target in (torch.ops.aten.upsample_nearest2d.vec, torch.ops.aten.upsample_bilinear2d.vec):
            source, target = node.args[0].meta["val"].shape, node.meta["val"].shape
            factors = [
                float(_hint(after) / _hint(before)) for before, after in zip(source[2:], target[2:], strict=True)
            ]
            node.args = (node.args[0], None, *node.args[2:-1], factors)
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()


def _hint(size: Any) -> int:
    """A size for the example input; the ratio of two sizes is the same for every input."""
    return size if isinstance(size, int) else int(size.node.hint)


def write(
    module: nn.Module, file_format: Format, path: Path, texts: dict[str, str], *, opset: int = OPSET, half: bool = False
) -> None:
    """Write a module that takes pictures and gives its architecture's outputs.

    ImportError if what writes the format is missing.

    OpenVINO writes a .bin beside ``path``, and with ``half`` stores weights as float16. The texts are kept in the file,
    by their names.
    """
    if file_format == "pt2":
        torch.export.save(traced(module, _least_side(texts)), path, extra_files=texts)
    elif file_format == "onnx":
        _write_onnx(module, path, texts, opset)
    else:
        _write_openvino(module, path, texts, opset, half)


def _least_side(texts: dict[str, str]) -> int:
    config = config_of(texts)
    return exporting_of(config).least_side(config)


def _write_onnx(module: nn.Module, path: Path, texts: dict[str, str], opset: int) -> None:
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{error.name}, which writes ONNX, is missing; run: pip install 'dekrpose[onnx]'") from None
    if not hasattr(torch.onnx, "ops"):
        raise ImportError(f"exporting to ONNX needs torch 2.8 or later, this is {torch.__version__}; update torch")
    del onnx
    program, names = traced(module, _least_side(texts)), list(outputs_of(texts))
    with _quiet():
        written = torch.onnx.export(
            program, (), input_names=["images"], output_names=names, opset_version=opset, dynamo=True,
            optimize=True, verbose=False,
        )  # fmt: skip
    assert written is not None
    written.model.metadata_props.update(texts)
    written.save(str(path))


def _write_openvino(module: nn.Module, path: Path, texts: dict[str, str], opset: int, half: bool) -> None:
    try:
        import openvino
    except ImportError:
        raise ImportError("OpenVINO is missing; run: pip install 'dekrpose[openvino,onnx]'") from None
    graph = path.with_suffix(".onnx")
    _write_onnx(module, graph, texts, opset)
    model = openvino.convert_model(graph)
    graph.unlink()
    for name, text in texts.items():
        model.set_rt_info(text, name)
    openvino.save_model(model, path, compress_to_fp16=half)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress and its advice about torchvision to itself."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
