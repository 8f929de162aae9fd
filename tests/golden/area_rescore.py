"""The rescoring net: features, output and rescored scores."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch

from dekrpose.architectures.parts.poses import OKSScoreNet, pose_features
from dekrpose.skeletons import COCO_17, CROWDPOSE_14
from tests.golden.seeded_weights import seeded_rescore
from tests.golden.support import Case, Row, cases, largest

SKELETONS = {"coco": COCO_17, "crowdpose": CROWDPOSE_14}


def seeded_net(folder: Path, name: str, seed: int = 5) -> OKSScoreNet:
    """The rescoring net with the recordings' weights."""
    shapes = {entry[0]: tuple(entry[1]) for entry in json.loads((folder / f"shapes/rescore_{name}.json").read_text())}
    weights = {key: torch.from_numpy(value) for key, value in seeded_rescore(shapes, seed).items()}
    net = OKSScoreNet(weights["l1.weight"].shape[1])
    net.load_state_dict(weights)
    return net.eval()


def _rows(case: Case, name: str) -> Iterator[Row]:
    arrays = {key.split(":")[1]: torch.from_numpy(value) for key, value in case.arrays.items() if key.startswith(name)}
    edges = SKELETONS[name].edges
    keypoints, keypoint_scores = arrays["poses"][..., :2], arrays["poses"][..., 2]
    net = seeded_net(case.folder, name)
    features = pose_features(keypoints, keypoint_scores, edges)
    yield Row(case.name, f"{name} features", largest(features, arrays["feature"]), 1e-4)
    with torch.inference_mode():
        yield Row(case.name, f"{name} prediction", largest(net(features), arrays["net_out"][:, 0]), 1e-4)
        rescored, _ = net.scored(features, keypoint_scores, arrays["scores_in"])
    yield Row(case.name, f"{name} rescored", largest(rescored, arrays["scores_out"]), 1e-4)


def rows(folder: Path) -> Iterator[Row]:
    for case in cases(folder, "rescore"):
        for name in dict.fromkeys(key.split(":")[0] for key in case.arrays):
            yield from _rows(case, name)
