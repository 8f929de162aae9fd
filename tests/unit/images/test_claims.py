"""What a file claims is believed only as far as its length goes, and before memory is taken for it."""

from __future__ import annotations

import io
import os
import random
import struct
import zlib
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import PIL.features
import PIL.Image
import pytest

from dekrpose.errors import ImageError
from dekrpose.images import MAX_PIXELS, load
from dekrpose.images.av1 import stream_claims
from dekrpose.images.claims import read_header
from tests.hostile.images import png_of_many_chunks, tiff_that_lies, webp_that_lies

TEN_BITS = ["0a081c2ef83f83fa8080", "0a0c00000082ef83f83c6af9c040"]
"""Headers of AV1 streams of 3600 x 3600 pixels, as libaom writes a picture and SVT-AV1 a film."""
MODES = {"JPEG2000": "L", "GIF": "L"}


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, bits: int = 8, data: bytes = b"", padding: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    more = chunk(b"teXt", bytes(padding)) if padding else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def saved(kind: str, size: tuple[int, int], mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    PIL.Image.new(mode, size).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("sides", [(8001, 8000), (65_000, 1000), (2**31 - 1, 2**31 - 1), (0, 5)])
def test_a_small_file_that_claims_much_is_refused(sides: tuple[int, int]) -> None:
    with pytest.raises(ImageError):
        load(png(*sides))


def test_a_large_file_may_claim_four_times_as_much() -> None:
    assert read_header(png(16_000, 16_000, padding=2**20), "x").size == (16_000, 16_000)
    assert MAX_PIXELS == 16_000 * 16_000
    with pytest.raises(ImageError, match="more than the 256 million"):
        load(png(16_001, 16_000, padding=2**20))


@pytest.mark.parametrize(
    ("kind", "size"), [("PNG", (7_900, 8_000)), ("GIF", (7_900, 8_000)), ("JPEG", (7_900, 8_000))], ids=str
)
def test_large_pictures_without_content_are_within_the_bounds(kind: str, size: tuple[int, int]) -> None:
    data = saved(kind, size, "L")
    assert read_header(data, "x").size == size


def test_a_png_that_begins_with_anything_else_than_its_size_is_refused() -> None:
    data = saved("PNG", (40, 30))
    with pytest.raises(ImageError, match="does not begin with its size"):
        load(data[:8] + chunk(b"tEXt", b"a\0" + bytes(30)) + data[8:])


def test_more_than_8_bits_are_refused_by_the_header() -> None:
    with pytest.raises(ImageError, match=r"8 bits per channel, .* has 16"):
        load(png(5_000, 5_000, 16))
    with pytest.raises(ImageError, match=r"8 bits per channel, .* has 16"):
        load(saved("TIFF", (50, 50), "I;16"))


def test_a_tiff_with_an_enormous_tile_is_refused() -> None:
    tags = [
        (256, 8),
        (257, 8),
        (258, 8),
        (259, 1),
        (262, 1),
        (277, 1),
        (322, 60_000),
        (323, 60_000),
        (324, 8),
        (325, 9),
    ]
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags))
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + bytes(4)
    with pytest.raises(ImageError, match="more than"):
        load(data)


@pytest.mark.parametrize("side", [float("nan"), float("inf")])
def test_a_tiff_whose_tiles_have_no_finite_size_is_an_image_error_or_read(side: float) -> None:
    data = bytearray(saved("TIFF", (40, 30), compression="tiff_deflate"))
    start = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[start : start + 2], "little")
    data[4:8] = len(data).to_bytes(4, "little")
    tile = struct.pack("<HHIf", 322, 11, 1, side)
    directory = struct.pack("<H", count + 1) + bytes(data[start + 2 : start + 2 + 12 * count]) + tile + bytes(4)
    with suppress(ImageError):
        load(bytes(data) + directory)


def test_a_big_tiff_that_pillow_reads_as_a_small_one_is_refused() -> None:
    with pytest.raises(ImageError, match="not an image of a kind"):
        load(b"MM\0+" + saved("TIFF", (40, 30))[4:])


def test_a_tiff_that_says_its_size_twice_is_refused() -> None:
    data = bytearray(saved("TIFF", (40, 30)))
    start = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[start : start + 2], "little")
    tags = data[start + 2 : start + 2 + 12 * count]
    wide = struct.pack("<HHII", 256, 4, 1, 60_000)
    directory = struct.pack("<H", count + 1) + wide + bytes(tags) + bytes(4)
    data[4:8] = len(data).to_bytes(4, "little")
    with pytest.raises(ImageError, match="names a tag twice"):
        load(bytes(data) + directory)


def test_the_size_in_a_jpeg_2000s_codestream_counts_too() -> None:
    data = bytearray(saved("JPEG2000", (40, 30)))
    start = data.index(b"\xff\x4f\xff\x51")
    data[start + 8 : start + 16] = struct.pack(">II", 20_000, 20_000)
    with pytest.raises(ImageError, match="more than"):
        load(bytes(data))


def test_a_jpeg_of_very_many_scans_is_refused() -> None:
    data = saved("JPEG", (1000, 1000), progressive=True)
    start = data.rindex(b"\xff\xda")
    scan = data[start:-2]
    assert load(data)[0].shape == (1000, 1000, 3)
    with pytest.raises(ImageError, match="scans"):
        load(data[:start] + scan * 100 + b"\xff\xd9")


def test_a_progressive_jpeg_takes_more_memory_and_may_be_smaller() -> None:
    with pytest.raises(ImageError, match="more than the 5"):
        load(saved("JPEG", (7_700, 7_700), "L", progressive=True, quality=5))


def test_four_colours_in_many_scans_take_still_more() -> None:
    with pytest.raises(ImageError, match="more than the 30"):
        load(saved("JPEG", (6_800, 6_800), "CMYK", progressive=True, quality=1))


@pytest.mark.parametrize("progressive", [True, False])
def test_a_single_scan_may_take_as_much_as_many(progressive: bool) -> None:
    data = saved("JPEG", (640, 640), progressive=progressive)
    start = data.index(b"\xff\xda")
    cut = data[: data.index(b"\xff", start + 2)] + b"\xff\xd9"
    if not progressive:  # a scan of one component of three
        cut = data[:start] + b"\xff\xda\0\x08\1\1\0\0\x3f\0\xff\xd9"
    assert load(cut)[0].shape == (640, 640, 3)
    with pytest.raises(ImageError, match="more than the 5"):
        load(cut.replace(struct.pack(">HH", 640, 640), struct.pack(">HH", 7_900, 7_900), 1))


def test_a_large_progressive_photo_is_within_the_bounds() -> None:
    data = saved("JPEG", (7_000, 6_500), progressive=True, quality=1)
    assert read_header(data[:-2] + bytes(2**20) + data[-2:], "x").size == (7_000, 6_500)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_what_is_appended_to_a_photo_does_not_matter(kind: str) -> None:
    photo = saved(kind, (60, 50), **({"progressive": True} if kind == "JPEG" else {}))
    film = b"\xff\xda" * 300 + bytes(range(256)) * 99
    assert load(photo + film)[0].tobytes() == load(photo)[0].tobytes()


def test_a_jpeg_of_very_many_segments_is_refused() -> None:
    data = saved("JPEG", (60, 50))
    with pytest.raises(ImageError, match="scans"):
        load(data[:2] + b"\xff\xfe\0\2" * 20_000 + data[2:])


def test_a_comment_may_follow_the_kind_of_a_pnm_at_once() -> None:
    assert load(b"P6#comment\n2 2\n255\n" + bytes(range(12)))[0].ravel().tolist() == list(range(12))


def test_a_plain_pnm_of_very_many_comments_is_refused() -> None:
    with pytest.raises(ImageError, match="comments"):
        load(b"P2\n2 2\n255\n" + b"#\n" * 1001 + b"0 0 0 0")


def test_a_bmp_that_opencv_refuses_is_left_to_nobody_else() -> None:
    palette, body = bytes(1024), bytes([0, 2, 0, 0, 0, 200])
    header = struct.pack("<IiiHHIIiiII", 40, 6_000, 200, 1, 8, 1, len(body), 0, 0, 0, 0)
    start = 14 + 40 + len(palette)
    data = b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + header + palette + body
    with pytest.raises(ImageError, match="OpenCV"):
        load(data)


@pytest.mark.skipif(not PIL.features.check("avif"), reason="this Pillow has no AVIF")
class TestAvif:
    @pytest.mark.parametrize("pieces", [1, 40])
    def test_the_size_in_its_stream_counts(self, pieces: int) -> None:
        sound = in_pieces(saved("AVIF", (3_000, 2_000), speed=10), pieces)
        assert load(sound)[0].shape == (2_000, 3_000, 3)
        with pytest.raises(ImageError, match="says 64 x 64 pixels, but its streams have 6 million"):
            load(sound.replace(struct.pack(">II", 3_000, 2_000), struct.pack(">II", 64, 64)))

    def test_alpha_is_a_stream_of_its_own(self) -> None:
        data = saved("AVIF", (300, 200), "RGBA", speed=10)
        assert stream_claims(data) == (2 * 300 * 200, False)

    @pytest.mark.parametrize("header", TEN_BITS)
    def test_a_stream_of_more_than_8_bits_is_refused_by_its_header(self, header: str) -> None:
        data = bytes(4) + one_stream([(30, 99)]) + bytes.fromhex(header)
        assert stream_claims(data) == (3600 * 3600, True)

    @pytest.mark.parametrize("more", [b"\0\0\0\1iloc" * 99_000, b"\0\0\0\1stco\0\0\0\1stsz" * 50_000])
    def test_tables_of_any_number_end(self, more: bytes) -> None:
        with suppress(ImageError):
            load(saved("AVIF", (64, 64), speed=10) + more)

    def test_a_stream_of_very_many_units_is_refused(self) -> None:
        with pytest.raises(ValueError, match="units"):
            stream_claims(bytes(4) + one_stream([(30, 40_000)]) + b"\x12\0" * 20_000)


def one_stream(pieces: list[tuple[int, int]]) -> bytes:
    """A table of a stream's places, but for the length before it."""
    places = b"".join(struct.pack(">II", *piece) for piece in pieces)
    return struct.pack(">4s4x5H", b"iloc", 0x4400, 1, 1, 0, len(pieces)) + places


def in_pieces(avif: bytes, count: int) -> bytes:
    """An AVIF of one stream that is stored in pieces, of one byte but for the last."""
    table, meta = avif.index(b"iloc") - 4, avif.index(b"meta") - 4
    old, more = int.from_bytes(avif[table : table + 4], "big"), 22 + 8 * count
    start, end = avif.index(b"mdat") + 4 + more - old, len(avif) + more - old
    pieces = [(start + index, 1) for index in range(count - 1)] + [(start + count - 1, end - start - count + 1)]
    size = int.from_bytes(avif[meta : meta + 4], "big") + more - old
    new = struct.pack(">I", more) + one_stream(pieces)
    return avif[:meta] + struct.pack(">I", size) + avif[meta + 4 : table] + new + avif[table + old :]


@pytest.mark.parametrize("lie", [webp_that_lies, tiff_that_lies])
def test_a_picture_within_a_smaller_one_is_refused(lie: Any) -> None:
    for seed in range(9):
        with pytest.raises(ImageError):
            load(lie(1_000, random.Random(seed)))
    assert load(webp_that_lies(64, random.Random(1)))[0].shape == (64, 64, 3)


def test_chunks_of_any_number_are_read_or_refused() -> None:
    for seed in range(5):
        with suppress(ImageError):
            load(png_of_many_chunks(64, random.Random(seed)))


@pytest.mark.parametrize("tile", [0, 1])
def test_a_jpeg_2000_of_very_many_tiles_is_refused(tile: int) -> None:
    data = bytearray(saved("JPEG2000", (200, 200), "L"))
    start = data.index(b"\xff\x4f\xff\x51")
    data[start + 24 : start + 32] = struct.pack(">II", tile, tile)
    with pytest.raises(ImageError, match="tiles"):
        load(bytes(data))


def coded(marker: int, flags: bytes, blocks: int, precincts: bytes, levels: int = 5) -> bytes:
    """A segment of a JPEG 2000: how it codes its picture (0x52) or its first component (0x53)."""
    body = flags + bytes([levels, blocks, blocks, 0, 1]) + precincts
    return struct.pack(">BBH", 255, marker, len(body) + 2) + body


@cache
def large_jpeg_2000() -> bytes:
    return saved("JPEG2000", (3_600, 3_600), no_jp2=True)


@pytest.mark.parametrize("place", [b"\xff\x5c", b"\xff\x93"], ids=["header", "tile"])
@pytest.mark.parametrize(
    ("segment", "is_read"),
    [
        (coded(0x52, b"\0\0\0\1\0", 4, b""), True),
        (coded(0x52, b"\1\0\0\x0c\0", 4, b"\x77\x77\x77\x77\x88\x88"), True),
        (coded(0x52, b"\0\0\0\1\0", 0, b""), False),
        (coded(0x52, b"\0\0\0\1\0", 0, b"", levels=32), False),
        (coded(0x52, b"\1\0\0\1\0", 4, b"\x22" * 6), False),
        (coded(0x52, b"\1\0\xff\xff\0", 4, b"\x77" * 6), False),
        (coded(0x53, b"\0\0", 0, b""), False),
        (coded(0x53, b"\0\1", 4, b"\x22" * 6), False),
        (b"\xff\x64\0\6\xff\x52\0\x2d" + coded(0x52, b"\0\0\0\1\0", 0, b""), False),
    ],
)
def test_a_jpeg_2000_of_small_blocks_or_many_layers_may_be_smaller(place: bytes, segment: bytes, is_read: bool) -> None:
    data = large_jpeg_2000().replace(place, segment + place, 1)
    if is_read:
        assert read_header(data, "x").size == (3_600, 3_600)
    else:
        with pytest.raises(ImageError, match="million that such a file may have"):
            read_header(data, "x")


def test_a_jpeg_2000_of_tiles_with_very_many_layers_is_refused() -> None:
    data = saved("JPEG2000", (256, 256), no_jp2=True, tile_size=(8, 8))
    start = data.index(b"\xff\x52")
    assert load(data)[0].shape == (256, 256, 3)
    with pytest.raises(ImageError, match="1,024 tiles of 3 components in 262,140 layers"):
        load(data[: start + 6] + b"\xff\xff" + data[start + 8 :])


@pytest.mark.parametrize("kind", ["JPEG2000", "AVIF"])
def test_kinds_that_take_much_memory_may_be_smaller(kind: str) -> None:
    if kind == "AVIF" and not PIL.features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    with pytest.raises(ImageError, match="more than the 13"):
        load(saved(kind, (4_000, 3_500), "L"))


def test_an_animation_takes_more_memory_and_may_be_smaller() -> None:
    still = PIL.Image.new("L", (7_000, 6_500))
    file = io.BytesIO()
    still.save(file, "GIF", save_all=True, append_images=[PIL.Image.new("L", still.size, 9)])
    assert read_header(saved("GIF", still.size, "L"), "x").size == still.size
    with pytest.raises(ImageError, match="more than the 45"):
        load(file.getvalue())


def test_a_tiff_of_more_samples_than_colours_is_refused() -> None:
    tags = {256: (4, 1, 8), 257: (4, 1, 8), 258: (3, 5, 8 + 2 + 9 * 12 + 4), 259: (3, 1, 1), 262: (3, 1, 2)}
    tags |= {273: (4, 1, 8), 277: (3, 1, 5), 279: (4, 1, 8 * 8 * 5), 338: (3, 2, 0)}
    body = b"".join(struct.pack("<HHII", tag, *tags[tag]) for tag in sorted(tags))
    data = (
        b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + bytes(4) + struct.pack("<5H", *[8] * 5) + bytes(8 * 8 * 5)
    )
    with pytest.raises(ImageError, match="5 samples"):
        load(data)


@pytest.mark.parametrize("sides", [(33, 1), (1, 33), (2**20 + 1, 40_000)])
def test_strips_are_refused_before_they_are_decoded(sides: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match="longer than 32:1"):
        read_header(png(*sides), "x")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_pipes_and_devices_are_no_photos(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "pipe.jpg", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(ImageError, match="regular file"):
            load(path)


def test_a_photo_of_which_only_pillow_reads_each_strip_is_whole() -> None:
    picture = PIL.Image.effect_noise((31, 700), 80).convert("P")
    file = io.BytesIO()
    picture.save(file, "GIF")
    expected = PIL.Image.open(file).convert("RGB")
    assert load(file.getvalue())[0].tobytes() == expected.tobytes()
