"""Names of models -> files on disk; folders that hold a model; the published weights and where they lie."""

from __future__ import annotations

import difflib
import json
import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from dekrpose.checkpoints import read_stored_config, write_checkpoint
from dekrpose.config import ModelConfig
from dekrpose.errors import CheckpointError, DekrPoseError
from dekrpose.model_cards import model_card

_MODELS = "https://download.openmmlab.com/mmpose/v1/body_2d_keypoint/dekr/"
_PARTS = "https://download.openmmlab.com/mmpose/pretrain_models/"
_TINY = Path(__file__).parent / "weights" / "tiny.safetensors"
_WEIGHTS, _CONFIG, _CARD = "model.safetensors", "config.json", "README.md"
_SUFFIXES = {".safetensors", ".pth", ".pt", ".tar", ".ckpt", ".bin", ".onnx"}
_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class PublishedWeights:
    """A weights file that others published.

    Args:
        name: how this library calls it.
        kind: a whole model, a scoring net, or an ImageNet backbone to train from.
        url: where it lies.
        sha256_prefix: the first eight hex digits of the file's SHA-256.
        average_precision: published OKS AP in percent, measured with the publisher's other decoding; None for parts.
        rescoring_net: name of the scoring net that goes with a model.
    """

    name: str
    kind: Literal["model", "rescoring net", "backbone"]
    url: str
    sha256_prefix: str
    average_precision: float | None = None
    rescoring_net: str | None = None

    @property
    def filename(self) -> str:
        """The last part of the URL."""
        return self.url.rsplit("/", 1)[1]

    @property
    def accuracy(self) -> str:
        """The published accuracy in words; never to be read as a measurement of this library."""
        if self.average_precision is None:
            return ""
        return f"AP {self.average_precision} (published, other decoding)"


PUBLISHED: dict[str, PublishedWeights] = {
    entry.name: entry
    for entry in (
        PublishedWeights(
            "dekr-w32-coco", "model", _MODELS + "coco/dekr_hrnet-w32_8xb10-140e_coco-512x512_ac7c17bf-20221228.pth",
            "ac7c17bf", 68.6, "rescore-coco",
        ),
        PublishedWeights(
            "dekr-w48-coco", "model", _MODELS + "coco/dekr_hrnet-w48_8xb10-140e_coco-640x640_74796c32-20230124.pth",
            "74796c32", 71.4, "rescore-coco",
        ),
        PublishedWeights(
            "dekr-w32-crowdpose", "model",
            _MODELS + "crowdpose/dekr_hrnet-w32_8xb10-300e_crowdpose-512x512_147bae97-20221228.pth",
            "147bae97", 66.3, "rescore-crowdpose",
        ),
        PublishedWeights(
            "dekr-w48-crowdpose", "model",
            _MODELS + "crowdpose/dekr_hrnet-w48_8xb5-300e_crowdpose-640x640_4ea6031e-20230128.pth",
            "4ea6031e", 67.9, "rescore-crowdpose",
        ),
        PublishedWeights("rescore-coco", "rescoring net", _PARTS + "kpt_rescore_coco-33d58c5c.pth", "33d58c5c"),
        PublishedWeights(
            "rescore-crowdpose", "rescoring net", _PARTS + "kpt_rescore_crowdpose-300c7efe.pth", "300c7efe"
        ),
        PublishedWeights("hrnet-w32-imagenet", "backbone", _PARTS + "hrnet_w32-36af842e.pth", "36af842e"),
        PublishedWeights("hrnet-w48-imagenet", "backbone", _PARTS + "hrnet_w48-8ef0771d.pth", "8ef0771d"),
    )
}  # fmt: skip
"""Weights published by others, by our name; `dekrpose models` lists them."""


@dataclass(frozen=True)
class ModelInfo:
    """What is known about a model that ``from_pretrained`` takes by name.

    Args:
        name: what to pass.
        source: where the weights come from.
        license: of the weights.
        accuracy: measured or published numbers, in words that say which.
        available: whether the weights are on this machine.
    """

    name: str
    source: str
    license: str
    accuracy: str
    available: bool


def list_models() -> list[ModelInfo]:
    """The models that ``PoseEstimator.from_pretrained`` knows by name, the bundled one first."""
    models = []
    config = read_stored_config(_TINY) if _TINY.is_file() else None
    if config is not None:
        measured = ", ".join(f"{name} {value:g}" for name, value in config.metrics.items())
        models.append(ModelInfo("tiny", "bundled", config.license, f"{measured} (measured)" if measured else "", True))
    for entry in PUBLISHED.values():
        if entry.kind == "model":
            models.append(ModelInfo(entry.name, entry.url, "Apache-2.0 (mmpose)", entry.accuracy, False))
    return models


def resolve(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """The weights file that a name or a path stands for.

    Args:
        name_or_path: "tiny" (inside the package), a weights file, or a folder with model.safetensors, whose
            config.json, if there, must agree with it. Published names and "organisation/repository" are known, but
            not fetched by this version.
        revision, token, cache_dir, local_files_only, force_download: for downloads; no effect on local files.

    Returns:
        An existing file.

    Raises:
        CheckpointError: a folder lacks model.safetensors or contradicts its config.json.
        DekrPoseError: nothing has this name; the message lists known and similar names.
    """
    name = str(name_or_path)
    if name == "tiny":
        return _bundled()
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        return _in_folder(path)
    if name in PUBLISHED:
        entry = PUBLISHED[name]
        raise DekrPoseError(
            f"{name} is not downloaded by this version; downloads come with the next release. Until then download "
            f"{entry.url} by hand (its SHA-256 starts with {entry.sha256_prefix}) and pass the file's path"
        )
    if _REPOSITORY.fullmatch(name) and path.suffix.lower() not in _SUFFIXES:
        raise DekrPoseError(
            f"{name!r} is no local file or folder, and repositories are not downloaded by this version; downloads come "
            f"with the next release. Until then download https://huggingface.co/{name}/resolve/"
            f"{revision or 'main'}/{_WEIGHTS} by hand and pass the file's path"
        )
    raise DekrPoseError(_unknown(name, path))


def _bundled() -> Path:
    if not _TINY.is_file():
        raise DekrPoseError(f"the bundled weights {_TINY} are missing; install dekrpose again")
    return _TINY


def _in_folder(folder: Path) -> Path:
    weights = folder / _WEIGHTS
    if not weights.is_file():
        others = sorted(item.name for item in folder.iterdir() if item.suffix.lower() in _SUFFIXES)
        hint = f"pass a file inside: {', '.join(others[:5])}" if others else "it holds no weights at all"
        raise CheckpointError(f"{folder} has no {_WEIGHTS}; {hint}")
    if (folder / _CONFIG).is_file():
        _check_agreement(weights, folder / _CONFIG)
    return weights


def _check_agreement(weights: Path, config_file: Path) -> None:
    try:
        beside = ModelConfig.from_dict(json.loads(config_file.read_text(encoding="utf-8")))
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        raise CheckpointError(f"{config_file} cannot be read: {error}") from error
    inside = read_stored_config(weights)
    if inside is None:
        raise CheckpointError(
            f"{weights} was not written by dekrpose: it carries no configuration; pass the file itself"
        )
    ours, theirs = inside.to_dict(), beside.to_dict()
    differing = [key for key in ours if ours[key] != theirs[key]]
    if differing:
        raise CheckpointError(
            f"{config_file} and {weights.name} disagree about {', '.join(differing)}; delete or restore {_CONFIG}, the "
            "weights carry their own configuration"
        )


def _unknown(name: str, path: Path) -> str:
    known = ["tiny", *(entry.name for entry in PUBLISHED.values() if entry.kind == "model")]
    if path.suffix.lower() in _SUFFIXES or path.is_absolute() or name.startswith((".", "~")):
        siblings = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
        similar = difflib.get_close_matches(path.name, siblings, n=3)
        hint = f"did you mean {' or '.join(similar)}?" if similar else "check the path"
        return f"there is no file or folder {path}; {hint} Model names: {', '.join(known)}"
    similar = difflib.get_close_matches(name.lower(), known, n=2, cutoff=0.5)
    hint = f" Did you mean {' or '.join(similar)}?" if similar else ""
    return f"no model, file or folder is called {name!r}.{hint} Known names: {', '.join(known)}"


def save_folder(
    folder: str | Path,
    config: ModelConfig,
    state_dict: Mapping[str, Tensor],
    rescoring: Mapping[str, Tensor] | None = None,
) -> None:
    """Write model.safetensors, config.json and a model card README.md, as a Hugging Face repository holds them.

    A new folder appears complete or not at all; in an existing one each of the three files is replaced at once and
    the others stay.

    Raises:
        CheckpointError: the tensors do not fit the configuration.
        NotADirectoryError: a file has this name.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file; save_folder needs a folder")
    staging = (folder if folder.exists() else folder.parent) / f".{uuid.uuid4().hex}.tmp"
    try:
        write_checkpoint(staging / _WEIGHTS, config, state_dict, rescoring)
        (staging / _CONFIG).write_text(json.dumps(config.to_dict(), indent=2) + "\n", encoding="utf-8")
        (staging / _CARD).write_text(model_card(config, rescoring is not None), encoding="utf-8")
        if folder.exists():
            for item in (_CARD, _CONFIG, _WEIGHTS):
                (staging / item).replace(folder / item)
        else:
            staging.replace(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
