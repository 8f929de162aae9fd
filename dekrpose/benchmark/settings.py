"""What is measured: a model at a size, on a device, in a precision, run by a backend; and how it is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast, get_args

import torch
from torch import nn

from dekrpose.architectures.contract import Network, architecture_of, build
from dekrpose.architectures.exporting import Offsets
from dekrpose.benchmark.naive import NaiveDEKR
from dekrpose.checkpoints import read_checkpoint
from dekrpose.config import ARCHITECTURES, MatchMode
from dekrpose.errors import DekrPoseError
from dekrpose.estimator import PoseEstimator
from dekrpose.hub import models
from dekrpose.options import read_changes, whole_number, with_matching

LOOP = "loop"
"""The backend that is the naive formulation."""
BACKENDS = ("torch", "compile", "onnx", "openvino", LOOP)
_MATCHING = (*get_args(MatchMode), "off")
_EXPORTED = {"onnx": "model.onnx", "openvino": "model.xml"}


@dataclass(frozen=True)
class Setting:
    """One thing to measure.

    Args:
        model: name, folder or weights file; a known architecture whose weights are not here gets random ones.
        device, dtype: as in ``PoseEstimator.from_pretrained``.
        backend: "torch" is the library as it is; "compile" runs the network through ``torch.compile``; "onnx" and
            "openvino" export it and run the exported file; "loop" is the naive formulation.
        input_size: short side of the network's input, pixels; None is the model's own.
        batch: photos at once.
        flip: average with the mirrored photo.
        trust_code: as in ``PoseEstimator.from_pretrained``.
        match_heatmap: a ``MatchMode``, "off", or None for the model's own.
    """

    model: str
    device: str = "auto"
    dtype: str = "auto"
    backend: str = "torch"
    input_size: int | None = None
    batch: int = 1
    flip: bool = False
    trust_code: bool = False
    match_heatmap: str | None = None

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {self.backend!r}")
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1, got {self.batch}")
        if self.input_size is not None and self.input_size < 1:
            raise ValueError(f"input-size must be a positive number of pixels, got {self.input_size}")
        if self.match_heatmap not in (None, *_MATCHING):
            raise ValueError(f"match-heatmap must be one of {', '.join(_MATCHING)}, got {self.match_heatmap!r}")
        if self.backend == LOOP and self.dtype not in ("auto", "float32"):
            raise ValueError(f"the naive formulation ({LOOP}) is float32, got dtype={self.dtype}; leave the dtype out")

    def label(self) -> str:
        """What tells settings apart, in a few words."""
        words = [self.model if len(self.model) <= 32 else Path(self.model).name]
        words += [self.dtype] if self.dtype != "auto" else []
        words += ["loop over branches"] if self.backend == LOOP else [self.backend]
        words += [f"input {self.input_size}"] if self.input_size else []
        words += [f"batch {self.batch}"] if self.batch > 1 else []
        words += [f"match-heatmap {self.match_heatmap}"] if self.match_heatmap else []
        return ", ".join([*words, "flip"] if self.flip else words)


def compared(setting: Setting, words: Sequence[str]) -> Setting:
    """The second setting of ``--compare``: the first with the changes that words name.

    These are "loop", the name or file of another model, and key=value pairs such as dtype=bfloat16. ValueError if a key
    is unknown, a value does not fit, or there are two models.
    """
    changes: dict[str, Any] = {"backend": LOOP, "dtype": "auto"} if LOOP in words else {}
    keys = ("device", "dtype", "backend", "input-size", "batch", "flip", "match-heatmap")
    changes |= read_changes([word for word in words if word != LOOP], keys, [LOOP])
    for key in {"input-size", "batch"} & changes.keys():
        changes[key] = whole_number(key, changes[key])
    if changes.get("flip", "no") not in ("yes", "no"):
        raise ValueError(f"flip must be yes or no, got {changes['flip']!r}")
    if "flip" in changes:
        changes["flip"] = changes["flip"] == "yes"
    return replace(setting, **{key.replace("-", "_"): value for key, value in changes.items()})


def load(setting: Setting) -> PoseEstimator:
    """An estimator as a setting says; DekrPoseError if there is no such model, or the backend cannot run here."""
    estimator = _pretrained(as_file(setting))
    estimator.config = with_matching(estimator.config, setting.match_heatmap)
    if setting.backend == LOOP:
        naive = NaiveDEKR(_plain(setting.model)).eval().requires_grad_(False)
        estimator.model = naive.to(estimator.device)  # type: ignore[assignment]
    elif setting.backend == "compile":
        estimator.model.compile()
    return estimator


def _pretrained(setting: Setting) -> PoseEstimator:
    options: dict[str, Any] = {"device": setting.device, "dtype": setting.dtype}
    if setting.model not in ARCHITECTURES:
        return PoseEstimator.from_pretrained(setting.model, trust_code=setting.trust_code, **options)
    try:
        return PoseEstimator.from_pretrained(setting.model, local_files_only=True, **options)
    except DekrPoseError:
        return PoseEstimator(_random(setting.model), **options)


def as_file(setting: Setting) -> Setting:
    """The same with the file that the backend wants in the model's place, where it wants one."""
    if setting.backend not in _EXPORTED:
        return setting
    folder, name = _exported(setting.model, setting.backend, setting.flip)
    return replace(setting, model=str(Path(folder.name) / name), backend="torch")


@cache
def _exported(model: str, backend: str, flip: bool) -> tuple[TemporaryDirectory[str], str]:
    """A model exported for a backend: a folder, which lasts as long as this process, and the file in it."""
    folder, name = TemporaryDirectory(prefix="dekrpose-benchmark-"), _EXPORTED[backend]
    estimator = _pretrained(Setting(model, device="cpu"))
    single = not flip and len(estimator.config.decode.scales) == 1
    at_centers = single and architecture_of(estimator.config).gives_candidates(estimator.model)
    offsets: Offsets = "people" if at_centers else "map"
    estimator.export(cast(Any, backend), Path(folder.name) / name, offsets=offsets)
    return folder, name


def _plain(name: str) -> Network:
    """The network as its weights file has it: nothing folded, nothing rearranged."""
    known = name in ARCHITECTURES
    try:
        checkpoint = read_checkpoint(models.resolve(name, local_files_only=known))
    except DekrPoseError:
        if not known:
            raise
        return _random(name)
    if checkpoint.config.temporal is not None:
        raise DekrPoseError(f"{name} remembers earlier frames; the naive formulation exists for image models")
    model = build(checkpoint.config)
    model.load_state_dict(checkpoint.state_dict)
    return model.eval()


def _random(name: str) -> Network:
    """An architecture with random weights, the same each time.

    The backbone keeps the size of what passes through, as trained ones do: processors are slow with tiny numbers.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = build(ARCHITECTURES[name]).train()
        for module in model.backbone.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0  # it takes the statistics of the noise below
        for layer, values in model.named_parameters():
            if layer.endswith("transform.bias"):  # of adaptive convolutions: taps apart, as in trained weights
                nn.init.normal_(values)
        model.backbone(torch.randn(2, 3, 128, 128))
    return model.eval()
