"""Weights that others published: where they lie, and how they become files in our cache, once."""

from __future__ import annotations

import logging
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from dekrpose.checkpoints import (
    read_checkpoint,
    read_rescoring_net,
    write_checkpoint,
    write_rescoring_net,
    write_tensors,
)
from dekrpose.checkpoints.pickles import read_tensors
from dekrpose.errors import DekrPoseError, without_password
from dekrpose.hub import cache
from dekrpose.hub.downloads import download

logger = logging.getLogger(__name__)

LICENSE = "apache-2.0"
"""Of mmpose, whose authors published the weights."""
PUBLISHED_BY = "mmpose's authors"
OTHER_DECODING = (
    "mmpose's authors published these weights and measured them with mmpose's own decoding, which differs from this "
    "library's (size factor 32, one pooling size, its own scores). With this library they have not been measured."
)
_MODELS = "https://download.openmmlab.com/mmpose/v1/body_2d_keypoint/dekr/"
_PARTS = "https://download.openmmlab.com/mmpose/pretrain_models/"


@dataclass(frozen=True)
class PublishedWeights:
    """A weights file that others published: a whole model, a scoring net, or an ImageNet backbone to train from.

    Args:
        name: how this library calls it.
        sha256_prefix: the first eight hex digits of the file's SHA-256.
        average_precision: published OKS AP in percent, measured with the publisher's other decoding; None for parts.
        rescoring_net: name of the scoring net that goes with a model.
        parameters: of a model; four bytes each make about the size of the file.
    """

    name: str
    kind: Literal["model", "rescoring net", "backbone"]
    url: str
    sha256_prefix: str
    average_precision: float | None = None
    rescoring_net: str | None = None
    training_data: str = ""
    parameters: int | None = None

    @property
    def filename(self) -> str:
        """The last part of the URL."""
        return self.url.rsplit("/", 1)[1]

    @property
    def address(self) -> str:
        """Where to fetch it: the URL, or the file of this name under DEKRPOSE_MIRROR when that is set."""
        mirror = os.environ.get("DEKRPOSE_MIRROR")
        return f"{mirror.rstrip('/')}/{self.filename}" if mirror else self.url

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
            "ac7c17bf", 68.6, "rescore-coco", "COCO train2017", 29_561_182,
        ),
        PublishedWeights(
            "dekr-w48-coco", "model", _MODELS + "coco/dekr_hrnet-w48_8xb10-140e_coco-640x640_74796c32-20230124.pth",
            "74796c32", 71.4, "rescore-coco", "COCO train2017", 65_684_590,
        ),
        PublishedWeights(
            "dekr-w32-crowdpose", "model",
            _MODELS + "crowdpose/dekr_hrnet-w32_8xb10-300e_crowdpose-512x512_147bae97-20221228.pth",
            "147bae97", 66.3, "rescore-crowdpose", "CrowdPose trainval", 29_522_071,
        ),
        PublishedWeights(
            "dekr-w48-crowdpose", "model",
            _MODELS + "crowdpose/dekr_hrnet-w48_8xb5-300e_crowdpose-640x640_4ea6031e-20230128.pth",
            "4ea6031e", 67.9, "rescore-crowdpose", "CrowdPose trainval", 65_634_631,
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


def fetch(
    published: PublishedWeights,
    *,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """The safetensors file of published weights: from the cache, or downloaded, verified and converted into it.

    A file that was put into the cache's ``downloads`` folder by hand takes the place of the download. Two processes
    that fetch at once wait for each other.

    Raises:
        CheckpointError: the file holds other weights than its name says.
        DekrPoseError: it cannot be fetched or kept; the message says what to do.
    """
    folder = cache.cache_folder(cache_dir)
    ready = None if force_download else _ready(folder, published.name, warn=True)
    if ready is not None:
        return ready
    offline = _offline_reason(local_files_only)
    by_hand = folder / cache.DOWNLOADS / published.filename
    if offline and not by_hand.exists():
        raise DekrPoseError(
            f"{published.name} is not in the cache folder {folder}, and {offline}; {_way_out(folder, published)}"
        )
    try:
        by_hand.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder, published.name):
            ready = None if force_download else _ready(folder, published.name)  # made while this process waited
            return ready or _fetch_and_convert(folder, published)
    except OSError as error:
        raise cache.explain_disk_error(error, folder) or error from error


def _ready(folder: Path, name: str, warn: bool = False) -> Path | None:
    entry = cache.entry(folder, name)
    if entry is None:
        return None
    trouble = cache.problem(entry, thorough=False)
    if trouble is None:
        return entry.path
    if warn:
        logger.warning("%s in the cache is not used: %s; fetching it again", name, trouble)
    return None


def _offline_reason(local_files_only: bool) -> str | None:
    if local_files_only:
        return "local_files_only forbids to download it"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return "HF_HUB_OFFLINE is set, which forbids to download it (`unset HF_HUB_OFFLINE`)"
    return None


def _way_out(folder: Path, published: PublishedWeights) -> str:
    return (
        f"download {published.url} with whatever reaches it (its SHA-256 starts with {published.sha256_prefix}) and "
        f"put the file into {folder / cache.DOWNLOADS}, or set DEKRPOSE_MIRROR to the address of a folder that holds it"
    )


def _lock(folder: Path, name: str) -> AbstractContextManager[object]:
    from filelock import FileLock, Timeout  # torch and huggingface-hub bring it

    lock = FileLock(folder / f".{name}.lock")
    try:
        return lock.acquire(timeout=2)
    except Timeout:
        logger.warning("another process fetches %s into %s; waiting for it", name, folder)
        return lock.acquire()


def _fetch_and_convert(folder: Path, published: PublishedWeights) -> Path:
    by_hand = folder / cache.DOWNLOADS / published.filename
    source, address = by_hand, f"{by_hand.name}, put there by hand"
    if by_hand.exists():
        sha256 = cache.file_sha256(by_hand)
        if not sha256.startswith(published.sha256_prefix):
            raise DekrPoseError(
                f"{by_hand} is not the published file: its SHA-256 starts with {sha256[:8]}, expected "
                f"{published.sha256_prefix}; delete it, or download it again from {published.url}"
            )
    else:
        source, address = by_hand.with_name(f"{by_hand.name}.part"), published.address
        sha256 = download(address, source, published.sha256_prefix, way_out=_way_out(folder, published))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    note = {"url": without_password(address), "sha256": sha256, "bytes": source.stat().st_size, "time": now}
    converted = folder / f".{published.name}.safetensors"
    try:
        _convert(published, source, converted)
        path = cache.keep(folder, published.name, converted, note)
    finally:
        converted.unlink(missing_ok=True)
    if source != by_hand:
        source.unlink()
    return path


def _convert(published: PublishedWeights, source: Path, target: Path) -> None:
    if published.kind == "rescoring net":
        write_rescoring_net(target, read_rescoring_net(source))
        return
    if published.kind == "backbone":
        write_tensors(target, read_tensors(source)[0])
        return
    checkpoint = read_checkpoint(source)
    config = replace(
        checkpoint.config,
        name=published.name,
        license=LICENSE,
        training_data=published.training_data,
        published={"AP": published.average_precision or 0.0},
        published_by=PUBLISHED_BY,
        notes=OTHER_DECODING,
    )
    write_checkpoint(target, config, checkpoint.state_dict)
