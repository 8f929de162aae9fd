"""From the network's maps to people inside an exported file: what ``decode`` does at one scale, without loops.

Everything has a fixed number of places, so that it can be written down as a graph: places that hold nobody score 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dekrpose.architectures.dekr.candidates import (
    CENTER_THRESHOLD,
    Centers,
    find_centers,
    highest_around,
    points_of,
)
from dekrpose.architectures.dekr.exported_network import ExportedNetwork
from dekrpose.architectures.parts.blocks import gather_pixels
from dekrpose.architectures.parts.poses import OKSScoreNet, pose_features
from dekrpose.config import OUTPUT_STRIDE, ModelConfig


class PoseOutputs(nn.Module):
    """Heatmaps (B, K+1, h, w) and offsets (B, 2K, h, w) -> people, best first.

    Returns keypoints (B, N, K, 2) xy in input pixels, keypoint scores (B, N, K), scores (B, N), 0 for nobody: all of
    them as ``PoseEstimator.estimate`` has them with one scale and without flip test and matching to heatmaps.

    Args:
        config: skeleton and thresholds.
        rescoring_net: predicts how good each pose is; its weights are shared, not copied.
        max_people: N.
    """

    def __init__(self, config: ModelConfig, rescoring_net: OKSScoreNet | None, max_people: int) -> None:
        super().__init__()
        self.config, self.rescoring_net, self.max_people = config, rescoring_net, max_people

    def forward(self, heatmaps: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        centers = self.centers(heatmaps)
        poses = self.poses_at(centers.xy, gather_pixels(offsets, centers.xy))
        return self.people(heatmaps, poses, centers.values)

    def centers(self, heatmaps: Tensor) -> Centers:
        """The N highest, from heatmaps (B, K+1, h, w)."""
        fixed = all(isinstance(side, int) for side in heatmaps.shape[2:])
        highest = highest_around if fixed else _highest_at_all_sizes
        return find_centers(heatmaps[:, -1], max_centers=self.max_people, highest=highest)

    def poses_at(self, xy: Tensor, offsets: Tensor) -> Tensor:
        """Poses (B, N, K, 2) in input pixels from offsets (B, 2K, N) at centers (B, N, 2), heatmap pixels."""
        return (xy.unsqueeze(2) - points_of(offsets)) * OUTPUT_STRIDE

    def people(self, heatmaps: Tensor, poses: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``forward`` from poses at centers, and the values of these (B, N), on."""
        heat = _heat_values(heatmaps[:, :-1], poses)
        keypoint_scores = values.unsqueeze(2) * heat
        kept = self._suppress(poses, heat.mean(2), values > CENTER_THRESHOLD)
        scores, keypoint_scores = self._scored(poses, keypoint_scores)
        scores = scores * kept
        scores, order = scores.topk(self.max_people, dim=1)
        keypoint_scores = keypoint_scores.gather(1, order.unsqueeze(2).expand_as(keypoint_scores))
        poses = poses.gather(1, order[..., None, None].expand_as(poses))
        return poses, keypoint_scores, scores

    def _suppress(self, poses: Tensor, mean_heat: Tensor, valid: Tensor) -> Tensor:
        """The walk of ``pose_nms`` over all places at once: (B, N), 1 for whom it keeps, else 0."""
        decode, count = self.config.decode, self.max_people
        diagonals = (poses.amax(2) - poses.amin(2)).square().sum(2).sqrt()
        distances = (poses.unsqueeze(2) - poses.unsqueeze(1)).square().sum(4).sqrt()
        near = (distances < (decode.nms_threshold * diagonals)[:, :, None, None]).float().sum(3)
        near = (near > decode.nms_min_keypoints).float().maximum(torch.eye(count))
        usable = (valid & (diagonals > 0)).float()
        near = near * usable.unsqueeze(2) * usable.unsqueeze(1)
        masked = torch.where(near > 0, mean_heat.unsqueeze(1), -torch.inf)
        hottest = (torch.arange(count) == masked.argmax(2, keepdim=True)).float()
        # place p takes nobody when an earlier place that does has made p, or p's hottest neighbour, its own
        blocked = torch.matmul(hottest + torch.eye(count), near.transpose(1, 2)).clamp(max=1.0).tril(-1)
        free = usable.unsqueeze(2)
        takes = free
        for _ in range(count - 1):  # after n rounds the first n + 1 places are right
            takes = F.relu(free - torch.matmul(blocked, takes))
        return torch.matmul(takes.transpose(1, 2), hottest).squeeze(1)

    def _scored(self, poses: Tensor, keypoint_scores: Tensor) -> tuple[Tensor, Tensor]:
        scores = keypoint_scores.mean(2)
        if self.rescoring_net is None:
            return scores, keypoint_scores
        flat = keypoint_scores.flatten(0, 1)
        features = pose_features(poses.flatten(0, 1), flat, self.config.skeleton.edges)
        scored, flat = self.rescoring_net.scored(features, flat, scores.flatten())
        return scored.reshape(scores.shape), flat.reshape(keypoint_scores.shape)


def _highest_at_all_sizes(maps: Tensor) -> Tensor:
    """``highest_around`` in a graph for all sizes: windows within windows make larger ones."""
    height, width = maps.shape[1:]
    small = F.max_pool2d(maps[:, None], 3, stride=1, padding=1)
    medium = F.max_pool2d(small, 3, stride=1, padding=1)
    large = F.max_pool2d(medium, 3, stride=1, padding=1)
    sides = torch.full((1,), 1.0) * height + torch.full((1,), 1.0) * width
    return torch.where(sides > 600, large, torch.where(sides > 400, medium, small))[:, 0]


def _heat_values(heatmaps: Tensor, poses: Tensor) -> Tensor:
    """``heat_values`` at one scale, (B, K, h, w) at (B, N, K, 2) input pixels: (B, N, K)."""
    height, width = heatmaps.shape[-2:]
    x0, x1, x_share = _cells(poses[..., 0].transpose(1, 2), width)
    y0, y1, y_share = _cells(poses[..., 1].transpose(1, 2), height)
    flat = heatmaps.flatten(2)
    top = flat.gather(2, y0 * width + x0) * (1 - x_share) + flat.gather(2, y0 * width + x1) * x_share
    bottom = flat.gather(2, y1 * width + x0) * (1 - x_share) + flat.gather(2, y1 * width + x1) * x_share
    return (top * (1 - y_share) + bottom * y_share).transpose(1, 2)


def _cells(values: Tensor, cells: int) -> tuple[Tensor, Tensor, Tensor]:
    """The two cells around each coordinate and the share of the second; the last cell reaches to the border."""
    places = values.clamp(min=0.0).floor().clamp(max=OUTPUT_STRIDE * (cells - 1)) / OUTPUT_STRIDE
    lower = places.long()
    return lower, (lower + 1).clamp(max=cells - 1), places - lower


class ExportedPoses(nn.Module):
    """The whole exported graph: pictures (B, 3, H, W) uint8 RGB -> heatmaps, offsets, and ``PoseOutputs``' three."""

    def __init__(self, network: ExportedNetwork, poses: PoseOutputs) -> None:
        super().__init__()
        self.network, self.poses = network, poses

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        heatmaps, offsets = self.network(images)
        return heatmaps, offsets, *self.poses(heatmaps, offsets)


class ExportedCenters(nn.Module):
    """The same with offsets at centers alone: heatmaps, poses (B, N, K, 3), and ``PoseOutputs``' three.

    The poses are those at the N highest centers before any is suppressed: x and y in pixels of the pictures, and the
    center's value, 0 where there is none.
    """

    def __init__(self, network: ExportedNetwork, poses: PoseOutputs) -> None:
        super().__init__()
        self.network, self.poses = network, poses

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        heatmaps, maps = self.network.heatmaps(images)
        centers = self.poses.centers(heatmaps)
        poses = self.poses.poses_at(centers.xy, self.network.offsets_at(maps, centers.xy))
        candidates = torch.cat([poses, centers.values[..., None, None].expand(-1, -1, poses.shape[2], 1)], dim=3)
        return heatmaps, candidates, *self.poses.people(heatmaps, poses, centers.values)
