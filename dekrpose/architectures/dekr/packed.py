"""Candidates of a batch and their heat in one piece of memory, for their way from a device to the CPU.

The device finds centers, reads poses and their heat; one tensor goes to the CPU, where suppression, a walk over a few
candidates, takes place. The poses are those of ``decode``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dekrpose.architectures.dekr.candidates import CENTER_THRESHOLD, OFFICIAL, Choice, choose_poses, pool_scales
from dekrpose.architectures.dekr.decode import candidate_poses, crop_to
from dekrpose.architectures.dekr.multiscale import heat_values
from dekrpose.config import OUTPUT_STRIDE


@dataclass(frozen=True)
class Layout:
    """How an image's answer lies in memory.

    Args:
        keypoints: K.
        map_sizes: (height, width) of the heatmaps of each scale, heatmap pixels.
        scales: of each, in their order.
        max_centers: most candidates per scale.
        with_heatmaps: the keypoints' heatmaps are in the answer, for matching.
    """

    keypoints: int
    map_sizes: tuple[tuple[int, int], ...]
    scales: tuple[float, ...]
    max_centers: int
    with_heatmaps: bool = False

    @property
    def counts(self) -> list[int]:
        """Candidates of each scale."""
        return [min(self.max_centers, height * width) for height, width in self.map_sizes]

    @property
    def width(self) -> int:
        """Values of one candidate: whether it is one, its center's value, x and y of K keypoints, their heat."""
        return 2 + 3 * self.keypoints

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the input at scale 1, input pixels."""
        height, width = self.map_sizes[self.scales.index(1.0)]
        return OUTPUT_STRIDE * height, OUTPUT_STRIDE * width

    @property
    def order(self) -> list[int]:
        """The scales from large to small, as decoding takes them."""
        return sorted(range(len(self.scales)), key=lambda index: -self.scales[index])


def layout_of(
    heatmaps: Sequence[Tensor], scales: Sequence[float], *, max_centers: int, with_heatmaps: bool = False
) -> Layout:
    """The layout for (B, K + 1, h, w) heatmaps of some scales, 1 among them."""
    own = tuple(heatmaps[list(scales).index(1.0)].shape[-2:])
    sizes = tuple((max(1, round(own[0] * scale)), max(1, round(own[1] * scale))) for scale in scales)
    cut = tuple((min(a, m.shape[-2]), min(b, m.shape[-1])) for (a, b), m in zip(sizes, heatmaps, strict=True))
    return Layout(heatmaps[0].shape[-3] - 1, cut, tuple(map(float, scales)), max_centers, with_heatmaps)


def answer(
    maps: Sequence[tuple[Tensor, Tensor]], layout: Layout, *, center_threshold: float = CENTER_THRESHOLD
) -> Tensor:
    """All that the CPU needs to know of a batch.

    Args:
        maps: per scale heatmaps (B, K + 1, h, w), the center map last, and positions (B, 2K, h, w), heatmap pixels.
        layout: of these maps.
        center_threshold: candidates have centers above this.

    Returns:
        (B, n) float32, see ``Layout``; ``finish`` reads it. Nothing here waits for the device.
    """
    pairs = [crop_to(*pair, size) for pair, size in zip(maps, layout.map_sizes, strict=True)]
    keypoint_heatmaps = [heatmaps[:, :-1] for heatmaps, _ in pairs]
    batch, count = keypoint_heatmaps[0].shape[:2]
    # images side by side, as channels
    channels = [keypoint_heatmaps[index].flatten(0, 1) for index in layout.order]
    parts = []
    for (heatmaps, positions), scale in zip(pairs, layout.scales, strict=True):
        found = candidate_poses(
            heatmaps, positions, max_centers=layout.max_centers, threshold=center_threshold, scale=scale
        )
        heat = heat_values(channels, found.poses.transpose(0, 1).flatten(1, 2), layout.size)
        heat = heat.reshape(-1, batch, count).transpose(0, 1)
        values = [found.present[..., None].float(), found.values[..., None], found.poses.flatten(2), heat]
        parts.append(torch.cat(values, dim=2).flatten(1))
    if layout.with_heatmaps:
        parts += [heatmaps.flatten(1) for heatmaps in keypoint_heatmaps]
    return torch.cat(parts, dim=1)


def finish(
    own: Tensor, layout: Layout, choice: Choice = OFFICIAL, *, other_scale_factor: float = 0.9
) -> tuple[Tensor, Tensor, Tensor]:
    """The poses of one image.

    Args:
        own: (n,), its row of ``answer``, on the CPU.
        layout: that it was made with; with heatmaps, if keypoints shall be matched.
        choice, other_scale_factor: as in ``decode``.

    Returns:
        Poses (N, K, 2) in input pixels of scale 1, keypoint scores (N, K), scores (N,), as from ``decode``.

    Raises:
        ValueError: keypoints shall be matched, and the answer has no heatmaps.
    """
    if choice.match is not None and not layout.with_heatmaps:
        raise ValueError("matching needs heatmaps in the answer; make its layout with with_heatmaps=True")
    lengths = [count * layout.width for count in layout.counts]
    parts = torch.split(own[: sum(lengths)], lengths)
    candidates, heat = [], []
    for index in layout.order:
        rows = parts[index].reshape(-1, layout.width)
        rows = rows[rows[:, 0] > 0]
        points = rows[:, 2 : 2 + 2 * layout.keypoints].reshape(len(rows), layout.keypoints, 2)
        centers = rows[:, 1, None, None].expand(-1, layout.keypoints, 1)
        candidates.append(torch.cat([points, centers], dim=2))
        heat.append(rows[:, 2 + 2 * layout.keypoints :])
    scales = [layout.scales[index] for index in layout.order]
    return choose_poses(
        pool_scales(candidates, scales, other_scale_factor=other_scale_factor),
        [] if choice.match is None else _heatmaps(own[sum(lengths) :], layout),
        layout.size,
        choice,
        torch.cat(heat),
    )


def _heatmaps(values: Tensor, layout: Layout) -> list[Tensor]:
    """Heatmaps (K, h, w), from the largest scale to the smallest."""
    shapes = [(layout.keypoints, *size) for size in layout.map_sizes]
    maps = torch.split(values, [count * height * width for count, height, width in shapes])
    return [maps[index].reshape(shapes[index]) for index in layout.order]
