"""From images to candidate poses at one scale: centers first, then offsets at these alone.

Poses are read from the offset map at no more than a few dozen pixels, and the offset head's last block, the costliest
part of a small network, need not be computed anywhere else.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dekrpose.architectures.dekr.decode import CENTER_THRESHOLD, candidates_at, center_peaks
from dekrpose.engines.file import ExportedPeople


def takes_pick(network: Callable[..., object]) -> bool:
    """Whether a network gives offsets at picked pixels (see ``DEKR.forward``), and nobody waits for its whole maps.

    Hooks on its answer want the maps, and compiled networks cannot be left in their middle.
    """
    # a compiled network's wrapper has its attributes, but not its class
    if not isinstance(network, nn.Module) or not hasattr(type(network), "picks"):
        return False
    watched = network._forward_hooks or getattr(network, "_compiled_call_impl", None) is not None
    return bool(network.picks) and not watched


def reads_centers(network: Callable[..., object]) -> bool:
    """Whether ``find_candidates`` takes a network."""
    return isinstance(network, ExportedPeople) or takes_pick(network)


class CenterPicker:
    """Picks the centers of a batch between the network's two heads.

    Args:
        max_centers: of each image.

    Attributes:
        milliseconds: what picking took.
    """

    def __init__(self, max_centers: int) -> None:
        self.max_centers = max_centers
        self.milliseconds = 0.0

    def __call__(self, heatmaps: Tensor) -> Tensor:
        """Heatmaps (B, K+1, h, w) -> pixels (B, P, 2) xy; images with fewer centers have others behind them."""
        start = time.perf_counter()
        width = heatmaps.shape[-1]
        places, self._scores, keep = center_peaks(
            heatmaps[:, -1].float(), max_people=self.max_centers, threshold=CENTER_THRESHOLD
        )
        self._counts: list[int] = keep.sum(1).tolist()  # peaks come highest first: centers come before the others
        most = max(1, *self._counts)  # a pixel at least, which networks may count on
        self._pixels = torch.stack([places[:, :most] % width, places[:, :most] // width], dim=2)
        self.milliseconds += 1000 * (time.perf_counter() - start)
        return self._pixels

    def candidates(self, offsets: Tensor) -> list[Tensor]:
        """Each image's candidate poses (N, K, 3), input pixels, from offsets (B, 2K, P) at the picked pixels."""
        return [
            candidates_at(pixels[:count], scores[:count], own[:, :count])
            for pixels, scores, own, count in zip(self._pixels, self._scores, offsets, self._counts, strict=True)
        ]


def find_candidates(
    network: Callable[..., tuple[Tensor, Tensor]], images: Tensor, max_centers: int
) -> tuple[list[tuple[Tensor, Tensor]], float]:
    """What can be somebody in each image.

    Args:
        network: one that ``reads_centers``.
        images: normalised (B, 3, H, W).
        max_centers: most candidates of each.

    Returns:
        Per image heatmaps (K+1, h, w), the center map last, and candidate poses (N, K, 3) in input pixels, see
        ``decode_poses``; and the milliseconds that finding centers took within the network's time.
    """
    if isinstance(network, ExportedPeople):
        heatmaps, poses = network(images)
        candidates = [own[own[:, 0, 2] > CENTER_THRESHOLD] for own in poses]
        return list(zip(heatmaps, candidates, strict=True)), 0.0
    picker = CenterPicker(max_centers)
    heatmaps, offsets = network(images, pick=picker)
    return list(zip(heatmaps.float(), picker.candidates(offsets), strict=True)), picker.milliseconds
