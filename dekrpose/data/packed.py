"""Zip and gzip files, which may unpack to a thousand times their size."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

_MOST_UNPACKED, _MOST_TIMES = 2**24, 32
"""Bytes, or times the packed size, whichever is larger."""


def _most_unpacked(packed: int) -> int:
    return max(_MOST_UNPACKED, _MOST_TIMES * packed)


def check_unpacked(packed: int, unpacked: int) -> None:
    """ValueError if so many bytes are too much for so many packed ones."""
    most = _most_unpacked(packed)
    if unpacked > most:
        raise ValueError(f"it unpacks to more than {most:,} bytes, as labels and photos do not; unpack it yourself")


def open_zip(path: Path) -> zipfile.ZipFile:
    """A zip file; ValueError if its members are too large together."""
    archive = zipfile.ZipFile(path)
    try:
        check_unpacked(path.stat().st_size, sum(member.file_size for member in archive.infolist()))
    except ValueError:
        archive.close()
        raise
    return archive


def gunzip(data: bytes) -> bytes:
    """What gzip packed; ValueError if it is too much, and what gzip raises if it is damaged."""
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        content = file.read(_most_unpacked(len(data)) + 1)
    check_unpacked(len(data), len(content))
    return content
