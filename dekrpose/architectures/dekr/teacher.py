"""A trained network that teaches beside the labels: distillation of its heatmaps and offsets."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import torch
from torch import Tensor

from dekrpose.architectures.dekr.batches import MapBatch
from dekrpose.architectures.dekr.fast import FastPath
from dekrpose.architectures.dekr.network import DEKR
from dekrpose.architectures.learning import normalised

PIXELS = 24
"""Of each crop, those of the highest centers, at which its offsets are taught."""
LEAST_HEAT = 0.1
"""Lower centers of the teacher's are nobody's."""
CHUNK = 4
"""Crops that it sees at once: more leave a processor's caches."""


class Teacher:
    """Mixes what a network says about crops into their targets.

    Labels leave people out; the teacher sees many of these too, and a network that starts from it does not forget what
    it knew of photos unlike the labelled ones. Where people are masked, the teacher speaks alone.

    Args:
        model: the network, with the skeleton that is taught.
        share: its weight against the labels, 0 to 1.
        device: where it runs.
        background_weight: of heatmap pixels at which the labels, and so the teacher, see nothing.
    """

    def __init__(self, model: DEKR, share: float, device: torch.device, background_weight: float = 0.1) -> None:
        self.background_weight = background_weight
        self.model, self.share = model.eval().requires_grad_(False).to(device), share
        if device.type == "cpu":
            self.model.fast_path = FastPath()

    def fingerprint(self) -> str:
        """Tells it from other teachers, by its weights."""
        digest = hashlib.sha256()
        for value in self.model.state_dict().values():
            digest.update(value.cpu().contiguous().numpy())
        return digest.hexdigest()

    @torch.no_grad()
    def taught(self, batch: MapBatch) -> MapBatch:
        """The batch with targets of both: heatmaps everywhere, offsets also at the centers that the teacher sees."""
        images = normalised(batch.images, self.model.config)
        chunks = torch.split(images, CHUNK) if images.device.type == "cpu" else (images,)
        heatmaps, pixels, heat, offsets = map(torch.cat, zip(*map(self._look, chunks), strict=True))
        weights = self.share * heat * (heat > LEAST_HEAT) / _diagonals(offsets)
        return self._with_offsets(
            self._with_heatmaps(batch, heatmaps), pixels, offsets, weights[:, None].expand_as(offsets)
        )

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Heatmaps, the pixels (B, P, 2) of the highest centers, their heat (B, P), and offsets (B, 2K, P) there."""
        picked: list[Tensor] = []

        def pick(heatmaps: Tensor) -> Tensor:
            width = heatmaps.shape[-1]
            heat, places = heatmaps[:, -1].flatten(1).topk(min(PIXELS, heatmaps[0, -1].numel()))
            picked.extend([torch.stack([places % width, places // width], dim=2), heat])
            return picked[0]

        heatmaps, offsets = self.model(images, pick=pick)
        return heatmaps.float().clamp(0, 1), *picked, offsets

    def _with_heatmaps(self, batch: MapBatch, own: Tensor) -> MapBatch:
        labelled = batch.heatmap_weights > 0
        heatmaps = torch.where(labelled, torch.lerp(batch.heatmaps, own, self.share), own)
        weights = torch.maximum(batch.heatmap_weights, self.share * own.clamp(min=self.background_weight))
        return replace(batch, heatmaps=heatmaps, heatmap_weights=weights)

    def _with_offsets(self, batch: MapBatch, pixels: Tensor, offsets: Tensor, weights: Tensor) -> MapBatch:
        if batch.pixels is not None:
            return replace(
                batch,
                pixels=torch.cat([batch.pixels, pixels], dim=1),
                offsets=torch.cat([batch.offsets, offsets], dim=2),
                offset_weights=torch.cat([batch.offset_weights, weights], dim=2),
            )
        shape = batch.offsets.shape
        index = (pixels[..., 1] * shape[-1] + pixels[..., 0])[:, None].expand_as(offsets)
        own = batch.offset_weights.flatten(2)
        free = own.gather(2, index) == 0  # where no label speaks
        values = torch.where(free, offsets, batch.offsets.flatten(2).gather(2, index))
        weights = torch.where(free, weights, own.gather(2, index))
        return replace(
            batch,
            offsets=batch.offsets.flatten(2).scatter(2, index, values).reshape(shape),
            offset_weights=own.scatter(2, index, weights).reshape(shape),
        )


def _diagonals(offsets: Tensor) -> Tensor:
    """(B, P): of the boxes around poses, from offsets (B, 2K, P), heatmap pixels."""
    points = offsets.reshape(len(offsets), -1, 2, offsets.shape[2])
    diagonals: Tensor = torch.linalg.vector_norm(points.amax(1) - points.amin(1), dim=1).clamp(min=4.0)
    return diagonals
