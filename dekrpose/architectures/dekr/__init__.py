"""DEKR (disentangled keypoint regression): network, decoding, targets and losses; ``Architecture`` says what is asked.

A network answers with heatmaps (B, K+1, h, w), the center map last, and offsets (B, 2K, h, w); h and w are a quarter of
the input's. What is "seen" are heatmaps and positions, heatmap pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from dekrpose.architectures.contract import Found, Maps
from dekrpose.architectures.dekr import complexity as sizes
from dekrpose.architectures.dekr.candidates import Candidates, Choice, choose_poses, picked_candidates, pool_scales
from dekrpose.architectures.dekr.decode import decode, pose_map
from dekrpose.architectures.dekr.fast import FastPath
from dekrpose.architectures.dekr.flip import flip_input, merge_flipped
from dekrpose.architectures.dekr.network import DEKR, Pair, takes_pick
from dekrpose.architectures.dekr.temporal import build_model
from dekrpose.config import OUTPUT_STRIDE, ModelConfig
from dekrpose.options import Options

title, remembers = "DEKR", True
PARTS, gmacs_by_part, variants = sizes.PARTS, sizes.gmacs_by_part, sizes.variants
CITATION = """\
```bibtex
@inproceedings{geng2021bottom,
  title         = {Bottom-Up Human Pose Estimation Via Disentangled Keypoint Regression},
  author        = {Geng, Zigang and Sun, Ke and Xiao, Bin and Zhang, Zhaoxiang and Wang, Jingdong},
  booktitle     = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year          = {2021},
  eprint        = {2104.02300},
  archivePrefix = {arXiv}
}
```"""
build = build_model
gives_candidates, candidates = takes_pick, picked_candidates
mirrored = flip_input


def check(options: Options) -> None:
    """See ``Architecture``: everything is served."""


def hasten(network: nn.Module) -> None:
    """See ``Architecture``: folded layers, with weights of their own."""
    if isinstance(network, DEKR):
        network.fast_path = FastPath()


def seen(maps: Maps, mirrored: Maps | None, config: ModelConfig, size: tuple[int, int]) -> Pair:
    """Heatmaps and positions."""
    heatmaps, positions = maps[0].float(), pose_map(maps[1])
    if mirrored is None:
        return heatmaps, positions
    flipped_heatmaps, flipped_positions = mirrored[0].float(), pose_map(mirrored[1])
    return merge_flipped(heatmaps, flipped_heatmaps, positions, flipped_positions, config.skeleton.flip_indices)


def poses(seen: Sequence[Maps], config: ModelConfig, options: Options) -> Found:
    """See ``decode``."""
    factor, centers = config.decode.other_scale_factor, options.max_centers
    maps, choice = cast(Sequence[Pair], seen), _choice(config, options)
    return Found(*decode(maps, options.scales, choice, max_centers=centers, other_scale_factor=factor))


def chosen(looks: Sequence[tuple[Tensor, Candidates]], config: ModelConfig, options: Options) -> list[Found]:
    """See ``choose_poses``."""
    height, width = looks[options.scales.index(1.0)][0].shape[2:]
    size, choice = (OUTPUT_STRIDE * height, OUTPUT_STRIDE * width), _choice(config, options)
    found, factor = [], config.decode.other_scale_factor
    for index in range(len(looks[0][0])):
        pooled = pool_scales([own.of(index) for _, own in looks], options.scales, other_scale_factor=factor)
        found.append(Found(*choose_poses(pooled, [maps[index, :-1] for maps, _ in looks], size, choice)))
    return found


def _choice(config: ModelConfig, options: Options) -> Choice:
    """Of more people than are asked for: the best are told apart when they have their scores."""
    return Choice(options.max_centers, options.nms_threshold, config.decode.nms_min_keypoints, options.match_heatmap)
