"""Training targets: heatmaps, offsets, weights, centers, areas and the augmentation's affine map."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from dekrpose.architectures.dekr.targets import (
    COCO_KEYPOINTS,
    drop_small_centers,
    heatmap_targets,
    official_areas,
    official_center_sigma,
    offset_targets,
    person_centers,
)
from dekrpose.training.crops import training_affine
from tests.golden.support import Case, Row, cases, largest, stats


def _sampled(maps: np.ndarray, note: str) -> np.ndarray:
    """The part of a map that was recorded, read from a note such as "maps are [:, 3::5, 3::5]"."""
    if "::" not in note:
        return maps
    start, step = (int(part) for part in note.split("[:, ")[1].split(",")[0].split("::"))
    return maps[:, start::step, start::step]


def _map_rows(case: Case) -> Iterator[Row]:
    people = torch.from_numpy(case.arrays["joints"])
    keypoints, centers = people[:, :-1], people[:, -1]
    size = (case.info["res"], case.info["res"])
    sigma = case.info["sigma"]
    center_sigma = official_center_sigma(keypoints.shape[1], sigma=sigma, center_sigma=case.info["center_sigma"])
    heatmaps = heatmap_targets(
        keypoints, centers, size, sigma=sigma, center_sigma=center_sigma, background_weight=case.info["bg_weight"]
    )
    areas = torch.from_numpy(case.arrays["area"])[:, 0]
    offsets = offset_targets(keypoints, centers, size, radius=case.info["radius"], mode="official", areas=areas)
    names = (("heatmap", "heatmap"), ("mask", "mask"), ("offset", "offset"), ("offset_weight", "weight"))
    for (name, short), maps in zip(names, (*heatmaps, *offsets), strict=True):
        actual = maps.numpy()
        yield Row(case.name, name, largest(_sampled(actual, case.info["note"]), case.arrays[name]), 1e-6)
        recorded = case.arrays[f"{short}_stats"]
        yield Row(
            case.name,
            f"{short}_stats",
            largest(stats(actual) / (1 + abs(recorded)), recorded / (1 + abs(recorded))),
            1e-6,
        )


def _people_rows(case: Case) -> Iterator[Row]:
    keypoints = torch.from_numpy(case.arrays["keypoints"].astype(np.float64))
    centers = person_centers(keypoints, mode="official")
    if keypoints.shape[1] == COCO_KEYPOINTS:
        centers = drop_small_centers(centers, torch.from_numpy(case.arrays["obj_area"]))
    recorded = case.arrays["joints"][:, -1]
    yield Row(case.name, "centers", largest(centers, recorded), 1e-6)
    yield Row(case.name, "areas", largest(official_areas(keypoints), case.arrays["area"][:, 0]), 1e-6)
    labelled = (case.arrays["keypoints"][..., 2] > 0).any(1)
    paper = person_centers(keypoints).numpy()
    yield Row(case.name, "centers, paper", largest(paper[labelled, :2], recorded[labelled, :2]), 1e-6)


def _affine_rows(case: Case) -> Iterator[Row]:
    for row in case.arrays["rows"]:
        x, y, scale, size, rotation = row[:5]
        matrix, area_factor = training_affine((x, y), scale, (int(size), int(size)), rotation)
        quantity = f"scale {scale:g} to {size:g}, {rotation:g} degrees"
        yield Row(case.name, quantity, largest(matrix, row[5:14].reshape(3, 3)[:2]), 1e-6)
        yield Row(case.name, f"{quantity}: area", abs(area_factor - row[14]), 1e-6)


def rows(folder: Path) -> Iterator[Row]:
    for case in cases(folder, "targets"):
        if "heatmap" in case.arrays:
            yield from _map_rows(case)
        elif "keypoints" in case.arrays:
            yield from _people_rows(case)
        elif "rows" in case.arrays:
            yield from _affine_rows(case)
