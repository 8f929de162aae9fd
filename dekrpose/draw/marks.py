"""What stands beside people: boxes, labels, and the names of keypoints."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Sequence
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dekrpose.draw.colors import RGB
from dekrpose.draw.painting import Disc, Limb, paint

Place = tuple[int, int, int, int]
"""x0, y0, x1, y1 of a written text, image pixels."""

_PLATE_ALPHA = 0.85
_FONTS = (
    "DejaVuSans.ttf", "NotoSans-Regular.ttf", "arial.ttf", "Arial Unicode.ttf", "NotoSansCJK-Regular.ttc",
    "wqy-microhei.ttc", "DroidSansFallbackFull.ttf", "msyh.ttc", "malgun.ttf",
)  # fmt: skip
"""Of Linux, Windows and macOS, tried in turn for letters that Pillow's own lacks: it has ASCII and little more."""
_NO_LETTER = "\U0010fffe"

logger = logging.getLogger(__name__)


def draw_box(canvas: NDArray[np.uint8], box: NDArray[np.float32], color: RGB, width: float) -> None:
    """The outline of a box (x0, y0, x1, y1) in image pixels, with a rim as limbs have; nothing if it is empty."""
    if not (box[2] > box[0] and box[3] > box[1]):
        return
    inset = width / 2
    limits = np.array([canvas.shape[1], canvas.shape[0]] * 2) - 1 - inset
    x0, y0, x1, y1 = np.clip(box, inset, limits).tolist()
    corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    sides = zip(corners, corners[1:] + corners[:1], strict=True)
    limbs = [Limb(start, end, (1.0, 1.0), width, color) for start, end in sides]
    paint(canvas, limbs, [Disc(corner, 1.0, width / 2, color) for corner in corners])


def text_height(person: float, image_size: tuple[int, int]) -> int:
    """Height of letters, image pixels: in proportion to the person, legible, and never larger than the image bears."""
    image = min(image_size)
    return round(min(max(0.07 * person, 0.02 * image, 8), max(0.045 * image, 8)))


def write_beside(
    canvas: NDArray[np.uint8], text: str, box: Sequence[float], color: RGB, height: int, taken: list[Place]
) -> None:
    """Write a text on a plate above a box, or where there is room; ``taken`` holds the plates so far."""
    mask = letters(text, height)
    rows, columns = mask.shape
    x0, y0, x1, y1 = (round(value) for value in box)
    corners = [
        (x0, y0 - rows), (x0, y1), (x1 - columns, y0 - rows), (x1, y0), (x0 - columns, y0), (x0, y0),
        (x1 - columns, y1), (x0, y0 - 2 * rows), (x0, y1 + rows),
    ]  # fmt: skip
    _write(canvas, mask, corners, color, taken)


def write_name(
    canvas: NDArray[np.uint8], name: str, point: tuple[float, float], color: RGB, taken: list[Place]
) -> None:
    """Write the name of a keypoint (x, y) beside it, where there is room."""
    mask = letters(name, 7)
    rows, columns = mask.shape
    x, y = round(point[0]), round(point[1])
    gap = 5
    corners = [
        (x + gap, y - rows // 2),
        (x - gap - columns, y - rows // 2),
        (x + gap, y + gap),
        (x + gap, y - gap - rows),
    ]
    _write(canvas, mask, corners, color, taken, needed=False)


def _write(
    canvas: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    corners: list[tuple[int, int]],
    color: RGB,
    taken: list[Place],
    *,
    needed: bool = True,
) -> None:
    """Put a plate at the first corner where it covers no other, inside the image; else at the first if it is needed."""
    rows, columns = mask.shape
    bottom, right = max(canvas.shape[0] - rows, 0), max(canvas.shape[1] - columns, 0)
    places = [(min(max(x, 0), right), min(max(y, 0), bottom)) for x, y in corners]
    plates = [(x, y, x + columns, y + rows) for x, y in places]
    free = (own for own in plates if not any(_overlap(own, other) for other in taken))
    plate = next(free, plates[0] if needed else None)
    if plate is None:
        return
    taken.append(plate)
    region = canvas[plate[1] : plate[3], plate[0] : plate[2]]
    share = mask[: region.shape[0], : region.shape[1], None] / 255
    paper = _PLATE_ALPHA * np.array(color) + (1 - _PLATE_ALPHA) * region
    ink = 0 if np.dot(color, (0.299, 0.587, 0.114)) > 110 else 255
    region[:] = np.rint(paper + (ink - paper) * share).astype(np.uint8)


def _overlap(first: Place, second: Place) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


@lru_cache(maxsize=512)
def letters(text: str, height: int) -> NDArray[np.uint8]:
    """(h, w) opacity of a text with a margin, 255 where there is ink; escapes for letters that no font here has."""
    text = legible(text, text)
    name = _best_font(text)
    text = "".join(each if _has(name, each) else each.encode("ascii", "backslashreplace").decode() for each in text)
    font = _font(name, height)
    assert font is not None
    left, top, right, bottom = font.getbbox(text)
    tallest = font.getbbox("0")
    top, bottom = min(top, tallest[1]), max(bottom, tallest[3])  # plates of equal height
    margin = max(2, round(0.2 * height))
    image = Image.new("L", (int(right - left) + 2 * margin, int(bottom - top) + 2 * margin))
    ImageDraw.Draw(image).text((margin - left, margin - top), text, fill=255, font=font)
    return np.asarray(image)


@lru_cache(maxsize=512)
def legible(text: str, instead: str) -> str:
    """A text as a font here can write it, without its accents if need be; ``instead`` where none has its letters."""
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    for each in (text, plain):
        if all(_has(_best_font(each), letter) for letter in each):
            return each
    _tell_once()
    return instead


@cache
def _tell_once() -> None:
    logger.warning("no font here has the letters of some texts on pictures; install one, such as Noto Sans CJK")


@lru_cache(maxsize=512)
def _best_font(text: str) -> str:
    """The first font that has the most letters of a text; "" is Pillow's own."""
    return "" if text.isascii() else max(("", *_FONTS), key=lambda name: sum(_has(name, letter) for letter in text))


@lru_cache(maxsize=4096)
def _has(name: str, letter: str) -> bool:
    font = _font(name, 16)
    if font is None or letter.isspace() or letter.isascii():
        return font is not None
    try:
        own, none = (bytes(font.getmask(each)) for each in (letter, _NO_LETTER))
    except UnicodeEncodeError:  # a bitmap font
        return False
    return own not in (none, b"")


@lru_cache(maxsize=32)
def _font(name: str, height: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont | None:
    """A font of the system, "" for Pillow's own; None if it is not here."""
    size = 1.35 * height  # letters are lower than the font's size
    try:
        return ImageFont.truetype(name, round(size)) if name else ImageFont.load_default(size)
    except TypeError:  # before Pillow 10.1 there is one size
        return ImageFont.load_default()
    except (OSError, ImportError):
        return None
