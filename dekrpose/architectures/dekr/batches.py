"""From crops to what DEKR is taught of them: maps of heat and of offsets, crop by crop or many at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dekrpose.architectures.dekr.people import CropPeople, official_people, paper_people
from dekrpose.architectures.dekr.targets import (
    TargetMode,
    heatmap_targets,
    official_center_sigma,
    offset_targets,
    person_centers,
)
from dekrpose.architectures.learning import AugmentConfig, Batch, Crop, Shown, Targets, TaughtPose
from dekrpose.config import OUTPUT_STRIDE
from dekrpose.data.dataset import Photo
from dekrpose.errors import DekrPoseError
from dekrpose.skeletons import Skeleton


@dataclass(frozen=True)
class MapBatch(Batch):
    """Crops and targets; see ``heatmap_targets`` and ``offset_targets`` for their meaning.

    Attributes:
        images: (B, 3, H, W) uint8 RGB.
        heatmaps, heatmap_weights: (B, K+1, h, w).
        offsets, offset_weights: (B, 2K, h, w), or (B, 2K, P) at ``pixels``.
        pixels: (B, P, 2) xy, heatmap pixels, or None when offsets are regressed everywhere.
    """

    heatmaps: Tensor
    heatmap_weights: Tensor
    offsets: Tensor
    offset_weights: Tensor
    pixels: Tensor | None

    def shown(self) -> Shown:
        """See ``Batch``: poses are where offsets point."""
        offsets, weights, heat = self.offsets.flatten(1).T, self.offset_weights.flatten(1).T, self.heatmaps.numpy()
        pixels = self.pixels
        if pixels is None:
            rows, columns = torch.meshgrid(*map(torch.arange, heat.shape[1:]), indexing="ij")
            pixels = torch.stack([columns, rows], dim=-1).flatten(0, 1)
        keypoints = (pixels[:, None] - offsets.reshape(len(pixels), -1, 2)).numpy() * np.float32(OUTPUT_STRIDE)
        taught, merit = (weights[:, ::2] > 0).numpy(), heat[-1][pixels[:, 1], pixels[:, 0]]
        sides = np.full(len(pixels), OUTPUT_STRIDE, np.float32)
        places = OUTPUT_STRIDE * pixels.numpy().astype(np.float32)
        poses = TaughtPose.of_places(places, sides, keypoints, taught, merit)
        return Shown(poses, heat, self.heatmap_weights.amax(0).numpy(), OUTPUT_STRIDE)


@dataclass(frozen=True)
class TargetConfig(Targets):
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

    @property
    def title(self) -> str:
        """See ``Targets``."""
        return f"{self.mode} targets"

    @property
    def anywhere(self) -> bool:
        """See ``Targets``."""
        return self.mode == "paper"

    def check(self, augmentation: AugmentConfig) -> None:
        """See ``Targets``: official ones of mosaics or of pasted people do not exist."""
        if self.mode == "official" and (augmentation.mosaic or augmentation.copy_paste):
            raise DekrPoseError(
                "official targets repeat the released training, which has neither mosaics nor pasted people; got "
                f"mosaic {augmentation.mosaic:g} and copy_paste {augmentation.copy_paste:g}: set both to 0 "
                "(--mosaic 0 --copy-paste 0), or take paper targets"
            )

    def sample(
        self, crop: Crop, photo: Photo | None, skeleton: Skeleton, minimum_keypoints: int, rng: np.random.Generator
    ) -> MapBatch:
        """See ``Targets``."""
        if self.mode == "official" and photo is not None:
            return make_sample(crop.image, official_people(crop, photo, skeleton), self, rng)
        return make_sample(crop.image, paper_people(crop, minimum_keypoints), self, rng)

    def on_device(
        self, images: Tensor, people: Tensor, ignored: Tensor, minimum_keypoints: int, draw: Callable[[int], Tensor]
    ) -> MapBatch:
        """See ``Targets``."""
        people[..., :2] /= OUTPUT_STRIDE
        height, width = (side // OUTPUT_STRIDE for side in images.shape[2:])
        half, maps = OUTPUT_STRIDE // 2, (height, width)
        centers = person_centers(people, minimum_keypoints=minimum_keypoints)
        heatmaps, heatmap_weights = heatmap_targets(
            people, centers, maps, sigma=self.sigma, center_sigma=self.center_sigma,
            background_weight=self.background_weight, ignored=ignored[:, half::OUTPUT_STRIDE, half::OUTPUT_STRIDE],
        )  # fmt: skip
        offsets, offset_weights = offset_targets(people, centers, maps, radius=self.radius)
        pixels = None
        if self.offset_pixels:
            chosen = _choose(offset_weights, self.offset_pixels, draw(height * width))
            pixels = torch.stack([chosen % width, chosen // width], dim=-1)
            chosen = chosen[:, None].expand(-1, offsets.shape[1], -1)
            offsets, offset_weights = (own.flatten(2).gather(2, chosen) for own in (offsets, offset_weights))
        return MapBatch(images, heatmaps, heatmap_weights, offsets, offset_weights, pixels)


def make_sample(
    image: NDArray[np.uint8], people: CropPeople, targets: TargetConfig, rng: np.random.Generator
) -> MapBatch:
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
    return MapBatch(
        torch.from_numpy(image).permute(2, 0, 1), heatmaps, heatmap_weights, offsets, offset_weights, pixels
    )


def _choose_pixels(weights: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """(count,) flat indices: weighted pixels in random order, then others."""
    weighted = (weights > 0).any(0).flatten().numpy()
    order = rng.permutation(len(weighted))
    order = order[np.argsort(~weighted[order], kind="stable")]
    return torch.from_numpy(np.resize(order, count).astype(np.int64))


def _choose(weights: Tensor, count: int, random: Tensor) -> Tensor:
    """(B, count) flat indices of (B, C, h, w): weighted pixels in the order of ``random``, (B, h * w), then others."""
    weighted = (weights > 0).any(1).flatten(1)
    order = (weighted + random).argsort(1, descending=True)
    repeats = -(-count // order.shape[1])
    return order.repeat(1, repeats)[:, :count]
