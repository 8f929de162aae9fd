"""How DEKR is exported: what ``Exporting`` asks."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dekrpose.architectures.contract import Network
from dekrpose.architectures.dekr.candidates import CENTER_THRESHOLD, Candidates
from dekrpose.architectures.dekr.decode import pose_map
from dekrpose.architectures.dekr.exported_network import ExportedNetwork
from dekrpose.architectures.dekr.exported_poses import ExportedCenters, ExportedPoses, PoseOutputs
from dekrpose.architectures.dekr.network import DEKR
from dekrpose.architectures.exporting import Found, Offsets, Sampling
from dekrpose.architectures.parts.poses import OKSScoreNet
from dekrpose.config import OUTPUT_STRIDE, ModelConfig
from dekrpose.images import to_tensor

OUTPUTS: dict[Offsets, tuple[str, ...]] = {
    "map": ("heatmaps", "offsets", "keypoints", "keypoint_scores", "scores"),
    "people": ("heatmaps", "poses", "keypoints", "keypoint_scores", "scores"),
}
SAMPLINGS: tuple[Sampling, ...] = ("deform_conv", "grid_sample")
HALVES = True
_LEAST_SIDE = 64
_CANDIDATES = 100


def outputs(config: ModelConfig, offsets: Offsets) -> tuple[str, ...]:
    """See ``OUTPUTS``."""
    return OUTPUTS[offsets]


def least_side(config: ModelConfig) -> int:
    """Two pixels of the coarsest map."""
    return _LEAST_SIDE


def graph(
    network: Network, rescoring_net: OKSScoreNet | None, max_people: int, sampling: Sampling, offsets: Offsets
) -> nn.Module:
    """See ``ExportedPoses`` and ``ExportedCenters``."""
    whole = ExportedPoses if offsets == "map" else ExportedCenters
    exported = ExportedNetwork(cast(DEKR, network), sampling, offsets)
    return whole(exported, PoseOutputs(network.config, rescoring_net, max_people))


@torch.inference_mode()
def differences(
    network: Network, graph: nn.Module, answer: tuple[Tensor, ...], pictures: NDArray[np.uint8], offsets: Offsets
) -> tuple[float, float, Found]:
    """Keypoints at the likeliest centers, or of a file's candidates; and heatmaps."""
    poses, config = cast(PoseOutputs, graph.poses), network.config
    device = next(network.parameters()).device
    images = to_tensor(pictures.transpose(0, 2, 3, 1), config.mean, config.std).to(device)
    heatmaps, own_offsets = (maps.cpu() for maps in network(images))
    file_heatmaps, file_offsets, *_ = answer
    if offsets == "map":
        likeliest = heatmaps[:, -1:].flatten(2).topk(min(_CANDIDATES, heatmaps[0, -1].numel())).indices
        places = likeliest.expand(-1, own_offsets.shape[1], -1)
        shifts = (own_offsets - file_offsets).abs().flatten(2).gather(2, places)
        keypoints, people = OUTPUT_STRIDE * float(shifts.max()), poses(file_heatmaps, file_offsets)
    else:
        keypoints = _candidates_apart(file_offsets, file_heatmaps[:, -1], own_offsets)
        people = poses.people(file_heatmaps, file_offsets[..., :2], file_offsets[:, :, 0, 2])
    return keypoints, float((heatmaps - file_heatmaps).abs().max()), people


def _candidates_apart(candidates: Tensor, center_maps: Tensor, offsets: Tensor) -> float:
    """How far a file's poses (B, N, K, 3) at centers are from torch's offset map (B, 2K, h, w) there, input pixels.

    Pixels of the file's (B, h, w) center maps that have a center's very value may be meant.
    """
    apart = 0.0
    positions = OUTPUT_STRIDE * pose_map(offsets).flatten(2).transpose(1, 2)
    for image, own in enumerate(candidates):
        for pose in own[own[:, 0, 2] > 0]:
            meant = positions[image, center_maps[image].flatten() == pose[0, 2]]
            shifts = (meant - pose[:, :2].flatten()).abs().amax(1)
            apart = max(apart, float(shifts.min()) if len(shifts) else float("inf"))
    return apart


def file_candidates(answer: tuple[Tensor, ...]) -> tuple[Tensor, Candidates]:
    """Heatmaps and the candidates at a file's centers."""
    heatmaps, found = answer
    values = found[:, :, 0, 2]
    return heatmaps, Candidates(found[..., :2], values, values > CENTER_THRESHOLD)
