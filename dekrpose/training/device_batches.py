"""Batches made on the accelerator: photos lie there as uint8; crops, mosaics, colours and targets are tensor code.

For datasets that fit into its memory. The random choices are those of ``augment`` (but for pasted people), from a
generator of the device: the same kinds of crops, not the same crops.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dekrpose.architectures.learning import AugmentConfig, Batch, Targets
from dekrpose.errors import DekrPoseError
from dekrpose.training.crops import SCALE_UNIT
from dekrpose.training.loader import CachedPhotos
from dekrpose.training.order import EpochOrder
from dekrpose.training.packed_photos import CELLS, Cells, PackedPhotos, people_of, render

_LAYOUTS = np.array([(1, 1), (2, 1), (1, 2), (2, 2)])
"""Columns and rows of a crop; the first is no mosaic."""
_USED = np.array([(1, 0, 0, 0), (1, 1, 0, 0), (1, 0, 1, 0), (1, 1, 1, 1)])
"""Which cells each layout has; row by row."""


class DeviceBatches:
    """Iterates over the batches of an epoch, as a loader does, in ``order``, also from where on.

    Photos lie and batches are made on the device; the seed with epoch and batch decides every random choice.

    Raises:
        DekrPoseError: people shall be pasted, or targets be official; only the loader does that.
    """

    def __init__(
        self,
        photos: CachedPhotos,
        order: EpochOrder,
        augmentation: AugmentConfig,
        targets: Targets,
        seed: int,
        device: torch.device,
    ) -> None:
        if augmentation.copy_paste or not targets.anywhere:
            raise DekrPoseError(
                "batches made on the device have DEKR's paper targets and no pasted people, got "
                f"{targets.title} and copy_paste {augmentation.copy_paste:g}; leave out --on-device, or these"
            )
        self.order, self.augmentation, self.targets, self.seed, self.device = order, augmentation, targets, seed, device
        self.packed = PackedPhotos.pack(photos, device)
        self.generator = torch.Generator(device)
        self.seed_with([seed])

    def __iter__(self) -> Iterator[Batch]:
        for indices in self.order.whole_batches():
            epoch, position, _ = indices[0]
            self.seed_with([self.seed, epoch, position])
            yield self.make(np.array([photo for _, _, photo in indices]), self.order.own)

    def seed_with(self, numbers: Sequence[int]) -> None:
        """Let these numbers decide the choices that follow, on the CPU and on the device."""
        self.random = np.random.default_rng(numbers)
        self.generator.manual_seed(int(self.random.integers(2**62)))

    def make(self, photos: NDArray[np.int64], own: slice = slice(None)) -> Batch:
        """A batch whose crops' first photos are (B,) ``photos``, or this process's own part of it."""
        cells = self._draw(photos).part(own)
        images, ignored = render(self.packed, cells, self.augmentation.size)
        people = people_of(self.packed, cells)
        minimum = self.augmentation.minimum_keypoints
        return self.targets.on_device(
            images, people, ignored, minimum, lambda numbers: self._uniform(len(photos), numbers)[own]
        )

    def _uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return torch.rand(shape, generator=self.generator, device=self.device) * (high - low) + low

    def _draw(self, first: NDArray[np.int64]) -> Cells:
        """All random choices of a batch. The CPU draws photos and layouts, so that it knows how many people come."""
        config, batch = self.augmentation, len(first)
        chosen = self.random.integers(len(self.packed.known_counts), size=(batch, CELLS))
        chosen[:, 0] = first
        layouts = np.where(self.random.random(batch) < config.mosaic, self.random.integers(1, len(_LAYOUTS), batch), 0)
        most = int((self.packed.known_counts[chosen] * _USED[layouts]).sum(1).max())
        photos = self._to_device(chosen)
        boxes = self._boxes(self._to_device(_LAYOUTS[layouts]))
        width, height = (boxes[..., 2:] - boxes[..., :2]).unbind(-1)
        sides = torch.stack([self.packed.heights[photos], self.packed.widths[photos]]).amin(0)
        side = sides * self._uniform(batch, CELLS, low=config.scale[0], high=config.scale[1])
        shift = self._uniform(batch, CELLS, 2, low=-config.translation, high=config.translation) / SCALE_UNIT
        center = self._region_centers(photos) + shift * side[..., None]
        angle = torch.deg2rad(self._uniform(batch, CELLS, low=-config.rotation, high=config.rotation))
        zoom = torch.minimum(width, height) / side
        along, across = zoom * angle.cos(), zoom * angle.sin()
        linear = torch.stack([torch.stack([along, across], -1), torch.stack([-across, along], -1)], -2)
        moved = torch.stack([width, height], -1) / 2 - (linear @ center[..., None]).squeeze(-1)
        mirrored = self._uniform(batch, CELLS) < config.flip
        matrices = torch.cat([linear, moved[..., None]], -1)
        return Cells(photos, boxes, matrices, mirrored, self._colors(batch), most=max(1, most))

    def _to_device(self, values: NDArray[np.int64]) -> Tensor:
        tensor = torch.from_numpy(values)
        return (tensor.pin_memory() if self.device.type == "cuda" else tensor).to(self.device, non_blocking=True)

    def _boxes(self, layouts: Tensor) -> Tensor:
        """(B, 4, 4) cells of (B, 2) columns and rows: one that fills the crop, or two or four."""
        size = self.augmentation.size
        columns, rows = layouts.unbind(1)
        x, y = (size * self._uniform(2, len(layouts), low=0.35, high=0.65)).floor().unbind(0)
        x = torch.where(columns == 2, x, torch.full_like(x, size))
        y = torch.where(rows == 2, y, torch.full_like(y, size))
        zero, end = torch.zeros_like(x), torch.full_like(x, size)
        cells = [(zero, zero, x, y), (x, zero, end, y), (zero, y, x, end), (x, y, end, end)]
        return torch.stack([torch.stack(cell, -1) for cell in cells], 1)

    def _region_centers(self, photos: Tensor) -> Tensor:
        """(B, 4, 2) xy, image pixels: the photo's middle, or somebody's."""
        middle = torch.stack([self.packed.widths[photos], self.packed.heights[photos]], -1) / 2
        counts = self.packed.counts[photos]
        chosen = (self._uniform(*photos.shape) * counts).long().clamp(max=self.packed.keypoints.shape[1] - 1)
        person = self.packed.keypoints[photos, chosen]
        labelled = (person[..., 2:] > 0).float()
        mean = (person[..., :2] * labelled).sum(-2) / labelled.sum(-2).clamp(min=1)
        on_person = (self._uniform(*photos.shape) < self.augmentation.on_person) & (counts > 0)
        return torch.where(on_person[..., None], mean, middle)

    def _colors(self, batch: int) -> Tensor:
        """(B, 4, 3, 4): contrast, brightness, saturation as ``augment`` changes them."""
        config = self.augmentation
        change = 1 + self._uniform(batch, CELLS, 3, low=-config.color, high=config.color)
        contrast, brightness, saturation = change[..., None, None].unbind(2)
        grey = self._uniform(batch, CELLS, 1, 1) < config.grey
        saturation = torch.where(grey, torch.zeros_like(saturation), saturation)
        luma = torch.tensor([0.299, 0.587, 0.114], device=self.device).expand(3, 3)
        matrix = contrast * (saturation * torch.eye(3, device=self.device) + (1 - saturation) * luma)
        offset = 128 * (1 - contrast) + 128 * (brightness - 1)
        return torch.cat([matrix, offset.expand(-1, -1, 3, 1)], -1)
