"""What an architecture is: all that the rest of the house asks of a way of finding people.

A new one is a package beside this file with the functions of ``Architecture``, its modules ``learning`` (see
``Learning`` in ``learning.py``) and ``exporting`` (see ``Exporting``), and an entry in ``ARCHITECTURES``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from torch import Tensor, nn

from dekrpose.architectures.parts.backbone import Backbone
from dekrpose.config import ModelConfig
from dekrpose.options import Options

if TYPE_CHECKING:
    from dekrpose.images import Geometry

Maps = tuple[Tensor, ...]
"""What a network answers, each (B, channels, h, w); what they mean is the architecture's own affair."""
Shapes = Mapping[str, tuple[int, ...]]
Stage = Callable[[str], AbstractContextManager[None]]
"""A block of code whose time counts as that of a stage."""


@dataclass(frozen=True, eq=False)
class Found:
    """Who is in a photo, everyone in the official order.

    Args:
        keypoints: (N, K, 2) xy, input pixels of scale 1, never clipped; N may be 0.
        keypoint_scores: (N, K), as they come: they can be slightly negative.
        scores: (N,), as they come.
    """

    keypoints: Tensor
    keypoint_scores: Tensor
    scores: Tensor


class Network(nn.Module):
    """What ``build`` gives: normalised (B, 3, H, W) -> ``Maps``.

    Attributes:
        config: what it was built from.
        backbone: what its first layers are.
    """

    config: ModelConfig
    backbone: Backbone

    def pretrained(self) -> list[nn.Module]:
        """What published weights fill."""
        return self.backbone.pretrained()

    def compilable(self) -> list[nn.Module]:
        """The parts that ``torch.compile`` makes faster."""
        return [self.backbone]


class Architecture(Protocol):
    """A package with these functions."""

    title: str
    """Its name for people."""

    def build(self, config: ModelConfig) -> Network:
        """The network that a configuration describes, with fresh weights."""

    remembers: bool
    """Whether it has networks for video, see ``ModelConfig.temporal``."""
    PARTS: tuple[str, ...]
    """What a network is made of, in the order in which it runs; its attributes have these names, with underscores."""

    def gmacs_by_part(self, config: ModelConfig) -> dict[str, float]:
        """Multiply-accumulates of one image at the network's own input size, in 10^9, by ``PARTS``."""

    def variants(self) -> dict[str, ModelConfig]:
        """Networks worth comparing besides those of ``config.ARCHITECTURES``, by name."""

    CITATION: str
    """How its authors are cited, Markdown."""

    def check(self, options: Options) -> None:
        """Refuse what it does not do; ValueError."""

    def hasten(self, network: nn.Module) -> None:
        """Let a network take from now on, on CPUs and without gradients, whatever is faster and gives the same."""

    def mirrored(self, images: Tensor) -> Tensor:
        """A batch as the network shall see it mirrored."""

    def seen(self, maps: Maps, mirrored: Maps | None, config: ModelConfig, size: tuple[int, int]) -> Maps:
        """A network's answer in the form that ``poses`` reads, averaged with that for the mirrored images.

        ``size`` is the images' (height, width), input pixels at their scale.
        """

    def poses(self, seen: Sequence[Maps], config: ModelConfig, options: Options) -> Found:
        """Who is in one photo, from what is ``seen`` of it (without a batch dimension) at each of the scales."""

    def gives_candidates(self, network: Callable[..., Any]) -> bool:
        """Whether a network can be asked for ``candidates``, which is faster than for all of its maps."""

    def candidates(
        self, network: Callable[..., Any], images: Tensor, geometry: Geometry, options: Options, stage: Stage
    ) -> Any:
        """Who can be in each photo of a batch, at one scale; what is not the network's is in the stage "decode"."""

    def chosen(self, looks: Sequence[Any], config: ModelConfig, options: Options) -> list[Found]:
        """Who is in each photo, from ``candidates`` at each of the scales."""


class ForeignNames(Protocol):
    """What a module ``foreign_names`` does: weights of other code, told by their tensors. Shapes are by name."""

    def detect_format(self, names: Iterable[str]) -> str | None:
        """The format of a file with these tensors; None for an unknown one."""

    def describe(self, shapes: Shapes) -> str:
        """A guess, for messages, at what some tensors belong to."""

    def split_scoring_net(self, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The network's tensors, and the scoring net's, which get the names l1.weight ... l3.bias."""

    def config_of(self, shapes: Shapes) -> ModelConfig:
        """The network that a file holds."""

    def to_ours(self, tensors: Mapping[str, Tensor], file_format: str) -> dict[str, Tensor]:
        """A file's tensors by our names; CheckpointError if one is missing or unknown."""

    def shapes_in_file(self, shapes: Shapes, file_format: str, names: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """Expected shapes, given under our names, as a file would call them."""


ARCHITECTURES = {"dekr": "dekrpose.architectures.dekr", "directpose": "dekrpose.architectures.directpose"}
"""The package of each."""


def architecture_of(config: ModelConfig) -> Architecture:
    """The architecture that a configuration names."""
    return named(config.architecture)


def named(architecture: str) -> Architecture:
    """The architecture of a name in ``ARCHITECTURES``."""
    return cast(Architecture, import_module(ARCHITECTURES[architecture]))


def build(config: ModelConfig) -> Network:
    """The network that a configuration describes, with fresh weights."""
    return architecture_of(config).build(config)


def foreign_names() -> ForeignNames:
    """Of files without a configuration of ours: all whose names are known hold DEKR networks."""
    return cast(ForeignNames, import_module(f"{ARCHITECTURES['dekr']}.foreign_names"))
