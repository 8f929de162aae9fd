"""Checks of the folders that keep weights, and of the weights in them."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from dekrpose.doctor.findings import WINDOWS, Finding, export, quote
from dekrpose.errors import CheckpointError
from dekrpose.hub import cache

ENOUGH = 1_000_000_000
"""Bytes that must be free: the largest published model, downloaded and converted, takes half of them."""
DAY = 86_400


def hub_cache(environment: Mapping[str, str]) -> tuple[Path, str]:
    """The folder in which huggingface_hub keeps repositories, and the variable that moves it."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environment.get(name):
            return _expanded(environment[name]), name
    if environment.get("HF_HOME"):
        return _expanded(environment["HF_HOME"]) / "hub", "HF_HOME"
    return _expanded(environment.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface" / "hub", "HF_HOME"


def _expanded(value: str) -> Path:
    return Path(os.path.expandvars(value)).expanduser()


def check_folder(
    check: str, folder: Path, variable: str, free_bytes: Callable[[Path], int] = cache.free_bytes
) -> list[Finding]:
    """Whether a folder, or the one that it will be made in, can be written and has room.

    ``check`` is what to call it in the report, ``variable`` the environment variable that moves it elsewhere.
    """
    whole = folder.absolute()
    place = next(path for path in (whole, *whole.parents) if os.path.exists(path))  # noqa: PTH110 - Path may raise
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
        free = free_bytes(folder)
    except OSError as error:
        reason = f"{place} is a file" if place.is_file() else error.strerror or str(error)
        message = f"{folder} cannot be written: {reason}"
        return [Finding(check, "fault", message, _make_writable(place, error, variable))]
    if free < ENOUGH:
        message = f"{folder} has {free / 1e9:.2f} GB left, expected 1 GB: make room, or move it with {variable}"
        return [Finding(check, "warning", message)]
    return [Finding(check, "ok", f"{folder}, {free / 1e9:,.0f} GB free")]


def _make_writable(place: Path, error: OSError, variable: str) -> str:
    if isinstance(error, PermissionError) and not WINDOWS and place.stat().st_uid == os.getuid():
        return f"chmod -R u+rwX {quote(str(place))}"
    home = os.path.expanduser("~")  # noqa: PTH111 - without one, Path raises
    parent = home if os.access(home, os.W_OK) else tempfile.gettempdir()
    return export(variable, str(Path(parent, "huggingface" if variable.startswith("H") else "dekrpose-cache")))


def check_bundled(weights: Path, repair: str) -> list[Finding]:
    """Whether the model inside the package can be read; ``repair`` brings the package's files back."""
    from dekrpose.checkpoints import read_checkpoint

    if not weights.is_file():
        return [Finding("tiny", "fault", f"the bundled model is missing, expected {weights}", repair)]
    try:
        checkpoint = read_checkpoint(weights)
    except CheckpointError as error:
        return [Finding("tiny", "fault", f"the bundled model cannot be read: {error}", repair)]
    size = weights.stat().st_size / 1e6
    return [Finding("tiny", "ok", f"the bundled model, {size:.1f} MB, {len(checkpoint.config.skeleton)} keypoints")]


def check_cached_weights(folder: Path, repair: str) -> list[Finding]:
    """Whether downloaded weights are whole and current, with no unfinished file beside them; else ``repair`` helps."""
    entries = cache.entries(folder)
    problems = [(entry.name, cache.problem(entry)) for entry in entries]
    findings = [
        Finding("weights", "fault", f"{name} in the cache is not used: {problem}", repair)
        for name, problem in problems
        if problem is not None
    ]
    leftovers = [path for path in cache.leftovers(folder) if path.is_file()]
    if leftovers:
        size = sum(path.stat().st_size for path in leftovers) / 1e6
        names = ", ".join(path.name for path in leftovers[:3]) + (", ..." if len(leftovers) > 3 else "")
        message = f"{len(leftovers)} unfinished ({size:,.1f} MB), unless a download runs now: {names}"
        findings.append(Finding("weights", "warning", message, repair))
    if findings:
        return findings
    names = ", ".join(entry.name for entry in entries)
    return [Finding("weights", "ok", f"whole in the cache: {names}" if names else "none downloaded yet")]


def check_hub_downloads(folder: Path) -> list[Finding]:
    """Whether downloads of repositories into the hub's cache broke off and were never taken up again."""
    border = time.time() - DAY
    stats = [path.stat() for path in folder.glob("*/blobs/*.incomplete")]
    sizes = [stat.st_size for stat in stats if stat.st_mtime < border]
    if not sizes:
        return []
    message = f"{folder} holds downloads that broke off over a day ago: {len(sizes)}, {sum(sizes) / 1e6:,.1f} MB"
    repair = f"find {quote(str(folder))} -name '*.incomplete' -mmin +1440 -delete"
    return [Finding("hub cache", "warning", message, f'del /s /q "{folder}\\*.incomplete"' if WINDOWS else repair)]
