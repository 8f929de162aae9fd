"""Zip and gzip files, which may unpack to a thousand times their size."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

_MOST_UNPACKED, _MOST_TIMES = 2**24, 32
"""Bytes, or times the packed size, whichever is larger."""
_TOO_MUCH = "it unpacks to more than {:,} bytes, as labels and photos do not; unpack it yourself if that is right"


def _most(packed: int) -> int:
    """Bytes that so many packed ones may become."""
    return max(_MOST_UNPACKED, _MOST_TIMES * packed)


def open_zip(path: Path) -> zipfile.ZipFile:
    """A zip file; ValueError if its members are too large together."""
    archive, most = zipfile.ZipFile(path), _most(path.stat().st_size)
    if sum(member.file_size for member in archive.infolist()) > most:
        archive.close()
        raise ValueError(_TOO_MUCH.format(most))
    return archive


def gunzip(data: bytes) -> bytes:
    """What gzip packed; ValueError if it is too much, and what gzip raises if it is damaged."""
    most = _most(len(data))
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(_TOO_MUCH.format(most))
    return content
