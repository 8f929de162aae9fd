"""Photos that lie on the accelerator as uint8, and crops of them: pictures and people."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dekrpose.training.loader import CachedPhotos

CELLS = 4
"""Most photos in one crop."""


@dataclass(frozen=True)
class PackedPhotos:
    """A dataset on one device.

    Attributes:
        pixels: (total, 4) uint8, all photos' pixels row by row: RGB, and 255 where people are not annotated.
        starts, heights, widths: (N,) of each photo, in pixels.
        keypoints: (N, P, K, 3) x, y, visibility, image pixels; people that are not there are invisible.
        counts, known_counts: (N,) people; the latter on the CPU, which need not ask the device then.
        flip: (K,) the order of keypoints in a mirrored photo.
    """

    pixels: Tensor
    starts: Tensor
    heights: Tensor
    widths: Tensor
    keypoints: Tensor
    counts: Tensor
    known_counts: NDArray[np.int64]
    flip: Tensor

    @classmethod
    def pack(cls, photos: CachedPhotos, device: torch.device) -> PackedPhotos:
        """Copy decoded photos and their people to a device: 4 bytes per pixel."""
        people = [[person.keypoints for person in photo.labelled] for photo in photos.photos]
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
        counts = np.array([len(own) for own in people])
        return cls(
            pixels=torch.cat(parts),
            starts=areas.cumsum(0) - areas,
            heights=heights,
            widths=widths,
            keypoints=keypoints.to(device),
            counts=torch.from_numpy(counts).to(device),
            known_counts=counts,
            flip=torch.tensor(photos.skeleton.flip_indices, device=device),
        )


@dataclass(frozen=True)
class Cells:
    """The parts of B crops, (B, 4, ...); a cell that is not there is empty.

    Attributes:
        photos: (B, 4) indices.
        boxes: (B, 4, 4) left, top, right, bottom, input pixels of the crop.
        matrices: (B, 4, 2, 3) image pixels to input pixels of the cell, before mirroring.
        mirrored: (B, 4) whether the cell is mirrored.
        colors: (B, 4, 3, 4) on RGB and 1.
        most: people that one of the crops can have.
    """

    photos: Tensor
    boxes: Tensor
    matrices: Tensor
    mirrored: Tensor
    colors: Tensor
    most: int

    def part(self, own: slice) -> Cells:
        """Those of some of the crops."""
        return Cells(**{name: value if name == "most" else value[own] for name, value in vars(self).items()})


def render(packed: PackedPhotos, cells: Cells, size: int) -> tuple[Tensor, Tensor]:
    """(B, 3, size, size) uint8 RGB, bilinear and black outside the photos, and (B, size, size) what is ignored.

    What a pixel needs to know of its cell is read once, as one long row per number: that is what devices do fast.
    """
    batch, device = len(cells.photos), packed.pixels.device
    y, x = torch.meshgrid(*(torch.arange(size, device=device),) * 2, indexing="ij")
    cell = (x >= cells.boxes[:, :1, 2, None]).long() + 2 * (y >= cells.boxes[:, :1, 3, None]).long()
    cell = (cell + CELLS * torch.arange(batch, device=device)[:, None, None]).flatten()
    numbers = torch.cat([_to_photos(cells), cells.colors.flatten(2)], -1).flatten(0, 1).T.contiguous()
    a, b, c, d, e, f, *colors = numbers[:, cell]
    places = torch.stack([tensor[cells.photos].flatten() for tensor in (packed.widths, packed.heights, packed.starts)])
    width, height, start = places[:, cell]
    x, y = (axis.expand(batch, size, size).flatten() for axis in (x, y))
    source_x, source_y = a * x + b * y + c, d * x + e * y + f
    words = packed.pixels.view(torch.int32).squeeze(1)

    def read(column: Tensor, row: Tensor) -> Tensor:
        inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)
        index = (start + row * width + column).where(inside, 0)
        return words[index].where(inside, 0).view(torch.uint8).reshape(-1, 4)

    left, top = source_x.floor(), source_y.floor()
    blend_x, blend_y = (source_x - left)[:, None], (source_y - top)[:, None]
    left, top = left.long(), top.long()
    upper = torch.lerp(read(left, top)[:, :3].float(), read(left + 1, top)[:, :3].float(), blend_x)
    lower = torch.lerp(read(left, top + 1)[:, :3].float(), read(left + 1, top + 1)[:, :3].float(), blend_x)
    red, green, blue = torch.lerp(upper, lower, blend_y).unbind(1)
    changed = [r * red + g * green + b * blue + shift for r, g, b, shift in zip(*[iter(colors)] * 4, strict=True)]
    image = torch.stack([value.reshape(batch, size, size) for value in changed], 1).round().clamp(0, 255)
    ignored = read(source_x.round().long(), source_y.round().long())[:, 3] > 0
    return image.to(torch.uint8), ignored.reshape(batch, size, size)


def _to_photos(cells: Cells) -> Tensor:
    """(B, 4, 6): the affine maps from a crop's pixels to each cell's image pixels, row by row."""
    left, top, right, _ = cells.boxes.double().unbind(-1)
    (along, across, x), (_, _, y) = (row.unbind(-1) for row in cells.matrices.double().unbind(-2))
    sign, shift = torch.where(cells.mirrored, -1.0, 1.0), torch.where(cells.mirrored, right - 1, -left)
    scale = 1 / (along.square() + across.square())  # of the inverse of a turn and zoom, which is its own transpose
    along, across, x, y = along * scale, across * scale, shift - x, -top - y
    rows = [along * sign, -across, along * x - across * y, across * sign, along, across * x + along * y]
    return torch.stack(rows, -1).float()


def people_of(packed: PackedPhotos, cells: Cells) -> Tensor:
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
    order = order[:, : cells.most]
    return people.gather(1, order[..., None, None].expand(-1, -1, *people.shape[2:]))
