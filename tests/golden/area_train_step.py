"""One whole training step: targets, forward in training mode, losses, gradients, batch-norm statistics."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dekrpose.architectures.dekr.foreign_names import official_to_ours, ours_to_official
from dekrpose.architectures.dekr.losses import OFFSET_FACTORS, heatmap_loss, offset_loss
from dekrpose.architectures.dekr.network import DEKR
from dekrpose.architectures.dekr.targets import heatmap_targets, official_center_sigma, offset_targets
from dekrpose.config import ARCHITECTURES, IMAGE_MEAN, IMAGE_STD, OUTPUT_STRIDE, ModelConfig
from tests.golden.seeded_weights import seeded_state_dict, synthetic_image
from tests.golden.support import Case, Row, cases, largest, relative, stats


def _config(case: Case) -> ModelConfig:
    dataset, width = case.info["arch"].split("_")
    return ARCHITECTURES[f"dekr-{width}-{dataset}"]


def _official_shapes(case: Case) -> dict[str, tuple[int, ...]]:
    path = case.folder / "shapes" / f"{case.info['arch']}.json"
    return {name: tuple(shape) for name, shape, _ in json.loads(path.read_text())}


def _targets(joints: Case, image: int, size: tuple[int, int]) -> tuple[Tensor, ...]:
    people = torch.from_numpy(joints.arrays[f"joints{image}"])
    keypoints, centers = people[:, :-1], people[:, -1]
    areas = torch.from_numpy(joints.arrays[f"area{image}"])[:, 0]
    heat = heatmap_targets(keypoints, centers, size, center_sigma=official_center_sigma(keypoints.shape[1]))
    return (*heat, *offset_targets(keypoints, centers, size, mode="official", areas=areas))


def _images(call: str) -> Tensor:
    """The normalised batch that a text such as "batch of synthetic_image(128,128,70) and (…,71)" describes."""
    match = re.search(r"synthetic_image\((\d+), ?(\d+), ?(\d+)\) and \(…, ?(\d+)\)", call)
    assert match, call
    height, width, *seeds = (int(number) for number in match.groups())
    pixels = np.stack([synthetic_image(height, width, seed) for seed in seeds])
    images = (pixels.astype(np.float32) / 255 - np.float32(IMAGE_MEAN)) / np.float32(IMAGE_STD)
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def _target_rows(case: Case, heat: Tensor, offsets: Tensor) -> Iterator[Row]:
    for name, maps in (("targets_heatmap_stats", heat), ("targets_offset_stats", offsets)):
        unit = 1 + np.abs(case.arrays[name])
        yield Row(case.name, name, largest(stats(maps) / unit, case.arrays[name] / unit), 1e-6)


def _gradient_rows(case: Case, gradients: dict[str, Tensor]) -> Iterator[Row]:
    """The step runs in double precision, so that it is the same on every CPU.

    In the recording's float32 the rounding turned a few ReLUs and moved a few taps across pixel borders, where the
    gradient jumps: that moves single small norms by up to 15 %, and all together, or their median, by 0.03 %.
    """
    expected = case.arrays["grad_norms"]
    norms = np.array([gradients[name].double().norm().item() for name in case.arrays["names"]])
    errors = np.abs(norms - expected) / expected
    together = np.linalg.norm(norms - expected) / np.linalg.norm(expected)
    yield Row(case.name, "grad_norms, together (relative)", float(together), 1e-3)
    yield Row(case.name, "grad_norms, median (relative)", float(np.median(errors)), 1e-3)
    yield Row(case.name, "grad_norms, each (relative)", float(errors.max()), 0.5)
    for key, value in case.arrays.items():
        if key.startswith("grad:"):
            error = np.linalg.norm(gradients[key[5:]].numpy() - value) / np.linalg.norm(value)
            yield Row(case.name, f"{key[5:]} gradient (relative)", float(error), 0.05)


def _step_rows(case: Case, joints: Case) -> Iterator[Row]:
    shapes, arrays = _official_shapes(case), case.arrays
    images = _images(case.info["call"])
    size = (images.shape[2] // OUTPUT_STRIDE, images.shape[3] // OUTPUT_STRIDE)
    targets = [_targets(joints, image, size) for image in range(len(images))]
    heat, heat_weights, offsets, weights = (torch.stack(maps) for maps in zip(*targets, strict=True))
    yield from _target_rows(case, heat, offsets)

    model = DEKR(_config(case)).train().double()
    seeded = {name: torch.from_numpy(value) for name, value in seeded_state_dict(shapes, case.info["seed"]).items()}
    model.load_state_dict(official_to_ours(seeded))
    predicted = model(images.double())
    losses = (
        heatmap_loss(predicted[0], heat, heat_weights),
        OFFSET_FACTORS["official"] * offset_loss(predicted[1], offsets, weights),
    )
    torch.add(*losses).backward()
    for name, maps in zip(("heatmap", "offset"), predicted, strict=True):
        if name in arrays:
            yield Row(case.name, f"{name} (relative)", relative(maps.detach(), arrays[name]), 1e-4)
    for name, loss in zip(("heatmap_loss", "offset_loss"), losses, strict=True):
        yield Row(case.name, f"{name} (relative)", relative(loss.detach(), arrays[name]), 1e-5)
    state = ours_to_official(model.state_dict())
    for name in (name for name in arrays if "running_" in name):
        yield Row(case.name, f"{name} (relative)", relative(state[name], arrays[name]), 1e-5)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    yield from _gradient_rows(case, ours_to_official(gradients))


def rows(folder: Path) -> Iterator[Row]:
    recorded = {case.name: case for case in cases(folder, "train")}
    for name, case in recorded.items():
        joints = recorded.get(f"{name}_joints")
        if joints is not None and (folder / "shapes" / f"{case.info['arch']}.json").exists():
            yield from _step_rows(case, joints)
