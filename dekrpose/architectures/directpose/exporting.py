"""How DirectPose is exported: what ``Exporting`` asks. Every level's map is an output, and the people after box NMS."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dekrpose.architectures.contract import Network
from dekrpose.architectures.directpose.decode import CLASS_THRESHOLD, boxes_of, candidates, overlaps
from dekrpose.architectures.directpose.locations import strides
from dekrpose.architectures.directpose.network import DirectPose
from dekrpose.architectures.exporting import Found, Offsets, Sampling
from dekrpose.architectures.parts.folding import fold_batch_norm
from dekrpose.architectures.parts.poses import OKSScoreNet
from dekrpose.config import DirectPoseHeadConfig, ModelConfig
from dekrpose.images import to_tensor

SAMPLINGS: tuple[Sampling, ...] = ("grid_sample",)
HALVES = False
_CANDIDATES = 128
"""Locations of the highest scores that compete in a file; an input has at least so many."""
_ROUNDS = 32
"""Suppressions that may hang on one another."""
_COMPARED = 100


def outputs(config: ModelConfig, offsets: Offsets) -> tuple[str, ...]:
    """A map of each level, and the people.

    Raises:
        ValueError: offsets at centers alone are asked for.
    """
    if offsets == "people":
        raise ValueError("DirectPose computes keypoints at every location; leave out offsets='people'")
    levels = cast(DirectPoseHeadConfig, config.head).levels
    return (*(f"level_{stride}" for stride in strides(levels)), "keypoints", "keypoint_scores", "scores")


def least_side(config: ModelConfig) -> int:
    """Two cells of the coarsest level; and ``_CANDIDATES`` locations in all."""
    return max(128, 2 * strides(cast(DirectPoseHeadConfig, config.head).levels)[-1])


class ExportedDirectPose(nn.Module):
    """Pictures (B, 3, H, W) uint8 RGB -> the levels' maps, and who is there, best first.

    Args:
        model: the network; its weights are copied, without what is asked in training alone.
        max_people: places for people.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, model: DirectPose, max_people: int) -> None:
        super().__init__()
        self.config, self.max_people = model.config, max_people
        with torch.device("meta"):
            network = DirectPose(model.config)
        state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
        network.load_state_dict(state, assign=True)
        network.head.heatmaps = network.head.boxes = None
        self.network = fold_batch_norm(network.requires_grad_(False))
        std = torch.tensor(model.config.std)
        self.register_buffer("scale", (1 / (255 * std)).reshape(3, 1, 1))
        self.register_buffer("shift", (-torch.tensor(model.config.mean) / std).reshape(3, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        network = self.network
        maps = tuple(network.head(network.pyramid(network.backbone(images.float() * self.scale + self.shift))))
        return (*maps, *self.people(maps))

    def people(self, maps: tuple[Tensor, ...]) -> Found:
        """``decode`` at one scale with a fixed number of places, which score 0 for nobody."""
        classes, scores, poses, size = candidates(maps, most=None)
        scores, order = (scores * (classes > CLASS_THRESHOLD)).topk(_CANDIDATES, dim=1)
        poses = poses.gather(1, order[..., None, None].expand(-1, -1, *poses.shape[2:]))
        boxes = boxes_of(poses, size[:, None])
        near = overlaps(boxes[:, :, None], boxes[:, None]) > self.config.decode.nms_threshold
        near = near.float().tril(-1)
        kept = torch.ones_like(scores)
        for _ in range(_ROUNDS):  # who has no better neighbour that is kept
            kept = 1 - torch.matmul(near, kept.unsqueeze(2)).squeeze(2).clamp(max=1)
        scores, order = (scores * kept).topk(self.max_people, dim=1)
        poses = poses.gather(1, order[..., None, None].expand(-1, -1, *poses.shape[2:]))
        return poses, scores.unsqueeze(2).expand(-1, -1, poses.shape[2]), scores


def graph(
    network: Network, rescoring_net: OKSScoreNet | None, max_people: int, sampling: Sampling, offsets: Offsets
) -> nn.Module:
    """See ``ExportedDirectPose``."""
    return ExportedDirectPose(cast(DirectPose, network), max_people)


@torch.inference_mode()
def differences(
    network: Network, graph: nn.Module, answer: tuple[Tensor, ...], pictures: NDArray[np.uint8], offsets: Offsets
) -> tuple[float, float, Found]:
    """Keypoints at the locations of the highest scores, and all scores."""
    config, device = network.config, next(network.parameters()).device
    images = to_tensor(pictures.transpose(0, 2, 3, 1), config.mean, config.std).to(device)
    _, scores, poses, _ = candidates([level.cpu() for level in network(images)], most=None)
    maps = answer[:-3]
    _, own_scores, own_poses, _ = candidates(maps, most=None)
    likeliest = scores.topk(_COMPARED, dim=1).indices[..., None, None].expand(-1, -1, *poses.shape[2:])
    shift = (poses - own_poses).abs().gather(1, likeliest).max()
    return float(shift), float((scores - own_scores).abs().max()), cast(ExportedDirectPose, graph).people(maps)


def file_candidates(answer: tuple[Tensor, ...]) -> Any:
    """Never asked: no file finds people by itself."""
    raise NotImplementedError
