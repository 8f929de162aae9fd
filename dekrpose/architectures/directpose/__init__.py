"""DirectPose: network, decoding, targets and losses; ``Architecture`` says what is asked.

A network answers with one map (B, 2 + 2K, h, w) per level of its pyramid: logits of class and centerness, and keypoints
relative to the location. What is "seen" are ``decode.Candidates``, input pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dekrpose.architectures.contract import Found, Maps, Stage
from dekrpose.architectures.directpose import complexity as sizes
from dekrpose.architectures.directpose import decode as decoding
from dekrpose.architectures.directpose.network import DirectPose
from dekrpose.config import ModelConfig
from dekrpose.options import Options

if TYPE_CHECKING:
    from dekrpose.images import Geometry

title, remembers = "DirectPose", False
PARTS, gmacs_by_part, variants = sizes.PARTS, sizes.gmacs_by_part, sizes.variants
CITATION = """\
```bibtex
@article{tian2019directpose,
  title         = {DirectPose: Direct End-to-End Multi-Person Pose Estimation},
  author        = {Tian, Zhi and Chen, Hao and Shen, Chunhua},
  year          = {2019},
  eprint        = {1911.07451},
  archivePrefix = {arXiv}
}
```"""


def build(config: ModelConfig) -> DirectPose:
    """See ``Architecture``.

    Raises:
        ValueError: it shall remember frames.
    """
    if config.temporal is not None:
        raise ValueError(f"{title} has no memory; networks for video are DEKR's")
    return DirectPose(config)


def hasten(network: nn.Module) -> None:
    """See ``Architecture``: it is as fast as it gets."""


def check(options: Options) -> None:
    """See ``Architecture``."""
    if options.match_heatmap is not None:
        raise ValueError(f"{title} has no heatmaps that keypoints could be moved to; leave out match_heatmap")
    if options.rescore:
        raise ValueError(f"{title} scores people by itself and takes no rescoring net; leave it out")


def mirrored(images: Tensor) -> Tensor:
    """See ``Architecture``."""
    return images.flip(-1)


def seen(maps: Maps, mirrored: Maps | None, config: ModelConfig, size: tuple[int, int]) -> Maps:
    """``Candidates``; those of the mirrored images are added, and suppression chooses among them."""
    own = decoding.candidates(maps, size)
    if mirrored is None:
        return own
    other = decoding.unmirrored(decoding.candidates(mirrored, size), config.skeleton.flip_indices)
    return (*(torch.cat(pair, dim=1) for pair in zip(own[:3], other[:3], strict=True)), own[3])


def poses(seen: Sequence[Maps], config: ModelConfig, options: Options) -> Found:
    """See ``decode``; scale 1 says what input pixels are."""
    first = options.scales.index(1.0)
    looks = [seen[first], *(look for index, look in enumerate(seen) if index != first)]
    return Found(*decoding.decode(looks, nms_threshold=options.nms_threshold, max_people=options.max_people))


def gives_candidates(network: Callable[..., Any]) -> bool:
    """It does not: all of its answer is needed."""
    return False


def candidates(network: Callable[..., Any], images: Tensor, geometry: Geometry, options: Options, stage: Stage) -> Any:
    """Never asked, see ``gives_candidates``."""
    raise NotImplementedError


def chosen(looks: Sequence[Any], config: ModelConfig, options: Options) -> list[Found]:
    """Never asked, see ``gives_candidates``."""
    raise NotImplementedError
