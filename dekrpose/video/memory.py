"""What is remembered of a stream between frames, and when it is forgotten.

A state belongs to one stream: it goes into ``PoseEstimator.estimate_frames`` with the next frames and comes out anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeGuard

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dekrpose.architectures.dekr.network import Pair
from dekrpose.architectures.dekr.temporal import TemporalDEKR, TemporalState
from dekrpose.config import OUTPUT_STRIDE
from dekrpose.images import Pixels

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_LUMA_SIZE, _PROBE_SIZE = 32, 128

Pass = tuple[float, int]
"""One look at a frame: its scale, and 0 for the image or 1 for the mirrored one."""


@dataclass(frozen=True)
class ResetRules:
    """When a stream does not go on where it was.

    Two photos of different scenes differ by more than 0.18 in 95 of 100 pairs; a view that moves by 3 % of its width
    between frames by 0.15 at most.

    Args:
        cut: mean difference of luma, in [0, 1], between a frame and the one before it, from which on the scene is
            another.
        calm: after a cut the next one counts only when the difference has been below this: flashes and wild pans are
            one cut, not many.
        gap: seconds between frames that are too many.
        aspect: relative change of width / height that is more than rounding.
    """

    cut: float = 0.18
    calm: float = 0.09
    gap: float = 0.5
    aspect: float = 0.02

    def __post_init__(self) -> None:
        if not 0 <= self.calm <= self.cut:
            raise ValueError(f"calm must lie between 0 and cut, got calm={self.calm}, cut={self.cut}")
        if not (self.gap > 0 and self.aspect >= 0):
            raise ValueError(f"gap must be positive and aspect not negative, got {self.gap} and {self.aspect}")


@dataclass(frozen=True, eq=False)
class Sight:
    """What is known of a stream's last frame: its size, and (32, 32) luma in [0, 1], the frame made small.

    The timestamp is seconds from the start of the stream, NaN if unknown; while ``calm`` a large difference is a cut.
    """

    image_size: tuple[int, int]
    timestamp: float
    luma: NDArray[np.float32]
    calm: bool = True


@dataclass(frozen=True, eq=False)
class StreamState:
    """All that is remembered of one stream: the last frame, and what the network hides, per pass, for a batch of one.

    ``hidden`` is empty for the flat GRU.
    """

    sight: Sight
    hidden: Mapping[Pass, TemporalState] = field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
        """By name, for ``torch.save`` or safetensors; ``from_tensors`` is the inverse."""
        sight = self.sight
        numbers = [*sight.image_size, sight.timestamp, float(sight.calm)]
        named = {"sight": torch.tensor(numbers, dtype=torch.float64), "luma": torch.from_numpy(sight.luma.copy())}
        for (scale, mirrored), state in self.hidden.items():
            named |= {f"{scale!r}/{mirrored}/{name}": value for name, value in state.tensors().items()}
        return named

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> StreamState:
        """The inverse of ``tensors``; ValueError if these are not the tensors of a state."""
        if not {"sight", "luma"} <= tensors.keys():
            raise ValueError(f"a stream's state has 'sight' and 'luma', got {', '.join(sorted(tensors)) or 'nothing'}")
        height, width, timestamp, calm = tensors["sight"].tolist()
        sight = Sight((int(height), int(width)), timestamp, tensors["luma"].cpu().numpy(), bool(calm))
        hidden: dict[Pass, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name not in ("sight", "luma"):
                scale, mirrored, kind = name.split("/")
                hidden.setdefault((float(scale), int(mirrored)), {})[kind] = value
        return cls(sight, {key: TemporalState(**parts) for key, parts in hidden.items()})


def look(
    before: Sight | None, pixels: Pixels, timestamp: float | None = None, rules: ResetRules | None = None
) -> tuple[Sight, str | None]:
    """What is known of a frame, (H, W, 3) uint8 RGB, and why the stream begins anew with it; None when it goes on.

    The reasons are "first frame", where nothing is known from before, "aspect", "gap" and "cut". The timestamp is
    seconds from the start of the stream; None says nothing about gaps.
    """
    rules = rules or ResetRules()
    size = (pixels.shape[0], pixels.shape[1])
    seconds = math.nan if timestamp is None else float(timestamp)
    now = Sight(size, seconds, _luma(pixels))
    if before is None:
        return now, "first frame"
    ratio = size[1] * before.image_size[0] / (size[0] * before.image_size[1])
    if max(ratio, 1 / ratio) > 1 + rules.aspect:
        return now, "aspect"
    passed = seconds - before.timestamp
    if passed < 0 or passed > rules.gap:  # never true of NaN
        return now, "gap"
    difference = float(np.abs(now.luma - before.luma).mean())
    is_cut = before.calm and difference > rules.cut
    calm = not is_cut and (before.calm or difference < rules.calm)
    return Sight(size, seconds, now.luma, calm), "cut" if is_cut else None


def _luma(pixels: Pixels) -> NDArray[np.float32]:
    # every few pixels are enough, and an average over all would cost milliseconds
    probe = cv2.resize(pixels, (_PROBE_SIZE, _PROBE_SIZE), interpolation=cv2.INTER_NEAREST)
    small = cv2.resize(probe, (_LUMA_SIZE, _LUMA_SIZE), interpolation=cv2.INTER_AREA)
    luma: NDArray[np.float32] = small.astype(np.float32) @ _LUMA / np.float32(255)
    return luma


def advance(
    model: TemporalDEKR, images: Tensor, resets: Sequence[bool], hidden: Sequence[TemporalState | None]
) -> tuple[Pair, list[TemporalState]]:
    """Take T frames of one stream, each seen in P passes, through a network.

    Args:
        images: normalised RGB (P * T, 3, H, W): all frames of the first pass, then of the second.
        resets: for each of the T frames, whether everything is forgotten before it.
        hidden: for each of the P passes, what is remembered; None is nothing.

    Returns:
        Heatmaps (P * T, K+1, H/4, W/4) and offsets (P * T, 2K, H/4, W/4), and the passes' states, each for a batch of
            one; none for the flat GRU.
    """
    reset = torch.tensor([list(resets)] * len(hidden))
    size = (images.shape[-2] // OUTPUT_STRIDE, images.shape[-1] // OUTPUT_STRIDE)
    known = [None if state is None else state.resized(size) for state in hidden]
    state = _joined(known)
    reset[:, 0] |= torch.tensor([state is None for state in known])
    clips = images.reshape(len(hidden), len(resets), *images.shape[1:])
    (heatmaps, offsets), after = model.forward_clip(clips, reset=reset, state=state)
    maps = heatmaps.flatten(0, 1), offsets.flatten(0, 1)
    if after is None:
        return maps, []
    # copies: a view would keep the other passes' memory alive with it
    return maps, [
        TemporalState(after.heatmap[index : index + 1].clone(), after.offset[index : index + 1].clone())
        for index in range(len(hidden))
    ]


def _joined(states: Sequence[TemporalState | None]) -> TemporalState | None:
    one = next((state for state in states if state is not None), None)
    if one is None:
        return None
    blank = TemporalState(torch.zeros_like(one.heatmap), torch.zeros_like(one.offset))
    whole = [state or blank for state in states]
    return TemporalState(torch.cat([state.heatmap for state in whole]), torch.cat([state.offset for state in whole]))


def remembers(model: nn.Module) -> TypeGuard[TemporalDEKR]:
    """Whether a network can see frames in their order."""
    return isinstance(model, TemporalDEKR)


class Recall:
    """Consecutive frames of equal input size on their way through a network that remembers.

    The state, which is not changed, is that of the stream before them; None begins one. Frames are (H, W, 3) uint8 RGB,
    timestamps seconds from the start of the stream, None where unknown; default rules say when it begins anew.
    """

    def __init__(
        self,
        model: TemporalDEKR,
        state: StreamState | None,
        frames: Sequence[Pixels],
        timestamps: Sequence[float | None],
        rules: ResetRules | None = None,
    ) -> None:
        self._model = model
        self._before = {} if state is None else state.hidden
        self._after: dict[Pass, TemporalState] = {}
        sight = None if state is None else state.sight
        self.reasons: list[str | None] = []
        for pixels, timestamp in zip(frames, timestamps, strict=True):
            sight, reason = look(sight, pixels, timestamp, rules)
            self.reasons.append(reason)
        assert sight is not None
        self._sight = sight

    def at(self, scale: float) -> Callable[[Tensor], Pair]:
        """What runs in the network's place at a scale: (P * T, 3, H, W), frames of the image, then of its mirror."""

        def network(images: Tensor) -> Pair:
            resets = [reason is not None for reason in self.reasons]
            keys = [(scale, mirrored) for mirrored in range(len(images) // len(resets))]
            maps, states = advance(self._model, images, resets, [self._before.get(key) for key in keys])
            self._after.update(zip(keys, states, strict=False))
            return maps

        return network

    def state(self) -> StreamState:
        """The stream's state after these frames; passes that they did not make are forgotten."""
        return StreamState(self._sight, dict(self._after))
