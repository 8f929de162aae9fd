"""From heatmaps to poses: centers, the candidates that they regress, matching by weight, suppression, scores.

Pure tensor functions. Frames: "heatmap pixels" are cells of the network's output at one scale, "input pixels"
are pixels of the network's input at scale 1. Points are xy, sizes are (height, width). Candidates come in batches, in
the same number of places for each photo, M, the highest centers first, and some places hold nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dekrpose.architectures.contract import Stage
from dekrpose.architectures.dekr.matching import PEAKS_PER_KEYPOINT, Peaks, read_peaks
from dekrpose.architectures.dekr.matching import match as match_nearest
from dekrpose.architectures.parts.poses import Scored, pose_nms
from dekrpose.config import OUTPUT_STRIDE, MatchMode
from dekrpose.options import Options

if TYPE_CHECKING:
    from dekrpose.images import Geometry

CENTER_THRESHOLD = 0.01
"""Lower centers are nobody's."""
SPREAD = 0.15
"""How far off regressed keypoints are expected to be, as a share of the diagonal of their pose's box."""
WEIGHT_REACH = 2.5
"""Peaks farther away than this many spreads are not taken by weight."""

Window = Callable[[Tensor], Tensor]
"""The highest value in the window around each pixel of maps (B, h, w), of the same shape."""


@dataclass(frozen=True)
class Choice:
    """How poses are chosen from candidates.

    Args:
        max_people: most poses in the answer.
        nms_threshold: pose NMS distance as a share of the pose's box diagonal.
        nms_min_keypoints: poses are neighbours when more than this many keypoints are near.
        match: move keypoints to heatmap peaks: to the nearest one after suppression, with the official border quirk or
            as the paper says; or "weighted", before suppression, see ``move_by_weight``; None is off.
    """

    max_people: int = 30
    nms_threshold: float = 0.05
    nms_min_keypoints: int = 8
    match: MatchMode | None = None


OFFICIAL = Choice()
"""What the official code chooses for COCO."""


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

    def shortened(self) -> Centers:
        """Without the places behind the last peak of any map, but never without any: networks count on a pixel."""
        most = max(1, int(self.present.sum(1).max()))
        return Centers(self.xy[:, :most], self.values[:, :most], self.present[:, :most])


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


def highest_around(maps: Tensor) -> Tensor:
    """The highest value in the window around each pixel, (B, h, w): 3x3, 5x5 from a mean side of 200, 7x7 of 300."""
    side = (maps.shape[1] + maps.shape[2]) / 2
    window = 7 if side > 300 else 5 if side > 200 else 3
    return F.max_pool2d(maps[:, None], window, stride=1, padding=window // 2)[:, 0]


def find_centers(
    center_maps: Tensor, *, max_centers: int = 30, threshold: float = CENTER_THRESHOLD, highest: Window = highest_around
) -> Centers:
    """Find the peaks of center maps: pixels that equal the highest value of their window, so all pixels of a plateau.

    The whole map goes through topk, as in the official code: its order among ties is what recordings hold.

    Args:
        center_maps: (B, h, w) center heatmaps.
        max_centers: M; maps of fewer pixels have as many places as pixels.
        threshold: keep values above this.
        highest: of each window.

    Raises:
        ValueError: the maps are not (B, h, w).
    """
    if center_maps.ndim != 3:
        raise ValueError(f"center_maps must be (B, h, w), got {tuple(center_maps.shape)}")
    width = center_maps.shape[2]
    is_peak = center_maps == highest(center_maps)
    peaks = torch.where(is_peak, center_maps, 0.0).flatten(1)
    pixels = peaks.shape[1]
    values, places = peaks.topk(min(max_centers, pixels) if isinstance(pixels, int) else max_centers)
    present = (values > threshold) & is_peak.flatten(1).gather(1, places)
    rows = torch.div(places, width, rounding_mode="floor")
    return Centers(torch.stack([places - rows * width, rows], dim=2), values, present)


def candidates_at(centers: Centers, points: Tensor, *, scale: float = 1.0) -> Candidates:
    """The poses at centers, on the CPU.

    Args:
        centers: of a batch at one scale.
        points: (B, M, K, 2) xy there, heatmap pixels.
        scale: size of this scale's input relative to scale 1.
    """
    return Candidates((points * (OUTPUT_STRIDE / scale)).cpu(), centers.values.cpu(), centers.present.cpu())


def points_of(channels: Tensor) -> Tensor:
    """(B, 2K, M) with channels x0, y0, x1, ... -> (B, M, K, 2)."""
    return channels.reshape(channels.shape[0], -1, 2, channels.shape[2]).permute(0, 3, 1, 2)


def picked_candidates(
    network: Callable[..., Any], images: Tensor, geometry: Geometry, options: Options, stage: Stage
) -> tuple[Tensor, Candidates]:
    """See ``Architecture.candidates``: heatmaps, and the poses at their centers.

    Centers are picked between the network's two heads, so that offsets are computed there alone: the offset head's last
    block is the costliest part of a small network. On a device ``shortened`` waits for the heatmaps, which is no time
    of decoding.
    """
    height, width = cells_at(geometry.base_size, geometry.scale)
    picked: list[Centers] = []

    def pick(heatmaps: Tensor) -> Tensor:
        with stage("decode"):
            centers = find_centers(heatmaps[:, -1, :height, :width].float(), max_centers=options.max_centers)
        picked.append(centers.shortened())
        return picked[0].xy

    heatmaps, offsets = network(images, pick=pick)
    points = picked[0].xy.unsqueeze(2) - points_of(offsets)
    return heatmaps[..., :height, :width].float().cpu(), candidates_at(picked[0], points, scale=geometry.scale)


def pool_scales(candidates: Sequence[Tensor], scales: Sequence[float], *, other_scale_factor: float) -> Tensor:
    """Put the candidates of all scales together, their center values made comparable.

    Values of the other scales are divided by their own maximum and multiplied by scale 1's maximum, if anybody is
    there, and the factor.

    Args:
        candidates: per scale (N, K, 3): x, y in input pixels of scale 1, center value (see ``Candidates.of``).
        scales: the scale of each, from large to small, 1 among them.
        other_scale_factor: weight of the scales other than 1.

    Returns:
        (sum of N, K, 3), in the order of the scales.
    """
    own = candidates[list(scales).index(1.0)]
    reference = own[..., 2].max() if len(own) else 1.0
    pooled = []
    for scale, poses in zip(scales, candidates, strict=True):
        if scale != 1.0 and len(poses):
            values = poses[..., 2:] / poses[..., 2].max() * reference * other_scale_factor
            poses = torch.cat([poses[..., :2], values], dim=2)
        pooled.append(poses)
    return torch.cat(pooled)


@np.errstate(all="ignore")  # what underflows is nothing, whatever the program has told NumPy
def choose_poses(candidates: Tensor, heatmaps: Sequence[Tensor], size: tuple[int, int], choice: Choice) -> Scored:
    """From the candidates of one image to its poses: heat, suppression, matching, in the order that it wants.

    Args:
        candidates: (N, K, 3), see ``Candidates.of``.
        heatmaps: of the keypoints, per scale (K, h, w), from large to small.
        size: (height, width), input pixels of scale 1.
        choice: among the candidates.

    Returns:
        As ``decode``.
    """
    weighted = choice.match == "weighted"
    peaks = _peaks(heatmaps, size, weighted) if choice.match is not None and len(candidates) else None
    if peaks is not None and weighted:
        moved, heat = move_by_weight(candidates[..., :2], peaks)
        candidates = torch.cat([moved, candidates[..., 2:]], dim=2)
    else:
        heat = heat_values(heatmaps, candidates[..., :2], size)
    nms = choice.nms_threshold, choice.nms_min_keypoints, choice.max_people
    poses, weights, scores = pose_nms(candidates, heat, *nms)
    if peaks is not None and weighted:
        poses = refine(poses, weights, peaks)
    elif peaks is not None:
        poses = match_nearest(poses, weights, peaks, choice.match == "official")
    return poses, weights, scores


def _peaks(heatmaps: Sequence[Tensor], size: tuple[int, int], weighted: bool) -> Peaks:
    """By weight, those of the largest scale's cells if they are whole pixels apart; else of pixels."""
    height, width = heatmaps[0].shape[1:]
    spacing = size[0] // height
    if weighted and size == (spacing * height, spacing * width) and OUTPUT_STRIDE % spacing == 0:
        return cell_peaks(average_heatmaps(heatmaps, (height, width)), spacing)
    return read_peaks(average_heatmaps(heatmaps, size))


def cells_at(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(height, width) of a scale's maps, heatmap pixels, that belong to a size in input pixels of scale 1."""
    height, width = (max(1, round(side * scale / OUTPUT_STRIDE)) for side in size)
    return height, width


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
    return torch.as_tensor(sum(upsample_aligned(maps, size) for maps in heatmaps)) / len(heatmaps)


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


def cell_peaks(heatmaps: Tensor, spacing: int = OUTPUT_STRIDE) -> Peaks:
    """Of heatmaps (K, h, w) with cells ``spacing`` input pixels apart: cells above 0 that no neighbour surpasses."""
    count, _, width = heatmaps.shape
    highest = F.max_pool2d(heatmaps[None], 3, stride=1, padding=1)[0]
    heat = torch.where((heatmaps == highest) & (heatmaps > 0), heatmaps, 0.0).reshape(count, -1)
    heat, places = heat.topk(min(PEAKS_PER_KEYPOINT, heat.shape[1]))
    cells = torch.stack([places % width, places // width], dim=2).to(heat.dtype)
    return Peaks((spacing * cells).cpu().numpy(), heat.cpu().numpy(), heatmaps.cpu().numpy(), spacing)


def move_by_weight(poses: Tensor, peaks: Peaks) -> tuple[Tensor, Tensor]:
    """Move each keypoint to the peak of the highest weight: its heat times a Gaussian of the way there.

    The Gaussian is as wide as regressed keypoints are uncertain, ``SPREAD`` of the pose's box, so a clear peak is
    taken before a faint one that is nearer. A keypoint with no peak in reach stays.

    Args:
        poses: (N, K, 2) xy, input pixels.
        peaks: of the image.

    Returns:
        (N, K, 2) xy, input pixels, a new tensor; and (N, K) the weights, 0 where a keypoint stays.
    """
    points = poses.cpu().numpy()
    diagonals = np.linalg.norm(np.ptp(points, axis=1), axis=1)
    x = points[:, :, None, 0] - peaks.places[:, :, 0]
    y = points[:, :, None, 1] - peaks.places[:, :, 1]
    squared = (x * x + y * y) / np.maximum(np.square(SPREAD * diagonals), 1e-9)[:, None, None]
    weights = np.where(squared < WEIGHT_REACH**2, peaks.heat * np.exp(-0.5 * squared), 0.0)
    index = weights.argmax(2)
    best = np.take_along_axis(weights, index[..., None], 2)
    moved = np.where(best > 0, peaks.places[np.arange(points.shape[1]), index], points)
    return torch.from_numpy(moved).to(poses), torch.from_numpy(best[..., 0]).to(poses)


def refine(poses: Tensor, weights: Tensor, peaks: Peaks) -> Tensor:
    """Keypoints (N, K, 2) xy, input pixels, moved from peaks to the exact place.

    It is where a parabola through three logarithms is highest, those of the sums over rows, and over columns, of
    the peak's 3x3 surroundings at stride 4: exact for a Gaussian, and a small part of the work of a fit. A peak beyond
    the last cell of stride 4 counts as in it, because enlarging repeats the border there. Keypoints of weight 0 stay.
    """
    points = poses.cpu().numpy().copy()
    people, keypoints = np.nonzero(weights.cpu().numpy() > 0)
    _, height, width = peaks.heatmaps.shape
    step = OUTPUT_STRIDE // peaks.spacing
    steps = (np.arange(-1, 2) * step)[None]
    cells = np.rint(points[people, keypoints] / peaks.spacing)
    cells = np.minimum(cells, (width - step, height - step)).astype(np.int64)
    rows = (cells[:, 1:] + steps).clip(0, height - 1)[:, :, None]
    columns = (cells[:, :1] + steps).clip(0, width - 1)[:, None]
    around = np.maximum(peaks.heatmaps[keypoints[:, None, None], rows, columns], 0)
    sums = np.log(np.maximum(np.stack([around.sum(1), around.sum(2)]), 1e-3))
    before, top, after = np.moveaxis(sums, 2, 0)
    bend = np.maximum(2 * top - before - after, 1e-6)
    shifts = OUTPUT_STRIDE * np.clip((after - before) / (2 * bend), -0.75, 0.75)
    points[people, keypoints] = peaks.spacing * cells + shifts.T
    return torch.from_numpy(points).to(poses)
