"""From photos to batches: cached decoding, augmentation and targets."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from dekrpose.architectures.dekr.targets import TargetMode, heatmap_targets, official_center_sigma, offset_targets
from dekrpose.config import OUTPUT_STRIDE
from dekrpose.data.dataset import KeypointDataset, Photo, ignored_mask
from dekrpose.errors import DekrPoseError
from dekrpose.skeletons import Skeleton
from dekrpose.training.augment import AugmentConfig, augment
from dekrpose.training.crops import Crop, CropPeople, PhotoSource, official_people, paper_people
from dekrpose.training.memory import SharedPictures, start_method


@dataclass(frozen=True)
class TargetConfig:
    """How targets are drawn, in heatmap pixels; the defaults are the paper's.

    Args:
        mode: "paper", or "official" for those of the released training code, quirks included.
        sigma, center_sigma: of the keypoints' and centers' Gaussians.
        background_weight: of heatmap pixels outside the Gaussians. The paper's 0.1 teaches a network to see somebody
            rather than nobody where it is unsure.
        radius: of the disc ("official": half the side of the square) around a center that regresses offsets.
        offset_pixels: regress offsets at this many pixels per crop (all weighted ones, filled up at random) instead
            of everywhere; 0 means everywhere. Fewer cost less and, as only weighted pixels count, teach the same.
    """

    mode: TargetMode = "paper"
    sigma: float = 2.0
    center_sigma: float = 4.0
    background_weight: float = 0.1
    radius: int = 4
    offset_pixels: int = 0


def check_targets(targets: TargetConfig, augmentation: AugmentConfig) -> None:
    """DekrPoseError for targets that do not exist for these crops: official ones of mosaics or of pasted people."""
    if targets.mode == "official" and (augmentation.mosaic or augmentation.copy_paste):
        raise DekrPoseError(
            "official targets repeat the released training, which has neither mosaics nor pasted people; got "
            f"mosaic {augmentation.mosaic:g} and copy_paste {augmentation.copy_paste:g}: set both to 0 "
            "(--mosaic 0 --copy-paste 0), or take paper targets"
        )


@dataclass(frozen=True)
class Batch:
    """Crops and targets; see ``heatmap_targets`` and ``offset_targets`` for their meaning.

    Attributes:
        images: (B, 3, H, W) uint8 RGB.
        heatmaps, heatmap_weights: (B, K+1, h, w).
        offsets, offset_weights: (B, 2K, h, w), or (B, 2K, P) at ``pixels``.
        pixels: (B, P, 2) xy, heatmap pixels, or None when offsets are regressed everywhere.
    """

    images: Tensor
    heatmaps: Tensor
    heatmap_weights: Tensor
    offsets: Tensor
    offset_weights: Tensor
    pixels: Tensor | None

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return self.joined([self], lambda values: values[0].to(device, non_blocking=True))

    @classmethod
    def joined(cls, parts: Sequence[Batch], join: Callable[[list[Tensor]], Tensor]) -> Batch:
        """One batch of several samples or batches, ``pixels`` too if they have any."""
        every = {name: [getattr(part, name) for part in parts] for name in vars(parts[0])}
        joined: dict[str, Any] = {name: None if own[0] is None else join(own) for name, own in every.items()}
        return cls(**joined)


def collate(samples: Sequence[Batch]) -> Batch:
    """Join samples to a batch."""
    return Batch.joined(samples, torch.stack)


class CachedPhotos:
    """Datasets whose decoded photos stay in memory as uint8: decoding once pays when a photo is seen often.

    Args:
        datasets: one, or several of the same skeleton.
        limit: use only the first photos of each.
        progress: show a progress bar.
        times: how often an epoch shows the photos of each dataset; None is once.
    """

    def __init__(
        self,
        datasets: KeypointDataset | Sequence[KeypointDataset],
        limit: int | None = None,
        progress: bool = True,
        times: Sequence[int] | None = None,
    ) -> None:
        joined = [datasets] if isinstance(datasets, KeypointDataset) else list(datasets)
        self.skeleton: Skeleton = joined[0].skeleton
        self.photos: list[Photo] = []
        self._images: list[NDArray[np.uint8]] | SharedPictures = [] if start_method() == "fork" else SharedPictures()
        self._places: list[int] = []
        for dataset, repeats in zip(joined, times or [1] * len(joined), strict=True):
            photos, before = dataset.photos[:limit], len(self._images)
            with ThreadPoolExecutor(os.cpu_count()) as threads:
                images = threads.map(dataset.read, range(len(photos)))
                for image in tqdm(images, "reading photos", len(photos), unit="photo", disable=not progress or None):
                    self._images.append(image)
            self.photos += photos * repeats
            self._places += list(range(before, len(self._images))) * repeats

    def read(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB; not to be changed."""
        return self._images[self._places[index]]

    def ignored_mask(self, index: int) -> NDArray[np.bool_]:
        """(H, W), True where people are not annotated."""
        return ignored_mask(self.photos[index])


class Samples(Dataset[Batch]):
    """Index (epoch, position, photo) -> one sample; the numbers and the seed alone decide what it looks like.

    Raises:
        DekrPoseError: see ``check_targets``.
    """

    def __init__(self, photos: PhotoSource, augmentation: AugmentConfig, targets: TargetConfig, seed: int) -> None:
        check_targets(targets, augmentation)
        self.photos, self.augmentation, self.targets, self.seed = photos, augmentation, targets, seed

    def __getitem__(self, index: tuple[int, int, int]) -> Batch:
        crop, rng = self.draw(index)
        if self.targets.mode == "official":
            people = official_people(crop, self.photos.photos[index[2]], self.photos.skeleton)
        else:
            people = paper_people(crop, self.augmentation.minimum_keypoints)
        return make_sample(crop.image, people, self.targets, rng)

    def draw(self, index: tuple[int, int, int]) -> tuple[Crop, np.random.Generator]:
        """The crop that the sample of this index is made of, and the generator after it."""
        epoch, position, photo = index
        rng = np.random.default_rng([self.seed, epoch, position])
        return augment(self.photos, photo, self.augmentation, rng), rng


def make_sample(image: NDArray[np.uint8], people: CropPeople, targets: TargetConfig, rng: np.random.Generator) -> Batch:
    """Targets of one crop; a batch of one without its batch dimension."""
    size = (image.shape[0] // OUTPUT_STRIDE, image.shape[1] // OUTPUT_STRIDE)
    center_sigma = targets.center_sigma
    if targets.mode == "official":
        count = people.keypoints.shape[1]
        center_sigma = official_center_sigma(count, sigma=targets.sigma, center_sigma=center_sigma)
    heatmaps, heatmap_weights = heatmap_targets(
        people.keypoints,
        people.centers,
        size,
        sigma=targets.sigma,
        center_sigma=center_sigma,
        background_weight=targets.background_weight,
        ignored=people.ignored,
    )
    offsets, offset_weights = offset_targets(
        people.keypoints, people.centers, size, radius=targets.radius, mode=targets.mode, areas=people.areas
    )
    pixels = None
    if targets.offset_pixels:
        index = _choose_pixels(offset_weights, targets.offset_pixels, rng)
        offsets, offset_weights = offsets.flatten(1)[:, index], offset_weights.flatten(1)[:, index]
        pixels = torch.stack([index % size[1], index // size[1]], dim=-1)
    return Batch(torch.from_numpy(image).permute(2, 0, 1), heatmaps, heatmap_weights, offsets, offset_weights, pixels)


def _choose_pixels(weights: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """(count,) flat indices: weighted pixels in random order, then others."""
    weighted = (weights > 0).any(0).flatten().numpy()
    order = rng.permutation(len(weighted))
    order = order[np.argsort(~weighted[order], kind="stable")]
    return torch.from_numpy(np.resize(order, count).astype(np.int64))
