"""From DEKR's maps to poses: centers, the pose that each one regresses, suppression, scores.

Pure tensor functions. Frames: "heatmap pixels" are cells of the network's output at one scale, "input pixels"
are pixels of the network's input at scale 1. Points are xy, sizes are (height, width). Candidates come in batches, in
the same number of places for each photo, M, the highest centers first, and some places hold nobody: so shapes are
fixed, and nothing waits for a device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dekrpose.architectures.dekr.matching import match as match_nearest
from dekrpose.architectures.dekr.matching import read_peaks
from dekrpose.architectures.dekr.multiscale import average_heatmaps, heat_values, pool_scales
from dekrpose.architectures.dekr.peaks import Peaks, cell_peaks, move_by_weight, refine
from dekrpose.architectures.parts.pose_nms import pose_nms
from dekrpose.config import OUTPUT_STRIDE, MatchMode

CENTER_THRESHOLD = 0.01
"""Lower centers are nobody's."""


@dataclass(frozen=True, eq=False)
class Centers:
    """The highest peaks of center maps.

    Args:
        xy: (B, M, 2) integers, heatmap pixels.
        values: (B, M), highest first.
        present: (B, M), whether there is a peak above the threshold.
    """

    xy: Tensor
    values: Tensor
    present: Tensor


@dataclass(frozen=True, eq=False)
class Candidates:
    """The poses that the centers of a batch regress.

    Args:
        poses: (B, M, K, 2) xy, input pixels.
        values: (B, M) of the center map.
        present: (B, M), whether somebody can be there.
    """

    poses: Tensor
    values: Tensor
    present: Tensor

    def of(self, index: int) -> Tensor:
        """Those of one photo, (N, K, 3): x and y in input pixels, and the center's value; N may be 0."""
        kept = self.present[index]
        poses, values = self.poses[index][kept], self.values[index][kept]
        return torch.cat([poses, values[:, None, None].expand(-1, poses.shape[1], 1)], dim=2)


def find_centers(center_maps: Tensor, *, max_centers: int = 30, threshold: float = CENTER_THRESHOLD) -> Centers:
    """Find the peaks of center maps: pixels that equal the maximum of their window.

    The window is 3x3; 5x5 when height and width average over 200, 7x7 over 300. All pixels of a plateau are peaks.

    Args:
        center_maps: (B, h, w) center heatmaps.
        max_centers: M; maps of fewer pixels have as many places as pixels.
        threshold: keep values above this.

    Raises:
        ValueError: the maps are not (B, h, w).
    """
    if center_maps.ndim != 3:
        raise ValueError(f"center_maps must be (B, h, w), got {tuple(center_maps.shape)}")
    width = center_maps.shape[2]
    is_peak = center_maps == _highest_around(center_maps)
    # The whole map goes through topk, as in the official code: its order among ties is what recordings hold.
    peaks = torch.where(is_peak, center_maps, 0.0).flatten(1)
    pixels = peaks.shape[1]
    values, places = peaks.topk(min(max_centers, pixels) if isinstance(pixels, int) else max_centers)
    present = values > threshold
    if threshold < 0:
        present = present & is_peak.flatten(1).gather(1, places)
    rows = torch.div(places, width, rounding_mode="floor")
    return Centers(torch.stack([places - rows * width, rows], dim=2), values, present)


def _highest_around(center_maps: Tensor) -> Tensor:
    height, width = center_maps.shape[1:]
    maps = center_maps[:, None]
    if isinstance(height, int) and isinstance(width, int):
        side = (height + width) / 2
        window = 7 if side > 300 else 5 if side > 200 else 3
        return F.max_pool2d(maps, window, stride=1, padding=window // 2)[:, 0]
    # a graph for all sizes: windows within windows make larger ones
    small = F.max_pool2d(maps, 3, stride=1, padding=1)
    medium = F.max_pool2d(small, 3, stride=1, padding=1)
    large = F.max_pool2d(medium, 3, stride=1, padding=1)
    sides = torch.full((1,), 1.0) * height + torch.full((1,), 1.0) * width
    return torch.where(sides > 600, large, torch.where(sides > 400, medium, small))[:, 0]


def read_at(maps: Tensor, pixels: Tensor) -> Tensor:
    """The values (B, C, M) of maps (B, C, h, w) at pixels (B, M, 2), integer xy."""
    places = (pixels[..., 1] * maps.shape[-1] + pixels[..., 0]).unsqueeze(1)
    return maps.flatten(2).gather(2, places.expand(-1, maps.shape[1], -1))


def candidates_at(centers: Centers, positions: Tensor, *, scale: float = 1.0) -> Candidates:
    """The poses at centers.

    Args:
        centers: of a batch at one scale.
        positions: (B, 2K, M) there, heatmap pixels, channels x0, y0, x1, ...
        scale: size of this scale's input relative to scale 1.
    """
    return Candidates(points_of(positions) * (OUTPUT_STRIDE / scale), centers.values, centers.present)


def points_of(channels: Tensor) -> Tensor:
    """(B, 2K, M) with channels x0, y0, x1, ... -> (B, M, K, 2)."""
    return channels.reshape(channels.shape[0], -1, 2, channels.shape[2]).permute(0, 3, 1, 2)


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
        positions: (B, 2K, h, w), heatmap pixels (see ``decode.pose_map``).
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
    return candidates_at(centers, read_at(positions, centers.xy), scale=scale)


def takes_pick(network: Callable[..., object]) -> bool:
    """Whether a network gives offsets at picked pixels (see ``DEKR.forward``), and nobody waits for its whole maps.

    Hooks on its answer want the maps, and compiled networks cannot be left in their middle.
    """
    # a compiled network's wrapper has its attributes, but not its class
    if not isinstance(network, nn.Module) or not hasattr(type(network), "picks"):
        return False
    watched = network._forward_hooks or getattr(network, "_compiled_call_impl", None) is not None
    return bool(network.picks) and not watched


class CenterPicker:
    """Picks the centers of a batch between the network's two heads, so that offsets are computed there alone.

    The offset head's last block is the costliest part of a small network.

    Args:
        max_centers: of each photo.
        cells: (height, width) of the maps within which they are, heatmap pixels.
    """

    def __init__(self, max_centers: int, cells: tuple[int, int]) -> None:
        self.max_centers, self.cells = max_centers, cells

    def __call__(self, heatmaps: Tensor) -> Tensor:
        """Heatmaps (B, K+1, h, w) -> pixels (B, P, 2) xy; photos with fewer centers have others behind them."""
        height, width = self.cells
        found = find_centers(heatmaps[:, -1, :height, :width].float(), max_centers=self.max_centers)
        most = max(1, int(found.present.sum(1).max()))  # the present come first; a pixel is what networks may count on
        self._centers = Centers(found.xy[:, :most], found.values[:, :most], found.present[:, :most])
        return self._centers.xy

    def candidates(self, offsets: Tensor, scale: float) -> Candidates:
        """The poses of the picked centers, from offsets (B, 2K, P) there."""
        pixels = self._centers.xy.transpose(1, 2).repeat(1, offsets.shape[1] // 2, 1)
        return candidates_at(self._centers, pixels - offsets, scale=scale)


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
    """By weight, those of scale 1's cells if it is the largest scale and its maps cover the size; else of pixels."""
    height, width = heatmaps[0].shape[1:]
    if match == "weighted" and size == (OUTPUT_STRIDE * height, OUTPUT_STRIDE * width):
        return cell_peaks(heatmaps[0] if len(heatmaps) == 1 else average_heatmaps(heatmaps, (height, width)))
    return read_peaks(average_heatmaps(heatmaps, size))


def cells_at(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(height, width) of a scale's maps, heatmap pixels, that belong to a size in input pixels of scale 1."""
    height, width = (max(1, round(side * scale / OUTPUT_STRIDE)) for side in size)
    return height, width


def crop_to(heatmaps: Tensor, positions: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The upper left (height, width) heatmap pixels of a scale's maps, in float32."""
    height, width = size
    return heatmaps[..., :height, :width].float(), positions[..., :height, :width].float()


def _check_pairs(channels: Tensor) -> None:
    if channels.ndim < 3 or channels.shape[-3] % 2:
        raise ValueError(f"expected (..., 2K, h, w) with x and y channels, got {tuple(channels.shape)}")
