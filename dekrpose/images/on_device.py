"""Resizing and normalising on a device: photos go there as they are, and the numbers are those of ``network_input``.

*Image pixels* are those of the photo as it was read, *input pixels* those of the network's input.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from dekrpose.config import IMAGE_MEAN, IMAGE_STD, Color3
from dekrpose.images.resampling import Geometry, Pixels, axis_neighbours


def network_input_on(
    device: torch.device, photos: Sequence[Pixels], geometries: Sequence[Geometry], mean: Color3, std: Color3
) -> Tensor:
    """``images.network_input`` on a device: (B, 3, h, w) float32, channels-last."""
    resized = [_resize(_sent(photo, device), own) for photo, own in zip(photos, geometries, strict=True)]
    return normalise(torch.stack(resized), mean, std)


def _sent(photo: Pixels, device: torch.device) -> Tensor:
    """By way of memory that a CUDA device reads by itself."""
    pixels = torch.empty(photo.shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
    pixels.numpy()[:] = photo
    return pixels.to(device, non_blocking=True)


def _resize(photo: Tensor, geometry: Geometry) -> Tensor:
    """The sums of ``images.resize``, (h, w, 3), in integers that hold them."""
    top, bottom, top_weight, bottom_weight, left, right, left_weight, right_weight = _neighbours(geometry, photo.device)
    rows: Tensor = photo.index_select(0, top).to(torch.int16) * top_weight.to(torch.int16)[:, None, None]
    rows += photo.index_select(0, bottom).to(torch.int16) * bottom_weight.to(torch.int16)[:, None, None]
    total: Tensor = rows.index_select(1, left).to(torch.int32) * left_weight[:, None]
    total += rows.index_select(1, right).to(torch.int32) * right_weight[:, None]
    total += 512
    total >>= 10
    return total.to(torch.uint8)


@lru_cache(maxsize=64)
def _neighbours(geometry: Geometry, device: torch.device) -> list[Tensor]:
    """``axis_neighbours`` on a device, int32; kept, because the photos of a stream are of one size."""
    with torch.inference_mode(False):
        return [torch.from_numpy(part).int().to(device) for axis in axis_neighbours(geometry) for part in axis]


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
