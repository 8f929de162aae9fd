"""Photos in: reading, listing, and (from ``resampling``) resizing and the only change of frame.

*Image pixels* are those of the photo as it was read, upright by default. Sizes are (height, width).
"""

from __future__ import annotations

import inspect
import os
import re
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageCms

from dekrpose.config import Color
from dekrpose.errors import ImageError, without_password
from dekrpose.images.claims import MAX_PIXELS, read_header
from dekrpose.images.listing import SUFFIXES, find_images, several_images
from dekrpose.images.resampling import Geometry, Pixels, network_input, resize, to_tensor
from dekrpose.images.urls import fetch

if TYPE_CHECKING:
    import torch

__all__ = [
    "MAX_PIXELS",
    "SUFFIXES",
    "Color",
    "Geometry",
    "Pixels",
    "decode",
    "find_images",
    "load",
    "network_input",
    "resize",
    "several_images",
    "to_tensor",
]

URL_TIMEOUT = 30.0
"""Seconds that fetching a photo may take in all."""
URL_LIMIT = 100 * 2**20
"""Bytes of the largest file that is fetched."""
FILE_LIMIT = 2**30
"""Bytes of the largest file that is read."""

# ANYDEPTH keeps 16 bits, so that they can be refused; the pixels of 8-bit files are those of IMREAD_COLOR alone.
_READ_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
_TO_RGB = {
    (1, "rgb"): cv2.COLOR_GRAY2RGB,
    (1, "bgr"): cv2.COLOR_GRAY2RGB,
    (3, "bgr"): cv2.COLOR_BGR2RGB,
    (4, "rgb"): cv2.COLOR_RGBA2RGB,
    (4, "bgr"): cv2.COLOR_BGRA2RGB,
}
# Only recent OpenCVs read GIF, and none of them minds the largest value of a PNM: one decoder for all.
_PILLOW_ALONE = ("GIF", "PPM")
# Pillow modes that RGB is not reached from in one step.
_PIL_STEPS = {"P": ("RGBA", "RGB"), "PA": ("RGBA", "RGB"), "La": ("LA", "RGB"), "RGBa": ("RGBA", "RGB")}
_TURNS = {2: (0, True), 3: (2, False), 4: (2, True), 5: (1, True), 6: (3, False), 7: (3, True), 8: (1, False)}
"""Quarter turns to the left, after mirroring or not, that turn photos of an EXIF orientation upright."""
_STRIP = 256
"""Rows that are turned into RGB at once, so that a large photo is in memory only once."""


def load(
    image: Any, *, color: Color = "rgb", exif: bool = True, allow_private: bool = False
) -> tuple[Pixels, str | None]:
    """Read one image, whatever it comes as.

    Alpha is dropped, not blended: so do OpenCV and the official code, and what screen grabs leave in the
    fourth channel is undefined. Grey images get three equal channels.

    Args:
        image: a path, an http(s) URL, the bytes of an encoded file, a file object opened for bytes (an upload, a
            ``BytesIO``), a Pillow image, a uint8 array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), or a uint8 tensor
            (3, H, W) or (1, H, W) on any device. Files are decoded by OpenCV, and by Pillow where OpenCV cannot.
        color: channel order of arrays and tensors; everything else knows its own.
        exif: turn files, bytes and Pillow images upright, as their EXIF orientation says. False reads
            as the official evaluation does: ``cv2.imread`` that ignores the orientation.
        allow_private: fetch URLs from private and loopback addresses too; strangers' URLs must not lead there.

    Returns:
        (H, W, 3) uint8 RGB, contiguous, never the caller's memory; and the path, URL (without a password in it) or
        file's name as text, or None.

    Raises:
        ImageError: not an image, broken or cut off, more than 8 bits per channel, or an unsupported
            type, shape or color. (A ValueError too.)
        FileNotFoundError: there is no such file.
        OSError: the system cannot open it, because its path is too long, say.
    """
    if color not in ("rgb", "bgr"):
        raise ImageError(f'color must be "rgb" or "bgr", got {color!r}')
    if not isinstance(image, (str, os.PathLike)):
        return _from_memory(image, color, exif)
    source = os.fsdecode(image)
    if isinstance(image, str) and re.match(r"[a-z][a-z0-9+.-]+://", image, re.IGNORECASE):
        source = without_password(image)
        data = fetch(image, seconds=URL_TIMEOUT, most_bytes=URL_LIMIT, allow_private=allow_private)
    else:
        data = _read(source)
    return decode(data, source, exif=exif), source


def _from_memory(image: Any, color: Color, exif: bool) -> tuple[Pixels, str | None]:
    """``load`` of all that is neither path nor URL."""
    if isinstance(image, np.ndarray):
        return _from_array(image, color), None
    if "torch" in sys.modules and isinstance(image, sys.modules["torch"].Tensor):
        return _from_tensor(image, color), None
    if isinstance(image, PIL.Image.Image):
        return _from_pillow(image, "the Pillow image", exif), None
    if isinstance(image, (bytes, bytearray, memoryview)):
        data = bytes(image)
        return decode(data, f"the image of {len(data)} bytes", exif=exif), None
    if hasattr(image, "read"):
        name, data = _read_object(image)
        return decode(data, name or f"the file of {len(data)} bytes", exif=exif), name
    hint = "; estimate_many takes several images" if isinstance(image, (list, tuple)) else ""
    raise ImageError(
        f"image must be a path, URL, encoded bytes, file object, Pillow image, uint8 array or uint8 tensor, "
        f"got {type(image).__name__}{hint}"
    )


def _read_object(file: Any) -> tuple[str | None, bytes]:
    """The name, if it has one, and the rest of a file object."""
    names = (getattr(file, attribute, None) for attribute in ("filename", "name"))
    name = next((name for name in names if name and isinstance(name, str)), None)
    try:
        data = file.read()
    except UnicodeDecodeError as error:
        raise ImageError(f"image must be a file of bytes, {name or 'it'} is open as text; open it with 'rb'") from error
    if inspect.iscoroutine(data):
        data.close()
        raise ImageError(
            f"image is a file that is read asynchronously ({type(file).__name__}); pass await image.read()"
        )
    if not isinstance(data, (bytes, bytearray)):
        raise ImageError(f"image must be a file of bytes, {name or 'it'} gave {type(data).__name__}; open it with 'rb'")
    if not data:
        raise ImageError(f"{name or 'the file'} is empty or was read to its end; image.seek(0) starts it again")
    return name, bytes(data)


def _read(source: str) -> bytes:
    """A regular file's bytes: a pipe would wait for ever, and a device may have no end."""
    try:
        with open(source, "rb", opener=_without_waiting) as file:
            facts = os.fstat(file.fileno())
            if stat.S_ISREG(facts.st_mode) and facts.st_size <= FILE_LIMIT:
                return file.read(facts.st_size)  # some of /proc are regular files of no size and without end
    except (OSError, ValueError) as error:
        raise _unreadable(source, error) from None
    if stat.S_ISREG(facts.st_mode):
        raise ImageError(f"{without_password(source)} is larger than {FILE_LIMIT >> 20} MiB; make it smaller first")
    raise ImageError(f"image must be a regular file, {without_password(source)!r} is a device or a pipe")


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _unreadable(source: str, error: Exception) -> Exception:
    """What to raise for a path that could not be opened; it may be a mistyped URL."""
    shown = without_password(source)
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(f"no such image: {shown!r}; relative paths start at {Path.cwd()}")
    if not isinstance(error, OSError):
        fault = "without zero bytes" if "\0" in source else "that can be written as bytes"
        return ImageError(f"image must be a path {fault}, got {shown!r}")
    error.filename = shown
    if os.path.isdir(source):  # noqa: PTH112 - Path.is_dir raises where a path is too long
        return ImageError(f"image must be a file, {shown!r} is a folder; estimate_many takes the images of a folder")
    return error


def decode(data: bytes, name: str, *, exif: bool = True) -> Pixels:
    """Decode a file's bytes with OpenCV, the official decoder; Pillow reads the header and steps in.

    Of a JPEG without an end marker an OpenCV may hand out in grey what is missing; Pillow raises.

    Args:
        data: of the whole file.
        name: for messages.
        exif: as for ``load``.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ImageError: as for ``load``.
    """
    header = read_header(data, name)
    kind = header.format
    if kind in ("JPEG", "MPO") and b"\xff\xd9" not in data[-32:]:
        _check_whole(read_header(data, name), name)
    pixels: Any = None
    with suppress(Exception):  # decoders of broken files raise whatever comes to them
        pixels = None if kind in _PILLOW_ALONE else cv2.imdecode(np.frombuffer(data, np.uint8), _READ_FLAGS)
    if pixels is None:
        return _decoded_by_pillow(header, name, exif)
    if pixels.dtype != np.uint8:
        raise ImageError(f"image must have 8 bits per channel, {name} has {pixels.dtype} pixels; save it with 8 bits")
    for strip in _strips(pixels):
        strip[:] = cv2.cvtColor(strip, cv2.COLOR_BGR2RGB)
    return _upright(pixels, header) if exif and kind != "TIFF" else pixels  # a TIFF was turned while it was decoded


def _decoded_by_pillow(header: PIL.Image.Image, name: str, exif: bool) -> Pixels:
    """As ``decode`` does without OpenCV; Pillow takes long to decode the runs of a BMP."""
    if header.format == "BMP" and any(tile[0] == "bmp_rle" for tile in header.tile):  # type: ignore[attr-defined]
        raise ImageError(f"{name} is broken: OpenCV cannot decode its runs, and others take long; get the file again")
    return _from_pillow(header, name, exif)


def _strips(pixels: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Views of some rows each."""
    return (pixels[top : top + _STRIP] for top in range(0, len(pixels), _STRIP))


def _check_whole(image: PIL.Image.Image, name: str) -> None:
    try:
        image.load()
    except Exception as error:  # decoders of broken files raise whatever comes to them
        reason = str(error) or type(error).__name__
        raise ImageError(f"{name} is broken or cut off ({reason}); get the file again") from error


def _from_pillow(image: PIL.Image.Image, name: str, exif: bool) -> Pixels:
    width, height = image.size
    if not 0 < width * height <= MAX_PIXELS:
        raise ImageError(f"image must have up to {MAX_PIXELS / 1e6:.0f} million pixels, {name} has {width} x {height}")
    _check_whole(image, name)
    pixels = np.empty((height, width, 3), np.uint8)
    boxes = [(0, top, width, min(top + _STRIP, height)) for top in range(0, height, _STRIP)]
    try:
        if image.mode == "F" or image.mode.startswith("I"):
            _check_range(image, boxes, name)
        for strip, box in zip(_strips(pixels), boxes, strict=True):
            strip[:] = np.asarray(_to_rgb(image.crop(box)))
    except ImageError:
        raise
    except Exception as error:  # a broken palette or profile
        raise ImageError(f"{name} cannot be turned into RGB ({error}); save it as an RGB image") from error
    return _upright(pixels, image) if exif else pixels


def _check_range(image: PIL.Image.Image, boxes: Sequence[tuple[int, int, int, int]], name: str) -> None:
    """Modes of more than 8 bits are taken when their values fit into 8."""
    strips = (np.asarray(image.crop(box)) for box in boxes)
    ends = np.array([(strip.min(), strip.max()) for strip in strips])
    low, high = ends[:, 0].min(), ends[:, 1].max()
    if not (low >= 0 and high <= 255) or (image.mode == "F" and 0 < high <= 1):
        raise ImageError(
            f"image must have 8 bits per channel, {name} has Pillow mode {image.mode} with values from {low:g} to "
            f"{high:g}; scale it to 0..255 and convert it to RGB"
        )


def _to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """Any Pillow mode as RGB."""
    if image.mode == "LAB":
        profiles = PIL.ImageCms.createProfile("LAB"), PIL.ImageCms.createProfile("sRGB")
        converted = PIL.ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
        assert converted is not None
        return converted
    if image.mode == "F" or image.mode.startswith("I"):
        return PIL.Image.fromarray(np.asarray(image).astype(np.uint8)).convert("RGB")
    for mode in _PIL_STEPS.get(image.mode, ("RGB",)):
        image = image.convert(mode)
    return image


def _upright(pixels: Pixels, image: PIL.Image.Image) -> Pixels:
    """Turn and mirror pixels as the EXIF orientation (1 to 8) of their Pillow image says."""
    turns, mirrored = 0, False
    with suppress(Exception):  # a damaged EXIF block does not make the photo unreadable
        turns, mirrored = _TURNS.get(image.getexif().get(0x0112, 1), (0, False))
    return np.ascontiguousarray(np.rot90(pixels[:, ::-1] if mirrored else pixels, turns))


def _from_array(array: npt.NDArray[Any], color: Color) -> Pixels:
    expected = "image must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) uint8"
    if array.dtype != np.uint8:
        hints = {"f": "np.clip(image * 255, 0, 255).astype(np.uint8) if its values are in [0, 1]"}
        hints |= {"b": "image.astype(np.uint8) * 255", "u": "(image // 257).astype(np.uint8) if it has 16 bits"}
        hint = hints.get(array.dtype.kind, "image.astype(np.uint8) if its values are in 0..255")
        raise ImageError(f"{expected}, got {array.dtype} {array.shape}; try {hint}")
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4) or array.size == 0:
        hint = "it is empty" if array.size == 0 else "pass images of a batch one by one"
        if array.ndim == 3 and array.size:
            hint = "put channels last with image.transpose(1, 2, 0)" if array.shape[0] in (1, 3, 4) else "choose three"
        raise ImageError(f"{expected}, got {array.shape}; {hint}")
    if (channels, color) == (3, "rgb"):
        return np.array(array, order="C")
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(array), _TO_RGB[channels, color]), np.uint8)


def _from_tensor(tensor: torch.Tensor, color: Color) -> Pixels:
    import torch

    if tensor.dtype != torch.uint8 or tensor.ndim != 3 or tensor.shape[0] not in (1, 3) or tensor.numel() == 0:
        hint = "pass images of a batch one by one" if tensor.ndim == 4 else "scale to 0..255, .to(torch.uint8)"
        if tensor.ndim == 3 and tensor.shape[0] not in (1, 3):
            hint = "put channels first with image.permute(2, 0, 1)"
        raise ImageError(
            f"tensor must be (3, H, W) or (1, H, W) torch.uint8, got {tensor.dtype} {tuple(tensor.shape)}; {hint}"
        )
    return _from_array(tensor.permute(1, 2, 0).cpu().numpy(), color)
