"""Photos and people that are made up, so that every machine measures the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from dekrpose.architectures.dekr.network import Pick, takes_pick
from dekrpose.architectures.dekr.targets import heatmap_targets, offset_targets
from dekrpose.architectures.parts.blocks import gather_pixels
from dekrpose.config import ModelConfig
from dekrpose.engines.file import ExportedPeople
from dekrpose.images import Pixels

_QUALITY = 90
_STRIDE = 4
_SPREAD = 1.5
_OCTAVES = (8, 32, 128)


def photo(width: int, height: int, seed: int = 0) -> Pixels:
    """Soft coloured blobs of several sizes with a little noise, which compress about as photos do: (H, W, 3) uint8."""
    generator = np.random.default_rng(seed)
    total = generator.normal(0, 4, (height, width, 3)).astype(np.float32)
    for cells in _OCTAVES:
        coarse = generator.normal(0, 128 / cells**0.5, (cells, cells, 3)).astype(np.float32)
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return (total + 128).clip(0, 255).astype(np.uint8)


def jpeg(pixels: Pixels) -> bytes:
    """A photo's bytes as a camera would store them."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    assert done
    return data.tobytes()


def photo_file(words: str) -> bytes:
    """A photo's bytes: of the file with this name, or made up in a size such as 640x480, else ValueError."""
    if Path(words).is_file():
        return Path(words).read_bytes()
    return jpeg(photo(*photo_size(words)))


def photo_size(words: str) -> tuple[int, int]:
    """Width and height of a made-up photo, such as 640x480, else ValueError."""
    try:
        width, height = (int(side) for side in words.lower().split("x"))
    except ValueError as error:
        raise ValueError(f"--photo must be a file or a size such as 640x480, got {words!r}") from error
    if min(width, height) < 1:
        raise ValueError(f"--photo must have at least one pixel, got {words!r}")
    return width, height


def people_maps(people: int, keypoints: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Maps that a network would give for people side by side, in rows.

    Heatmaps (K + 1, height, width), the center map last, and offsets (2K, height, width), as training has them. More
    people than fit with a few pixels each are found only in part.
    """
    columns = max(1, round((people * width / height) ** 0.5))
    rows = max(1, -(-people // columns))
    index = torch.arange(people)
    size = torch.tensor([width / columns, height / rows])
    centers = ((torch.stack([index % columns, index // columns], dim=1) + 0.5) * size).floor()
    number = torch.arange(keypoints)
    body = torch.stack([(number * 0.618) % 1.0, (number + 0.5) / keypoints], dim=1) - 0.5
    places = torch.cat([centers[:, None] + 0.7 * body * size, centers[:, None]], dim=1)
    seen = torch.cat([places, torch.ones(people, keypoints + 1, 1)], dim=2)
    points, middles = seen[:, :-1], seen[:, -1]
    heatmaps, _ = heatmap_targets(points, middles, (height, width), sigma=_SPREAD, center_sigma=_SPREAD)
    offsets, _ = offset_targets(points, middles, (height, width))
    return 0.9 * heatmaps, offsets


class PlantedNetwork(nn.Module):
    """A network that runs another one and answers with made-up people instead, the same in every image.

    The other network takes normalised (B, 3, H, W); its answers are thrown away. Where it can be asked for offsets at
    some pixels alone, it is asked for those of the made-up people. ValueError: it is no DEKR, whose maps these are.
    """

    def __init__(self, network: Callable[..., tuple[Tensor, Tensor]], people: int, keypoints: int) -> None:
        super().__init__()
        config = getattr(network, "config", None)
        if isinstance(config, ModelConfig) and config.architecture != "dekr":
            raise ValueError(f"made-up people are planted into DEKR's maps, got {config.name}; give --photo a file")
        self.network = network
        self.people, self.keypoints = people, keypoints
        self._maps: dict[tuple[int, int, int], tuple[Tensor, Tensor]] = {}

    @property
    def picks(self) -> bool:
        """Whether the other network computes offsets at centers alone, and so this one takes picked pixels."""
        return isinstance(self.network, ExportedPeople) or takes_pick(self.network)

    def forward(self, images: Tensor, *, pick: Pick | None = None) -> tuple[Tensor, Tensor]:
        heatmaps, offsets = self._planted(images)
        if pick is None:
            self.network(images)
            return heatmaps, offsets
        pixels: list[Tensor] = []

        def pick_people(_: Tensor) -> Tensor:
            pixels.append(pick(heatmaps))
            return pixels[0]

        if isinstance(self.network, ExportedPeople):  # a file finds centers by itself
            pick_people(self.network(images)[0])
        else:
            self.network(images, pick=pick_people)
        return heatmaps, gather_pixels(offsets, pixels[0])

    def _planted(self, images: Tensor) -> tuple[Tensor, Tensor]:
        batch, _, height, width = images.shape
        key = (batch, height // _STRIDE, width // _STRIDE)
        if key not in self._maps:
            heatmaps, offsets = people_maps(self.people, self.keypoints, *key[1:])
            pair = (heatmaps.to(images.device), offsets.to(images.device))
            self._maps[key] = (pair[0].repeat(batch, 1, 1, 1), pair[1].repeat(batch, 1, 1, 1))
        return self._maps[key]
