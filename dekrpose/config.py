"""Configuration: frozen dataclasses that travel as JSON inside the weights."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from types import UnionType
from typing import Any, ClassVar, Literal, Self, Union, get_args, get_origin, get_type_hints

from dekrpose.skeletons import COCO_17, CROWDPOSE_14, Skeleton

Heatmaps = Literal["residual", "separable"]
Branches = Literal["per_keypoint", "grouped_13", "grouped_5", "shared"]
TemporalKind = Literal["convgru", "gru_offset_flat"]
"""How a network remembers earlier frames (see ``dekr.temporal``)."""
Color = Literal["rgb", "bgr"]
"""Channel order of arrays and tensors."""
MatchMode = Literal["official", "paper", "weighted"]
"""How keypoints are moved to heatmap peaks (see ``dekr.candidates`` and ``dekr.matching``)."""

Color3 = tuple[float, float, float]
"""A number for each of red, green and blue."""
IMAGE_MEAN = (0.485, 0.456, 0.406)
"""Mean of RGB values in [0, 1] (ImageNet), subtracted before the network."""
IMAGE_STD = (0.229, 0.224, 0.225)
"""Standard deviation of RGB values in [0, 1] (ImageNet)."""
OUTPUT_STRIDE = 4
"""Input pixels per heatmap pixel, for every DEKR model."""
SIZE_MULTIPLE = 64
"""Inputs of the published networks are multiples of this many pixels."""


MOST_CHANNELS = 4096
"""Of any layer that a configuration names."""
_MOST_SCALES = 8
LONGEST_JSON = 2**22
"""Characters; configurations have a few thousand."""


_Ranges = Mapping[str, tuple[float, float]]


class _Stored:
    """A dataclass that is stored as JSON: every value is of its field's type and, if a number, within a range."""

    _ranges: ClassVar[_Ranges] = {}
    """Of numbers; those that are not named are whole ones from 1 to MOST_CHANNELS, or finite."""

    def __post_init__(self) -> None:
        for name, kind in _kinds(type(self)).items():  # type: ignore[arg-type]
            value = getattr(self, name)
            low, high = self._ranges.get(name, (1, MOST_CHANNELS) if _has_whole_numbers(kind) else (-1e300, 1e300))
            if not _fits(value, kind, low, high):
                bounds = f" from {low:g} to {high:g}" if high < 1e300 else ""
                raise ValueError(f"{name} must be {_words(kind)}{bounds}, got {reprlib.repr(value)}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from JSON values; unknown keys and values of other types or out of range raise ValueError."""
        known = {item.name for item in fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(_mapping(cls, values).keys() - known)
        if unknown:
            named = ", ".join(name[:40] for name in unknown[:5])
            raise ValueError(f"unknown {cls.__name__} key {named}; it has {', '.join(sorted(known))}")
        kinds = _kinds(cls)  # type: ignore[arg-type]
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **{name: value for name, value in lists.items() if get_origin(kinds[name]) is tuple}})


def _mapping(owner: type, values: Any) -> Mapping[str, Any]:
    if not isinstance(values, Mapping):
        raise ValueError(f"{owner.__name__} must be an object of names and values, got {reprlib.repr(values)}")
    return values


@cache
def _kinds(owner: Any) -> dict[str, Any]:
    """The fields' types."""
    hints = get_type_hints(owner)
    return {item.name: hints[item.name] for item in fields(owner)}


def _has_whole_numbers(kind: Any) -> bool:
    return kind is int or (get_origin(kind) is tuple and int in get_args(kind))


def _fits(value: Any, kind: Any, low: float, high: float) -> bool:
    """Whether a value is of a field's type, and its numbers lie within a range."""
    origin, parts = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if origin in (Union, UnionType):
        return any(_fits(value, part, low, high) for part in parts)
    if origin is Literal:
        return isinstance(value, str) and value in parts
    if origin is tuple:
        parts = (parts[0],) * len(value) if parts[1:] == (...,) and isinstance(value, tuple) else parts
        return (
            isinstance(value, tuple)
            and len(value) == len(parts)
            and all(_fits(item, part, low, high) for item, part in zip(value, parts, strict=True))
        )
    if origin is not None:  # Mapping[str, float] of measures, of which some have nothing to be measured on
        return isinstance(value, Mapping) and all(
            isinstance(key, str) and (item != item or _fits(item, parts[1], low, high)) for key, item in value.items()
        )
    if kind in (int, float):  # True is an int
        types = int if kind is int else (int, float)
        return isinstance(value, types) and not isinstance(value, bool) and low <= value <= high  # NaN is not
    return isinstance(value, kind)


def _words(kind: Any) -> str:
    """What a field takes, for people."""
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_words(part) for part in get_args(kind))
    if get_origin(kind) is Literal:
        return f"one of {get_args(kind)}"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}
    if get_origin(kind) is tuple:
        first, *others = get_args(kind)
        count = "" if others == [...] else f"{1 + len(others)} "
        return f"a list of {count}{names.get(first, 'a value').removeprefix('a ')}s"
    return names.get(kind, "names and numbers" if get_origin(kind) else getattr(kind, "__name__", str(kind)))


class _Backbone(_Stored):
    """What all backbones have: ``title``, a name for people."""

    citation: ClassVar[str] = ""
    """How its authors are cited, Markdown."""

    size_multiple: ClassVar[int] = SIZE_MULTIPLE
    """Sides of network inputs are multiples of this many pixels."""


@dataclass(frozen=True)
class BackboneConfig(_Backbone):
    """An HRNet: stem, layer1, and three stages of parallel branches.

    Args:
        width: channels C of the finest branch; the others have 2C, 4C, 8C.
        stem_channels: channels of the two stride-2 convolutions.
        layer1_channels: inner channels of layer1's bottlenecks (their output is 4 times wider).
        layer1_blocks: bottlenecks in layer1.
        modules: modules in stages 2, 3 and 4.
        blocks: basic blocks per branch of a module.
    """

    width: int = 32
    stem_channels: int = 64
    layer1_channels: int = 64
    layer1_blocks: int = 4
    modules: tuple[int, int, int] = (1, 4, 3)
    blocks: int = 4

    _ranges: ClassVar[_Ranges] = {"layer1_blocks": (1, 64), "modules": (1, 16), "blocks": (1, 16)}
    citation: ClassVar[str] = """\
```bibtex
@inproceedings{sun2019deep,
  title     = {Deep High-Resolution Representation Learning for Human Pose Estimation},
  author    = {Sun, Ke and Xiao, Bin and Liu, Dong and Wang, Jingdong},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year      = {2019}
}
```"""

    @property
    def title(self) -> str:
        """What the paper calls it."""
        return f"HRNet-W{self.width}"


@dataclass(frozen=True)
class EfficientNetLiteConfig(_Backbone):
    """An EfficientNet-Lite0 without its last two blocks, and a top-down path from stride 32 to stride 4.

    Args:
        channels: of the top-down path, and of the map at stride 4.
        expansion: how much wider its blocks are inside.
        family: tells this backbone from others in a file.
    """

    channels: int = 96
    expansion: int = 2
    family: str = "efficientnet-lite0"

    _ranges: ClassVar[_Ranges] = {"expansion": (1, 16)}
    title: ClassVar[str] = "EfficientNet-Lite0"


@dataclass(frozen=True)
class MobileNetConfig(_Backbone):
    """A MobileNetV2 with MoveNet's feature pyramid, and a top-down path of the network's own beside it.

    Args:
        width: multiplies the channels of MobileNetV2; MoveNet Lightning has 1, MultiPose 1.5, Thunder 1.75.
        channels: of the network's own path, and of its map at stride 4; 0 leaves the path out.
        expansion: how much wider the path's blocks are inside.
        family: tells this backbone from others in a file.
    """

    width: float = 1.5
    channels: int = 64
    expansion: int = 2
    family: str = "mobilenet-v2"

    _ranges: ClassVar[_Ranges] = {"width": (0.01, 16), "channels": (0, MOST_CHANNELS), "expansion": (1, 16)}

    @property
    def title(self) -> str:
        """Its name for people."""
        return f"MobileNetV2 {self.width:g}"

    size_multiple: ClassVar[int] = 32


@dataclass(frozen=True)
class ResNetConfig(_Backbone):
    """A ResNet as torchvision has it.

    Args:
        depth: 50 or 101 layers.
        family: tells this backbone from others in a file.
    """

    depth: int = 50
    family: str = "resnet"

    size_multiple: ClassVar[int] = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth not in (50, 101):
            raise ValueError(f"depth must be 50 or 101, got {self.depth!r}")

    @property
    def title(self) -> str:
        """Its name for people."""
        return f"ResNet-{self.depth}"


Backbone = BackboneConfig | EfficientNetLiteConfig | MobileNetConfig | ResNetConfig
_FAMILIES: dict[str, type[EfficientNetLiteConfig | MobileNetConfig | ResNetConfig]] = {
    kind.family: kind for kind in (EfficientNetLiteConfig, MobileNetConfig, ResNetConfig)
}


def _backbone_from_dict(values: Mapping[str, Any]) -> Backbone:
    family = _mapping(_Backbone, values).get("family")
    if family is None:
        return BackboneConfig.from_dict(values)
    if not isinstance(family, str) or family not in _FAMILIES:
        raise ValueError(
            f"unknown backbone family {reprlib.repr(family)}; expected {', '.join(map(repr, _FAMILIES))} or none"
        )
    return _FAMILIES[family].from_dict(values)


@dataclass(frozen=True)
class HeadConfig(_Stored):
    """DEKR's heatmap head and offset head.

    Args:
        adaptive: adaptive convolutions (True) or plain 3x3 ones in their place (the ablation).
        branches: one regression branch per keypoint, 13 branches (the five head keypoints share one),
            5 branches (head, arms, legs; both need COCO's 17 keypoints) or one shared branch.
        heatmap_channels: width of the heatmap head.
        keypoint_channels: channels per keypoint in the offset head.
        shared_channels: width of the offset head when ``branches="shared"``.
        blocks: adaptive blocks in a row.
        heatmaps: the form of the heatmap head: "residual", DEKR's; or "separable", MoveNet's, which ends in a sigmoid.
        shared_offsets: channels of a separable convolution that regresses all keypoints at once, as MoveNet does; the
            branches then correct its offsets. 0 leaves it out.
    """

    adaptive: bool = True
    branches: Branches = "per_keypoint"
    heatmap_channels: int = 32
    keypoint_channels: int = 15
    shared_channels: int = 256
    blocks: int = 2
    heatmaps: Heatmaps = "residual"
    shared_offsets: int = 0

    _ranges: ClassVar[_Ranges] = {"blocks": (1, 16), "shared_offsets": (0, MOST_CHANNELS)}


@dataclass(frozen=True)
class DirectPoseHeadConfig(_Stored):
    """DirectPose's feature pyramid and head.

    Args:
        channels: of the pyramid and the class tower, a multiple of 8.
        levels: of the pyramid, from stride 8 on, 3 to 8.
        class_depth: convolutions of the class tower.
        group_channels: of each group of keypoints, a multiple of 4.
        aligned: keypoint alignment (True), or keypoints predicted at the location itself (the ablation).
        exact_alignment: the finer level's cells are met at their points; False is the published behaviour.
        heatmaps: an auxiliary heatmap in training.
        heatmap_channels: its width.
        boxes: a box branch in training.
    """

    channels: int = 256
    levels: int = 5
    class_depth: int = 4
    group_channels: int = 64
    aligned: bool = True
    exact_alignment: bool = False
    heatmaps: bool = True
    heatmap_channels: int = 128
    boxes: bool = False

    _ranges: ClassVar[_Ranges] = {"levels": (3, 8), "class_depth": (0, 16)}

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, step in (("channels", 8), ("heatmap_channels", 8), ("group_channels", 4)):
            if getattr(self, name) % step:
                raise ValueError(f"{name} must be a multiple of {step}, got {getattr(self, name)}")


_HEADS: dict[str, type[HeadConfig | DirectPoseHeadConfig]] = {"dekr": HeadConfig, "directpose": DirectPoseHeadConfig}
"""By architecture."""


@dataclass(frozen=True)
class TemporalConfig(_Stored):
    """What a network for video remembers of earlier frames.

    Args:
        kind: "convgru", convolutional GRUs on both heads' maps that run frame by frame; or "gru_offset_flat", the
            network of the seed project, one bidirectional GRU over flattened offset maps of one input size only.
        hidden: units per direction and layer of the flat GRU; the convolutional ones are as wide as their maps.
        chunk: most frames that the flat GRU sees together.
        input_size: side of the square input that the flat GRU is made for, a multiple of 4.
    """

    kind: TemporalKind = "convgru"
    hidden: int = 512
    chunk: int = 10
    input_size: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.input_size % OUTPUT_STRIDE:
            raise ValueError(f"input_size must be a multiple of {OUTPUT_STRIDE}, got {self.input_size}")


@dataclass(frozen=True)
class DecodeConfig(_Stored):
    """Thresholds that belong to a model.

    Args:
        score_threshold: poses below this score are not shown; 0 or less keeps everyone.
        nms_threshold: pose NMS distance as a share of the box diagonal, one scale.
        multi_scale_nms_threshold: the same, several scales.
        nms_min_keypoints: poses are neighbours when *more* than this many keypoints are near.
        other_scale_factor: weight of center scores that come from scales other than 1.
        match_heatmap: move keypoints to heatmap peaks, the nearest ones, with or without the released code's quirk near
            borders, or those of the highest weight; None leaves them where they were regressed.
        rescored_threshold: ``score_threshold`` for scores of a scoring net, which are lower; None is the same.
        scales: input scales, 1 among them.
        max_aspect: the long side by the short one up to which photos have the full input size. Longer ones have a
            smaller one, so that they take no more memory and time.
    """

    score_threshold: float = 0.05
    nms_threshold: float = 0.05
    multi_scale_nms_threshold: float = 0.15
    nms_min_keypoints: int = 8
    other_scale_factor: float = 0.9
    match_heatmap: MatchMode | None = None
    rescored_threshold: float | None = None
    scales: tuple[float, ...] = (1.0,)
    max_aspect: float = 32.0

    _ranges: ClassVar[_Ranges] = {"nms_min_keypoints": (0, MOST_CHANNELS), "scales": (0.01, 8), "max_aspect": (1, 1e6)}

    def __post_init__(self) -> None:
        super().__post_init__()
        if 1 not in self.scales or not len(set(self.scales)) == len(self.scales) <= _MOST_SCALES:
            raise ValueError(
                f"scales must be up to {_MOST_SCALES} different numbers with 1 among them, got {self.scales[:9]}"
            )


@dataclass(frozen=True)
class ModelConfig(_Stored):
    """Everything that a weights file says about its network.

    Args:
        name: registry name or the user's own.
        skeleton: keypoints, edges, flip pairs, sigmas.
        input_size: short side in input pixels at scale 1.
        backbone, head, decode: see their classes.
        mean, std: of RGB values in [0, 1]; the network's input is (value - mean) / std.
        architecture: "dekr" or "directpose"; ``head`` is of its kind.
        license: licence of the weights.
        training_data: what the weights were trained on, in words.
        metrics: numbers measured with this library, name to value.
        notes: free text for the model card.
        evaluation: the command that measured ``metrics``.
        evaluation_data: name of the data that it measured on.
        datasets: Hugging Face ids or names of the training data.
        published: numbers of others about these weights, name to value; never measured with this library.
        published_by: whose numbers they are.
        temporal: what it remembers of earlier frames of a video; None for networks that see photos one by one.
    """

    name: str = "dekr-w32-coco"
    skeleton: Skeleton = COCO_17
    input_size: int = 512
    backbone: Backbone = field(default_factory=BackboneConfig)
    head: Any = field(default_factory=HeadConfig)
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    architecture: str = "dekr"
    license: str = ""
    training_data: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    notes: str = ""
    evaluation: str = ""
    evaluation_data: str = ""
    datasets: tuple[str, ...] = ()
    published: Mapping[str, float] = field(default_factory=dict)
    published_by: str = ""
    temporal: TemporalConfig | None = None
    mean: Color3 = IMAGE_MEAN
    std: Color3 = IMAGE_STD

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.architecture not in _HEADS:
            known = ", ".join(map(repr, _HEADS))
            raise ValueError(
                f"unknown architecture {reprlib.repr(self.architecture)}; this version of dekrpose knows {known}"
            )
        if not isinstance(self.head, _HEADS[self.architecture]):
            raise ValueError(f"the head of {self.architecture} is no {type(self.head).__name__}")
        if min(self.std) <= 0:
            raise ValueError(f"mean and std must be numbers, std above 0, got {self.mean} and {self.std}")

    def without_numbers(self) -> ModelConfig:
        """A copy that claims no accuracy, for weights that are about to change."""
        return replace(self, metrics={}, evaluation="", evaluation_data="", published={}, published_by="")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``; missing keys keep their defaults, see ``HeadConfig.from_dict`` for others."""
        parts: dict[str, Any] = dict(_mapping(cls, values))
        head = _HEADS.get(str(parts.get("architecture", "dekr")), HeadConfig)
        parts.setdefault("head", {})
        for key, read in (
            ("skeleton", Skeleton.from_dict),
            ("backbone", _backbone_from_dict),
            ("head", head.from_dict),
            ("decode", DecodeConfig.from_dict),
        ):
            if key in parts:
                parts[key] = read(parts[key])
        if parts.get("temporal") is not None:
            parts["temporal"] = TemporalConfig.from_dict(parts["temporal"])
        return super().from_dict(parts)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What ``to_dict`` gave, as JSON.

        Raises:
            ValueError: it is no JSON, no configuration, or one that describes no network that can be built.
        """
        if len(text) > LONGEST_JSON:
            raise ValueError(f"it has {len(text):,} characters, and a configuration at most {LONGEST_JSON:,}")
        try:
            return cls.from_dict(json.loads(text))
        except RecursionError as error:
            raise ValueError("it is nested too deep") from error


_W48 = {"backbone": BackboneConfig(width=48), "head": HeadConfig(heatmap_channels=48), "input_size": 640}
_CROWDPOSE = {"skeleton": CROWDPOSE_14, "decode": DecodeConfig(nms_min_keypoints=7, other_scale_factor=0.8)}

_DIRECTPOSE: dict[str, Any] = {
    "architecture": "directpose", "decode": DecodeConfig(nms_threshold=0.6, multi_scale_nms_threshold=0.6),
}  # fmt: skip

ARCHITECTURES: dict[str, ModelConfig] = {
    "dekr-w32-coco": ModelConfig(name="dekr-w32-coco"),
    "dekr-w48-coco": ModelConfig(name="dekr-w48-coco", **_W48),  # type: ignore[arg-type]
    "dekr-w32-crowdpose": ModelConfig(name="dekr-w32-crowdpose", **_CROWDPOSE),  # type: ignore[arg-type]
    "dekr-w48-crowdpose": ModelConfig(name="dekr-w48-crowdpose", **_W48, **_CROWDPOSE),  # type: ignore[arg-type]
    "tiny-lite": ModelConfig(
        name="tiny-lite",
        input_size=192,
        backbone=EfficientNetLiteConfig(),
        head=HeadConfig(heatmap_channels=32, keypoint_channels=16, blocks=1),
    ),
    "tiny": ModelConfig(
        name="tiny",
        input_size=192,
        backbone=MobileNetConfig(),
        head=HeadConfig(heatmaps="separable", heatmap_channels=96, shared_offsets=96, keypoint_channels=16, blocks=1),
        decode=DecodeConfig(match_heatmap="weighted", scales=(1.0, 2.0), max_aspect=6.0),
    ),
    **{
        f"directpose-r{depth}": ModelConfig(
            name=f"directpose-r{depth}",
            input_size=800,
            backbone=ResNetConfig(depth),
            head=DirectPoseHeadConfig(),
            **_DIRECTPOSE,
        )
        for depth in (50, 101)
    },
    "directpose-tiny": ModelConfig(
        name="directpose-tiny",
        input_size=256,
        backbone=MobileNetConfig(),
        head=DirectPoseHeadConfig(channels=64, levels=3, class_depth=2, group_channels=16, heatmap_channels=64),
        **_DIRECTPOSE,
    ),
}
"""Network shapes by registry name."""
FORMER_NAMES = {"tiny-mobilenet": "tiny"}
"""Names that networks and models had while they were tried out."""


def with_head(config: ModelConfig, name: str, **changes: Any) -> ModelConfig:
    """A copy of a configuration under another name, with parts of its head changed (ablations)."""
    return replace(config, name=name, head=replace(config.head, **changes))
