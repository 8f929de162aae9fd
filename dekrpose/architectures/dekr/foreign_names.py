"""Tensor names: the official code's and mmpose's, translated to ours, and what names and shapes reveal of a file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from dekrpose.architectures.contract import Shapes
from dekrpose.config import ARCHITECTURES, BackboneConfig, HeadConfig, ModelConfig
from dekrpose.errors import CheckpointError
from dekrpose.skeletons import COCO_17, CROWDPOSE_14, Skeleton

_GROUP = "offset_head.groups.0"
_OFFICIAL = {
    "transition_heatmap.": "heatmap_head.transition.",
    "head_heatmap.0.0.": "heatmap_head.block.",
    "head_heatmap.1.": "heatmap_head.final.",
    "transition_offset.": "offset_head.transition.",
}
_OFFICIAL_BACKBONE = re.compile(r"(?:conv[12]|bn[12]|layer1|transition[1-3]|stage[2-4])\.")
_OFFICIAL_BRANCH = re.compile(r"offset_feature_layers\.(\d+)\.(\d+)\.(\w+)\.(\w+)|offset_final_layer\.(\d+)\.(\w+)")
_OFFICIAL_PARTS = {"transform_matrix_conv": "conv.transform", "adapt_conv": "conv", "bn": "bn"}
_MMPOSE = {
    "backbone.": "backbone.",
    "head.heatmap_conv_layers.0.conv.": "heatmap_head.transition.0.",
    "head.heatmap_conv_layers.0.bn.": "heatmap_head.transition.1.",
    "head.heatmap_conv_layers.1.": "heatmap_head.block.",
    "head.heatmap_conv_layers.2.": "heatmap_head.final.",
    "head.displacement_conv_layers.0.conv.": "offset_head.transition.0.",
    "head.displacement_conv_layers.0.bn.": "offset_head.transition.1.",
    "head.displacement_conv_layers.1.transform_matrix_conv.": f"{_GROUP}.blocks.0.conv.transform.",
    "head.displacement_conv_layers.1.adapt_conv.": f"{_GROUP}.blocks.0.conv.",
    "head.displacement_conv_layers.1.norm.": f"{_GROUP}.blocks.0.bn.",
    "head.displacement_conv_layers.2.transform_matrix_conv.": f"{_GROUP}.blocks.1.conv.transform.",
    "head.displacement_conv_layers.2.adapt_conv.": f"{_GROUP}.blocks.1.conv.",
    "head.displacement_conv_layers.2.norm.": f"{_GROUP}.blocks.1.bn.",
    "head.displacement_conv_layers.3.": f"{_GROUP}.final.",
}
_NOT_WEIGHTS = re.compile(r".*\.regular_matrix$|data_preprocessor\.")
_SCORING_NET = re.compile(r"(?:.*\.)?(l[123]\.(?:weight|bias))$")
# A file may claim anything; beyond these the comparison with the network reports what does not fit.
_MOST_KEYPOINTS, _MOST_CHANNELS, _MOST_BLOCKS = 512, 4096, 16
_IDENTITY = (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)
# mmpose's rows are (a b t_y; c d t_x), ours a b c d t_y t_x
_ROWS_FROM_MMPOSE = (0, 1, 3, 4, 2, 5)


def split_scoring_net(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Part a file's network tensors from its scoring net's, which get the names l1.weight ... l3.bias."""
    network: dict[str, Tensor] = {}
    scoring: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        match = _SCORING_NET.match(name)
        if match:
            scoring[match.group(1)] = tensor
        elif not _NOT_WEIGHTS.match(name):
            network[name] = tensor
    return network, scoring


def detect_format(names: Iterable[str]) -> str | None:
    """ "dekrpose", "official", "mmpose-1.x", "mmpose-0.x" or "super-gradients"; None when it is no DEKR network.

    mmpose's names decide, not the version in the metadata: files saved again often lost it, and 0.x and 1.x differ
    in their names wherever they differ in their values.
    """
    joined = "\n" + "\n".join(names)
    for mark, name in (
        ("\noffset_head.groups.", "dekrpose"),
        ("head.displacement_conv_layers.", "mmpose-1.x"),
        ("head.offset_conv_layers.", "mmpose-0.x"),
        ("head.heatmap_conv_layers.", "mmpose-1.x"),
        ("\noffset_feature_layers.0.0.conv1.", "super-gradients"),
        ("\noffset_feature_layers.", "official"),
        ("\nhead_heatmap.1.", "official"),
        ("\nheatmap_head.final.", "dekrpose"),
    ):
        if mark in joined:
            return name
    return None


def describe(shapes: Shapes) -> str:
    """A guess, for messages, at what some tensors belong to."""
    names = [*shapes]
    joined = "\n" + "\n".join(names)
    known = {
        "dekrpose": "a DEKR network of dekrpose", "official": "an official DEKR checkpoint",
        "mmpose-1.x": "an mmpose 1.x DEKR checkpoint", "mmpose-0.x": "an mmpose 0.x DEKR checkpoint",
        "super-gradients": "a super-gradients DEKR checkpoint, whose plain dilated blocks are not supported",
    }.get(detect_format(names) or "")  # fmt: skip
    if known:
        heatmaps, offsets = _keypoint_counts(shapes_by_our_name(shapes))
        if heatmaps and offsets and heatmaps != offsets:
            known += f" whose heatmap head has {heatmaps} keypoints and whose offset head has {offsets}"
        return known
    hrnet = "stage4.0." in joined
    for mark, kind in (
        (hrnet and "final_layers.0." in joined, "a HigherHRNet, which groups keypoints by tags"),
        (hrnet and "final_layer." in joined, "a top-down HRNet, which needs one crop per person"),
        (hrnet and ("incre_modules." in joined or "classifier." in joined), "an HRNet classifier (ImageNet)"),
        (hrnet, "an HRNet backbone without DEKR's heads"),
        ("layer4.0.conv1." in joined and "\nfc." in joined, "a ResNet classifier (torchvision)"),
        (".attn.qkv." in joined, "a vision transformer"),
    ):
        if mark:
            return kind
    return f"an unknown network of {len(names)} tensors" if names else "an empty state dict"


def shapes_by_our_name(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Shapes under our names as far as they translate; a stack of official branches has its K-fold length."""
    ours: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        branch = _OFFICIAL_BRANCH.match(name)
        if branch:
            our_name = _official_branch_name(branch)
            before = ours.get(our_name)
            ours[our_name] = (before[0] + shape[0], *shape[1:]) if before and shape else shape
        else:
            ours[_official_name(name) or _mmpose_name(name) or name] = shape
    return ours


def _keypoint_counts(shapes: Shapes) -> tuple[int, int]:
    """Keypoints of the heatmap head and of the offset head; 0 where a head is missing."""
    heatmaps = shapes.get("heatmap_head.final.weight", (1,))[0] - 1
    return heatmaps, shapes.get(f"{_GROUP}.final.weight", (0,))[0] // 2


def config_from_shapes(shapes: Shapes) -> ModelConfig:
    """The configuration of a published DEKR network, read from shapes under our names.

    17 keypoints are taken for COCO's and 14 for CrowdPose's; others get a skeleton without names and edges.
    What a half file lacks is taken from DEKR-W32, so that a comparison can name it.
    """
    keypoints = min(next((count for count in _keypoint_counts(shapes) if count > 0), 17), _MOST_KEYPOINTS)

    def size(name: str, axis: int, default: int) -> int:
        shape = shapes.get(name, ())
        return min(max(shape[axis], 1), _MOST_CHANNELS) if axis < len(shape) else default

    def count(pattern: str, default: int) -> int:
        found = [int(match.group(1)) + 1 for name in shapes if (match := re.match(pattern, name))]
        return min(max(found, default=default), _MOST_BLOCKS)

    plain = BackboneConfig()
    width = size("backbone.stage2.0.branches.0.0.conv1.weight", 0, plain.width)
    modules = [count(rf"backbone\.stage{stage}\.(\d+)\.", plain.modules[stage - 2]) for stage in (2, 3, 4)]
    backbone = BackboneConfig(
        width=width,
        stem_channels=size("backbone.conv1.weight", 0, plain.stem_channels),
        layer1_channels=size("backbone.layer1.0.conv1.weight", 0, plain.layer1_channels),
        layer1_blocks=count(r"backbone\.layer1\.(\d+)\.", plain.layer1_blocks),
        modules=(modules[0], modules[1], modules[2]),
        blocks=count(r"backbone\.stage2\.0\.branches\.0\.(\d+)\.", plain.blocks),
    )
    head = HeadConfig(
        heatmap_channels=size("heatmap_head.final.weight", 1, width),
        keypoint_channels=size(f"{_GROUP}.final.weight", 1, HeadConfig().keypoint_channels),
        blocks=count(re.escape(f"{_GROUP}.blocks.") + r"(\d+)\.", HeadConfig().blocks),
    )
    base = ARCHITECTURES["dekr-w32-crowdpose" if keypoints == 14 else "dekr-w32-coco"]
    data = {17: "coco", 14: "crowdpose"}.get(keypoints, f"{keypoints}-keypoints")
    decode = replace(base.decode, nms_min_keypoints=keypoints // 2)  # 8 of 17 and 7 of 14, as published
    return replace(
        base, name=f"dekr-w{width}-{data}", skeleton=_skeleton(keypoints), backbone=backbone, head=head, decode=decode,
        input_size=640 if width == 48 else 512,
    )  # fmt: skip


def _skeleton(keypoints: int) -> Skeleton:
    for known in (COCO_17, CROWDPOSE_14):
        if len(known) == keypoints:
            return known
    names = tuple(f"keypoint_{index}" for index in range(keypoints))
    sigma = sum(COCO_17.sigmas) / len(COCO_17)
    return Skeleton(f"{keypoints}-keypoints", names, edges=(), flip_pairs=(), sigmas=(sigma,) * keypoints)


def _official_name(name: str) -> str | None:
    """Our name of an official tensor outside the branches."""
    if _OFFICIAL_BACKBONE.match(name):
        return f"backbone.{name}"
    return next((ours + name[len(theirs) :] for theirs, ours in _OFFICIAL.items() if name.startswith(theirs)), None)


def _official_branch_name(match: re.Match[str]) -> str:
    _, block, part, leaf, _, final_leaf = match.groups()
    if final_leaf:
        return f"{_GROUP}.final.{final_leaf}"
    part = "transform_matrix_conv" if part == "translation_conv" else part
    return f"{_GROUP}.blocks.{block}.{_OFFICIAL_PARTS.get(part, part)}.{leaf}"


def official_to_ours(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Official names -> ours: the K branches become one stack, in keypoint order. Values are untouched.

    Raises:
        CheckpointError: a branch lacks a tensor, or a name is not official.
    """
    keypoints = sum(re.fullmatch(r"offset_final_layer\.\d+\.bias", name) is not None for name in state_dict)
    ours: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        if _NOT_WEIGHTS.match(name):
            continue
        branch = _OFFICIAL_BRANCH.fullmatch(name)
        our_name = _official_branch_name(branch) if branch else _official_name(name)
        if our_name is None:
            raise CheckpointError(f"{name} is not a name of the official DEKR code")
        if branch is None:
            ours[our_name] = tensor
        elif our_name not in ours:
            ours[our_name] = _stack_branches(state_dict, name, keypoints)
    return ours


def _stack_branches(state_dict: Mapping[str, Tensor], name: str, keypoints: int) -> Tensor:
    layer, _, rest = name.split(".", 2)
    names = [f"{layer}.{keypoint}.{rest}" for keypoint in range(keypoints)]
    if name.endswith("num_batches_tracked"):
        return state_dict[names[0]]
    if "translation_conv" in name or "transform_matrix_conv" in name:
        names = [
            re.sub("translation_conv|transform_matrix_conv", part, branch)
            for branch in names
            for part in ("transform_matrix_conv", "translation_conv")
        ]
    missing = [branch for branch in names if branch not in state_dict]
    if missing:
        raise CheckpointError(f"{len(missing)} branch tensors are missing (first: {missing[0]})")
    return torch.cat([state_dict[branch] for branch in names])


def ours_to_official(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of ``official_to_ours``, regular grids included; for one branch per keypoint.

    Raises:
        CheckpointError: the network has no official form (an ablation's head).
    """
    if f"{_GROUP}.final.bias" not in state_dict or any(name.startswith("offset_head.groups.1.") for name in state_dict):
        raise CheckpointError("only a network with one branch per keypoint has official names")
    keypoints = len(state_dict[f"{_GROUP}.final.bias"]) // 2
    official: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        if name.startswith("backbone."):
            official[name.removeprefix("backbone.")] = tensor
        elif name.startswith(_GROUP):
            official.update(_split_branches(name, tensor, keypoints))
        else:
            theirs, ours = next(pair for pair in _OFFICIAL.items() if name.startswith(pair[1]))
            official[theirs + name[len(ours) :]] = tensor
    return official


def _split_branches(name: str, tensor: Tensor, keypoints: int) -> dict[str, Tensor]:
    leaf = name.rsplit(".", 1)[1]
    parts = [tensor] * keypoints if tensor.ndim == 0 else list(tensor.chunk(keypoints))
    if name.startswith(f"{_GROUP}.final."):
        return {f"offset_final_layer.{k}.{leaf}": part for k, part in enumerate(parts)}
    block = name.removeprefix(f"{_GROUP}.blocks.").split(".", 1)[0]
    layers = [f"offset_feature_layers.{k}.{block}" for k in range(keypoints)]
    if ".bn." in name:
        return {f"{layer}.bn.{leaf}": part for layer, part in zip(layers, parts, strict=True)}
    if ".transform." not in name:
        return {f"{layer}.adapt_conv.{leaf}": part for layer, part in zip(layers, parts, strict=True)}
    split: dict[str, Tensor] = {}
    step = torch.tensor([-1.0, 0.0, 1.0])
    for layer, part in zip(layers, parts, strict=True):
        split[f"{layer}.transform_matrix_conv.{leaf}"] = part[:4]
        split[f"{layer}.translation_conv.{leaf}"] = part[4:]
        split[f"{layer}.regular_matrix"] = torch.stack([step.repeat_interleave(3), step.repeat(3)])
    return split


def _mmpose_name(name: str) -> str | None:
    """Our name of an mmpose tensor, 0.x or 1.x."""
    name = re.sub(r"^keypoint_head\.", "head.", name).replace(
        "head.offset_conv_layers.", "head.displacement_conv_layers."
    )
    return next((ours + name[len(theirs) :] for theirs, ours in _MMPOSE.items() if name.startswith(theirs)), None)


def mmpose_to_ours(state_dict: Mapping[str, Tensor], version: Literal["0.x", "1.x"]) -> dict[str, Tensor]:
    """mmpose names and conventions -> ours.

    mmpose applies its affine map without subtracting the regular grid, so its bias lacks the identity. 1.x stores
    keypoint - pixel, the official sign reversed; 0.x keeps the center in the first heatmap channel.

    Raises:
        CheckpointError: a name is not mmpose's.
    """
    ours: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        if _NOT_WEIGHTS.match(name):
            continue
        our_name = _mmpose_name(name)
        if our_name is None:
            raise CheckpointError(f"{name} is not a name of mmpose {version}'s DEKR")
        if ".transform." in our_name:
            branches = tensor.reshape(-1, 6, *tensor.shape[1:])[:, list(_ROWS_FROM_MMPOSE)]
            if our_name.endswith(".bias"):
                branches = (branches.float() + torch.tensor(_IDENTITY)).to(tensor.dtype)
            tensor = branches.flatten(0, 1)
        elif our_name.startswith(f"{_GROUP}.final.") and version == "1.x":
            tensor = -tensor
        elif our_name.startswith("heatmap_head.final.") and version == "0.x":
            tensor = torch.cat([tensor[1:], tensor[:1]])
        ours[our_name] = tensor
    return ours


def config_of(shapes: Shapes) -> ModelConfig:
    """See ``config_from_shapes``; shapes are by the file's names."""
    return config_from_shapes(shapes_by_our_name(shapes))


def to_ours(tensors: Mapping[str, Tensor], file_format: str) -> dict[str, Tensor]:
    """Tensors of any of the formats by our names."""
    if file_format == "official":
        return official_to_ours(tensors)
    if file_format.startswith("mmpose"):
        return mmpose_to_ours(tensors, "0.x" if file_format == "mmpose-0.x" else "1.x")
    return dict(tensors)


def shapes_in_file(shapes: Shapes, file_format: str, names: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Expected shapes, given under our names, as a file of another format would call them."""
    if file_format == "official":
        empty = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        official = {name: tuple(tensor.shape) for name, tensor in ours_to_official(empty).items()}
        return {name: shape for name, shape in official.items() if not _NOT_WEIGHTS.match(name)}
    if not file_format.startswith("mmpose"):
        return dict(shapes)
    head = "keypoint_head." if any(name.startswith("keypoint_head.") for name in names) else "head."
    layers = "offset_conv_layers." if file_format == "mmpose-0.x" else "displacement_conv_layers."
    theirs: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        # longest first: "blocks.0.conv." also starts "blocks.0.conv.transform."
        for their_name, ours in sorted(_MMPOSE.items(), key=lambda pair: -len(pair[1])):
            if name.startswith(ours):
                renamed = (their_name + name[len(ours) :]).replace("displacement_conv_layers.", layers)
                theirs[re.sub(r"^head\.", head, renamed)] = shape
                break
    return theirs
