"""Exporting a model to one file that ONNX Runtime, OpenVINO or plain torch run, and running it beside the network."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dekrpose.architectures.dekr.decode import pose_map
from dekrpose.architectures.dekr.network import DEKR
from dekrpose.config import OUTPUT_STRIDE
from dekrpose.engines import file
from dekrpose.engines.file import FORMATS, OUTPUTS, Differences, Exported, ExportedModel, Format, Offsets
from dekrpose.errors import DekrPoseError
from dekrpose.export.network import ExportedNetwork, Sampling
from dekrpose.export.poses import ExportedCenters, ExportedPoses, PoseOutputs
from dekrpose.export.writers import OPSET, write
from dekrpose.images import to_tensor

if TYPE_CHECKING:
    from dekrpose.hub.pretrained import Pretrained

FASTEST: dict[Format, Sampling] = {"onnx": "deform_conv", "openvino": "grid_sample", "pt2": "grid_sample"}
"""How each runtime reads the taps of adaptive convolutions fastest; docs/export.md has the measurement."""
MOST_PEOPLE = 64
"""Places of the smallest map, 8x8 heatmap pixels."""
LARGEST_SHIFT = 0.05
"""Input pixels by which a keypoint may differ."""
LARGEST_HEAT = 0.001
"""By which heatmaps and scores may differ."""
HALF_FACTOR = 10
"""How many times more weights that were rounded to float16 may differ."""
_SHAPES = ((1, 192, 256), (2, 128, 96))
_CANDIDATES = 100


def export(
    estimator: Pretrained,
    file_format: Format,
    path: str | Path,
    *,
    max_people: int = 30,
    half: bool = False,
    opset: int = OPSET,
    sampling: Sampling | None = None,
    offsets: Offsets = "map",
) -> Exported:
    """Write a model as ``PoseEstimator.export`` says.

    Raises:
        DekrPoseError: the written file answers differently from torch; nothing is left behind.
        ImportError: what writes or runs this format is missing.
        ValueError: an option is out of range, or the file's ending belongs to another format.
    """
    path = Path(path)
    if isinstance(estimator.model, ExportedModel):
        raise estimator.model.refuse("exported again")
    if estimator.config.temporal is not None:
        raise DekrPoseError(f"{estimator.config.name} remembers frames, which files cannot yet; export an image model")
    if offsets not in get_args(Offsets):
        raise ValueError(f"offsets must be one of {', '.join(get_args(Offsets))}, got {offsets!r}")
    sampling = _checked(path, file_format, max_people, half, opset, sampling)
    network = ExportedNetwork(estimator.model, sampling, offsets)
    poses = PoseOutputs(estimator.config, estimator.rescoring_net, max_people)
    rescoring = None if estimator.rescoring_net is None else estimator.rescoring_net.state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
    try:
        staging.mkdir()
        whole = ExportedPoses if offsets == "map" else ExportedCenters
        module = whole(network, poses).eval().requires_grad_(False)
        texts = file.describe(estimator.config, rescoring, offsets)
        write(module, file_format, staging / path.name, texts, opset=opset, half=half)
        differences = compare(estimator.model, poses, staging / path.name, half=half)
        names = sorted((item.name for item in staging.iterdir()), key=path.name.__eq__)  # the main file last
        for name in names:
            (staging / name).replace(path.parent / name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Exported(tuple(path.parent / name for name in reversed(names)), differences)


def _checked(
    path: Path, file_format: Format, max_people: int, half: bool, opset: int, sampling: Sampling | None
) -> Sampling:
    if file_format not in get_args(Format):
        raise ValueError(f"format must be one of {', '.join(get_args(Format))}, got {file_format!r}")
    ending = next(suffix for suffix, kind in FORMATS.items() if kind == file_format)
    if path.suffix.lower() != ending:
        raise ValueError(f"a file in the format {file_format} ends in {ending}, got {path.name!r}")
    if not 1 <= max_people <= MOST_PEOPLE:
        raise ValueError(f"max_people must be 1 to {MOST_PEOPLE}, got {max_people}")
    if half and file_format != "openvino":
        raise ValueError(f"half=True is for OpenVINO, got format {file_format}; leave it out")
    sampling = FASTEST[file_format] if sampling is None else sampling
    if sampling not in get_args(Sampling):
        raise ValueError(f"sampling must be one of {', '.join(get_args(Sampling))}, got {sampling!r}")
    if sampling == "deform_conv" and file_format != "onnx":
        raise ValueError(f"{file_format} has no operation deform_conv for all branches; take grid_sample")
    least = 19 if sampling == "deform_conv" else 18
    if file_format != "pt2" and opset < least:
        raise ValueError(f"opset must be at least {least} for {sampling}, got {opset}")
    return sampling


def compare(model: DEKR, poses: PoseOutputs, path: Path, *, half: bool) -> Differences:
    """Run a new file and torch on the same pictures; ``half``: the file's weights were rounded to float16.

    Raises:
        DekrPoseError: they differ by more than rounding; the message says how much.
        ImportError: what runs the file is missing.
    """
    runner, texts = file.open_exported(path, count=len(OUTPUTS["map"]))
    offsets = file.offsets_of(texts)
    found = [_differences(model, poses, runner(pictures), pictures, offsets) for pictures in map(_pictures, _SHAPES)]
    largest = Differences(*np.max(found, axis=0).tolist())
    factor = HALF_FACTOR if half else 1
    # not "larger than", which would let differences that are not a number pass
    fits = largest.keypoints <= factor * LARGEST_SHIFT and largest.heatmaps <= factor * LARGEST_HEAT
    if not (fits and largest.people <= LARGEST_SHIFT):
        raise DekrPoseError(
            f"{path.name} answered differently from torch, so it was not kept: keypoints by {largest.keypoints:.3g} "
            f"input pixels (at most {factor * LARGEST_SHIFT:g}), heatmaps by {largest.heatmaps:.3g} (at most "
            f"{factor * LARGEST_HEAT:g}), people by {largest.people:.3g} input pixels (at most {LARGEST_SHIFT:g})"
        )
    return largest


def _pictures(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """(B, 3, H, W) smooth coloured noise, with light and dark places as large as people."""
    batch, height, width = shape
    noise = torch.rand(batch, 3, height // 16, width // 16, generator=torch.Generator().manual_seed(0))
    smooth = nn.functional.interpolate(noise, size=(height, width), mode="bilinear")
    return (255 * smooth).to(torch.uint8).numpy()


@torch.inference_mode()
def _differences(
    model: DEKR, poses: PoseOutputs, answer: tuple[NDArray[np.float32], ...], pictures: NDArray[np.uint8], kind: Offsets
) -> tuple[float, float, float]:
    device = next(model.parameters()).device
    config = model.config
    images = to_tensor(pictures.transpose(0, 2, 3, 1), config.mean, config.std).to(device)
    heatmaps, offsets = (maps.cpu() for maps in model(images))
    own_heatmaps, own_offsets, *own_people = map(torch.from_numpy, answer)
    if kind == "map":
        likeliest = heatmaps[:, -1:].flatten(2).topk(min(_CANDIDATES, heatmaps[0, -1].numel())).indices
        shifts = (offsets - own_offsets).abs().flatten(2).gather(2, likeliest.expand(-1, offsets.shape[1], -1))
        keypoints, people = OUTPUT_STRIDE * float(shifts.max()), poses(own_heatmaps, own_offsets)
    else:
        keypoints = _candidates_apart(own_offsets, own_heatmaps[:, -1], offsets)
        people = poses.people(own_heatmaps, own_offsets[..., :2], own_offsets[:, :, 0, 2])
    return keypoints, float((heatmaps - own_heatmaps).abs().max()), _people_apart(people, own_people)


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


def _people_apart(expected: tuple[Tensor, Tensor, Tensor], people: list[Tensor]) -> float:
    """How far the farthest person is from the nearest in the other answer, input pixels."""
    apart = 0.0
    for poses, scores, own_poses, own_scores in zip(expected[0], expected[2], people[0], people[2], strict=True):
        kept, own_kept = poses[scores != 0], own_poses[own_scores != 0]
        if len(kept) != len(own_kept):
            return float("inf")
        if len(kept):
            distances = (kept[:, None] - own_kept).abs().amax((2, 3))
            apart = max(apart, float(distances.amin(1).max()), float(distances.amin(0).max()))
    return apart
