"""Decoding: centers, candidates, averaged heatmaps, pose NMS, matching and the way back to the image."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dekrpose.architectures.dekr.candidates import Choice, average_heatmaps, find_centers
from dekrpose.architectures.dekr.decode import candidate_poses, decode
from dekrpose.architectures.dekr.matching import find_peaks, move_to_peaks
from dekrpose.config import ARCHITECTURES, DecodeConfig
from dekrpose.images import Geometry
from tests.golden.seeded_weights import scene
from tests.golden.support import Case, Row, cases, largest


def decode_options(case: Case) -> dict[str, Any]:
    """The arguments of ``decode`` that a recording's options mean."""
    options = dict(zip(case.info["opts"][::2], case.info["opts"][1::2], strict=True))
    crowdpose = case.info["arch"].startswith("crowdpose")
    defaults = ARCHITECTURES["dekr-w32-crowdpose"].decode if crowdpose else DecodeConfig()
    choice = Choice(
        max_people=options.get("DATASET.MAX_NUM_PEOPLE", 30),
        nms_threshold=options.get("TEST.NMS_THRE", defaults.nms_threshold),
        nms_min_keypoints=options.get("TEST.NMS_NUM_THRE", defaults.nms_min_keypoints),
        match="official" if options.get("TEST.MATCH_HMP") else None,
    )
    return {
        "choice": choice,
        "center_threshold": options.get("TEST.KEYPOINT_THRESHOLD", 0.01),
        "other_scale_factor": options.get("TEST.DECREASE", defaults.other_scale_factor),
    }


def pose_rows(case: Case, quantity: str, actual: Any, expected: Any, stable: Any, *, matched: bool) -> Iterator[Row]:
    """Compare poses (N, K, 3), x, y, score; keypoints on the edge of a rounding, a tie or a fit only loosely."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    if actual.shape != expected.shape:
        yield Row(case.name, f"{quantity} shape", float("inf"), 0.0)
        return
    points, others = (0.05, 300.0) if matched else (0.01, 1.0)
    yield Row(case.name, f"{quantity} xy", largest(actual[stable][:, :2], expected[stable][:, :2]), points)
    yield Row(case.name, f"{quantity} score", largest(actual[stable][:, 2], expected[stable][:, 2]), 1e-4)
    if not stable.all():
        yield Row(case.name, f"{quantity} xy, unstable", largest(actual[..., :2], expected[..., :2]), others)
        yield Row(case.name, f"{quantity} score, unstable", largest(actual[..., 2], expected[..., 2]), 0.1)


def _build(recipe: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Run the recorded call of ``scene``, whose arguments are literals and the name ``people``."""
    call = ast.parse(recipe["call"], mode="eval").body
    assert isinstance(call, ast.Call)
    arguments = [recipe["people"] if isinstance(node, ast.Name) else ast.literal_eval(node) for node in call.args]
    return scene(*arguments, **{str(word.arg): ast.literal_eval(word.value) for word in call.keywords})


def _decode_rows(case: Case) -> Iterator[Row]:
    arrays, info = case.arrays, case.info
    built = [_build(recipe) for recipe in info["recipe"]]
    hashes = [[hashlib.sha256(part.tobytes()).hexdigest() for part in pair] for pair in built]
    yield Row(case.name, "rebuilt maps differ", float(hashes != info["map_sha256"]), 0.0)
    maps = [(torch.from_numpy(heatmaps[0]), torch.from_numpy(positions[0])) for heatmaps, positions in built]
    scales = [float(recipe["scale"]) for recipe in info["recipe"]]
    arguments = decode_options(case)

    for index, (pair, scale) in enumerate(zip(maps, scales, strict=True)):
        heatmaps, positions = pair
        limits = {"max_centers": arguments["choice"].max_people, "threshold": arguments["center_threshold"]}
        candidates = candidate_poses(heatmaps[None], positions[None], **limits, scale=scale).of(0)
        expected = arrays[f"s{index}:candidates"]
        everything = np.ones(expected.shape[:2], bool)
        yield from pose_rows(case, f"candidates, scale {scale:g}", candidates, expected, everything, matched=False)

    width, height = (int(side) for side in arrays["base_size"])
    average = average_heatmaps([heatmaps for heatmaps, _ in maps], (height, width))
    start, step = info["heatmap_avg_offset"], info["heatmap_avg_stride"]
    sampled = average[:, start::step, start::step]
    yield Row(case.name, "averaged heatmap", largest(sampled, arrays["heatmap_avg"][0]), 1e-5)
    yield from _final_rows(case, maps, scales, arguments, average[:-1])


def _final_rows(
    case: Case, maps: list[tuple[Tensor, Tensor]], scales: list[float], arguments: dict[str, Any], average: Tensor
) -> Iterator[Row]:
    arrays, stable = case.arrays, case.arrays["stable"]
    matched = arguments["choice"].match is not None
    poses, keypoint_scores, _ = decode(
        maps, scales, **{**arguments, "choice": replace(arguments["choice"], match=None)}
    )
    suppressed = torch.cat([poses, keypoint_scores[..., None]], dim=2)
    yield from pose_rows(case, "after NMS", suppressed, arrays["nms_poses"], stable, matched=False)
    if "absorbed_poses" in arrays and poses.shape[:2] == stable.shape:
        moved = torch.from_numpy(move_to_peaks(poses.numpy(), *find_peaks(average)))
        moved = torch.cat([moved, keypoint_scores[..., None]], dim=2)
        yield from pose_rows(case, "moved to peaks", moved, arrays["absorbed_poses"], stable, matched=matched)

    poses, keypoint_scores, scores = decode(maps, scales, **arguments)
    yield Row(case.name, "pose scores", largest(scores, arrays["scores"]), 1e-4)
    geometry = Geometry.fit(*case.info["image_size_hw"], case.info["input_size"])
    final = np.concatenate([geometry.to_image(poses.numpy()), keypoint_scores.numpy()[..., None]], axis=2)
    yield from pose_rows(case, "final poses", final, arrays["final_poses"], stable, matched=matched)


def _pool_rows(case: Case) -> Iterator[Row]:
    for index, key in enumerate(case.info["keys"]):
        height, width = map(int, key.split("x"))
        center_map = np.random.default_rng(50 + index).random((height, width), np.float32)
        centers = find_centers(torch.from_numpy(center_map)[None])
        scores, (x, y) = centers.values[0], centers.xy[0].unbind(1)
        places = y * width + x
        yield Row(case.name, f"{key} centers", largest(places, case.arrays[f"{key}:index"]), 0.0)
        yield Row(case.name, f"{key} values", largest(scores, case.arrays[f"{key}:score"]), 0.0)


def rows(folder: Path) -> Iterator[Row]:
    for case in cases(folder, "decode"):
        yield from _pool_rows(case) if "keys" in case.info else _decode_rows(case)
