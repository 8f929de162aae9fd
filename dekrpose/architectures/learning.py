"""What training asks of an architecture: how runs are set up, what is taught of a crop, and what errors cost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal, Protocol, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dekrpose.architectures.contract import ARCHITECTURES, Network
from dekrpose.config import ModelConfig
from dekrpose.data.dataset import Photo
from dekrpose.images.on_device import normalise
from dekrpose.skeletons import Skeleton


@dataclass(frozen=True)
class AugmentConfig:
    """How far crops may differ from their photos; the defaults are the paper's ("Training").

    Args:
        size: side of the crop, input pixels.
        rotation: largest rotation, degrees.
        scale: smallest and largest side of the region that fills the crop, in short sides of the photo.
        translation: largest shift of the region, in 1/200 of its side.
        flip: probability of mirroring.
        color: largest relative change of brightness, contrast and saturation.
        grey: probability of removing the colours.
        mosaic: probability that a crop joins two or four photos.
        copy_paste: probability that people are pasted into a crop that is no mosaic, see ``paste_people``.
        on_person: probability that a region is centered on somebody instead of on the photo.
        minimum_keypoints: people with fewer labelled keypoints inside the crop get no center there; not with official
            targets.
    """

    size: int = 512
    rotation: float = 30.0
    scale: tuple[float, float] = (0.75, 1.5)
    translation: float = 40.0
    flip: float = 0.5
    color: float = 0.0
    grey: float = 0.0
    mosaic: float = 0.0
    copy_paste: float = 0.0
    on_person: float = 0.0
    minimum_keypoints: int = 1


@dataclass(frozen=True)
class Placement:
    """How a photo came into its crop.

    Attributes:
        matrix: (2, 3) float64 for column vectors (x, y, 1), image pixels to input pixels, before mirroring.
        area_factor: by which areas grow, from ``training_affine``.
        mirrored: whether the crop was mirrored afterwards.
    """

    matrix: NDArray[np.float64]
    area_factor: float
    mirrored: bool


@dataclass(frozen=True)
class Crop:
    """One augmented crop.

    Attributes:
        image: (h, w, 3) uint8 RGB.
        keypoints: (P, K, 3) float32 x, y, visibility; input pixels; outside the crop visibility is 0.
        ignored: (h, w) True where people are not annotated.
        placement: of the photo; None for a mosaic.
        cells: left, top, right, bottom of a mosaic's parts, input pixels, right and bottom not included.
    """

    image: NDArray[np.uint8]
    keypoints: NDArray[np.float32]
    ignored: NDArray[np.bool_]
    placement: Placement | None = None
    cells: tuple[tuple[int, int, int, int], ...] = ()


_SAME_POSE = 0.4
"""Input pixels: places of one person tell one pose, but for rounding."""


@dataclass(frozen=True)
class TaughtPose:
    """Somebody, as targets say; all points are xy in input pixels.

    Attributes:
        places: (P, 2), where the pose is learned.
        sides: (P,) of the squares that these stand for, input pixels.
        center: (2,), the best of them.
        keypoints: (K, 2).
        taught: (K,), which of these count.
    """

    places: NDArray[np.float32]
    sides: NDArray[np.float32]
    center: NDArray[np.float32]
    keypoints: NDArray[np.float32]
    taught: NDArray[np.bool_]

    @classmethod
    def of_places(
        cls,
        places: NDArray[np.float32],
        sides: NDArray[np.float32],
        keypoints: NDArray[np.float32],
        taught: NDArray[np.bool_],
        merit: NDArray[np.float32],
    ) -> list[Self]:
        """The poses that are taught at places (P, 2), equal ones of (P, K, 2) together; the center is of most merit."""
        left, poses = np.flatnonzero(taught.any(axis=1)), []
        while len(left):
            first = left[0]
            mask = taught[first]
            apart = np.abs(keypoints[left] - keypoints[first]).max(axis=2)[:, mask].max(axis=1)
            same = (taught[left] == mask).all(axis=1) & (apart < _SAME_POSE)
            own, index = np.unique(places[left[same]], axis=0, return_index=True)
            index = left[same][index]
            poses.append(cls(own, sides[index], own[merit[index].argmax()], keypoints[first], mask))
            left = left[~same]
        return poses


@dataclass(frozen=True)
class Shown:
    """What a sample's targets say, for a picture.

    Attributes:
        poses: everyone.
        heat: (K+1, h, w) from 0 to 1, of keypoints and centers.
        weights: (h, w), how much these count; 0 where people are not annotated.
        stride: input pixels per cell of the maps.
        first: input pixels, x and y of the first cell.
    """

    poses: list[TaughtPose]
    heat: NDArray[np.float32]
    weights: NDArray[np.float32]
    stride: int
    first: int = 0


@dataclass(frozen=True)
class Batch(ABC):
    """Crops with what is taught of them; a sample is the same without its batch dimension.

    Attributes:
        images: (B, 3, H, W) uint8 RGB.
    """

    images: Tensor

    @abstractmethod
    def shown(self) -> Shown:
        """Of a sample: read from nothing but what the network gets."""

    def to(self, device: torch.device) -> Self:
        """The same batch on another device."""
        return self.joined([self], lambda values: values[0].to(device, non_blocking=True))

    @classmethod
    def joined(cls, parts: Sequence[Self], join: Callable[[list[Tensor]], Tensor]) -> Self:
        """One batch of several samples or batches; what is None in them stays so."""
        every = {name: [getattr(part, name) for part in parts] for name in vars(parts[0])}
        joined: dict[str, Any] = {name: None if own[0] is None else join(own) for name, own in every.items()}
        return type(parts[0])(**joined)


class Targets(ABC):
    """How an architecture's targets are drawn: a frozen dataclass of settings, with these methods."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What they are, for people."""

    @property
    @abstractmethod
    def anywhere(self) -> bool:
        """Whether ``on_device`` makes them."""

    @abstractmethod
    def check(self, augmentation: AugmentConfig) -> None:
        """DekrPoseError for crops that such targets do not exist for."""

    @abstractmethod
    def sample(
        self, crop: Crop, photo: Photo | None, skeleton: Skeleton, minimum_keypoints: int, rng: np.random.Generator
    ) -> Batch:
        """What is taught of a crop; ``photo`` is its first one, None for a frame of a clip."""

    @abstractmethod
    def on_device(
        self, images: Tensor, people: Tensor, ignored: Tensor, minimum_keypoints: int, draw: Callable[[int], Tensor]
    ) -> Batch:
        """The same of B crops at once, on any device.

        Args:
            images: (B, 3, H, W) uint8 RGB.
            people: (B, P, K, 3) x, y, visibility, input pixels.
            ignored: (B, H, W) boolean.
            minimum_keypoints: as in ``AugmentConfig``.
            draw: random numbers in [0, 1) for each of the crops, (B, n) for n.
        """


def _default_targets() -> Targets:
    from dekrpose.architectures.dekr.batches import TargetConfig

    return TargetConfig()


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Args:
        epochs, batch_size, seed: as usual; the last incomplete batch of an epoch is left out. Where several processes
            train together, ``batch_size`` is that of each.
        optimizer: "adamw"; "adam" as in DEKR's paper; or "sgd" with momentum as in DirectPose's.
        schedule: "cosine" to 1 % of the peak; "steps": a tenth at each of ``milestones``; or "linear" to 0.
        milestones: epochs.
        learning_rate: its peak, reached after ``warmup`` steps.
        weight_decay: of convolutions' weights.
        clip_norm: largest gradient norm; 0 leaves gradients as they are.
        ema: decay per step of the averaged weights, which are the ones that are saved; 0 saves the last ones.
        offset_factor: weight of DEKR's offset loss (the paper's lambda for true diagonals).
        precision: "float32" or "bfloat16" for what need not be exact (DEKR's backbone and heatmap head), "auto" for
            what is faster on this machine.
        pretrained_rate: learning rate of what published weights fill, as a share of the others' and of the weights' own
            size (0.5 and a rate of 0.001: a step changes a weight of 0.1 by 0.00005 at most); 0 leaves it as it is.
        teacher_share: weight of a teacher's answers against the labels.
        keep_early_layers: the backbone's first layers and their statistics stay as they are in the initial weights.
        keep_backbone: all of the backbone stays as it is.
        workers: processes that prepare batches.
        on_device: make batches on the device, where all photos then lie as uint8, instead of in processes.
        compiled: ``Network.compilable`` goes through ``torch.compile``: a minute at the start, then faster steps.
        checkpoint_minutes: how often the state is saved.
        limit: use only the first photos (ablations, tests).
        augment, targets: see their classes.
    """

    epochs: int = 140
    batch_size: int = 16
    seed: int = 0
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    schedule: Literal["cosine", "steps", "linear"] = "cosine"
    milestones: tuple[int, ...] = (90, 120)
    learning_rate: float = 1e-3
    warmup: int = 500
    weight_decay: float = 1e-2
    clip_norm: float = 5.0
    ema: float = 0.999
    offset_factor: float = 0.002
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    pretrained_rate: float = 1.0
    teacher_share: float = 0.3
    keep_early_layers: bool = False
    keep_backbone: bool = False
    workers: int = 1
    on_device: bool = False
    compiled: bool = False
    checkpoint_minutes: float = 5.0
    limit: int | None = None
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    targets: Any = field(default_factory=_default_targets)
    """``Targets`` of the network's architecture."""


class Teacher(Protocol):
    """A trained network that teaches beside the labels."""

    def fingerprint(self) -> str:
        """Tells it from other teachers, by its weights."""

    def taught(self, batch: Any) -> Any:
        """The batch with targets of both."""


class Learning(Protocol):
    """The module ``learning`` of an architecture."""

    LOSSES: Mapping[str, str]
    """The parts of the loss: names in the log, and for people."""
    STARTS: Mapping[str, ModelConfig]
    """Kinds of others' files that ``start`` reads, and about what networks they make."""

    def recipe(self, config: ModelConfig, on_device: bool) -> TrainConfig | None:
        """How this library trains a network; None: with ``TrainConfig``'s defaults and crops of its full size.

        Args:
            config: the network.
            on_device: on a GPU that makes the batches.
        """

    def paper_recipe(self, config: ModelConfig) -> TrainConfig:
        """How the architecture's paper trains it."""

    def official(self, config: TrainConfig) -> TrainConfig:
        """The same run with the targets of the released training code, and its weights of losses.

        Raises:
            DekrPoseError: there is no such code.
        """

    def start(self, kind: str, path: str, config: ModelConfig) -> tuple[ModelConfig, dict[str, Tensor]]:
        """Configuration and weights from a file of a kind in ``STARTS``; ``config`` is the network asked for.

        Raises:
            CheckpointError: the file is broken, or holds something else.
        """

    def forward(self, network: Network, half: bool) -> nn.Module:
        """What a step runs, as one call: batch -> what ``losses`` reads; parts of it in bfloat16 for ``half``."""

    def losses(
        self, answer: Any, batch: Any, config: TrainConfig, model: ModelConfig, mean: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """What a batch costs, as named in ``LOSSES``; their sum is minimised.

        Args:
            answer: of ``forward``.
            batch: the targets.
            config, model: the run and its network.
            mean: of a number, over the processes that train together.
        """

    def teacher(self, network: Network, config: TrainConfig, device: torch.device) -> Teacher:
        """A teacher for a run; DekrPoseError if the architecture has none."""

    def fit_to_skeleton(
        self, weights: Mapping[str, Tensor], config: ModelConfig, skeleton: Skeleton
    ) -> dict[str, Tensor]:
        """The weights of a network for another skeleton: what belongs to keypoints of the same name is kept.

        What starts fresh is left out, or NaN.

        Raises:
            CheckpointError: they cannot be taken apart.
        """


def learning_of(config: ModelConfig) -> Learning:
    """How the architecture that a configuration names is trained."""
    return learning_named(config.architecture)


def learning_named(architecture: str) -> Learning:
    """How an architecture is trained."""
    return cast(Learning, import_module(f"{ARCHITECTURES[architecture]}.learning"))


def normalised(crops: Tensor, config: ModelConfig) -> Tensor:
    """(B, 3, H, W) uint8 RGB as a network takes them: float32, channels-last."""
    return normalise(crops.permute(0, 2, 3, 1), config.mean, config.std)
