"""From clips to batches: corruption, targets of every labelled frame, random resets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from dekrpose.data.clips.clip import Clip, ClipShape, ClipSource
from dekrpose.data.clips.corruption import CORRUPTIONS, corrupt
from dekrpose.training.crop_people import paper_people
from dekrpose.training.crops import Crop
from dekrpose.training.loader import Batch, TargetConfig, collate, make_sample


@dataclass(frozen=True)
class ClipRecipe:
    """What clips a network for video is trained on.

    Args:
        shape: how clips are cut.
        clips: different clips in an epoch.
        clean: share of clips that no corruption touches.
        resets: share of frames before which everything is forgotten.
        minimum_keypoints: people with fewer labelled keypoints in a frame get no center there.
    """

    shape: ClipShape = field(default_factory=ClipShape)
    clips: int = 400
    clean: float = 0.3
    resets: float = 0.1
    minimum_keypoints: int = 3


@dataclass(frozen=True)
class ClipBatch:
    """B clips of T frames.

    Attributes:
        frames: images and targets of the B * T frames, clip by clip.
        resets: (B, T) frames before which everything is forgotten.
    """

    frames: Batch
    resets: Tensor

    def to(self, device: torch.device) -> ClipBatch:
        """The same batch on another device; resets stay on the CPU, where they are read."""
        return ClipBatch(self.frames.to(device), self.resets)


class MixedClips:
    """Several sources in turn.

    Raises:
        ValueError: there is none.
    """

    def __init__(self, sources: Sequence[ClipSource]) -> None:
        if not sources:
            raise ValueError("there is nothing to draw clips from; name at least one source")
        self.sources = list(sources)

    def __len__(self) -> int:
        return sum(map(len, self.sources))

    def draw(self, index: int, rng: np.random.Generator, shape: ClipShape) -> Clip:
        """A clip of source ``index`` modulo their number."""
        turn, number = divmod(index, len(self.sources))
        source = self.sources[number]
        return source.draw(turn % len(source), rng, shape)


class ClipSamples(Dataset[ClipBatch]):
    """Index (epoch, position, clip) -> one clip with its targets; the numbers and the seed alone decide how it looks.

    Args:
        source: where clips come from.
        recipe, targets, seed: see there.
        repeat: clips of every epoch are those of the first, so that what a frozen network sees of them can be kept.
    """

    def __init__(
        self, source: ClipSource, recipe: ClipRecipe, targets: TargetConfig, seed: int, repeat: bool = False
    ) -> None:
        if targets.mode != "paper":
            raise ValueError(f"clips are trained with paper targets, got {targets.mode!r}")
        self.source, self.recipe, self.targets, self.seed, self.repeat = source, recipe, targets, seed, repeat

    def __getitem__(self, index: tuple[int, int, int]) -> ClipBatch:
        clip, rng = self.clip(index)
        frames = [self._frame(clip, time, rng) for time in range(len(clip))]
        return ClipBatch(collate(frames), self.resets(index)[None])

    def clip(self, index: tuple[int, int, int]) -> tuple[Clip, np.random.Generator]:
        """The spoilt clip of this index, and the generator after it."""
        epoch, _, number = index
        rng = np.random.default_rng([self.seed, 0 if self.repeat else epoch, number])
        clip = self.source.draw(number, rng, self.recipe.shape)
        kinds = list(CORRUPTIONS)
        kind = "clean" if rng.random() < self.recipe.clean else kinds[rng.integers(len(kinds))]
        return corrupt(clip, kind, rng)[0], rng

    def resets(self, index: tuple[int, int, int]) -> Tensor:
        """(T,) random resets; they are drawn anew in every epoch."""
        rng = np.random.default_rng([self.seed, *index])
        return torch.from_numpy(rng.random(self.recipe.shape.frames) < self.recipe.resets)

    def _frame(self, clip: Clip, time: int, rng: np.random.Generator) -> Batch:
        present = clip.keypoints[time, (clip.keypoints[time, ..., 2] > 0).any(axis=1)]
        ignored: NDArray[np.bool_] = clip.ignored[time] if clip.labelled[time] else np.ones_like(clip.ignored[time])
        people = paper_people(Crop(clip.frames[time], present, ignored), self.recipe.minimum_keypoints)
        sample = make_sample(clip.frames[time], people, self.targets, rng)
        if not clip.labelled[time]:
            sample.offset_weights.zero_()
        return sample


def collate_clips(samples: Sequence[ClipBatch]) -> ClipBatch:
    """Join clips to a batch."""
    frames = Batch.joined([sample.frames for sample in samples], torch.cat)
    return ClipBatch(frames, torch.cat([sample.resets for sample in samples]))
