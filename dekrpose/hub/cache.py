"""The folder that keeps downloaded weights: converted once, each beside a note of where it came from."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dekrpose.errors import DekrPoseError

CONVERSION = 1
"""Raised whenever converted weights change: older ones are stale then, and made again."""
DOWNLOADS = "downloads"
"""Folder inside the cache for unfinished downloads, and for files that were fetched by hand."""
_WEIGHTS, _NOTE, _PARTIAL = ".safetensors", ".json", ".part"
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT}


@dataclass(frozen=True)
class Entry:
    """Weights in the cache: how the library calls them, the safetensors file, its bytes.

    ``provenance``: url, sha256 and bytes of the download; sha256 and bytes of the file; conversion; when; by which
    version. Empty when the note is missing or unreadable.
    """

    name: str
    path: Path
    size: int
    provenance: dict[str, Any]


def cache_folder(cache_dir: str | Path | None = None) -> Path:
    """Where downloaded weights are kept: the argument, else DEKRPOSE_CACHE, else the user's cache folder.

    DekrPoseError if that is below the user's home, and there is none.
    """
    try:
        if cache_dir is not None:
            return Path(cache_dir).expanduser()
        if os.environ.get("DEKRPOSE_CACHE"):
            return Path(os.environ["DEKRPOSE_CACHE"]).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dekrpose"
    except RuntimeError as error:
        raise DekrPoseError(
            "there is no place for downloads, because this user has no home folder; set the environment variable "
            "DEKRPOSE_CACHE to a folder that can be written"
        ) from error


def entry(folder: Path, name: str) -> Entry | None:
    """What the cache holds under a name, whole or not; None when it holds nothing."""
    path = folder / f"{name}{_WEIGHTS}"
    try:
        size = path.stat().st_size
    except OSError:
        return None
    try:
        provenance = json.loads(_note(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        provenance = {}
    return Entry(name, path, size, provenance if isinstance(provenance, dict) else {})


def entries(folder: Path) -> list[Entry]:
    """Everything in the cache, by name."""
    found = (entry(folder, path.stem) for path in sorted(folder.glob(f"[!.]*{_WEIGHTS}")))
    return [item for item in found if item is not None]


def problem(item: Entry, *, thorough: bool = True) -> str | None:
    """What is wrong with weights in the cache; None when they are as they were written.

    ``thorough`` reads the whole file and compares its hash, not its size alone.
    """
    note = item.provenance
    if not note:
        return "nothing says where it came from, so it may be unfinished"
    if note.get("conversion") != CONVERSION:
        return "an older dekrpose converted it"
    if item.size != note.get("bytes"):
        return f"it has {item.size:,} bytes instead of {note.get('bytes', 0):,}"
    if thorough and file_sha256(item.path) != note.get("sha256"):
        return "its content changed: the SHA-256 is not the recorded one"
    return None


def keep(folder: Path, name: str, written: Path, download: dict[str, Any]) -> Path:
    """Move a written file into the cache and note where it came from.

    The note comes last: weights without one are not used.
    """
    from dekrpose import __version__

    path = folder / f"{name}{_WEIGHTS}"
    note = {
        "name": name, "download": download, "sha256": file_sha256(written), "bytes": written.stat().st_size,
        "conversion": CONVERSION, "dekrpose": __version__,
    }  # fmt: skip
    _note(path).unlink(missing_ok=True)
    written.replace(path)
    partial = _note(path).with_suffix(f"{_NOTE}{_PARTIAL}")
    partial.write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
    partial.replace(_note(path))
    return path


def leftovers(folder: Path) -> list[Path]:
    """Unfinished downloads and conversions."""
    inside = folder / DOWNLOADS
    return sorted([*inside.glob(f"*{_PARTIAL}"), *folder.glob(f"*{_PARTIAL}"), *folder.glob(f".*{_WEIGHTS}*")])


def remove(item: Entry) -> None:
    """Delete weights from the cache."""
    _note(item.path).unlink(missing_ok=True)
    item.path.unlink(missing_ok=True)


def _note(weights: Path) -> Path:
    return weights.with_suffix(_NOTE)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def explain_disk_error(error: OSError, folder: Path, needed: int | None = None) -> DekrPoseError | None:
    """An error in words with the way out when a disk is full or a folder not writable; None for other errors."""
    way_out = "set DEKRPOSE_CACHE to a folder elsewhere, or pass cache_dir"
    if error.errno in DISK_FULL:
        amount = f"{needed / 1e6:,.0f} MB are needed" if needed else "more is needed"
        return DekrPoseError(
            f"the disk of {folder} is full: {free_bytes(folder) / 1e6:,.0f} MB are free and {amount}; make room "
            f"(`dekrpose models --clean --all` empties the cache), or {way_out}"
        )
    if error.errno in _NOT_WRITABLE:
        return DekrPoseError(f"the cache folder {folder} cannot be written ({error.strerror}); {way_out}")
    return None


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk of a folder that need not exist yet; a quota may allow fewer."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
