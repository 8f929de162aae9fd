"""From clips to batches: cut-out people, corruption, targets of every labelled frame, random resets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from dekrpose.architectures.dekr.batches import MapBatch, TargetConfig
from dekrpose.architectures.learning import Crop
from dekrpose.data.clips.clip import Clip, ClipShape, ClipSource, Floats, through_camera, wander
from dekrpose.data.clips.corruption import CORRUPTIONS, corrupt
from dekrpose.data.clips.photos import PhotoClips, filmed
from dekrpose.data.dataset import KeypointDataset, Person
from dekrpose.skeletons import COCO_17
from dekrpose.training.loader import collate
from dekrpose.training.person_mask import cut_out, hidden_keypoints

MOST_PEOPLE = 2
"""That move over one clip."""
COVERED = 0.6
"""Who has a larger share of its labels behind somebody is no longer taught in that frame."""
_LABELS = 12  # that a person needs, or parts of its body would be missing
_SIZES = (0.35, 0.8)  # of a person, in sides of the frame
_PACE = 0.25  # sides a second, about
_ATTEMPTS = 8


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
    """B clips of T frames: images and targets of the B * T frames, clip by clip, and (B, T) ``resets``.

    Before a frame with a reset everything is forgotten.
    """

    frames: MapBatch
    resets: Tensor

    def to(self, device: torch.device) -> ClipBatch:
        """The same batch on another device; resets stay on the CPU, where they are read."""
        return ClipBatch(self.frames.to(device), self.resets)


class MixedClips:
    """Several sources in turn; ValueError if there is none."""

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

    ``repeat``: clips of every epoch are those of the first, so that what a frozen network sees of them can be kept.
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

    def _frame(self, clip: Clip, time: int, rng: np.random.Generator) -> MapBatch:
        present = clip.keypoints[time, (clip.keypoints[time, ..., 2] > 0).any(axis=1)]
        ignored: NDArray[np.bool_] = clip.ignored[time] if clip.labelled[time] else np.ones_like(clip.ignored[time])
        crop = Crop(clip.frames[time], present, ignored)
        sample = self.targets.sample(crop, None, COCO_17, self.recipe.minimum_keypoints, rng)
        if not clip.labelled[time]:
            sample.offset_weights.zero_()
        return sample


def collate_clips(samples: Sequence[ClipBatch]) -> ClipBatch:
    """Join clips to a batch."""
    frames = MapBatch.joined([sample.frames for sample in samples], torch.cat)
    return ClipBatch(frames, torch.cat([sample.resets for sample in samples]))


class CutoutClips:
    """Clips of photos (see ``PhotoClips``) with one or two cut-out people who move across them."""

    def __init__(self, dataset: KeypointDataset) -> None:
        self.scenes, self.dataset = PhotoClips(dataset), dataset

    def __len__(self) -> int:
        return len(self.scenes)

    def draw(self, index: int, rng: np.random.Generator, shape: ClipShape) -> Clip:
        """A clip over the photo of this index."""
        clip = self.scenes.draw(index, rng, shape)
        for _ in range(int(rng.integers(1, MOST_PEOPLE + 1))):
            chosen = self._somebody(rng)
            if chosen is not None:
                clip = self._pasted(clip, *chosen, rng)
        return clip

    def _somebody(self, rng: np.random.Generator) -> tuple[int, Person] | None:
        for _ in range(_ATTEMPTS):
            photo = self.scenes.indices[rng.integers(len(self.scenes.indices))]
            labelled = self.dataset.photos[photo].labelled
            people = [person for person in labelled if (person.keypoints[:, 2] > 0).sum() >= _LABELS]
            if people:
                return photo, people[rng.integers(len(people))]
        return None

    def _pasted(self, clip: Clip, photo: int, person: Person, rng: np.random.Generator) -> Clip:
        """The clip with one more person in front."""
        size, image = clip.frames.shape[1], self.dataset.read(photo)
        matrices, mirrored = _path(person, clip.times, size, rng)
        still = np.broadcast_to(person.keypoints, (len(clip), 1, *person.keypoints.shape))
        moved = through_camera(still, matrices, size, mirrored)
        frames, keypoints, ignored = clip.frames.copy(), clip.keypoints.copy(), clip.ignored.copy()
        for time, matrix in enumerate(matrices):
            mask, alpha = cut_out(person, image.shape[:2], matrix, COCO_17, (size, size))
            seen = filmed(image, matrix, size).astype(np.float32)
            frames[time] = np.rint(frames[time] + alpha * (seen - frames[time]))
            ignored[time] &= mask <= 127
            _cover(keypoints[time], mask > 127, ignored[time])
        name = f"{clip.name} and {self.dataset.photos[photo].file_name}"
        people = np.concatenate([keypoints, moved], axis=1)
        return replace(clip, frames=frames, keypoints=people, ignored=ignored, name=name)


def _path(person: Person, times: Floats, size: int, rng: np.random.Generator) -> tuple[Floats, bool]:
    """(T, 2, 3) image pixels of the person's photo to frame pixels, and whether it is mirrored."""
    xy = person.keypoints[person.keypoints[:, 2] > 0, :2].astype(np.float64)
    low, high = xy.min(axis=0), xy.max(axis=0)
    wanted = size * float(np.exp(rng.uniform(*np.log(_SIZES))))
    zoom = wanted / max(float((high - low).max()), 1.0) * np.exp(wander(rng, times, 1, 0.1)[:, 0])
    angle = wander(rng, times, 1, 0.2)[:, 0] + rng.uniform(-0.2, 0.2)
    linear = np.stack([np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle)], -1).reshape(-1, 2, 2)
    linear = linear * zoom[:, None, None]
    mirrored = bool(rng.random() < 0.5)
    if mirrored:
        linear[..., 0] *= -1
    pace = rng.normal(0, _PACE, 2) * (1.0, 0.4)
    way = rng.uniform(0.25, 0.75, 2) + pace * (times - times.mean())[:, None] + wander(rng, times, 2, 0.08)
    return np.concatenate([linear, (size * way - linear @ ((low + high) / 2))[..., None]], axis=2), mirrored


def _cover(keypoints: NDArray[np.float32], inside: NDArray[np.bool_], ignored: NDArray[np.bool_]) -> None:
    """Mark keypoints behind somebody as hidden, and forget people of whom too little is left, in place."""
    labelled, hidden = keypoints[..., 2] > 0, hidden_keypoints(keypoints, inside)
    keypoints[..., 2] = np.where(hidden, 1, keypoints[..., 2])
    for person in np.flatnonzero(hidden.sum(axis=1) > COVERED * np.maximum(labelled.sum(axis=1), 1)):
        xy = keypoints[person, labelled[person], :2]
        left, top = np.floor(xy.min(axis=0)).astype(int).clip(0)
        right, bottom = np.ceil(xy.max(axis=0)).astype(int) + 1
        ignored[top:bottom, left:right] = True
        keypoints[person, :, 2] = 0
