"""Several looks at one image: mirrored, and at other scales.

Scales are ordered from large to small everywhere; the answer is in input pixels of scale 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

FLIP_SHIFT = 3
"""Input pixels: stride 4 minus 1, so that the mirrored image's output cells sit on the image's own."""


def flip_input(images: Tensor) -> Tensor:
    """Mirror a batch and shift it left onto the stride-4 grid.

    The last three columns keep the values that mirroring alone gives them, as in the official code.

    Args:
        images: (..., H, W) network input.

    Returns:
        (..., H, W), a new tensor.
    """
    mirrored = images.flip(-1)
    return torch.cat([mirrored[..., FLIP_SHIFT:], mirrored[..., -FLIP_SHIFT:]], dim=-1)


def merge_flipped(
    heatmaps: Tensor,
    flipped_heatmaps: Tensor,
    positions: Tensor,
    flipped_positions: Tensor,
    flip_indices: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Average the maps of an image with those of its mirror image (see ``flip_input``).

    Args:
        heatmaps, flipped_heatmaps: (..., K + 1, h, w), the center map last.
        positions, flipped_positions: (..., 2K, h, w), heatmap pixels, channels x0, y0, x1, ...
        flip_indices: for each of the K keypoints, the one that takes its place in a mirrored image.

    Returns:
        Heatmaps (..., K + 1, h, w) and positions (..., 2K, h, w) in the frame of the image.

    Raises:
        ValueError: the number of flip indices is not K.
    """
    count = heatmaps.shape[-3] - 1
    if len(flip_indices) != count or positions.shape[-3] != 2 * count:
        raise ValueError(
            f"{len(flip_indices)} flip indices do not fit {count} keypoint heatmaps and "
            f"{positions.shape[-3]} position channels"
        )
    keep = _channels.__wrapped__ if torch.compiler.is_compiling() else _channels  # what a compiler passes is no data
    channels = keep((*flip_indices, count), heatmaps.device)
    back = flipped_heatmaps.flip(-1).index_select(-3, channels)
    *batch, _, height, width = positions.shape
    mirrored = flipped_positions.flip(-1).reshape(*batch, count, 2, height, width).index_select(-4, channels[:-1])
    xs, ys = mirrored.unbind(-3)
    position_back = torch.stack([width - xs - 1, ys], dim=-3).reshape(positions.shape)
    return (heatmaps + back) / 2, (positions + position_back) / 2


@lru_cache(maxsize=16)
def _channels(indices: tuple[int, ...], device: torch.device) -> Tensor:
    """Kept, because copying from the CPU waits for a GPU, and cannot be recorded in a CUDA graph."""
    with torch.inference_mode(False):
        return torch.tensor(indices, device=device)


def upsample_aligned(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge maps bilinearly so that cell i lands exactly on pixel s * i, for a whole factor s.

    Corners are aligned on size - s + 1 pixels; the rest at the right and bottom repeats the border.

    Args:
        maps: (..., h, w).
        size: (height, width) of the result; s is the whole part of height / h.

    Returns:
        (..., height, width).
    """
    height, width = size
    rest = max(1, height // maps.shape[-2]) - 1
    flat = maps.reshape(1, -1, *maps.shape[-2:])
    larger = F.interpolate(flat, size=(height - rest, width - rest), mode="bilinear", align_corners=True)
    if rest:
        larger = F.pad(larger, (0, rest, 0, rest), mode="replicate")
    return larger.reshape(*maps.shape[:-2], height, width)


def average_heatmaps(heatmaps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Enlarge the heatmaps of all scales to the input resolution of scale 1 and average them.

    Args:
        heatmaps: per scale (C, h, w).
        size: (height, width), input pixels of scale 1.

    Returns:
        (C, height, width).
    """
    total = torch.zeros_like(heatmaps[0][:, :1, :1]).expand(-1, *size)
    for scale_heatmaps in heatmaps:
        total = total + upsample_aligned(scale_heatmaps, size)
    return total / len(heatmaps)


def heat_values(heatmaps: Sequence[Tensor], points: Tensor, size: tuple[int, int]) -> Tensor:
    """Read the averaged heatmap at each pose's keypoints without building it.

    The same numbers as ``average_heatmaps`` at floored and clamped points, for a small part of the work.

    Args:
        heatmaps: per scale (K, h, w).
        points: (N, K, 2) xy, input pixels of scale 1; may lie outside.
        size: (height, width), input pixels of scale 1.

    Returns:
        (N, K) heat.
    """
    total = torch.zeros_like(points[..., 0])
    for scale_heatmaps in heatmaps:
        count, height, width = scale_heatmaps.shape
        rest = max(1, size[0] // height) - 1
        x0, x1, x_share = _cells(points[..., 0], size[1], width, rest)
        y0, y1, y_share = _cells(points[..., 1], size[0], height, rest)
        flat = scale_heatmaps.reshape(count, -1)
        channels = torch.arange(count, device=flat.device)
        top = flat[channels, y0 * width + x0] * (1 - x_share) + flat[channels, y0 * width + x1] * x_share
        bottom = flat[channels, y1 * width + x0] * (1 - x_share) + flat[channels, y1 * width + x1] * x_share
        total = total + (top * (1 - y_share) + bottom * y_share)
    return total / len(heatmaps)


def _cells(values: Tensor, length: int, cells: int, rest: int) -> tuple[Tensor, Tensor, Tensor]:
    """The two cells around each coordinate and the share of the second, along one axis."""
    last = length - rest - 1
    pixels = values.nan_to_num(0.0).clamp(0, length - 1).floor().clamp(max=last)
    places = pixels * ((cells - 1) / last if last > 0 else 0.0)
    lower = places.long()
    return lower, (lower + 1).clamp(max=cells - 1), places - lower
