"""What a network for video remembers: convolutional GRUs over a head's maps, and the seed's flat GRU over offsets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dekrpose.config import OUTPUT_STRIDE

_PIECE = 2_500_000
"""Numbers: 10 MB. Larger results leave the caches, and above 32 MiB each one is new memory from the system."""


class ConvGRU(nn.Module):
    """A 3x3 convolutional GRU over maps of G branches that never mix, and the way of its memory back into them.

    z = sigmoid(Wz [x, h]), r = sigmoid(Wr [x, h]), n = tanh(Wn [x, r h]), h' = (1 - z) h + z n, y = x + Wo h'.
    The part of a convolution that reads x and the part that reads h are layers of their own: without history the second
    are left out. Wo is 1x1 and starts at zero, so what is built onto a network changes nothing at first.

    Args:
        channels: width of the maps, all branches together.
        groups: G.
    """

    def __init__(self, channels: int, groups: int = 1) -> None:
        super().__init__()
        self.channels, self.groups = channels, groups
        # each branch's gates side by side: z, r, n of the maps; z, r of the memory
        self.inputs = nn.Conv2d(channels, 3 * channels, 3, padding=1, groups=groups)
        self.gates = nn.Conv2d(channels, 2 * channels, 3, padding=1, groups=groups, bias=False)
        self.candidate = nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=False)
        self.out = nn.Conv2d(channels, channels, 1, groups=groups, bias=False)
        nn.init.zeros_(self.out.weight)

    def step(self, maps: Tensor, hidden: Tensor | None) -> Tensor:
        """The memory after a frame, always float32: half precision would lose what changes slowly.

        Maps of the frame and the memory before it are (B, C, h, w); None is a memory of zeros.
        """
        if hidden is None:
            parts = self._by_branch(self.inputs(maps), 3)
            return (parts[:, :, 0].sigmoid() * parts[:, :, 2].tanh()).flatten(1, 2).float()
        return _joined([self._step(maps, hidden, branches) for branches in self._pieces(maps)])

    def read(self, hidden: Tensor) -> Tensor:
        """What the memory (B, C, h, w) adds to the maps."""
        return _joined(
            [
                self._convolve(self.out, hidden[:, self._channels(branches)], branches)
                for branches in self._pieces(hidden)
            ]
        )

    def _step(self, maps: Tensor, hidden: Tensor, branches: slice) -> Tensor:
        """``step`` for some branches: their channels of the memory."""
        own = self._channels(branches)
        maps, hidden = maps[:, own], hidden[:, own]
        parts = self._by_branch(self._convolve(self.inputs, maps, branches), 3)
        # in place, on results that nobody else has: half of the time goes into such passes over the maps
        gates = self._by_branch(self._convolve(self.gates, hidden, branches), 2).add_(parts[:, :, :2]).sigmoid_()
        z, r = gates.to(hidden.dtype).unbind(2)
        before = self._by_branch(hidden, 1)[:, :, 0]
        candidate = self._convolve(self.candidate, (r * before).flatten(1, 2), branches)
        n = self._by_branch(candidate, 1)[:, :, 0].add_(parts[:, :, 2]).tanh_()
        return torch.lerp(before, n.to(hidden.dtype), z).flatten(1, 2)

    def _pieces(self, maps: Tensor) -> list[slice]:
        """Branches that are computed together: all, but on a CPU no more than its caches hold."""
        if not maps.is_cpu or torch.is_grad_enabled():
            return [slice(0, self.groups)]
        most = max(1, _PIECE * self.groups // (3 * maps.numel()))
        return [slice(start, min(start + most, self.groups)) for start in range(0, self.groups, most)]

    def _channels(self, branches: slice, kinds: int = 1) -> slice:
        """The channels of some branches, where each has ``kinds`` times as many as the maps."""
        width = kinds * self.channels // self.groups
        return slice(branches.start * width, branches.stop * width)

    def _convolve(self, layer: nn.Conv2d, maps: Tensor, branches: slice) -> Tensor:
        """A layer's part that some branches have, on their maps."""
        if branches.stop - branches.start == self.groups:
            return cast(Tensor, layer(maps))
        own = self._channels(branches, layer.out_channels // self.channels)
        bias = None if layer.bias is None else layer.bias[own]
        groups = branches.stop - branches.start
        return F.conv2d(maps, layer.weight[own], bias, padding=layer.padding, groups=groups)

    def _by_branch(self, maps: Tensor, kinds: int) -> Tensor:
        """(B, G * kinds * c, h, w) of G branches -> (B, G, kinds, c, h, w)."""
        batch, channels, height, width = maps.shape
        own = self.channels // self.groups
        return maps.reshape(batch, channels // (kinds * own), kinds, own, height, width)


def _joined(parts: list[Tensor]) -> Tensor:
    """Maps side by side, without a copy of a single one."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


class MapMemory(nn.Module):
    """The memory of one feature map, whose channels are runs of branches of equal width; each run has a ConvGRU.

    Args:
        runs: channels and branches of each run, in the order of the channels.
    """

    def __init__(self, runs: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.splits = [channels for channels, _ in runs]
        self.branches = [groups for _, groups in runs]
        self.grus = nn.ModuleList(ConvGRU(channels, groups) for channels, groups in runs)

    def forward(self, maps: Tensor, hidden: Tensor | None, reset: Tensor) -> tuple[Tensor, Tensor]:
        """Take a clip along.

        Args:
            maps: (B, T, C, h, w), frames in their order.
            hidden: what was remembered before them, (B, C, h, w); None is nothing, for all.
            reset: (B, T) bool on the CPU: forget everything before this frame.

        Returns:
            The maps with what earlier frames add, (B, T, C, h, w), equal to the maps where there are none, and the
            memory after the last frame, (B, C, h, w).
        """
        before = [None] * len(self.splits) if hidden is None else torch.split(hidden, self.splits, dim=1)
        done = [
            self.recur(index, part, state, reset)
            for index, (part, state) in enumerate(zip(torch.split(maps, self.splits, dim=2), before, strict=True))
        ]
        if len(done) == 1:
            return done[0]
        return torch.cat([out for out, _ in done], dim=2), torch.cat([state for _, state in done], dim=1)

    def recur(self, index: int, maps: Tensor, hidden: Tensor | None, reset: Tensor) -> tuple[Tensor, Tensor]:
        """``forward`` for the channels of one run."""
        gru = cast(ConvGRU, self.grus[index])
        batch, frames = maps.shape[:2]
        outs: list[Tensor] = []
        for index in range(frames):
            now = maps[:, index]
            if now.is_cpu:
                # with gradients grouped convolutions take about half the time so; without, passes over the maps do
                order = torch.channels_last if torch.is_grad_enabled() else torch.contiguous_format
                now = now.contiguous(memory_format=order)
            forget = reset[:, index]
            mixed = forget.to(maps.device).reshape(-1, 1, 1, 1) if forget.any() else None
            before = None if hidden is None or forget.all() else hidden
            if before is not None and mixed is not None:
                before = before.masked_fill(mixed, 0)
            hidden = gru.step(now, before)
            if before is None:
                outs.append(now)
            else:
                added = gru.read(hidden)
                outs.append(now + (added if mixed is None else added.masked_fill(mixed, 0)))
        assert hidden is not None
        # joined along the first axis, which keeps the order in memory
        return torch.cat(outs).reshape(frames, batch, *maps.shape[2:]).transpose(0, 1), hidden


class FlatGRU(nn.Module):
    """The seed project's memory: one bidirectional GRU over the flattened offset maps of each keypoint of a chunk.

    A map of 2 x side x side numbers goes in flat; GRU (2 layers, both ways, dropout 0.2), LayerNorm, ELU and a linear
    layer make a map that is added to it. All keypoints share the weights.

    Args:
        hidden: units per layer and direction (the seed has 512).
        side: of the offset maps, heatmap pixels (the seed has 128, for inputs of 512 x 512).
    """

    def __init__(self, hidden: int, side: int) -> None:
        super().__init__()
        self.side, numbers = side, 2 * side * side
        self.gru = nn.GRU(numbers, hidden, num_layers=2, batch_first=True, dropout=0.2, bidirectional=True)
        self.norm = nn.LayerNorm(2 * hidden)
        self.linear = nn.Linear(2 * hidden, numbers)

    def forward(self, offsets: Tensor) -> Tensor:
        """(B, T, 2K, side, side) offsets of the T frames of one chunk -> the same, changed."""
        if offsets.shape[-2:] != (self.side, self.side):
            size = OUTPUT_STRIDE * self.side
            raise ValueError(
                f"this flat GRU reads offset maps of {self.side} x {self.side}, those of a {size} x {size} input, got "
                f"{offsets.shape[-2]} x {offsets.shape[-1]}; take a model with convolutional GRUs for other sizes"
            )
        batch, frames, channels = offsets.shape[:3]
        flat = offsets.reshape(batch, frames, channels // 2, -1).transpose(1, 2).flatten(0, 1)
        added = cast(Tensor, self.linear(F.elu(self.norm(self.gru(flat)[0]))))
        return offsets + added.reshape(batch, -1, frames, flat.shape[-1]).transpose(1, 2).reshape(offsets.shape)


class MemoryBetween:
    """Stands behind the first convolutions of both heads (see ``fast.Between``) and keeps what comes out.

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
        maps = maps.reshape(*self._reset.shape, *maps.shape[1:]).float()
        maps, after = memory.recur(index, maps, before, self._reset)
        own.copy_(maps.flatten(0, 1).permute(0, 2, 3, 1).reshape(own.shape))
        self._after[head].append(after)

    def hidden(self) -> tuple[Tensor, Tensor]:
        """What both remember after the last frame."""
        heatmap, offset = (parts[0] if len(parts) == 1 else torch.cat(parts, dim=1) for parts in self._after)
        return heatmap, offset
