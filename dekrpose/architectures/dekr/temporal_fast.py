"""The memory of a network for video within the fast DEKR for CPUs."""

from __future__ import annotations

import torch
from torch import Tensor

from dekrpose.architectures.dekr.temporal_memory import MapMemory


class MemoryBetween:
    """Stands behind the first convolutions of both heads (see ``models.fast.Between``) and keeps what comes out.

    Args:
        heatmap: memory of the heatmap head.
        offset: memory of the offset head.
        hidden: what both remember, (B, C, h, w) each; None is nothing.
        reset: (B, T) bool on the CPU; the maps that come are those of B * T frames.
    """

    def __init__(
        self, heatmap: MapMemory, offset: MapMemory, hidden: tuple[Tensor, Tensor] | None, reset: Tensor
    ) -> None:
        self._memories, self._before, self._reset = (heatmap, offset), hidden, reset
        self._after: tuple[list[Tensor], list[Tensor]] = ([], [])

    def __call__(self, run: int | None, rows: Tensor) -> None:
        """Change maps (B * T, h, w, channels of all branches with padding) in place."""
        head, index = (0, 0) if run is None else (1, run)
        memory = self._memories[head]
        count, height, width, padded = rows.shape
        channels, branches = memory.splits[index], memory.branches[index]
        own = rows.view(count, height, width, branches, padded // branches)[..., : channels // branches]
        maps = own.reshape(count, height, width, channels).permute(0, 3, 1, 2)
        before = None if self._before is None else torch.split(self._before[head], memory.splits, dim=1)[index]
        maps, after = memory.recur(index, maps.reshape(*self._reset.shape, *maps.shape[1:]), before, self._reset)
        own.copy_(maps.flatten(0, 1).permute(0, 2, 3, 1).reshape(own.shape))
        self._after[head].append(after)

    def hidden(self) -> tuple[Tensor, Tensor]:
        """What both remember after the last frame."""
        heatmap, offset = (parts[0] if len(parts) == 1 else torch.cat(parts, dim=1) for parts in self._after)
        return heatmap, offset
