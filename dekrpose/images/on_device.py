"""Resizing and normalising on a device: photos go there in one piece, and the bytes are those of ``images.resize``.

*Image pixels* are those of the photo as it was read, *input pixels* those of the network's input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from dekrpose.config import IMAGE_MEAN, IMAGE_STD, Color3
from dekrpose.images.resampling import Geometry, Pixels, axis_neighbours


@dataclass(frozen=True)
class Shipment:
    """Photos and what is needed to resize them, in one piece of memory.

    Attributes:
        data: (n,) uint8: all tables, then all photos.
        photo_sizes: (height, width) of each photo, image pixels.
        input_sizes: (height, width) of the network's input at each scale, input pixels, the same for all photos.
    """

    data: Tensor
    photo_sizes: tuple[tuple[int, int], ...]
    input_sizes: tuple[tuple[int, int], ...]

    def to(self, device: torch.device) -> Shipment:
        """The same on a device: one transfer, which does not wait when the memory is pinned."""
        return replace(self, data=self.data.to(device, non_blocking=True))


def pack(photos: Sequence[Pixels], geometries: Sequence[Sequence[Geometry]], *, pin: bool = False) -> Shipment:
    """Put photos together for their way to a device.

    Args:
        photos: (H, W, 3) uint8 each, of any sizes.
        geometries: of each photo, one per scale; the input size at each scale is that of all photos.
        pin: in memory that a CUDA device can read by itself.

    Raises:
        ValueError: the photos' input sizes differ.
    """
    input_sizes = {tuple(geometry.input_size for geometry in scales) for scales in geometries}
    if len(input_sizes) != 1:
        raise ValueError(f"photos that travel together have one input size at each scale, got {sorted(input_sizes)}")
    tables = [_table(geometry) for scales in geometries for geometry in scales]
    parts = [table.view(np.uint8) for table in tables] + [photo.reshape(-1) for photo in photos]
    data = torch.empty(sum(part.size for part in parts), dtype=torch.uint8, pin_memory=pin)
    np.concatenate(parts, out=data.numpy())
    sizes = tuple((photo.shape[0], photo.shape[1]) for photo in photos)
    return Shipment(data, sizes, input_sizes.pop())


@lru_cache(maxsize=64)
def _table(geometry: Geometry) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    """First and second neighbour and their weights for all rows, then for all columns."""
    return np.concatenate([np.concatenate(axis) for axis in axis_neighbours(geometry)]).astype(np.int32)


def resize_shipment(shipment: Shipment) -> list[Tensor]:
    """``images.resize`` for all photos and scales, where they lie.

    Returns:
        Per scale (B, h, w, 3) uint8, input pixels.
    """
    count = len(shipment.photo_sizes)
    lengths = [4 * (height + width) for height, width in shipment.input_sizes] * count
    tables = torch.split(shipment.data[: 4 * sum(lengths)].view(torch.int32), lengths)
    areas = [3 * height * width for height, width in shipment.photo_sizes]
    photos = torch.split(shipment.data[4 * sum(lengths) :], areas)
    scales = len(shipment.input_sizes)
    return [
        torch.stack(
            [
                _resize(photo.reshape(*photo_size, 3), tables[index * scales + scale], *input_size)
                for index, (photo, photo_size) in enumerate(zip(photos, shipment.photo_sizes, strict=True))
            ]
        )
        for scale, input_size in enumerate(shipment.input_sizes)
    ]


def _resize(photo: Tensor, table: Tensor, height: int, width: int) -> Tensor:
    """The sums of ``images.resize``, in integers that hold them."""
    top, bottom, top_weight, bottom_weight = table[: 4 * height].reshape(4, height)
    left, right, left_weight, right_weight = table[4 * height :].reshape(4, width)
    rows: Tensor = photo.index_select(0, top).to(torch.int16) * top_weight.to(torch.int16)[:, None, None]
    rows += photo.index_select(0, bottom).to(torch.int16) * bottom_weight.to(torch.int16)[:, None, None]
    total: Tensor = rows.index_select(1, left).to(torch.int32) * left_weight[:, None]
    total += rows.index_select(1, right).to(torch.int32) * right_weight[:, None]
    total += 512
    total >>= 10
    return total.to(torch.uint8)


def normalise(images: Tensor, mean: Color3 = IMAGE_MEAN, std: Color3 = IMAGE_STD) -> Tensor:
    """``images.to_tensor`` for images that lie on a device.

    Args:
        images: (B, h, w, 3) uint8 RGB.
        mean, std: of RGB values in [0, 1], see ``ModelConfig``.

    Returns:
        (B, 3, h, w) float32, channels-last.
    """
    whole, center, deviation = _constants(images.device, mean, std)
    # divided by a tensor, because a device multiplies by the reciprocal of a number, which rounds otherwise
    return images.permute(0, 3, 1, 2).to(torch.float32).div_(whole).sub_(center).div_(deviation)


@lru_cache(maxsize=16)
def _constants(device: torch.device, mean: Color3, std: Color3) -> tuple[Tensor, Tensor, Tensor]:
    with torch.inference_mode(False):
        whole, center, deviation = (
            torch.tensor(values, dtype=torch.float32).view(-1, 1, 1).to(device) for values in ((255.0,), mean, std)
        )
    return whole, center, deviation
