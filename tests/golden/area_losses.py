"""Losses: their values and gradients on recorded maps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from dekrpose.architectures.dekr.losses import OFFSET_FACTORS, heatmap_loss, offset_loss
from tests.golden.support import Case, Row, cases, largest


def _loss_rows(case: Case, name: str) -> Iterator[Row]:
    maps = {key.split(":")[1]: value for key, value in case.arrays.items() if key.startswith(f"{name}:")}
    tensors = {key: torch.from_numpy(value) for key, value in maps.items() if value.ndim == 4}
    heatmaps = tensors["pheatmap"].requires_grad_()
    offsets = tensors["poffset"].requires_grad_()
    losses = (
        heatmap_loss(heatmaps, tensors["heatmap"], tensors["mask"]),
        OFFSET_FACTORS["official"] * offset_loss(offsets, tensors["offset"], tensors["offset_w"]),
    )
    torch.add(*losses).backward()
    for loss, key in zip(losses, ("heatmap_loss", "offset_loss"), strict=True):
        yield Row(case.name, f"{name} {key}", abs(loss.item() - float(maps[key])), 1e-6)
    for parameter, key in ((heatmaps, "grad_pheatmap"), (offsets, "grad_poffset")):
        # Gradients are far below 1, so they are compared with their own largest value as the unit.
        unit = max(float(abs(maps[key]).max()), 1e-12)
        yield Row(case.name, f"{name} {key} (relative)", largest(parameter.grad / unit, maps[key] / unit), 1e-6)
    norms = torch.stack([parameter.grad.double().norm() for parameter in (heatmaps, offsets)])
    yield Row(case.name, f"{name} grad_norms", largest(norms, maps["grad_norms"]), 1e-6)


def rows(folder: Path) -> Iterator[Row]:
    for case in cases(folder, "loss"):
        for name in dict.fromkeys(key.split(":")[0] for key in case.arrays):
            yield from _loss_rows(case, name)
