"""Weights files: reading every known format into our tensors, writing our own."""

from __future__ import annotations

import json
import os
import re
import reprlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dekrpose.architectures.contract import Shapes, build, foreign_names
from dekrpose.checkpoints.integers import with_integers
from dekrpose.checkpoints.pickles import read_metadata, read_tensors
from dekrpose.config import Backbone, ModelConfig, TemporalConfig
from dekrpose.errors import CheckpointError
from dekrpose.skeletons import Skeleton

_METADATA_KEY = "dekrpose"
_RESCORING_PREFIX = "rescoring_net."
_COUNTER = "num_batches_tracked"
"""Of batch norm; inference does not need it, and some files leave it out."""
_LARGEST = 1e18
"""Products of larger numbers leave single precision."""
_NUMBERS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_WHAT_TO_DO = "pass DEKR weights from dekrpose, the official code or mmpose; `dekrpose models` lists published ones"


@dataclass(frozen=True)
class Checkpoint:
    """What a weights file holds, in our terms.

    Args:
        config: stored in our files, otherwise inferred from the tensors.
        state_dict: our names; contiguous CPU tensors, float32, or float16 where the file stores that.
        rescoring: the scoring net's tensors l1.weight ... l3.bias, if the file has one.
        format: "dekrpose", "official", "mmpose-1.x" or "mmpose-0.x".
    """

    config: ModelConfig
    state_dict: dict[str, Tensor]
    rescoring: dict[str, Tensor] | None
    format: str

    def single(self) -> dict[str, Tensor]:
        """``state_dict`` in single precision, to compute with."""
        return {name: value.float() if value.is_floating_point() else value for name, value in self.state_dict.items()}


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read DEKR weights of any known format, which is recognised by the tensors; nothing in the file is run.

    Raises:
        CheckpointError: the file is missing, broken or foreign, would run code, or does not fit its own network. The
            message names the first missing and unexpected tensors, what the file looks like, and what to do.
    """
    try:
        tensors, metadata = read_tensors(Path(path))
        return _checkpoint_from(tensors, metadata)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def read_stored_config(path: str | Path) -> ModelConfig | None:
    """The configuration inside a safetensors file of ours, None if there is none; CheckpointError if it is broken."""
    try:
        return _stored_config(read_metadata(Path(path)))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _checkpoint_from(tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> Checkpoint:
    network, rescoring = foreign_names().split_scoring_net(tensors)
    if rescoring and not network:
        raise CheckpointError("this is a scoring net alone; pass a DEKR model, and this file as rescoring_net")
    shapes = _shapes(network)
    stored = _stored_config(metadata)
    file_format = "dekrpose" if stored else foreign_names().detect_format(shapes)
    if file_format is None:
        expected = expected_shapes(ModelConfig())
        if any(name.startswith("backbone.") for name in shapes):  # name what is missing as the file would
            raise CheckpointError(_misfit(shapes, foreign_names().shapes_in_file(expected, "mmpose-1.x", shapes)))
        raise CheckpointError(_misfit(shapes, foreign_names().shapes_in_file(expected, "official", shapes)))
    config = stored or foreign_names().config_of(shapes)
    family = "official" if file_format == "super-gradients" else file_format
    expected = foreign_names().shapes_in_file(expected_shapes(config), family, shapes)
    network = {**{name: torch.zeros((), dtype=torch.int64) for name in expected if name.endswith(_COUNTER)}, **network}
    check_fits(network, expected)
    _check_types({**network, **rescoring})
    if rescoring:
        _check_rescoring_net(rescoring, config.skeleton)
    state_dict = {name: _plain(tensor) for name, tensor in foreign_names().to_ours(network, file_format).items()}
    judged = {name: _plain(tensor) for name, tensor in rescoring.items()}
    _check_values({**state_dict, **judged})
    return Checkpoint(config, state_dict, judged or None, file_format)


def _check_types(tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights that are no floating numbers of 16 bits or more; counters may be anything."""
    wrong = [name for name, own in tensors.items() if own.dtype not in _NUMBERS and not name.endswith(_COUNTER)]
    if wrong:
        raise CheckpointError(
            f"{len(wrong)} of its tensors are no weights (first: {wrong[0][:60]} is {tensors[wrong[0]].dtype}); save "
            "them as float32, float16 or bfloat16, or with `dekrpose convert --int8`"
        )


def _check_values(tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights of which a network makes no numbers: with a single one it finds nobody, anywhere."""
    floating = {name: own for name, own in tensors.items() if own.is_floating_point() and own.numel()}
    # the smallest and the largest are enough: a NaN among the values is both
    ranges = {name: torch.stack(own.aminmax()) for name, own in floating.items()}
    faults = {
        "values that are not finite": [name for name, ends in ranges.items() if not bool(ends.isfinite().all())],
        "values that no weights have": [name for name, ends in ranges.items() if float(ends.abs().max()) > _LARGEST],
        "negative variances": [n for n, ends in ranges.items() if n.endswith("running_var") and float(ends[0]) < 0],
    }
    for fault, names in faults.items():
        if names:
            raise CheckpointError(
                f"{len(names)} of its tensors hold {fault} (first: {names[0][:60]}); has its training diverged, or was "
                "the file damaged? Take another checkpoint"
            )


def _stored_config(metadata: Mapping[str, str]) -> ModelConfig | None:
    if _METADATA_KEY not in metadata:
        return None
    try:
        return ModelConfig.from_json(metadata[_METADATA_KEY])
    except ValueError as error:
        raise CheckpointError(f"its configuration cannot be read ({error}); it may need a newer dekrpose") from error


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _plain(tensor: Tensor) -> Tensor:
    if tensor.is_floating_point() and tensor.dtype != torch.float16:
        tensor = tensor.to(torch.float32)
    return tensor.detach().contiguous()


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Our names and shapes of the network that a configuration describes; no memory is taken for it.

    CheckpointError if it describes none.
    """
    try:
        return dict(
            _network_shapes(config.architecture, config.backbone, config.head, config.skeleton, config.temporal)
        )
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
        raise CheckpointError(f"its configuration describes no network ({error}); was the file damaged?") from error


@lru_cache(maxsize=8)
def _network_shapes(
    architecture: str, backbone: Backbone, head: Any, skeleton: Skeleton, temporal: TemporalConfig | None
) -> Shapes:
    config = ModelConfig(architecture=architecture, backbone=backbone, head=head, skeleton=skeleton, temporal=temporal)
    with torch.device("meta"):
        return _shapes(build(config).state_dict())


def describe(shapes: Shapes) -> str:
    """A guess, for messages, at what some tensors belong to."""
    return foreign_names().describe(shapes)


def check_fits(state_dict: Mapping[str, Tensor], expected_shapes: Shapes) -> None:
    """Compare tensors with what a network needs, before any is copied.

    CheckpointError names the first missing, unexpected and mis-shaped tensor with counts, says what the file looks like
    and what to do.
    """
    message = _misfit(_shapes(state_dict), expected_shapes)
    if message:
        raise CheckpointError(message)


def _misfit(shapes: Shapes, expected: Shapes) -> str:
    missing = [name for name in expected if name not in shapes]
    unexpected = [name for name in shapes if name not in expected]
    other = [name for name in expected if name in shapes and shapes[name] != expected[name]]
    problems = []
    if missing:
        problems.append(f"{len(missing)} tensors missing (first: {missing[0][:60]})")
    if unexpected:
        problems.append(f"{len(unexpected)} unexpected (first: {unexpected[0][:60]})")
    if other:
        first, own = other[0], reprlib.repr(shapes[other[0]])
        problems.append(f"{len(other)} of another shape (first: {first[:60]} is {own}, expected {expected[first]})")
    if not problems:
        return ""
    return f"the tensors do not fit: {', '.join(problems)}. It looks like {describe(shapes)}; {_WHAT_TO_DO}"


def read_rescoring_net(path: str | Path, skeleton: Skeleton | None = None) -> dict[str, Tensor]:
    """Read a scoring net: ``final_rescore_coco_kpt.pth``, mmpose's ``kpt_rescore_*.pth``, or a model file that has one.

    It must have been made for the keypoints and edges of ``skeleton``, if that is given. F is 3 * edges + keypoints
    (COCO 74, CrowdPose 59) in l1.weight (256, F), l1.bias, l2.weight (256, 256), l2.bias, l3.weight (1, 256), l3.bias
    (1,); a calibrated net's have 1 + keypoints rows.

    Raises:
        CheckpointError: the file is missing, broken, something else, or made for another skeleton.
    """
    try:
        network, rescoring = foreign_names().split_scoring_net(read_tensors(Path(path))[0])
        if not rescoring:
            raise CheckpointError(
                f"it has no scoring net (l1.weight ... l3.bias); it looks like {describe(_shapes(network))}"
            )
        _check_rescoring_net(rescoring, skeleton)
        _check_types(rescoring)
        plain = {name: _plain(tensor) for name, tensor in rescoring.items()}
        _check_values(plain)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return plain


def _check_rescoring_net(rescoring: Mapping[str, Tensor], skeleton: Skeleton | None) -> None:
    shapes = _shapes(rescoring)
    features, hidden = shapes.get("l1.weight", (0, 0))[-1], shapes.get("l1.bias", (0,))[0]
    outputs = shapes.get("l3.bias", (1,))[0]
    if skeleton is not None:
        needed = 3 * len(skeleton.edges) + len(skeleton)
        if features != needed:
            raise CheckpointError(
                f"its scoring net reads {features} features, but {skeleton.name} gives {needed} "
                "(3 per edge, 1 per keypoint); COCO's has 74 and CrowdPose's 59"
            )
        if outputs not in (1, 1 + len(skeleton)):
            raise CheckpointError(
                f"its scoring net says {outputs} things of a pose, but {skeleton.name} wants 1, or {1 + len(skeleton)} "
                "of a calibrated one"
            )
    expected = {
        "l1.weight": (hidden, features), "l1.bias": (hidden,), "l2.weight": (hidden, hidden), "l2.bias": (hidden,),
        "l3.weight": (outputs, hidden), "l3.bias": (outputs,),
    }  # fmt: skip
    if shapes != expected:
        raise CheckpointError(f"its scoring net has other layers than expected: {_misfit(shapes, expected)}")


def write_checkpoint(
    path: str | Path,
    config: ModelConfig,
    state_dict: Mapping[str, Tensor],
    rescoring: Mapping[str, Tensor] | None = None,
    half: bool = False,
    int8: bool = False,
) -> None:
    """Write our format: safetensors that carry the whole configuration. The file appears complete or not at all.

    Args:
        path: ends in ``.safetensors``; missing folders are made, an existing file is replaced.
        config: stored as JSON in the metadata.
        state_dict: our names.
        rescoring: the scoring net's tensors l1.weight ... l3.bias.
        half: store float16, half the size.
        int8: store weights as integers with a step for each output channel, and the rest as float16: a quarter of the
            size. They are rounded by up to 1/254 of their channel's largest; ``read_checkpoint`` gives float32.

    Raises:
        CheckpointError: the tensors do not fit the configuration, or do not fit into float16 or integers.
        ValueError: another file ending.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"weights are written as .safetensors, got {path.name!r}")
    check_fits(state_dict, expected_shapes(config))
    if rescoring is not None:
        _check_rescoring_net(rescoring, config.skeleton)
    named = {**state_dict, **{f"{_RESCORING_PREFIX}{name}": tensor for name, tensor in (rescoring or {}).items()}}
    tensors = {name: _stored(name, tensor, half or int8) for name, tensor in named.items()}
    _write(path, with_integers(tensors) if int8 else tensors, {_METADATA_KEY: json.dumps(config.to_dict())})


def write_config(path: str | Path, config: ModelConfig, *, source: str | Path) -> None:
    """Write ``source``, a file of ours, with another configuration of the same network: its tensors as they are stored.

    The file, which may be ``source`` itself, appears whole or not at all.
    """
    # copies, because tensors of an open file would keep it from being replaced on Windows
    tensors = {name: tensor.clone() for name, tensor in load_file(source).items()}
    _write(Path(path), tensors, {_METADATA_KEY: json.dumps(config.to_dict())})


def write_rescoring_net(path: str | Path, rescoring: Mapping[str, Tensor]) -> None:
    """Write a scoring net alone, as ``read_rescoring_net`` reads it; CheckpointError if these tensors are none."""
    _check_rescoring_net(rescoring, None)
    write_tensors(path, rescoring)


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors alone, such as a backbone's: whole or not at all."""
    _write(Path(path), {name: _stored(name, tensor, half=False) for name, tensor in tensors.items()}, {})


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # not the tempfile module, whose files only their owner may read
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        partial.touch()
        mode = partial.stat().st_mode & 0o777  # what the user's umask allows; safetensors writes 0600
        _save(tensors, partial, {"format": "pt", **metadata})
        partial.chmod(mode)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _save(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:  # a full disk, say: the number is in the text alone
        number = re.search(r"\b(?:code: |os error )(\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def _stored(name: str, tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().cpu()
    if half and tensor.is_floating_point():
        small = tensor.to(torch.float16)
        if bool((small.isinf() & tensor.isfinite()).any()):
            raise CheckpointError(f"{name} has values beyond float16's range; write it without half")
        tensor = small
    return tensor.clone(memory_format=torch.contiguous_format)  # safetensors refuses tensors that share memory
