"""From DEKR's maps to poses: centers, the pose that each one regresses, suppression, scores.

Pure tensor functions. Frames: "heatmap pixels" are cells of the network's output at one scale, "input pixels"
are pixels of the network's input at scale 1. Points are xy, sizes are (height, width).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dekrpose.architectures.dekr.candidates import CENTER_THRESHOLD, candidate_poses
from dekrpose.architectures.dekr.matching import match as match_nearest
from dekrpose.architectures.dekr.matching import read_peaks
from dekrpose.architectures.dekr.multiscale import average_heatmaps, heat_values, pool_scales
from dekrpose.architectures.dekr.peaks import Peaks, move_by_weight, read_cell_peaks, refine
from dekrpose.architectures.parts.pose_nms import pose_nms
from dekrpose.config import OUTPUT_STRIDE, MatchMode


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
    _check_pairs(offsets)
    height, width = offsets.shape[-2:]
    xs = torch.arange(width, dtype=offsets.dtype, device=offsets.device).expand(height, width)
    ys = torch.arange(height, dtype=offsets.dtype, device=offsets.device)[:, None].expand(height, width)
    return torch.stack([xs, ys]).repeat(offsets.shape[-3] // 2, 1, 1) - offsets


def decode(
    maps: Sequence[tuple[Tensor, Tensor]],
    scales: Sequence[float] = (1.0,),
    *,
    max_people: int = 30,
    max_centers: int | None = None,
    center_threshold: float = CENTER_THRESHOLD,
    nms_threshold: float = 0.05,
    nms_min_keypoints: int = 8,
    other_scale_factor: float = 0.9,
    match: MatchMode | None = None,
    valid_size: tuple[int, int] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Decode all scales of one image into poses, in the official order.

    Args:
        maps: per scale heatmaps (K + 1, h, w), the center map last, and positions (2K, h, w), heatmap pixels.
        scales: the scale of each entry of ``maps``, in any order; 1 must be among them.
        max_people: most poses in the answer.
        max_centers: most centers per scale; None: as many as ``max_people``, as in the official code.
        center_threshold: keep centers above this.
        nms_threshold: pose NMS distance as a share of the pose's box diagonal.
        nms_min_keypoints: poses are neighbours when more than this many keypoints are near.
        other_scale_factor: weight of the center values of scales other than 1.
        match: move keypoints to heatmap peaks: to the nearest one after suppression, with the official border quirk or
            as the paper says; or "weighted", before suppression, see ``matching.move_by_weight``; None is off.
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
    centers = max_people if max_centers is None else max_centers
    order = sorted(range(len(scales)), key=lambda index: -scales[index])
    scales = [float(scales[index]) for index in order]
    height, width = maps[order[scales.index(1.0)]][0].shape[-2:]
    size = (height * OUTPUT_STRIDE, width * OUTPUT_STRIDE) if valid_size is None else valid_size
    cells = [(max(1, round(size[0] * s / OUTPUT_STRIDE)), max(1, round(size[1] * s / OUTPUT_STRIDE))) for s in scales]
    pairs = [crop_to(*maps[index], cut) for index, cut in zip(order, cells, strict=True)]
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
    return choose_poses(
        candidates,
        [heatmaps[:-1] for heatmaps, _ in pairs],
        size,
        max_people=max_people,
        nms_threshold=nms_threshold,
        nms_min_keypoints=nms_min_keypoints,
        match=match,
    )


@np.errstate(all="ignore")  # what underflows is nothing, whatever the program has told NumPy
def choose_poses(
    candidates: Tensor,
    heatmaps: Sequence[Tensor],
    size: tuple[int, int],
    *,
    max_people: int = 30,
    nms_threshold: float = 0.05,
    nms_min_keypoints: int = 8,
    match: MatchMode | None = None,
    heat: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """From the candidates of one image to its poses: heat, suppression, matching, in the order that it wants.

    Args:
        candidates: (N, K, 3), see ``Candidates.of``.
        heatmaps: of the keypoints, per scale (K, h, w), from large to small.
        size: (height, width), input pixels of scale 1.
        heat: (N, K) at the candidates' keypoints, where it has been read already; heatmaps are then for matching only.
        max_people, nms_threshold, nms_min_keypoints, match: as in ``decode``.

    Returns:
        As ``decode``.
    """
    peaks = None if match is None or len(candidates) == 0 else _peaks(heatmaps, size, match)
    if peaks is not None and match == "weighted":
        moved, heat = move_by_weight(candidates[..., :2], peaks)
        candidates = torch.cat([moved, candidates[..., 2:]], dim=2)
    poses, keypoint_scores, scores = pose_nms(
        candidates,
        heat_values(heatmaps, candidates[..., :2], size) if heat is None else heat,
        threshold=nms_threshold,
        min_keypoints=nms_min_keypoints,
        max_people=max_people,
    )
    if peaks is not None and match == "weighted":
        poses = refine(poses, keypoint_scores, peaks)
    elif peaks is not None and match is not None:
        poses = match_nearest(poses, keypoint_scores, peaks, "official" if match == "official" else "paper")
    return poses, keypoint_scores, scores


def _peaks(heatmaps: Sequence[Tensor], size: tuple[int, int], match: MatchMode) -> Peaks:
    """The heatmaps' peaks, without enlarging them where that gives the same."""
    cells = tuple(heatmaps[0].shape[1:])
    if match != "official" and len(heatmaps) == 1 and size == (OUTPUT_STRIDE * cells[0], OUTPUT_STRIDE * cells[1]):
        peaks = read_cell_peaks(heatmaps[0])
        if peaks is not None:
            return peaks
    return read_peaks(average_heatmaps(heatmaps, size))


def crop_to(heatmaps: Tensor, positions: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The upper left (height, width) heatmap pixels of a scale's maps, in float32."""
    height, width = size
    return heatmaps[..., :height, :width].float(), positions[..., :height, :width].float()


def _check_pairs(channels: Tensor) -> None:
    if channels.ndim < 3 or channels.shape[-3] % 2:
        raise ValueError(f"expected (..., 2K, h, w) with x and y channels, got {tuple(channels.shape)}")
