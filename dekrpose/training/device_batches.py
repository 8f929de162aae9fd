"""Batches made on the accelerator: photos lie there as uint8; crops, mosaics, colours and targets are tensor code.

For datasets that fit into its memory. The random choices are those of ``augment`` (but for pasted people), from a
generator of the device: the same kinds of crops, not the same crops.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dekrpose.config import OUTPUT_STRIDE
from dekrpose.errors import DekrPoseError
from dekrpose.training.affine import SCALE_UNIT
from dekrpose.training.augment import AugmentConfig
from dekrpose.training.batch_targets import heatmap_targets, offset_targets
from dekrpose.training.loader import Batch, CachedPhotos, TargetConfig
from dekrpose.training.order import EpochOrder

CELLS = 4
"""Most photos in one crop."""
_LAYOUTS = ((1, 1), (2, 1), (1, 2), (2, 2))
"""Columns and rows of a crop; the first is no mosaic."""


@dataclass(frozen=True)
class PackedPhotos:
    """A dataset on one device.

    Attributes:
        pixels: (total, 4) uint8, all photos' pixels row by row: RGB, and 255 where people are not annotated.
        starts, heights, widths: (N,) of each photo, in pixels.
        keypoints: (N, P, K, 3) x, y, visibility, image pixels; people that are not there are invisible.
        counts: (N,) people.
        flip: (K,) the order of keypoints in a mirrored photo.
    """

    pixels: Tensor
    starts: Tensor
    heights: Tensor
    widths: Tensor
    keypoints: Tensor
    counts: Tensor
    flip: Tensor

    @classmethod
    def pack(cls, photos: CachedPhotos, device: torch.device) -> PackedPhotos:
        """Copy decoded photos and their people to a device: 4 bytes per pixel."""
        people = [[p.keypoints for p in photo.people if not p.ignored] for photo in photos.photos]
        count, most = len(photos.skeleton), max(1, *map(len, people))
        keypoints = torch.zeros(len(people), most, count, 3)
        parts, sizes = [], []
        for index, own in enumerate(people):
            image = photos.read(index)
            ignored = photos.ignored_mask(index).astype(np.uint8)[..., None] * np.uint8(255)
            parts.append(torch.from_numpy(np.concatenate([image, ignored], axis=2)).reshape(-1, 4).to(device))
            sizes.append(image.shape[:2])
            if own:
                keypoints[index, : len(own)] = torch.from_numpy(np.stack(own))
        heights, widths = torch.tensor(sizes, device=device).unbind(1)
        areas = heights * widths
        return cls(
            pixels=torch.cat(parts),
            starts=areas.cumsum(0) - areas,
            heights=heights,
            widths=widths,
            keypoints=keypoints.to(device),
            counts=torch.tensor([len(own) for own in people], device=device),
            flip=torch.tensor(photos.skeleton.flip_indices, device=device),
        )


@dataclass(frozen=True)
class _Cells:
    """The parts of B crops, (B, 4, ...); a cell that is not there is empty.

    Attributes:
        photos: (B, 4) indices.
        boxes: (B, 4, 4) left, top, right, bottom, input pixels of the crop.
        matrices: (B, 4, 2, 3) image pixels to input pixels of the cell, before mirroring.
        mirrored: (B, 4) whether the cell is mirrored.
        colors: (B, 4, 3, 4) on RGB and 1.
    """

    photos: Tensor
    boxes: Tensor
    matrices: Tensor
    mirrored: Tensor
    colors: Tensor


class DeviceBatches:
    """Iterates over the batches of an epoch, as a loader does.

    Args:
        photos: decoded photos.
        order: which photos make which batch; also from where on.
        augmentation, targets: as for ``Samples``.
        seed: with epoch and batch it decides every random choice.
        device: where photos lie and batches are made.

    Raises:
        DekrPoseError: people shall be pasted, or targets be official; only the loader does that.
    """

    def __init__(
        self,
        photos: CachedPhotos,
        order: EpochOrder,
        augmentation: AugmentConfig,
        targets: TargetConfig,
        seed: int,
        device: torch.device,
    ) -> None:
        if augmentation.copy_paste or targets.mode != "paper":
            raise DekrPoseError(
                "batches made on the device have paper targets and no pasted people, got "
                f"{targets.mode} targets and copy_paste {augmentation.copy_paste:g}; leave out --on-device, or these"
            )
        self.order, self.augmentation, self.targets, self.seed, self.device = order, augmentation, targets, seed, device
        self.packed = PackedPhotos.pack(photos, device)
        self.generator = torch.Generator(device)

    def __iter__(self) -> Iterator[Batch]:
        for indices in self.order.whole_batches():
            epoch, position, _ = indices[0]
            self.generator.manual_seed(int(np.random.default_rng([self.seed, epoch, position]).integers(2**62)))
            yield self.make(torch.tensor([photo for _, _, photo in indices], device=self.device), self.order.own)

    def make(self, photos: Tensor, own: slice = slice(None)) -> Batch:
        """A batch whose crops' first photos are (B,) ``photos``, or this process's own part of it."""
        whole = self._draw(photos)
        cells = _Cells(**{name: value[own] for name, value in vars(whole).items()})
        images, ignored = _render(self.packed, cells, self.augmentation.size)
        people = _people(self.packed, cells)
        people[..., :2] /= OUTPUT_STRIDE
        size, half = self.augmentation.size // OUTPUT_STRIDE, OUTPUT_STRIDE // 2
        config = self.targets
        heatmaps, heatmap_weights, centers = heatmap_targets(
            people,
            size,
            sigma=config.sigma,
            center_sigma=config.center_sigma,
            ignored=ignored[:, half::OUTPUT_STRIDE, half::OUTPUT_STRIDE],
            minimum_keypoints=self.augmentation.minimum_keypoints,
        )
        offsets, offset_weights = offset_targets(people, centers, size, radius=config.radius)
        pixels = None
        if config.offset_pixels:
            random = self._uniform(len(photos), size * size)[own]
            chosen = _choose(offset_weights, config.offset_pixels, random)
            pixels = torch.stack([chosen % size, chosen // size], dim=-1)
            chosen = chosen[:, None].expand(-1, offsets.shape[1], -1)
            offsets, offset_weights = (maps.flatten(2).gather(2, chosen) for maps in (offsets, offset_weights))
        return Batch(images, heatmaps, heatmap_weights, offsets, offset_weights, pixels)

    def _uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return torch.rand(shape, generator=self.generator, device=self.device) * (high - low) + low

    def _draw(self, first: Tensor) -> _Cells:
        """All random choices of a batch."""
        config, batch = self.augmentation, len(first)
        photos = (self._uniform(batch, CELLS) * len(self.packed.starts)).long()
        photos[:, 0] = first
        boxes = self._layout(batch)
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
        return _Cells(photos, boxes, torch.cat([linear, moved[..., None]], -1), mirrored, self._colors(batch))

    def _layout(self, batch: int) -> Tensor:
        """(B, 4, 4) cells: one that fills the crop, or two or four."""
        size = self.augmentation.size
        mosaic = self._uniform(batch) < self.augmentation.mosaic
        kind = torch.where(mosaic, 1 + (self._uniform(batch) * 3).long().clamp(max=2), 0)
        columns, rows = torch.tensor(_LAYOUTS, device=self.device)[kind].unbind(1)
        x, y = (size * self._uniform(2, batch, low=0.35, high=0.65)).floor().unbind(0)
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


def _choose(weights: Tensor, count: int, random: Tensor) -> Tensor:
    """(B, count) flat indices of (B, C, h, w): weighted pixels in the order of ``random``, (B, h * w), then others."""
    weighted = (weights > 0).any(1).flatten(1)
    order = (weighted + random).argsort(1, descending=True)
    repeats = -(-count // order.shape[1])
    return order.repeat(1, repeats)[:, :count]


def _render(packed: PackedPhotos, cells: _Cells, size: int) -> tuple[Tensor, Tensor]:
    """(B, 3, size, size) uint8 RGB, bilinear and black outside the photos, and (B, size, size) what is ignored."""
    batch = len(cells.photos)
    y, x = torch.meshgrid(*(torch.arange(size, device=packed.pixels.device),) * 2, indexing="ij")
    right, bottom = cells.boxes[:, 0, 2], cells.boxes[:, 0, 3]
    cell = (x >= right[:, None, None]).long() + 2 * (y >= bottom[:, None, None]).long()
    flat = cell.flatten(1)

    def of_cell(values: Tensor) -> Tensor:
        index = flat.reshape(batch, -1, *(1,) * (values.ndim - 2)).expand(-1, -1, *values.shape[2:])
        return values.gather(1, index)

    boxes, photo = of_cell(cells.boxes), of_cell(cells.photos)
    local_x = x.flatten() - boxes[..., 0]
    local_x = torch.where(of_cell(cells.mirrored), boxes[..., 2] - boxes[..., 0] - 1 - local_x, local_x)
    local = torch.stack([local_x, y.flatten() - boxes[..., 1]], -1)
    inverse = of_cell(torch.linalg.inv_ex(cells.matrices[..., :2]).inverse)
    source = (inverse @ (local - of_cell(cells.matrices[..., 2]))[..., None]).squeeze(-1)
    width, height, start = packed.widths[photo], packed.heights[photo], packed.starts[photo]

    def read(column: Tensor, row: Tensor) -> Tensor:
        inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)
        index = torch.where(inside, start + row * width + column, torch.zeros_like(start))
        return packed.pixels[index] * inside[..., None]

    corner = source.floor()
    fraction, (left, top) = source - corner, corner.long().unbind(-1)
    blend_x, blend_y = fraction[..., :1], fraction[..., 1:]
    upper = read(left, top)[..., :3] * (1 - blend_x) + read(left + 1, top)[..., :3] * blend_x
    lower = read(left, top + 1)[..., :3] * (1 - blend_x) + read(left + 1, top + 1)[..., :3] * blend_x
    rgb = upper * (1 - blend_y) + lower * blend_y
    colors = of_cell(cells.colors)
    rgb = (colors[..., :3] @ rgb[..., None]).squeeze(-1) + colors[..., 3]
    nearest = source.round().long()
    ignored = read(nearest[..., 0], nearest[..., 1])[..., 3] > 0
    image = rgb.round().clamp(0, 255).to(torch.uint8).reshape(batch, size, size, 3).permute(0, 3, 1, 2)
    return image, ignored.reshape(batch, size, size)


def _people(packed: PackedPhotos, cells: _Cells) -> Tensor:
    """(B, P, K, 3) of all cells in the crop's frame; labels outside their cell are taken off, people come first."""
    people = packed.keypoints[cells.photos]
    mirrored = cells.mirrored[..., None, None, None]
    people = torch.where(mirrored, people[..., packed.flip, :], people)
    xy = people[..., :2] @ cells.matrices[:, :, None, :, :2].mT + cells.matrices[:, :, None, None, :, 2]
    corner, end = cells.boxes[..., None, None, :2], cells.boxes[..., None, None, 2:]
    extent = end - corner
    x = torch.where(mirrored[..., 0], extent[..., 0] - 1 - xy[..., 0], xy[..., 0])
    xy = torch.stack([x, xy[..., 1]], -1)
    inside = ((xy >= 0) & (xy < extent)).all(-1)
    visible = people[..., 2] * inside
    people = torch.cat([xy + corner, visible[..., None]], -1).flatten(1, 2)
    present = (people[..., 2] > 0).any(-1)
    order = present.int().argsort(dim=1, descending=True, stable=True)
    order = order[:, : max(1, int(present.sum(1).max()))]
    return people.gather(1, order[..., None, None].expand(-1, -1, *people.shape[2:]))
