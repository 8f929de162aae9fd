"""Offsets at people's centers alone.

Poses are read from the offset map at no more than a few dozen pixels, and the offset head's last block, the costliest
part of a small network, need not be computed anywhere else.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from dekrpose.architectures.dekr.candidates import Candidates, Centers, candidates_at, find_centers


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
    """Picks the centers of a batch between the network's two heads.

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
