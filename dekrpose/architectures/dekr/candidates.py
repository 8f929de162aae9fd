"""Who can be in a photo: the peaks of the center map, and the pose that each of them regresses.

All functions take batches and give each photo the same number of places, M, the highest centers first; some hold
nobody. So shapes are fixed, and nothing waits for a device. "Heatmap pixels" are cells of the network's output at one
scale, "input pixels" are pixels of the network's input at scale 1. Points are xy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dekrpose.config import OUTPUT_STRIDE

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
    """

    def __init__(self, max_centers: int) -> None:
        self.max_centers = max_centers

    def __call__(self, heatmaps: Tensor) -> Tensor:
        """Heatmaps (B, K+1, h, w) -> pixels (B, P, 2) xy; photos with fewer centers have others behind them."""
        found = find_centers(heatmaps[:, -1].float(), max_centers=self.max_centers)
        most = max(1, int(found.present.sum(1).max()))  # the present come first; a pixel is what networks may count on
        self._centers = Centers(found.xy[:, :most], found.values[:, :most], found.present[:, :most])
        return self._centers.xy

    def candidates(self, offsets: Tensor) -> Candidates:
        """The poses of the picked centers, from offsets (B, 2K, P) there."""
        pixels = self._centers.xy.transpose(1, 2).repeat(1, offsets.shape[1] // 2, 1)
        return candidates_at(self._centers, pixels - offsets)
