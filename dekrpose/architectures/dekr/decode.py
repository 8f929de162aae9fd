"""From DEKR's whole maps, at one or several scales, to poses.

Pure tensor functions; frames are those of ``candidates``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dekrpose.architectures.dekr.candidates import (
    CENTER_THRESHOLD,
    OFFICIAL,
    Candidates,
    Choice,
    candidates_at,
    cells_at,
    choose_poses,
    find_centers,
    points_of,
    pool_scales,
)
from dekrpose.architectures.parts.blocks import gather_pixels
from dekrpose.architectures.parts.poses import Scored
from dekrpose.config import OUTPUT_STRIDE


def decode(
    maps: Sequence[tuple[Tensor, Tensor]],
    scales: Sequence[float] = (1.0,),
    choice: Choice = OFFICIAL,
    *,
    max_centers: int | None = None,
    center_threshold: float = CENTER_THRESHOLD,
    other_scale_factor: float = 0.9,
    valid_size: tuple[int, int] | None = None,
) -> Scored:
    """Decode all scales of one image into poses, in the official order.

    Args:
        maps: per scale heatmaps (K + 1, h, w), the center map last, and positions (2K, h, w), heatmap pixels.
        scales: the scale of each entry of ``maps``, in any order; 1 must be among them.
        choice: among the candidates.
        max_centers: most centers per scale; None: as many as people, as in the official code.
        center_threshold: keep centers above this.
        other_scale_factor: weight of the center values of scales other than 1.
        valid_size: (height, width) in input pixels of scale 1, multiples of 4, of an image that was padded at the right
            and bottom: the maps are cropped to it, so the padding has no influence. None: all is valid.

    Returns:
        Poses (N, K, 2) in input pixels of scale 1, never clipped; keypoint scores (N, K), center value times heat, or
        times weight; pose scores (N,), their means. All raw (they can be slightly negative), float32, N may be 0.

    Raises:
        ValueError: the maps do not belong together, or scale 1 is missing.
    """
    if len(maps) != len(scales) or 1.0 not in scales:
        raise ValueError(f"scales must name each of the {len(maps)} maps and contain 1, got {tuple(scales)}")
    centers = choice.max_people if max_centers is None else max_centers
    order = sorted(range(len(scales)), key=lambda index: -scales[index])
    scales = [float(scales[index]) for index in order]
    height, width = maps[order[scales.index(1.0)]][0].shape[-2:]
    size = (height * OUTPUT_STRIDE, width * OUTPUT_STRIDE) if valid_size is None else valid_size
    pairs = [crop_to(*maps[index], cells_at(size, scale)) for index, scale in zip(order, scales, strict=True)]
    candidates = pool_scales(
        [
            candidate_poses(
                heatmaps[None], positions[None], max_centers=centers, threshold=center_threshold, scale=scale
            ).of(0)
            for (heatmaps, positions), scale in zip(pairs, scales, strict=True)
        ],
        scales,
        other_scale_factor=other_scale_factor,
    )
    return choose_poses(candidates, [heatmaps[:-1] for heatmaps, _ in pairs], size, choice)


def candidate_poses(
    heatmaps: Tensor,
    positions: Tensor,
    *,
    max_centers: int = 30,
    threshold: float = CENTER_THRESHOLD,
    scale: float = 1.0,
) -> Candidates:
    """The possible people of a batch at one scale.

    Args:
        heatmaps: (B, K + 1, h, w), the center map last.
        positions: (B, 2K, h, w), heatmap pixels (see ``pose_map``).
        max_centers, threshold: see ``find_centers``.
        scale: size of this scale's input relative to scale 1.

    Raises:
        ValueError: the maps do not belong together.
    """
    batch, channels, *size = heatmaps.shape
    if tuple(positions.shape) != (batch, 2 * (channels - 1), *size):
        raise ValueError(
            f"heatmaps (B, K + 1, h, w) and positions (B, 2K, h, w) do not belong together: "
            f"{tuple(heatmaps.shape)} and {tuple(positions.shape)}"
        )
    centers = find_centers(heatmaps[:, -1], max_centers=max_centers, threshold=threshold)
    return candidates_at(centers, points_of(gather_pixels(positions, centers.xy)), scale=scale)


def pose_map(offsets: Tensor) -> Tensor:
    """Turn offsets into positions: each pixel's own place minus its offset.

    The official code stores pixel - keypoint; the paper writes keypoint - center ("Disentangled Keypoint Regression").

    Args:
        offsets: (..., 2K, h, w), heatmap pixels, channels x0, y0, x1, ...

    Returns:
        (..., 2K, h, w), heatmap pixels, channels x0, y0, x1, ...

    Raises:
        ValueError: the channel count is odd.
    """
    if offsets.ndim < 3 or offsets.shape[-3] % 2:
        raise ValueError(f"expected (..., 2K, h, w) with x and y channels, got {tuple(offsets.shape)}")
    height, width = offsets.shape[-2:]
    xs = torch.arange(width, dtype=offsets.dtype, device=offsets.device).expand(height, width)
    ys = torch.arange(height, dtype=offsets.dtype, device=offsets.device)[:, None].expand(height, width)
    return torch.stack([xs, ys]).repeat(offsets.shape[-3] // 2, 1, 1) - offsets


def crop_to(heatmaps: Tensor, positions: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The upper left (height, width) heatmap pixels of a scale's maps, in float32."""
    height, width = size
    return heatmaps[..., :height, :width].float(), positions[..., :height, :width].float()
