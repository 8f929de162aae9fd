"""Names of models -> files on disk; folders that hold a model."""

from __future__ import annotations

import difflib
import json
import math
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from dekrpose.checkpoints import expected_shapes, read_stored_config, write_checkpoint, write_config
from dekrpose.config import FORMER_NAMES, ModelConfig
from dekrpose.errors import CheckpointError, DekrPoseError, error_words, unknown_model
from dekrpose.hub import repositories
from dekrpose.hub.cache import cache_folder, problem
from dekrpose.hub.cache import entry as cache_entry
from dekrpose.hub.model_cards import measured_on, model_card
from dekrpose.hub.published import PUBLISHED, PublishedWeights, fetch
from dekrpose.hub.repository import CARD, CONFIG, WEIGHTS, config_text, is_ours

_TINY = Path(__file__).parents[1] / "weights" / "tiny.safetensors"
_SUFFIXES = {".safetensors", ".pth", ".pt", ".tar", ".ckpt", ".bin", ".onnx", ".xml", ".pt2"}
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
_MODEL_NAMES = ["tiny", *(entry.name for entry in PUBLISHED.values() if entry.kind == "model")]
_KNOWN = f"Known names: {', '.join(_MODEL_NAMES)}"
_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class ModelInfo:
    """What is known about a model that ``from_pretrained`` takes by name.

    Args:
        name: what to pass.
        source: where the weights come from.
        license: of the weights.
        accuracy: measured or published numbers, in words that say which.
        available: whether the weights are on this machine.
        parameters: of the network; None when unknown.
        size: bytes, of the file on this machine or else of the download (four bytes for each parameter).
        published: what others measured, metric to value, with other decoding than this library's.
        measured: what was measured with this library; empty when nothing was.
        path: the file on this machine, or None.
    """

    name: str
    source: str
    license: str
    accuracy: str
    available: bool
    parameters: int | None = None
    size: int | None = None
    published: Mapping[str, float] = field(default_factory=dict)
    measured: Mapping[str, float] = field(default_factory=dict)
    path: str | None = None


def list_models(cache_dir: str | Path | None = None) -> list[ModelInfo]:
    """The models that ``PoseEstimator.from_pretrained`` knows by name: bundled, published, Hugging Face's in the cache.

    ``cache_dir`` is where downloads were kept; None is the usual place. Nothing is fetched.
    """
    models = []
    if _TINY.is_file():
        models.append(_own_info("tiny", "bundled", read_stored_config(_TINY) or ModelConfig(), _TINY))
    folder = cache_folder(cache_dir)
    models += [_published_info(entry, folder) for entry in PUBLISHED.values() if entry.kind == "model"]
    for repository in repositories.cached_repositories(cache_dir):
        weights = repository.folder / WEIGHTS
        try:
            config = read_stored_config(weights)
        except CheckpointError:
            continue
        if config is not None:
            source = f"https://huggingface.co/{repository.repo_id}"
            models.append(_own_info(repository.repo_id, source, config, weights))
    return models


def _own_info(name: str, source: str, config: ModelConfig, weights: Path) -> ModelInfo:
    numbers = ", ".join(f"{metric} {value:g}" for metric, value in config.metrics.items())
    accuracy = f"{numbers} (measured on {measured_on(config)})" if numbers else ""
    shapes = expected_shapes(config)
    parameters = sum(math.prod(shape) for name, shape in shapes.items() if not name.endswith(_BUFFERS))
    return ModelInfo(
        name, source, config.license, accuracy, True, parameters, weights.stat().st_size,
        measured=dict(config.metrics), path=str(weights),
    )  # fmt: skip


def _published_info(published: PublishedWeights, folder: Path) -> ModelInfo:
    entry = cache_entry(folder, published.name)
    whole = entry is not None and problem(entry, thorough=False) is None
    size = entry.size if entry is not None and whole else 4 * (published.parameters or 0)
    return ModelInfo(
        published.name, published.url, "Apache-2.0 (mmpose)", published.accuracy, whole, published.parameters, size,
        published={"AP": published.average_precision or 0.0}, path=str(entry.path) if entry and whole else None,
    )  # fmt: skip


def resolve(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """The weights file that a name or a path stands for; downloaded if need be.

    Args:
        name_or_path: "tiny" (inside the package), a weights file, a folder with model.safetensors,
            whose config.json, if there, must agree with it, a published name (``PUBLISHED``), or
            "organisation/repository" on Hugging Face. Files and folders that exist come before names.
        revision: branch, tag or commit of a repository.
        token: for private repositories; None takes HF_TOKEN or the stored login.
        cache_dir: where downloads are kept instead of the usual places.
        local_files_only: download nothing.
        force_download: download again what the cache has.

    Returns:
        An existing file.

    Raises:
        CheckpointError: a folder lacks model.safetensors or contradicts its config.json, a download holds others.
        DekrPoseError: nothing has this name (the message lists known and similar names), or it cannot be fetched.
    """
    name = str(name_or_path)
    if FORMER_NAMES.get(name, name) == "tiny":
        if not _TINY.is_file():
            raise DekrPoseError(f"the bundled weights {_TINY} are missing; install dekrpose again")
        return _TINY
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        return _in_folder(path)
    where = {"cache_dir": cache_dir, "local_files_only": local_files_only, "force_download": force_download}
    if name in PUBLISHED:
        if PUBLISHED[name].kind == "backbone":
            raise DekrPoseError(f"{name} is an ImageNet backbone without a pose head, so it finds nobody. {_KNOWN}")
        return fetch(PUBLISHED[name], **where)  # type: ignore[arg-type]
    if _REPOSITORY.fullmatch(name) and path.suffix.lower() not in _SUFFIXES:
        return _in_folder(repositories.fetch_repository(name, revision=revision, token=token, **where))  # type: ignore[arg-type]
    raise DekrPoseError(_unknown(name, path))


def rescoring_net_of(name_or_path: str | Path) -> str | None:
    """The name of the scoring net that a published model was published with; None for files, folders and others."""
    name = str(name_or_path)
    if name not in PUBLISHED or Path(name).exists():
        return None
    return PUBLISHED[name].rescoring_net


def _in_folder(folder: Path) -> Path:
    weights = folder / WEIGHTS
    if not weights.is_file():
        others = sorted(item.name for item in folder.iterdir() if item.suffix.lower() in _SUFFIXES)
        hint = f"pass a file inside: {', '.join(others[:5])}" if others else "it holds no weights at all"
        raise CheckpointError(f"{folder} has no {WEIGHTS}; {hint}")
    if (folder / CONFIG).is_file():
        _check_agreement(weights, folder / CONFIG)
    return weights


def _check_agreement(weights: Path, config_file: Path) -> None:
    try:
        text = config_text(config_file)
        if not is_ours(config_file):
            raise ValueError("it describes no network of dekrpose")
        beside = ModelConfig.from_json(text)
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{config_file} cannot be read: {error_words(error)}") from error
    inside = read_stored_config(weights)
    if inside is None:
        raise CheckpointError(
            f"{weights} was not written by dekrpose: it carries no configuration; pass the file itself"
        )
    ours, theirs = inside.to_dict(), beside.to_dict()
    differing = [key for key in ours if ours[key] != theirs[key]]
    if differing:
        raise CheckpointError(
            f"{config_file} and {weights.name} disagree about {', '.join(differing)}; delete or restore {CONFIG}, the "
            "weights carry their own configuration"
        )


def _unknown(name: str, path: Path) -> str:
    if path.suffix.lower() in _SUFFIXES or path.is_absolute() or name.startswith((".", "~")):
        siblings = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
        similar = difflib.get_close_matches(path.name, siblings, n=3)
        hint = f"did you mean {' or '.join(similar)}?" if similar else "check the path."
        return f"there is no file or folder {path}; {hint} {_KNOWN}"
    return unknown_model(name, _MODEL_NAMES)


def save_folder(
    folder: str | Path,
    config: ModelConfig,
    state_dict: Mapping[str, Tensor],
    rescoring: Mapping[str, Tensor] | None = None,
    repository: str | None = None,
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
    with _staged(folder) as staging:
        write_checkpoint(staging / WEIGHTS, config, state_dict, rescoring)
        _write_beside(staging, config, model_card(config, rescoring is not None, repository))


def save_config(folder: str | Path, config: ModelConfig, has_rescoring_net: bool) -> None:
    """Give a model folder of ``save_folder`` another configuration of the same network.

    Its weights stay as they are stored; config.json and the card, which says whether there is a scoring net, are new.
    """
    folder = Path(folder)
    with _staged(folder) as staging:
        write_config(staging / WEIGHTS, config, source=folder / WEIGHTS)
        _write_beside(staging, config, model_card(config, has_rescoring_net))


def _write_beside(folder: Path, config: ModelConfig, card: str) -> None:
    (folder / CONFIG).write_text(json.dumps(config.to_dict(), indent=2) + "\n", encoding="utf-8")
    (folder / CARD).write_text(card, encoding="utf-8")


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """A place for a model's three files, which replace those of the folder at once."""
    staging = (folder if folder.exists() else folder.parent) / f".{uuid.uuid4().hex}.tmp"
    try:
        staging.mkdir(parents=True)
        yield staging
        if folder.exists():
            (folder / CONFIG).unlink(missing_ok=True)  # weights without it are whole, beside an old one they are not
            for item in (CARD, WEIGHTS, CONFIG):
                (staging / item).replace(folder / item)
        else:
            staging.replace(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
