"""DEKR for video: what earlier frames of a stream showed is added to both heads' maps.

Between the heads' 1x1 transitions and their blocks stands a convolutional GRU: one group per branch of the offset head,
so that the representations of keypoints stay apart, and a plain one in a heatmap head of usual width. The seed's own, a
flat GRU behind the offset head, can be built for comparison.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from dekrpose.architectures.dekr.fast import FastDEKR, FastOffsetHead
from dekrpose.architectures.dekr.network import DEKR, BranchGroup, Pair, SharedGroup
from dekrpose.architectures.dekr.temporal_memory import FlatGRU, MapMemory, MemoryBetween
from dekrpose.config import OUTPUT_STRIDE, ModelConfig, TemporalConfig

MIXED = 32
"""Channels of wide maps that are remembered together: all at once, a memory would cost more than the network."""


@dataclass(frozen=True, eq=False)
class TemporalState:
    """What a network remembers of the frames of B streams.

    Args:
        heatmap: memory of the heatmap head, (B, its channels, h, w) in heatmap pixels, float32.
        offset: memory of the offset head, (B, its channels, h, w), float32.
    """

    heatmap: Tensor
    offset: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """(h, w), heatmap pixels."""
        return self.heatmap.shape[-2], self.heatmap.shape[-1]

    def resized(self, size: tuple[int, int]) -> TemporalState:
        """The state for maps of another (h, w) that show the same scene, resampled bilinearly.

        As photos lie in network inputs of other sizes: short sides fit, and long sides share their middle.
        """
        if size == self.size:
            return self
        factor = min(size) / min(self.size)
        height, width = (max(1, round(side * factor)) for side in self.size)
        top, left = (size[0] - height) // 2, (size[1] - width) // 2
        border = (left, size[1] - width - left, top, size[0] - height - top)  # negative ones cut off
        heatmap, offset = (
            F.pad(F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False), border)
            for maps in (self.heatmap, self.offset)
        )
        return TemporalState(heatmap, offset)

    def tensors(self) -> dict[str, Tensor]:
        """By name, for ``torch.save`` or safetensors; ``TemporalState(**tensors)`` is the inverse."""
        return {"heatmap": self.heatmap, "offset": self.offset}


class TemporalDEKR(DEKR):
    """A DEKR that remembers: ``forward`` sees photos one by one, ``step`` and ``forward_clip`` frames in their order.

    Its tensors are those of the image model, with the same names, and the memory's. Without history, in the first frame
    or after a reset, it is the image model; with fresh weights it is, always.

    Args:
        config: with ``temporal``.

    Raises:
        ValueError: the configuration is that of an image model.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        if config.temporal is None:
            raise ValueError("a network for video needs ModelConfig.temporal; DEKR(config) makes an image model")
        self.temporal: TemporalConfig = config.temporal
        self.offset_gru: FlatGRU | None = None
        self.heatmap_memory: MapMemory | None = None
        self.offset_memory: MapMemory | None = None
        if self.temporal.kind == "gru_offset_flat":
            self.offset_gru = FlatGRU(self.temporal.hidden, self.temporal.input_size // OUTPUT_STRIDE)
            return
        width = config.head.heatmap_channels
        maps = 2 if config.head.heatmaps == "separable" else 1  # keypoints and centers
        self.heatmap_memory = MapMemory([(maps * width, maps * max(1, width // MIXED))])
        branches = [cast(BranchGroup | SharedGroup, group).final.groups for group in self.offset_head.groups]
        if self.offset_head.shared:
            branches[-1] = max(1, self.offset_head.splits[-1] // MIXED)
        self.offset_memory = MapMemory(list(zip(self.offset_head.splits, branches, strict=True)))

    def step(self, images: Tensor, state: TemporalState | None = None) -> tuple[Pair, TemporalState | None]:
        """The next frame of B streams.

        Args:
            images: normalised RGB (B, 3, H, W), H and W multiples of 32.
            state: what the last step returned; None for first frames.

        Returns:
            Heatmaps (B, K+1, H/4, W/4) and offsets (B, 2K, H/4, W/4) as ``forward`` gives them, and the state for the
            next frame. The flat GRU sees single frames as chunks of one and has no state: None.
        """
        (heatmaps, offsets), state = self.forward_clip(images.unsqueeze(1), state=state)
        return (heatmaps.squeeze(1), offsets.squeeze(1)), state

    def forward_clip(
        self, images: Tensor, reset: Tensor | None = None, state: TemporalState | None = None
    ) -> tuple[Pair, TemporalState | None]:
        """T consecutive frames of B streams; all but the memory runs on the frames at once.

        Args:
            images: normalised RGB (B, T, 3, H, W), H and W multiples of 32.
            reset: (B, T) bool: frames before which everything is forgotten; None is none.
            state: what is remembered of earlier frames; None is nothing.

        Returns:
            Heatmaps (B, T, K+1, H/4, W/4) and offsets (B, T, 2K, H/4, W/4), and the state after the last frame, which
            gradients reach; None for the flat GRU.
        """
        clip = images.shape[:2]
        reset = _resets(images, reset)
        if self.offset_gru is not None:
            heatmaps, offsets = self(images.flatten(0, 1))
            return (_split(heatmaps, clip), self.flat(_split(offsets.float(), clip), reset)), None
        network = self.running(images.flatten(0, 1))
        if isinstance(network, FastDEKR) and isinstance(network.offset_head, FastOffsetHead):
            (heatmaps, offsets), state = self._fast(network, images, reset, state)
            return (_split(heatmaps, clip), _split(offsets, clip)), state
        maps, state = self.transitions(images, reset, state)
        heatmaps = self.heatmap_head.from_transition(maps[0])
        with torch.autocast(images.device.type, enabled=False):  # as in DEKR.forward
            offsets = self.offset_head.from_transition(maps[1])
        return (_split(heatmaps, clip), _split(offsets, clip)), state

    def transitions(
        self, images: Tensor, reset: Tensor | None = None, state: TemporalState | None = None
    ) -> tuple[Pair, TemporalState]:
        """``forward_clip`` up to the heads' blocks, for networks without a flat GRU.

        Returns:
            Maps (B * T, C, H/4, W/4) for both heads' ``from_transition``, those of offsets float32, and the state after
            the last frame.
        """
        reset = _resets(images, reset)
        features = self.features(images.flatten(0, 1))
        with torch.autocast(images.device.type, enabled=False):
            offsets = self.offset_head.transition(features.float())
        return self.remember((self.heatmap_head.transition(features), offsets), reset, state)

    def remember(self, maps: Pair, reset: Tensor, state: TemporalState | None) -> tuple[Pair, TemporalState]:
        """What the memory makes of both transitions' maps, and the state after the last frame; no flat GRU can.

        Args:
            maps: (B * T, C, h, w) of the heatmap head and of the offset head, the latter float32.
            reset, state: as in ``forward_clip``, reset on the CPU.
        """
        if self.heatmap_memory is None or self.offset_memory is None:
            raise ValueError("a flat GRU stands behind the heads; use forward_clip")
        heatmaps, offsets = (_split(part, reset.shape) for part in maps)
        if state is not None:
            state = state.resized((heatmaps.shape[-2], heatmaps.shape[-1]))
        heatmaps, heatmap_hidden = self.heatmap_memory(heatmaps, state and state.heatmap, reset)
        with torch.autocast(offsets.device.type, enabled=False):
            offsets, offset_hidden = self.offset_memory(offsets, state and state.offset, reset)
        return (heatmaps.flatten(0, 1), offsets.flatten(0, 1)), TemporalState(heatmap_hidden, offset_hidden)

    def _fast(
        self, network: FastDEKR, images: Tensor, reset: Tensor, state: TemporalState | None
    ) -> tuple[Pair, TemporalState]:
        """Maps of B * T frames by the fast network."""
        assert self.heatmap_memory is not None
        assert self.offset_memory is not None
        hidden = None
        if state is not None:
            state = state.resized((images.shape[-2] // OUTPUT_STRIDE, images.shape[-1] // OUTPUT_STRIDE))
            hidden = state.heatmap, state.offset
        between = MemoryBetween(self.heatmap_memory, self.offset_memory, hidden, reset)
        maps = network(images.flatten(0, 1), between)
        return maps, TemporalState(*between.hidden())

    def flat(self, offsets: Tensor, reset: Tensor) -> Tensor:
        """What the flat GRU makes of offsets (B, T, 2K, h, w), in disjoint chunks that resets (B, T) cut, too."""
        assert self.offset_gru is not None
        done = []
        for clip, marks in zip(offsets, reset.tolist(), strict=True):
            starts = [0]
            for index in range(1, len(marks)):
                if marks[index] or index - starts[-1] == self.temporal.chunk:
                    starts.append(index)
            lengths = [end - start for start, end in zip(starts, [*starts[1:], len(marks)], strict=True)]
            done.append(torch.cat([self.offset_gru(chunk.unsqueeze(0))[0] for chunk in clip.split(lengths)]))
        return torch.stack(done)


_MEMORY = ("heatmap_memory.", "offset_memory.", "offset_gru.")


def build_model(config: ModelConfig) -> DEKR:
    """The network that a configuration describes: a DEKR, or a TemporalDEKR when it has ``temporal``."""
    return DEKR(config) if config.temporal is None else TemporalDEKR(config)


def with_memory(
    config: ModelConfig, state_dict: Mapping[str, Tensor], temporal: TemporalConfig | None = None
) -> TemporalDEKR:
    """A network for video that starts from an image model's configuration and tensors, with a fresh memory.

    ``temporal`` None is the default memory. RuntimeError if the tensors are not those of the image model.
    """
    model = TemporalDEKR(replace(config, temporal=temporal or TemporalConfig()))
    memory = {name: value for name, value in model.state_dict().items() if name.startswith(_MEMORY)}
    model.load_state_dict({**memory, **state_dict})
    return model


def _split(maps: Tensor, clip: Sequence[int]) -> Tensor:
    """(B * T, ...) -> (B, T, ...)."""
    return maps.reshape(*clip, *maps.shape[1:])


def _resets(images: Tensor, reset: Tensor | None) -> Tensor:
    if images.ndim != 5 or not images.shape[1]:
        raise ValueError(f"a clip is (B, T, 3, H, W) with at least one frame, got {tuple(images.shape)}")
    if reset is None:
        return torch.zeros(images.shape[:2], dtype=torch.bool)
    if reset.shape != images.shape[:2] or reset.dtype != torch.bool:
        raise ValueError(
            f"reset must be bool (B, T) = {tuple(images.shape[:2])}, got {reset.dtype} {tuple(reset.shape)}"
        )
    return reset.cpu()
