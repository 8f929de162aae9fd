"""The network input: its geometry, the only change of frame, and its pixels.

*Image pixels* are those of the photo as it was read, *input pixels* those of the resized photo that the
network sees. Points are xy, sizes are (height, width). Import these names from ``dekrpose.images``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import cv2
import numpy as np
import numpy.typing as npt

from dekrpose.config import IMAGE_MEAN, IMAGE_STD, SIZE_MULTIPLE, Color3
from dekrpose.errors import ImageError

if TYPE_CHECKING:
    import torch

Pixels = npt.NDArray[np.uint8]

MAX_INPUT_PIXELS = 2**26
"""Pixels of the largest network input (67 million)."""
MAX_ASPECT = 32
"""Longest strip: the long side by the short one. The network's input grows with it."""


@dataclass(frozen=True)
class Geometry:
    """How one photo and its network input lie on each other: the only change of frame.

    The input is the photo, scaled and shifted: the short sides fit, the long side gets a black border at
    both ends, and an odd side moves by half an image pixel. Make one with ``fit``.

    Args:
        image_size: (height, width) of the photo in image pixels.
        input_size: (height, width) of the network input, in input pixels at ``scale``.
        base_size: the same at scale 1.
        scale: the scale of a multi-scale test.
    """

    image_size: tuple[int, int]
    input_size: tuple[int, int]
    base_size: tuple[int, int]
    scale: float = 1.0

    @classmethod
    def fit(cls, height: int, width: int, input_size: int, scale: float = 1.0, multiple: int = SIZE_MULTIPLE) -> Self:
        """The official resize of a (height, width) photo.

        Args:
            height, width: of the photo, image pixels.
            input_size: short side at scale 1, input pixels; rounded up to a multiple, as the long side is.
            scale: multiplies both sides after that.
            multiple: of how many pixels; see the backbone's ``size_multiple``.

        Raises:
            ImageError: the photo is such a narrow strip that its input would pass MAX_INPUT_PIXELS.
            ValueError: a size or the scale is not positive.
        """
        if max(height, width) > MAX_ASPECT * min(height, width) > 0:
            raise ImageError(f"a photo of {height} x {width} pixels is too narrow, over {MAX_ASPECT}:1; cut it up")
        if min(height, width, input_size) < 1 or not 0 < scale < math.inf:
            raise ValueError(f"sizes and scale must be positive, got {height} x {width}, {input_size}, scale {scale}")
        short = int((input_size + multiple - 1) // multiple * multiple)
        long = int((short / min(height, width) * max(height, width) + multiple - 1) // multiple * multiple)
        base = (long, short) if width < height else (short, long)
        size = (int(base[0] * scale), int(base[1] * scale))
        if min(size) < 1:
            raise ValueError(f"scale {scale} leaves nothing of an input of {base[0]} x {base[1]} pixels")
        if size[0] * size[1] > MAX_INPUT_PIXELS:
            raise ImageError(
                f"a photo of {height} x {width} pixels would need an input of {size[0]} x {size[1]}; "
                f"cut it up, or take a smaller input size than {input_size} or scale than {scale}"
            )
        return cls((int(height), int(width)), size, base, scale)

    @property
    def center(self) -> tuple[int, int]:
        """xy, image pixels, of what lies in the middle of the input."""
        height, width = self.image_size
        return int(width / 2 + 0.5), int(height / 2 + 0.5)

    @property
    def extent(self) -> tuple[float, float]:
        """(width, height) of what the input shows, in units of 200 image pixels: the official ``scale``."""
        height, width = self.image_size
        long = max(self.input_size) / min(self.input_size) * min(height, width) / 200
        return (width / 200, long) if width < height else (long, height / 200)

    @cached_property
    def matrix(self) -> npt.NDArray[np.float64]:
        """(2, 3) affine map from image pixels to input pixels at this scale."""
        return _affine(*self._triangles())

    @cached_property
    def inverse(self) -> npt.NDArray[np.float64]:
        """(2, 3) affine map from input pixels at this scale to image pixels."""
        return _affine(*reversed(self._triangles()))

    @cached_property
    def base(self) -> Geometry:
        """The same photo at scale 1."""
        return replace(self, input_size=self.base_size, scale=1.0)

    def to_image(self, points: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Map points from input pixels of scale 1, the frame of decoded poses, to image pixels.

        Args:
            points: (..., 2) xy, input pixels of scale 1, whatever the scale of this geometry.

        Returns:
            (..., 2) float32 xy, image pixels; nothing is clipped.
        """
        return _transform(points, self.base.inverse)

    def to_input(self, points: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """The inverse of ``to_image``: (..., 2) xy, image pixels, to input pixels of scale 1."""
        return _transform(points, self.base.matrix)

    def _triangles(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """The three points that define the map, in image pixels and in input pixels."""
        height, width = self.input_size
        source = _triangle(*self.center, self.extent[0] * 200 * 0.5)
        return source, _triangle(width * 0.5, height * 0.5, width * 0.5)


def _triangle(x: float, y: float, half: float) -> npt.NDArray[np.float32]:
    """(3, 2) xy: a center, the point ``half`` above it, and the point as far to the left of that.

    Rounded to float32 where the official code does, which moves the map by about 1e-4 pixel.
    """
    above = np.float32(y - half)
    left = np.float32(x) - (np.float32(y) - above)
    return np.array([[x, y], [x, above], [left, above]], np.float32)


def _affine(source: npt.NDArray[np.float32], target: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    matrix = np.asarray(cv2.getAffineTransform(source, target), np.float64)
    matrix.flags.writeable = False  # it is kept, and shared by all who ask
    return matrix


def _transform(points: npt.ArrayLike, matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    points = np.asarray(points, np.float64)
    if points.shape[-1:] != (2,):
        raise ValueError(f"points must be (..., 2) xy, got {points.shape}")
    return (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)


def resize(image: Pixels, geometry: Geometry) -> Pixels:
    """Cut and scale a photo to the network input.

    Gives the bytes of OpenCV 4's ``warpAffine`` (bilinear, black border), which published numbers rest on,
    whichever OpenCV is installed: version 5 rounds differently. Both use positions in 1/32 pixel; as the map
    only scales and shifts, its two directions can be done one after the other.

    Args:
        image: (H, W, 3) uint8 in image pixels.
        geometry: made for this H and W.

    Returns:
        (h, w, 3) uint8 in input pixels, contiguous.

    Raises:
        ImageError: the image is not uint8 or has another shape than the geometry's.
    """
    if image.dtype != np.uint8 or image.shape != (*geometry.image_size, 3):
        raise ImageError(f"image must be uint8 {(*geometry.image_size, 3)}, got {image.dtype} {image.shape}")
    (top, bottom, top_weight, bottom_weight), (left, right, left_weight, right_weight) = axis_neighbours(geometry)
    left, right = ((3 * columns[:, None] + np.arange(3)).ravel() for columns in (left, right))
    left_weight, right_weight = (np.repeat(weight, 3).astype(np.int32) for weight in (left_weight, right_weight))
    top_weight, bottom_weight = (weight[:, None].astype(np.uint16) for weight in (top_weight, bottom_weight))
    rows = image.reshape(len(image), -1)
    height, width = geometry.input_size
    result = np.empty((height, width * 3), np.uint8)
    for start in range(0, height, 32):  # blocks that stay in the cache
        block = slice(start, start + 32)
        blend = rows[top[block]] * top_weight[block]
        blend += rows[bottom[block]] * bottom_weight[block]
        total = blend.take(left, axis=1, mode="clip") * left_weight
        total += blend.take(right, axis=1, mode="clip") * right_weight
        result[block] = (total + 512) >> 10
    return result.reshape(height, width, 3)


_Axis = tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]


def axis_neighbours(geometry: Geometry) -> tuple[_Axis, _Axis]:
    """For input rows and for columns: each one's two neighbours in the photo, and their weights out of 32.

    Inverted, rounded and added in the order of warpAffine: a position on the edge of two 1/32 depends on it.
    """
    (x_scale, _, x_shift), (_, y_scale, y_shift) = cv2.invertAffineTransform(geometry.matrix)
    (height, width), (input_height, input_width) = geometry.image_size, geometry.input_size
    y = np.rint((y_scale * np.arange(input_height) + y_shift) * 1024)
    x = np.rint(x_shift * 1024) + np.rint(x_scale * np.arange(input_width) * 1024)
    return _axis(y, height), _axis(x, width)


def _axis(positions: npt.NDArray[np.float64], length: int) -> _Axis:
    """Split positions in 1/1024 pixel of a side of ``length`` pixels; what lies outside is black and weighs nothing."""
    positions_32 = (positions.astype(np.int64) + 16) >> 5
    first, fraction = positions_32 >> 5, positions_32 & 31
    first_weight = (32 - fraction) * ((first >= 0) & (first < length))
    second_weight = fraction * ((first >= -1) & (first < length - 1))
    return np.clip(first, 0, length - 1), np.clip(first + 1, 0, length - 1), first_weight, second_weight


def network_input(photos: Sequence[Pixels], geometries: Sequence[Geometry], mean: Color3, std: Color3) -> torch.Tensor:
    """Photos, each resized by its geometry and normalised: (B, 3, h, w) float32, channels-last."""
    return _normalised([resize(photo, geometry) for photo, geometry in zip(photos, geometries, strict=True)], mean, std)


def to_tensor(images: Pixels | Sequence[Pixels], mean: Color3 = IMAGE_MEAN, std: Color3 = IMAGE_STD) -> torch.Tensor:
    """Normalise resized photos for the network, as torchvision's ToTensor and Normalize do.

    Args:
        images: (h, w, 3) uint8 RGB, or a batch: (n, h, w, 3), or a list of images of one size.
        mean, std: of RGB values in [0, 1], see ``ModelConfig``.

    Returns:
        float32 (3, h, w), or (n, 3, h, w) for a batch.

    Raises:
        ImageError: not uint8, another shape, or a list of different shapes.
    """
    single = isinstance(images, np.ndarray) and images.ndim == 3
    batch: list[Pixels] = [images] if single else list(images)  # type: ignore[list-item]
    shapes = {(str(image.dtype), *image.shape) for image in batch}
    if len(shapes) != 1 or len(batch[0].shape) != 3 or batch[0].dtype != np.uint8 or batch[0].shape[2] != 3:
        raise ImageError(f"images must be (h, w, 3) uint8 of one size, got {sorted(shapes, key=str) or 'none'}")
    tensor = _normalised(batch, mean, std).contiguous()
    return tensor[0] if single else tensor


def _normalised(images: Sequence[Pixels], mean: Color3, std: Color3) -> torch.Tensor:
    """(B, 3, h, w) float32, channels-last, from (h, w, 3) uint8: each of the 256 values is computed once."""
    import torch

    values, own_mean, own_std = (torch.tensor(each, dtype=torch.float32) for each in (range(256), mean, std))
    table = values[:, None].div(255).sub(own_mean).div_(own_std).numpy()[None]
    return torch.from_numpy(np.stack([cv2.LUT(image, table) for image in images])).permute(0, 3, 1, 2)
