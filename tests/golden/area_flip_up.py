"""Several looks: the flip test's input and merged maps, and the aligned upsampling."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from dekrpose.architectures.dekr.candidates import upsample_aligned
from dekrpose.architectures.dekr.decode import pose_map
from dekrpose.architectures.dekr.flip import flip_input, merge_flipped
from dekrpose.skeletons import COCO_17, CROWDPOSE_14
from tests.golden.support import Case, Row, cases, largest

SKELETONS = {"coco": COCO_17, "crowdpose": CROWDPOSE_14}


def _flip_rows(case: Case) -> Iterator[Row]:
    tensors = {key: torch.from_numpy(value) for key, value in case.arrays.items()}
    for name in dict.fromkeys(key.split(":")[0] for key in tensors):
        heat0, heat1, off0, off1 = (tensors[f"{name}:{key}"] for key in ("heat0", "heat1", "off0", "off1"))
        mirrored = flip_input(tensors[f"{name}:image"])
        heatmaps, positions = merge_flipped(heat0, heat1, pose_map(off0), pose_map(off1), SKELETONS[name].flip_indices)
        yield Row(case.name, f"{name} second input", largest(mirrored, tensors[f"{name}:image_second"]), 0.0)
        yield Row(case.name, f"{name} heatmap", largest(heatmaps, tensors[f"{name}:heatmap"]), 1e-5)
        yield Row(case.name, f"{name} positions", largest(positions, tensors[f"{name}:posemap"]), 1e-4)


def _up_rows(case: Case) -> Iterator[Row]:
    for key in sorted(case.arrays):
        if key.startswith("x"):
            expected = case.arrays[f"up{key[1:]}"]
            larger = upsample_aligned(torch.from_numpy(case.arrays[key]), expected.shape[-2:])
            yield Row(case.name, f"{key} upsampled", largest(larger, expected), 1e-5)


def rows(folder: Path) -> Iterator[Row]:
    for case in cases(folder, "geometry"):
        if "x0" in case.arrays:
            yield from _up_rows(case)
        elif any(key.endswith(":image_second") for key in case.arrays):
            yield from _flip_rows(case)
