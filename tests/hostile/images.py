"""Hostile pictures: damaged ones of every kind, wild shapes, and large ones without content."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import PIL.Image

from dekrpose.errors import ImageError
from tests.hostile.kind import TESTS, Kind, damaged


def _saved(picture: PIL.Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


_WAYS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("RGB", "JPEG", {}), ("RGB", "JPEG", {"progressive": True, "subsampling": 0}), ("L", "JPEG", {}),
    ("CMYK", "JPEG", {}), ("RGB", "PNG", {}), ("RGBA", "PNG", {}), ("P", "PNG", {}), ("1", "PNG", {}),
    ("I;16", "PNG", {}), ("RGB", "WEBP", {}), ("RGBA", "WEBP", {"lossless": True}), ("P", "GIF", {}),
    ("RGB", "BMP", {}), ("P", "BMP", {}), ("1", "BMP", {}), ("RGB", "TIFF", {}),
    *((mode, "TIFF", {"compression": f"tiff_{how}"}) for mode in ("RGB", "CMYK") for how in ("lzw", "adobe_deflate")),
    ("1", "TIFF", {"compression": "group4"}), ("F", "TIFF", {}), ("LAB", "TIFF", {}),
    ("RGB", "TIFF", {"big_tiff": True}),
    ("RGB", "JPEG2000", {}), ("L", "JPEG2000", {"no_jp2": True}), ("RGB", "AVIF", {"speed": 10}), ("RGB", "PPM", {}),
    ("L", "PPM", {}), ("1", "PPM", {}), ("RGB", "MPO", {}),
)  # fmt: skip
_SIZE = (61, 47)
_FLAT = (("RGB", "PNG"), ("1", "PNG"), ("L", "JPEG"), ("RGB", "JPEG"), ("RGB", "WEBP"), ("P", "GIF"), ("RGB", "TIFF"))


@cache
def _pictures() -> list[tuple[bytes, tuple[int, ...]]]:
    """A small photo in every way that Pillow writes, and the numbers of its size."""
    photo = PIL.Image.open(TESTS.parent / "examples" / "photographer.jpg").convert("RGB").resize(_SIZE)
    found = []
    for mode, kind, options in _WAYS:
        picture = photo.convert("I").convert("I;16") if mode == "I;16" else photo
        if mode == "LAB":
            picture = PIL.Image.frombytes("LAB", photo.size, photo.tobytes())
        elif mode != "I;16":
            picture = photo.convert(mode)
        try:
            found.append((_saved(picture, kind, **options), photo.size))
        except (KeyError, OSError):  # an older Pillow
            continue
    frames = [photo.rotate(angle) for angle in (0, 90)]
    for kind in ("GIF", "WEBP", "PNG"):
        found.append((_saved(frames[0], kind, save_all=True, append_images=frames), photo.size))
    return found + [(path.read_bytes(), (1, 80, 331, 1800)) for path in sorted((TESTS / "cases" / "image").iterdir())]


def make_image(dice: random.Random) -> bytes:
    """A damaged picture, one of a wild shape, or a large one without content."""
    chance = dice.random()
    if chance < 0.02:
        long = 2 ** dice.uniform(0, 16)
        size = (max(1, int(2 ** dice.uniform(0, 5))), int(long))
        return _flat(size[:: dice.choice((1, -1))], dice)
    if chance < 0.0205:  # these take a second and more
        side = int(2 ** dice.uniform(10, 13.1))
        return _flat((side, int(side * 2 ** dice.uniform(-0.5, 0.5))), dice)
    if chance < 0.03:
        return dice.choice(_lies())(int(2 ** dice.uniform(6, 13)), dice)
    data, fields = dice.choice(_pictures())
    data = damaged(data, dice, fields)
    if dice.random() < 0.05:
        data = data[: dice.randrange(len(data) + 1)] + dice.choice(_pictures())[0]
    return _with_checksums(data) if data.startswith(b"\x89PNG") and dice.random() < 0.8 else data


def _lies() -> list[Callable[[int, random.Random], bytes]]:
    """Small pictures by their container, with something of another size or of any number in it."""
    return [
        avif_that_lies,
        webp_that_lies,
        tiff_that_lies,
        gif_that_lies,
        png_of_many_chunks,
        jpeg_2000_of_small_pieces,
    ]


def avif_that_lies(side: int, dice: random.Random) -> bytes:
    try:
        data = _saved(PIL.Image.new(dice.choice(("RGB", "RGBA")), (side, side)), "AVIF", speed=10)
    except (KeyError, OSError):  # an older Pillow
        return b""
    return data.replace(struct.pack(">II", side, side), struct.pack(">II", 64, 64))


def webp_that_lies(side: int, dice: random.Random) -> bytes:
    inner = _saved(PIL.Image.new("RGB", (side, side)), "WEBP", lossless=dice.random() < 0.5)[12:]
    canvas = (63).to_bytes(3, "little") * 2
    flags = dice.choice((0, 2))
    if flags:
        frame = bytes(6) + canvas + bytes(4) + inner
        inner = b"ANIM" + struct.pack("<I6x", 6) + b"ANMF" + struct.pack("<I", len(frame)) + frame
    body = b"WEBPVP8X" + struct.pack("<II", 10, flags) + canvas + inner
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tiff_that_lies(side: int, dice: random.Random) -> bytes:
    """64 x 64 pixels in a single strip, which is a whole picture of a kind that TIFF may hold."""
    number, kind = dice.choice(((6, "JPEG"), (7, "JPEG"), (50001, "WEBP"), (34712, "JPEG2000")))
    inner = _saved(PIL.Image.new("RGB", (min(side, 3000), side)), kind)
    tags = {256: 64, 257: 64, 259: number, 262: 6 if kind == "JPEG" else 2, 277: 3, 278: 64, 279: len(inner)}
    tags |= {273: 14 + 12 * (len(tags) + 2)}
    entries = {tag: struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items()}
    entries[258] = struct.pack("<HHIHH", 258, 3, 1, 8, 0)
    return (
        b"II*\0"
        + struct.pack("<IH", 8, len(entries))
        + b"".join(entries[tag] for tag in sorted(entries))
        + bytes(4)
        + inner
    )


def gif_that_lies(side: int, dice: random.Random) -> bytes:
    data = _saved(PIL.Image.new("P", (side, side)), "GIF")
    return data[:6] + struct.pack("<HH", 64, 64) + data[10:]


def png_of_many_chunks(side: int, dice: random.Random) -> bytes:
    packed = zlib.compress(bytes(side * 1000))
    kind, content = dice.choice(
        ((b"tEXt", b"a\0"), (b"abCd", b""), (b"IDAT", b""), (b"zTXt", b"a\0\0" + packed), (b"iCCP", b"a\0\0" + packed))
    )
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    data = _saved(PIL.Image.new("RGB", (64, 64)), "PNG")
    return data[:33] + chunk * (900_000 // len(chunk)) + data[33:]


def jpeg_2000_of_small_pieces(side: int, dice: random.Random) -> bytes:
    """Code-blocks and precincts of a few pixels, or very many layers."""
    precinct = dice.choice((0, 128))
    options = {"precinct_size": (precinct, precinct)} if precinct else {}
    data = bytearray(_saved(PIL.Image.new("RGB", (min(side, 3600), side)), "JPEG2000", no_jp2=True, **options))
    start = data.index(b"\xff\x52")
    data[start + 6 : start + 8] = dice.choice((1, 1, 20, 65_535)).to_bytes(2, "big")
    data[start + 10 : start + 12] = bytes([dice.randrange(5)]) * 2
    if precinct:
        data[start + 14 : start + 20] = bytes([dice.randrange(1, 8) * 17]) * 6
    return bytes(data)


def _flat(size: tuple[int, int], dice: random.Random) -> bytes:
    mode, kind = dice.choice(_FLAT)
    options = {"progressive": dice.random() < 0.5, "quality": 5} if kind == "JPEG" else {}
    options |= {"compression": "tiff_adobe_deflate"} if kind == "TIFF" else {"lossless": True} if kind == "WEBP" else {}
    try:
        return _saved(PIL.Image.new(mode, size), kind, **options)
    except (OSError, ValueError):  # larger than the format can say
        return b""


def _with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks are sound, so that what is in them is looked at."""
    content, start = bytearray(data), 8
    while start + 12 <= len(content):
        end = start + 8 + int.from_bytes(content[start : start + 4], "big")
        content[end : end + 4] = (
            struct.pack(">I", zlib.crc32(content[start + 4 : end])) if end + 4 <= len(content) else b""
        )
        start = end + 4
    return bytes(content)


def use_images() -> Callable[[bytes], Any]:
    from dekrpose import PoseEstimator

    estimator = PoseEstimator.from_pretrained(device="cpu")

    def use(data: bytes) -> None:
        height, width = estimator.estimate(data, input_size=64).image_size
        if max(height, width) > 2 * min(height, width) and zlib.crc32(data) % 4 == 0:
            estimator.estimate(data)  # at its own size the network takes more than for other photos, and long

    estimator.warmup()
    return use


def harmless_image() -> bytes:
    return _saved(PIL.Image.new("RGB", _SIZE), "PNG")


IMAGES = Kind(make_image, use_images, harmless_image, (ImageError,), count=20_000, seconds=5, mebibytes=512)
