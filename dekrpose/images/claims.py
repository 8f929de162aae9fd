"""What a file claims before it is decoded: its kind, its size, and the memory and time that decoding would take."""

from __future__ import annotations

import re
import struct
from io import BytesIO
from typing import Any

import PIL.Image

from dekrpose.errors import ImageError

SMALL_FILE = 2**20
"""Bytes below which a file may claim a quarter of what others may: small files that claim much are traps."""
MAX_PIXELS = 256_000_000
"""Pixels of the largest photo."""
MAX_MEMORY = 2**31
"""Bytes that decoding a photo may take."""
MAX_SCANS = 64
"""Of a JPEG file, each of which costs as much as the whole picture; cameras and programs write up to 12."""

_COST = {"JPEG2000": 20, "AVIF": 20}
_PROGRESSIVE_COST = 10
_USUAL_COST = 7
"""Bytes for each pixel at the worst moment, measured with OpenCV 5 and Pillow 13."""
_USUAL_SCANS = 12

_KINDS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "HEIF")
"""What is decoded at all, by Pillow's names: decoders that nobody needs are what hostile files look for."""
_STARTS = (
    rb"\xff\xd8\xff", rb"\x89PNG\r\n\x1a\n", rb"RIFF.{4}WEBP", rb"GIF8[79]a", rb"BM", rb"II[*+]\0", rb"MM\0[*+]",
    rb"\0\0\0\x0cjP  \r\n\x87\n", rb"\xff\x4f\xff\x51", rb"P[1-6]\s", rb".{4}ftyp.{0,44}avi[fs]",
)  # fmt: skip
_KNOWN_START = re.compile(b"|".join(_STARTS), re.DOTALL)
_HEIC_START = re.compile(rb".{4}ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1)", re.DOTALL)
_READABLE = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, JPEG 2000 or PNM"


def read_header(data: bytes, name: str) -> PIL.Image.Image:
    """The header of an image file that may be decoded.

    Returns:
        Pillow's image, of which nothing is decoded yet.

    Raises:
        ImageError: it is of no known kind, is broken, has more than 8 bits per channel, or claims more than a file of
            its length may.
    """
    _check_kind(data[:64], name)
    if data.startswith(b"\x89PNG"):
        _check_chunks(data, name)
    header = _open(data)
    if header is None:
        raise ImageError(f"{name} is broken or cut off: its header cannot be read; get the file again")
    tags: Any = getattr(header, "tag_v2", {}) if header.format == "TIFF" else {}
    bits = data[24] if header.format == "PNG" else _largest(tags.get(258))
    if bits > 8:
        raise ImageError(f"image must have 8 bits per channel, {name} has {bits}; save it with 8 bits")
    sizes = [header.size, (_largest(tags.get(322)), _largest(tags.get(323))), *_other_sizes(data, header.format, name)]
    _check_size(data, header, max(width * height for width, height in sizes), name)
    return header


def _other_sizes(data: bytes, kind: str | None, name: str) -> list[tuple[int, int]]:
    """(width, height) where a decoder reads them at another place than Pillow."""
    if kind == "PNG":
        return [struct.unpack(">II", data[16:24])]
    if kind == "TIFF":
        _check_tags(data, name)
    found = []
    for start in re.finditer(b"\xff\x4f\xff\x51", data) if kind == "JPEG2000" else ():
        fields = data[start.start() + 8 : start.start() + 42].ljust(34, b"\0")
        width, height, *_, components = struct.unpack(">8IH", fields)
        found.append((width * max(1, components // 3), height))
    return found


def _check_tags(data: bytes, name: str) -> None:
    """Refuse a TIFF that says something twice: decoders do not agree which counts."""
    order = "<" if data[:2] == b"II" else ">"
    is_big = struct.unpack(f"{order}H", data[2:4])[0] == 43
    start = struct.unpack(f"{order}Q" if is_big else f"{order}I", data[8:16] if is_big else data[4:8])[0]
    count_form, entry = (f"{order}Q", 20) if is_big else (f"{order}H", 12)
    length = struct.calcsize(count_form)
    count = struct.unpack(count_form, data[start : start + length].ljust(length, b"\0"))[0]
    places = range(start + length, min(start + length + entry * count, len(data) - 1), entry)
    tags = [data[place : place + 2] for place in places]
    if len(set(tags)) < len(tags):
        raise ImageError(f"{name} is broken: its directory names a tag twice; save it again")


def _largest(value: Any) -> int:
    """The largest number of a tag; 0 where there is none."""
    numbers = value if isinstance(value, tuple) else (value,)
    return max((int(number) for number in numbers if isinstance(number, int | float)), default=0)


def _check_kind(start: bytes, name: str) -> None:
    """Refuse what is not on the list, before any decoder sees it."""
    if _KNOWN_START.match(start):
        return
    if not _HEIC_START.match(start):
        raise ImageError(f"{name} is not an image of a kind that is read; pass a {_READABLE} file")
    if not _reads_heic():
        raise ImageError(
            f"{name} is a HEIC photo, as iPhones take them, which needs a package; run: pip install pillow-heif, or "
            "save it as JPEG"
        )


def _check_chunks(data: bytes, name: str) -> None:
    """Refuse a PNG with a chunk that claims more bytes than follow, which decoders make room for."""
    start = 8
    while start + 8 <= len(data):  # its length, kind, content, checksum
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if end > len(data):
            raise ImageError(f"{name} is broken or cut off: it ends within a chunk; get the file again")
        start = end


def _open(data: bytes) -> PIL.Image.Image | None:
    """What Pillow makes of a header. Not by ``Image.open``, which has a limit of its own and warns before it."""
    PIL.Image.init()
    for kind in _KINDS:
        factory, accept = PIL.Image.OPEN.get(kind, (None, None))
        answer = factory is not None and (accept is None or accept(data[:16]))
        if not answer or isinstance(answer, str):  # why it cannot
            continue
        try:
            return factory(BytesIO(data), "")  # type: ignore[misc]
        except Exception:  # decoders of broken files raise whatever comes to them
            continue
    return None


def _check_size(data: bytes, header: PIL.Image.Image, pixels: int, name: str) -> None:
    share = 4 if len(data) < SMALL_FILE else 1
    scans = data.count(b"\xff\xda") if header.format in ("JPEG", "MPO") else 1
    cost = _COST.get(header.format or "", _USUAL_COST if scans == 1 else _PROGRESSIVE_COST)
    most = min(MAX_PIXELS, MAX_MEMORY // cost) // share
    if scans > _USUAL_SCANS:
        most = most * _USUAL_SCANS // scans
    if pixels > most or scans > MAX_SCANS:
        width, height = header.size
        raise ImageError(
            f"{name} has {width} x {height} pixels in {len(data):,} bytes and {scans} scans, more than the "
            f"{most / 1e6:.0f} million that such a file may have; make it smaller first"
        )


def _reads_heic() -> bool:
    """Whether Pillow reads HEIC, perhaps by the package pillow-heif, which is asked to tell it how."""
    if "HEIF" not in PIL.Image.OPEN:
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            return False
        register_heif_opener()
    return "HEIF" in PIL.Image.OPEN
