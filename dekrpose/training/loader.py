"""From photos to batches: cached decoding, augmentation and an architecture's targets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from dekrpose.architectures.learning import AugmentConfig, Batch, Crop, Targets
from dekrpose.data.dataset import KeypointDataset, Photo, ignored_mask
from dekrpose.progress import Bar
from dekrpose.skeletons import Skeleton
from dekrpose.training.augment import augment
from dekrpose.training.crops import PhotoSource
from dekrpose.training.memory import SharedPictures, start_method

AnyBatch = TypeVar("AnyBatch", bound=Batch)


def collate(samples: Sequence[AnyBatch]) -> AnyBatch:
    """Join samples to a batch."""
    return type(samples[0]).joined(samples, torch.stack)


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
                for image in Bar(images, "reading photos", len(photos), unit="photo", show=progress):
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
        DekrPoseError: see ``Targets.check``.
    """

    def __init__(self, photos: PhotoSource, augmentation: AugmentConfig, targets: Targets, seed: int) -> None:
        targets.check(augmentation)
        self.photos, self.augmentation, self.targets, self.seed = photos, augmentation, targets, seed

    def __getitem__(self, index: tuple[int, int, int]) -> Batch:
        crop, rng = self.draw(index)
        photo, skeleton = self.photos.photos[index[2]], self.photos.skeleton
        return self.targets.sample(crop, photo, skeleton, self.augmentation.minimum_keypoints, rng)

    def draw(self, index: tuple[int, int, int]) -> tuple[Crop, np.random.Generator]:
        """The crop that the sample of this index is made of, and the generator after it."""
        epoch, position, photo = index
        rng = np.random.default_rng([self.seed, epoch, position])
        return augment(self.photos, photo, self.augmentation, rng), rng
