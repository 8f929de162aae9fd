"""Sizes, affine maps, warped pixels and the way back to the image, against the official code."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dekrpose.images import Geometry, Pixels, resize, to_tensor
from tests.golden.seeded_weights import synthetic_image
from tests.golden.support import Case, Row, cases, largest, photo

CROP = 64
"""First row and column of the recorded crops of the network input."""


def rows(folder: Path) -> Iterator[Row]:
    for case in cases(folder, "geometry"):
        if "rows" in case.arrays:
            yield from _resize_rows(case)
        elif all(re.fullmatch(r"\d+x\d+_\d+_[\d.]+", key) for key in case.arrays):
            yield from _warp_rows(case)
    for case in cases(folder, "pipeline"):
        yield from _pipeline_rows(case)
    for case in cases(folder, "decode"):
        if "image_size_hw" in case.info and "nms_poses" in case.arrays and not _options(case).get("TEST.MATCH_HMP"):
            height, width = case.info["image_size_hw"]
            geometry = Geometry.fit(height, width, case.info["input_size"])
            yield from _way_back_rows(case, geometry)


def _resize_rows(case: Case) -> Iterator[Row]:
    errors = {"input size": 0.0, "center": 0.0, "scale": 0.0, "matrix": 0.0, "inverse": 0.0}
    for row in case.arrays["rows"]:
        geometry = Geometry.fit(int(row[0]), int(row[1]), int(row[2]), float(row[3]))
        pairs = {
            "input size": (geometry.input_size[::-1], row[4:6]),
            "center": (geometry.center, row[6:8]),
            "scale": (geometry.extent, row[8:10]),
            "matrix": (geometry.matrix, row[10:16].reshape(2, 3)),
            "inverse": (geometry.inverse, row[16:22].reshape(2, 3)),
        }
        for name, (actual, expected) in pairs.items():
            errors[name] = max(errors[name], largest(actual, expected))
    for name, error in errors.items():
        yield Row(case.name, name, error, 1e-9 if name in ("scale", "matrix", "inverse") else 0.0)


def _warp_rows(case: Case) -> Iterator[Row]:
    sizes = list(dict.fromkeys(key.split("_")[0] for key in case.arrays))
    for key, expected in case.arrays.items():
        size, input_size, scale = key.split("_")
        height, width = map(int, size.split("x"))
        image = _synthetic(height, width, 5 + sizes.index(size))
        geometry = Geometry.fit(height, width, int(input_size), float(scale))
        yield Row(case.name, f"warp {key}", largest(resize(image, geometry), expected), 0.0)


def _pipeline_rows(case: Case) -> Iterator[Row]:
    image = photo(case)
    if image is None:
        return
    height, width = image.shape[:2]
    options = _options(case)
    input_size = options.get("DATASET.INPUT_SIZE") or int(case.arrays["base_size"].min())
    for index, recorded in enumerate(case.info["scales"]):
        geometry = Geometry.fit(height, width, input_size, recorded["scale"])
        warped = resize(image, geometry)
        same = hashlib.sha256(warped.tobytes()).hexdigest() == recorded["warped_sha256"]
        yield Row(case.name, f"s{index} warped sha256", float(not same), 0.0)
        yield Row(case.name, f"s{index} center", largest(geometry.center, case.arrays[f"s{index}:center"]), 0.0)
        yield Row(case.name, f"s{index} scale", largest(geometry.extent, case.arrays[f"s{index}:scale_resized"]), 1e-9)
        crop = case.arrays[f"s{index}:input_crop"]
        tensor = to_tensor(warped).numpy()
        taken = tensor[:, CROP : CROP + crop.shape[1], CROP : CROP + crop.shape[2]]
        yield Row(case.name, f"s{index} input crop", largest(taken, crop), 0.0)
    geometry = Geometry.fit(height, width, input_size)
    yield Row(case.name, "base size", largest(geometry.base_size[::-1], case.arrays["base_size"]), 0.0)
    if not options.get("TEST.MATCH_HMP"):
        yield from _way_back_rows(case, geometry)


def _way_back_rows(case: Case, geometry: Geometry) -> Iterator[Row]:
    """Without matching, which comes between the two, poses after NMS and final poses differ by the way back."""
    poses = case.arrays["nms_poses"]
    final = case.arrays["final_poses"].reshape(-1, *poses.shape[1:])  # nobody is recorded as (0,)
    yield Row(case.name, "to_image", largest(geometry.to_image(poses[..., :2]), final[..., :2]), 1e-4)


def _options(case: Case) -> dict[str, Any]:
    options = case.info.get("opts", [])
    return dict(zip(options[::2], options[1::2], strict=True))


def _synthetic(height: int, width: int, seed: int) -> Pixels:
    return np.asarray(synthetic_image(height, width, seed))  # type: ignore[no-untyped-call]
