"""A second look at an image, in the mirror: "flip test"."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
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
