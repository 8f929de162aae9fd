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
_FLAT = (("RGB", "PNG"), ("1", "PNG"), ("L", "JPEG"), ("RGB", "JPEG"), ("RGB", "WEBP"), ("P", "GIF"), ("RGB", "TIFF"))


@cache
def _pictures() -> list[tuple[bytes, tuple[int, ...]]]:
    """A small photo in every way that Pillow writes, and the numbers of its size."""
    photo = PIL.Image.open(TESTS.parent / "examples" / "photographer.jpg").convert("RGB").resize((61, 47))
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
    data, fields = dice.choice(_pictures())
    data = damaged(data, dice, fields)
    if dice.random() < 0.05:
        data = data[: dice.randrange(len(data) + 1)] + dice.choice(_pictures())[0]
    return _with_checksums(data) if data.startswith(b"\x89PNG") and dice.random() < 0.8 else data


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
    estimator.warmup(input_size=64)
    return lambda data: estimator.estimate(data, input_size=64)


IMAGES = Kind(make_image, use_images, (ImageError,), count=20_000, seconds=5, mebibytes=512)
