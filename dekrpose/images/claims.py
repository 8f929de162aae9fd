"""What a file claims before it is decoded: its kind, its size, and the memory and time that decoding would take."""

from __future__ import annotations

import math
import re
import struct
from contextlib import suppress
from io import BytesIO
from typing import Any, NamedTuple

import PIL.Image

from dekrpose.errors import ImageError
from dekrpose.images.av1 import stream_claims
from dekrpose.images.resampling import MAX_ASPECT

SMALL_FILE = 2**20
"""Bytes below which a file may claim a quarter of what others may: small files that claim much are traps."""
MAX_PIXELS = 256_000_000
"""Pixels of the largest photo."""
MAX_MEMORY = 2**31
"""Bytes that decoding a photo may take."""
MAX_SCANS = 64
"""Of a JPEG file, each of which costs as much as the whole picture; cameras and programs write up to 12."""

_MAX_SIDE = 2**20
_MAX_TILES = 4096
"""Of a JPEG 2000, times its components: each takes kilobytes, however small."""
_MAX_PACKETS = 5_000_000
"""Of a JPEG 2000 whose tiles have one for each component, resolution and layer, however small."""
_BLOCK_COST, _PACKET_COST = 600, 5
"""Bytes for each code-block of a JPEG 2000, and for each of its packets, which take few, but time."""
_MAX_COMMENTS = 1000
"""Of a PNM in plain text, of which Pillow copies the rest for each."""
_MAX_SEGMENTS = 10_000
"""Of a JPEG; cameras write some dozens, and a profile or a preview up to some hundreds."""
_MAX_SAMPLES = 4
_SPARE_PIXELS = 4_000_000
"""That the cells of an AVIF's grid may have beyond its size."""

_USUAL_COST = 7
_COST = {"JPEG2000": 40, "AVIF": 40}
_ANIMATED_COST = 12
_PROGRESSIVE_COST = 10
_PROGRESSIVE_CMYK_COST = 12
"""Bytes for each pixel at the worst moment, measured with OpenCV 5 and Pillow 13."""
_USUAL_SCANS = 12

_KINDS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "HEIF")
"""What is decoded at all, by Pillow's names: decoders that nobody needs are what hostile files look for."""
_STARTS = (
    rb"\xff\xd8\xff", rb"\x89PNG\r\n\x1a\n", rb"RIFF.{4}WEBP", rb"GIF8[79]a", rb"BM", rb"II[*+]\0", rb"MM\0\*",
    rb"\0\0\0\x0cjP  \r\n\x87\n", rb"\xff\x4f\xff\x51", rb"P[1-6][\s#]", rb".{4}ftyp.{0,44}avi[fs]",
)  # fmt: skip
_KNOWN_START = re.compile(b"|".join(_STARTS), re.DOTALL)
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd8]")
"""A segment's beginning; those that have no content, and what stands for a byte of the picture, are none."""
_PROGRESSIVE_MARKERS = (b"\xff\xc2", b"\xff\xca")
_CODING = re.compile(
    rb"\xff(?=(?:\x52\0[\x0c-\x2d]([\0-\7]).(..)[\0\1]|\x53\0[\x09-\x2a].([\0\1]))"
    rb"([\0-\x20])([\0-\x08])([\0-\x08])..(.{0,33}))",
    re.DOTALL,
)
"""How a JPEG 2000 codes its picture, or a component: flags, layers, levels, sizes of code-blocks and precincts."""
_HEIC_START = re.compile(rb".{4}ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1)", re.DOTALL)
_FILM_START = re.compile(rb".{4}ftyp(?!avif|avis)|RIFF.{4}AVI |\x1aE\xdf\xa3", re.DOTALL)
"""MP4 and MOV, AVI, Matroska and WebM."""
_READABLE = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, JPEG 2000 or PNM"


class Claim(NamedTuple):
    """What a file says of itself: most pixels at any place, bytes of memory for each, and scans."""

    pixels: int
    cost: int = _USUAL_COST
    scans: int = 1


def read_header(data: bytes, name: str) -> PIL.Image.Image:
    """The header of an image file that may be decoded.

    Returns:
        Pillow's image, of which nothing is decoded yet.

    Raises:
        ImageError: it is of no known kind, is broken, has more than 8 bits per channel, or claims more than a file of
            its length may.
    """
    if not _KNOWN_START.match(data):
        _check_heic(data, name)
    prepare = _BEFORE_OPENING.get(data[:2])
    header = _open(data if prepare is None else prepare(data, name))
    if header is None:
        raise ImageError(f"{name} is broken or cut off: its header cannot be read; get the file again")
    claim = _CLAIMS.get(header.format or "", _usual_claim)(data, header, name)
    _check_size(data, header, claim, name)
    return header


def _usual_claim(_data: bytes, header: PIL.Image.Image, _name: str) -> Claim:
    return Claim(header.width * header.height, _COST.get(header.format or "", _USUAL_COST))


def _animated_claim(data: bytes, header: PIL.Image.Image, _name: str) -> Claim:
    try:  # a GIF is opened again, because it looks at the next frame
        animated = getattr(_open(data) if header.format == "GIF" else header, "is_animated", False)
    except Exception:  # decoders of broken files raise whatever comes to them
        animated = True
    return Claim(header.width * header.height, _ANIMATED_COST if animated else _USUAL_COST)


def _jpeg_claim(data: bytes, header: PIL.Image.Image, _name: str) -> Claim:
    scans, is_kept = _scans(data, len(header.getbands()))
    progressive = _PROGRESSIVE_CMYK_COST if header.mode == "CMYK" else _PROGRESSIVE_COST
    return Claim(header.width * header.height, progressive if is_kept else _USUAL_COST, scans)


def _png_claim(data: bytes, header: PIL.Image.Image, name: str) -> Claim:
    _check_bits(data[24], name)
    width, height = struct.unpack(">II", data[16:24])  # as OpenCV reads it
    pixels, cost, _ = _animated_claim(data, header, name)
    return Claim(max(pixels, width * height), cost)


def _tiff_claim(data: bytes, header: PIL.Image.Image, name: str) -> Claim:
    _check_tags(data, name)
    tags: Any = header.tag_v2  # type: ignore[attr-defined]
    _check_bits(_largest(tags.get(258)), name)
    if _largest(tags.get(277)) > _MAX_SAMPLES:
        raise ImageError(f"{name} has {_largest(tags.get(277))} samples per pixel; save it as an RGB image")
    return Claim(max(header.width * header.height, _largest(tags.get(322)) * _largest(tags.get(323))))


def _jpeg_2000_claim(data: bytes, header: PIL.Image.Image, name: str) -> Claim:
    """Its size stands in its codestream, too, which is what decoders go by."""
    most, cost, _ = _usual_claim(data, header, name)
    packets, blocks = _coding(data)
    samples = 1
    for start in re.finditer(b"\xff\x4f\xff\x51", data):
        fields = data[start.start() + 8 : start.start() + 42].ljust(34, b"\0")
        width, height, _, _, tile_width, tile_height, _, _, components = struct.unpack(">8IH", fields)
        if not tile_width or not tile_height:
            raise ImageError(f"{name} is broken: its tiles have no size; get the file again")
        if components > _MAX_SAMPLES:
            raise ImageError(f"{name} has {components} samples per pixel; save it as an RGB image")
        tiles = -(-width // tile_width) * -(-height // tile_height)
        if tiles * components > _MAX_TILES or tiles * components * packets > _MAX_PACKETS:
            raise ImageError(
                f"{name} has {tiles:,} tiles of {components} components in {packets:,} layers and resolutions, more "
                "than are read; save it again"
            )
        most, samples = max(most, width * height), max(samples, components)
    return Claim(most, cost + int(samples * blocks * (_BLOCK_COST + _PACKET_COST * packets)))


def _coding(data: bytes) -> tuple[int, float]:
    """What a JPEG 2000 says of layers times resolutions, and of code-blocks for each pixel of a component, at most."""
    layers, resolutions, blocks = 1, 1, 0.0
    for found in _CODING.finditer(data):
        flags, its_layers, own_flags, (levels,), (wide,), (high,), precincts = found.groups(b"\0")
        if not max(flags, own_flags)[0] & 1:
            precincts = b"\xff" * 33
        sizes = precincts[levels::-1]  # each resolution, the largest first, has a quarter of the one before
        ends = [min(wide + 2, size % 16 - 1) + min(high + 2, size // 16 - 1) for size in sizes]
        blocks = max(blocks, sum(2.0 ** -(2 * level + end) for level, end in enumerate(ends)))
        layers, resolutions = max(layers, int.from_bytes(its_layers, "big")), max(resolutions, levels + 1)
    return layers * resolutions, blocks


def _avif_claim(data: bytes, header: PIL.Image.Image, name: str) -> Claim:
    """Its streams are refused if they are far larger than their container says."""
    try:
        pixels, is_deep = stream_claims(data)
    except ValueError as error:
        raise ImageError(f"{name} is broken: {error}; save it again") from error
    if pixels > 4 * header.width * header.height + _SPARE_PIXELS:
        raise ImageError(
            f"{name} is broken: it says {header.width} x {header.height} pixels, but its streams have "
            f"{pixels / 1e6:.0f} million; save it again"
        )
    if is_deep:
        raise ImageError(f"image must have 8 bits per channel, {name} has 10 or more; save it with 8 bits")
    most, cost, _ = _usual_claim(data, header, name)
    return Claim(max(most, pixels // 2), cost)  # colours and alpha


_CLAIMS = {
    "JPEG": _jpeg_claim, "MPO": _jpeg_claim, "PNG": _png_claim, "WEBP": _animated_claim, "GIF": _animated_claim,
    "TIFF": _tiff_claim, "JPEG2000": _jpeg_2000_claim, "AVIF": _avif_claim,
}  # fmt: skip
"""What files claim, by Pillow's names of their kinds; the others' claims are usual."""


def _check_bits(bits: int, name: str) -> None:
    if bits > 8:
        raise ImageError(f"image must have 8 bits per channel, {name} has {bits}; save it with 8 bits")


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
    return max((int(each) for each in numbers if isinstance(each, int | float) and math.isfinite(each)), default=0)


def _check_heic(data: bytes, name: str) -> None:
    """Refuse what is not on the list, before any decoder sees it; HEIC is taken where a package reads it."""
    if not _HEIC_START.match(data):
        film = "; films go through estimate_video and dekrpose video" if _FILM_START.match(data) else ""
        raise ImageError(f"{name} is not an image of a kind that is read; pass a {_READABLE} file{film}")
    if not _reads_heic():
        raise ImageError(
            f"{name} is a HEIC photo, as iPhones take them, which needs a package; run: pip install pillow-heif, or "
            "save it as JPEG"
        )


def _checked_chunks(data: bytes, name: str) -> bytes:
    """Refuse a PNG with a chunk that claims more bytes than follow, which decoders make room for.

    What comes after its last chunk is not looked at: some programs keep things of their own there.
    """
    if data[12:16] != b"IHDR":  # decoders look elsewhere for its size
        raise ImageError(f"{name} is broken: it does not begin with its size; save it again")
    start = 8
    while start + 8 <= len(data):  # its length, kind, content, checksum
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if end > len(data):
            raise ImageError(f"{name} is broken or cut off: it ends within a chunk; get the file again")
        if data[start + 4 : start + 8] == b"IEND":
            break
        start = end
    return data


def _checked_comments(data: bytes, name: str) -> bytes:
    """A PNM as Pillow takes it, which wants a space before a comment."""
    if data[1:2] in b"123" and data.count(b"#") > _MAX_COMMENTS:
        raise ImageError(f"{name} has more than {_MAX_COMMENTS:,} comments; save it again")
    return data[:2] + b"\n" + data[2:] if data[2:3] == b"#" else data


_BEFORE_OPENING = {b"\x89P": _checked_chunks, **{b"P%d" % kind: _checked_comments for kind in range(1, 7)}}
"""What files go through before Pillow reads their header, by their first two bytes."""


def _open(data: bytes) -> PIL.Image.Image | None:
    """What Pillow makes of a header. Not by ``Image.open``, which has a limit of its own and warns before it."""
    PIL.Image.init()
    for kind in _KINDS:
        factory, accept = PIL.Image.OPEN.get(kind, (None, None))
        if factory is not None and (accept is None or accept(data[:16]) is True):  # a text says why it cannot
            with suppress(Exception):  # decoders of broken files raise whatever comes to them
                return factory(BytesIO(data), "")
    return None


def _check_size(data: bytes, header: PIL.Image.Image, claim: Claim, name: str) -> None:
    share = 4 if len(data) < SMALL_FILE else 1
    most = min(MAX_PIXELS, MAX_MEMORY // claim.cost) * _USUAL_SCANS // (share * max(_USUAL_SCANS, claim.scans))
    width, height = header.size
    if max(width, height) > min(_MAX_SIDE, MAX_ASPECT * min(width, height)):
        raise ImageError(f"{name} is {width} x {height} pixels, longer than {MAX_ASPECT}:1 or {_MAX_SIDE:,}; cut it up")
    if claim.pixels > most or claim.scans > MAX_SCANS:
        raise ImageError(
            f"{name} has {width} x {height} pixels in {len(data):,} bytes and {claim.scans} scans, more than the "
            f"{most / 1e6:.0f} million that such a file may have; make it smaller first"
        )


def _scans(data: bytes, components: int) -> tuple[int, bool]:
    """How many scans a JPEG has up to its end, and whether decoders keep the whole picture's coefficients.

    They do for progressive ones, and where a scan has not every component, even if no other scan follows. What cameras
    append, such as a film, is not looked at.
    """
    scans, is_kept, place = 0, False, 2
    for _ in range(_MAX_SEGMENTS):
        marker = _JPEG_MARKER.search(data, place)
        if marker is None or marker.group() == b"\xff\xd9":
            return max(scans, 1), is_kept
        is_kept |= marker.group() in _PROGRESSIVE_MARKERS
        if marker.group() == b"\xff\xda":
            scans += 1
            is_kept |= scans > 1 or data[marker.end() + 2 : marker.end() + 3] != bytes([components])
        place = marker.end() + max(2, int.from_bytes(data[marker.end() : marker.end() + 2], "big"))
    return _MAX_SEGMENTS, True


def _reads_heic() -> bool:
    """Whether Pillow reads HEIC, perhaps by the package pillow-heif, which is asked to tell it how."""
    if "HEIF" not in PIL.Image.OPEN:
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            return False
        register_heif_opener()
    return "HEIF" in PIL.Image.OPEN
