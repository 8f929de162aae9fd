"""The whole evaluation of one image, as a user calls it: from official weights in a file to rescored poses."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dekrpose import PoseEstimator, Poses
from dekrpose.architectures.dekr.candidates import average_heatmaps
from dekrpose.architectures.dekr.decode import candidate_poses, decode, pose_map
from dekrpose.architectures.dekr.flip import merge_flipped
from dekrpose.architectures.parts.poses import pose_features
from dekrpose.images import Geometry
from tests.golden.area_decode import decode_options, pose_rows
from tests.golden.area_network import TOLERANCE, official_weights
from tests.golden.area_rescore import seeded_net
from tests.golden.support import BUNDLED, Case, Row, cases, largest, photo, relative


@dataclass(frozen=True)
class _Run:
    """What one call of ``estimate`` gave: poses, and per scale the heatmaps and positions that it decoded."""

    poses: Poses
    maps: list[tuple[Tensor, Tensor]]
    scales: list[float]
    input_size: int


@lru_cache(maxsize=4)
def _estimator(folder: Path, arch: str, seed: int, rescoring_seed: int) -> PoseEstimator | None:
    weights = official_weights(folder, arch, seed)
    if weights is None:
        return None
    dataset = arch.split("_")[0]
    shapes_are_here = (folder / "shapes" / f"rescore_{dataset}.json").exists()
    net = seeded_net(folder if shapes_are_here else BUNDLED, dataset, rescoring_seed)
    with tempfile.TemporaryDirectory() as place:
        model_file, net_file = Path(place) / "official.pth", Path(place) / "rescoring.pth"
        torch.save(weights, model_file)
        torch.save(net.state_dict(), net_file)
        return PoseEstimator.from_pretrained(model_file, rescoring_net=net_file, device="cpu")


def _run(case: Case, estimator: PoseEstimator, image: np.ndarray, options: dict[str, Any]) -> _Run:
    heat: list[Tensor] = []
    offsets: list[Tensor] = []

    def keep(_module: object, _inputs: object, maps: tuple[Tensor, Tensor]) -> None:
        heat.append(maps[0])
        offsets.append(maps[1])

    handle = estimator.model.register_forward_hook(keep)
    scales = [float(entry["scale"]) for entry in case.info["scales"]]
    size = options.get("DATASET.INPUT_SIZE", estimator.config.input_size)
    try:
        poses = estimator.estimate(
            image,
            score_threshold=0,
            max_people=options.get("DATASET.MAX_NUM_PEOPLE", 30),
            input_size=size,
            nms_threshold=options.get("TEST.NMS_THRE", 0.05),
            flip_test=options.get("TEST.FLIP_TEST", False),
            scales=scales,
            match_heatmap=options.get("TEST.MATCH_HMP", False),
            rescore=options.get("RESCORE.VALID", False),
        )
    finally:
        handle.remove()
    flip_indices = estimator.config.skeleton.flip_indices
    maps = []
    for heatmaps, positions in zip(heat, map(pose_map, offsets), strict=True):
        if len(heatmaps) == 2:
            heatmaps, positions = merge_flipped(heatmaps[:1], heatmaps[1:], positions[:1], positions[1:], flip_indices)
        maps.append((heatmaps[0], positions[0]))
    return _Run(poses, maps, scales, size)


def _map_rows(case: Case, run: _Run, arguments: dict[str, Any]) -> Iterator[Row]:
    arrays = case.arrays
    for index, ((heatmaps, positions), scale) in enumerate(zip(run.maps, run.scales, strict=True)):
        recorded = case.info["scales"][index]
        for name, actual in (("heatmap", heatmaps), ("posemap", positions)):
            start, step = recorded[f"{name}_offset"], recorded[f"{name}_stride"]
            sampled = actual[None, :, start::step, start::step]
            yield Row(case.name, f"{name}, scale {scale:g}", relative(sampled, arrays[f"s{index}:{name}"]), TOLERANCE)
        limits = {"max_centers": arguments["choice"].max_people, "threshold": arguments["center_threshold"]}
        candidates = candidate_poses(heatmaps[None], positions[None], **limits, scale=scale).of(0).numpy()
        expected = arrays[f"s{index}:candidates"]
        if candidates.shape == expected.shape:
            candidates = candidates[_nearest(candidates, expected)]
        everything = np.ones(expected.shape[:2], bool)
        yield from pose_rows(case, f"candidates, scale {scale:g}", candidates, expected, everything, matched=False)
    width, height = (int(side) for side in arrays["base_size"])
    average = average_heatmaps([heatmaps for heatmaps, _ in run.maps], (height, width))
    start, step = case.info["heatmap_avg_offset"], case.info["heatmap_avg_stride"]
    averaged = relative(average[None, :, start::step, start::step], arrays["heatmap_avg"])
    yield Row(case.name, "averaged heatmap", averaged, TOLERANCE)


def _nearest(actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """For each recorded candidate the index of ours: center values that nearly tie may come in another order."""
    if len(expected) == 0:
        return np.arange(0)
    distances = np.abs(expected[:, None, :, :2] - actual[None, :, :, :2]).max(axis=(2, 3))
    return np.asarray(distances.argmin(axis=1))


def _score_rows(case: Case, quantity: str, actual: Any, expected: Any, stable: np.ndarray) -> Iterator[Row]:
    """Scores of people all of whose keypoints are stable, and loosely those of the others."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    if actual.shape != expected.shape:
        yield Row(case.name, f"{quantity} shape", float("inf"), 0.0)
        return
    sure = stable.all(axis=1)
    yield Row(case.name, quantity, largest(actual[sure], expected[sure]), 1e-4)
    if not sure.all():
        yield Row(case.name, f"{quantity}, unstable", largest(actual[~sure], expected[~sure]), 0.1)


def _final_rows(case: Case, run: _Run, estimator: PoseEstimator, arguments: dict[str, Any]) -> Iterator[Row]:
    """The poses through the decode functions, raw, and then as the public call shows them, scores clipped."""
    arrays, matched = case.arrays, arguments["choice"].match is not None
    after_nms = arrays["nms_poses"]
    stable = arrays["stable"].reshape(after_nms.shape[:2])  # nobody is recorded as (0,)
    poses, keypoint_scores, scores = decode(
        run.maps, run.scales, **{**arguments, "choice": replace(arguments["choice"], match=None)}
    )
    suppressed = np.concatenate([poses, keypoint_scores[..., None]], axis=2)
    yield from pose_rows(case, "after NMS", suppressed, after_nms, stable, matched=False)
    yield from _score_rows(case, "pose scores", scores, arrays["scores"], stable)
    if "matched_poses" in arrays:
        poses, keypoint_scores, scores = decode(run.maps, run.scales, **arguments)
        moved = np.concatenate([poses, keypoint_scores[..., None]], axis=2)
        yield from pose_rows(case, "matched", moved, arrays["matched_poses"], stable, matched=matched)
    height, width = run.poses.image_size
    points = torch.from_numpy(Geometry.fit(height, width, run.input_size).to_image(poses))
    if "rescored" in arrays and estimator.rescoring_net is not None:
        edges = estimator.config.skeleton.edges
        with torch.inference_mode():
            features = pose_features(points, keypoint_scores, edges)
            rescored, _ = estimator.rescoring_net.scored(features, keypoint_scores, scores)
        yield from _score_rows(case, "rescored", rescored, arrays["rescored"], stable)

    final = arrays["final_poses"].reshape(after_nms.shape).copy()
    final[..., 2] = final[..., 2].clip(0, 1)
    shown = np.concatenate([run.poses.keypoints, run.poses.keypoint_scores[..., None]], axis=2)
    yield from pose_rows(case, "estimate", shown, final, stable, matched=matched)
    expected = arrays.get("rescored", arrays["scores"]).clip(0, 1)
    yield from _score_rows(case, "estimate scores", run.poses.scores, expected, stable)


def _rows(case: Case) -> Iterator[Row]:
    image = photo(case)
    options = dict(zip(case.info["opts"][::2], case.info["opts"][1::2], strict=True))
    rescoring_seed = int(str(options.get("RESCORE.MODEL_FILE", "5")).split()[-1])
    estimator = _estimator(case.folder, case.info["arch"], case.info["seed"], rescoring_seed)
    if image is None or estimator is None:
        return
    arguments = decode_options(case)
    with torch.inference_mode():
        run = _run(case, estimator, image, options)
        yield from _map_rows(case, run, arguments)
        yield from _final_rows(case, run, estimator, arguments)


def rows(folder: Path) -> Iterator[Row]:
    for case in cases(folder, "pipeline"):
        yield from _rows(case)
