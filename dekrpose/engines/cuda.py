"""Photos to poses on a CUDA device: one transfer there, one back, and nothing in between waits for the CPU.

Everything here runs on any device, so that it can be tested on one that is at hand; the estimator uses it on CUDA.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from dekrpose.architectures.dekr.candidates import Layout, answer, finish, layout_of
from dekrpose.config import ModelConfig
from dekrpose.engines.cuda_graphs import Recordings
from dekrpose.images import Geometry, Pixels
from dekrpose.images.on_device import normalise, pack, resize_shipment
from dekrpose.options import Options

_LAYOUTS = 64
"""Kinds of input whose layouts are kept."""

Maps = Callable[[Tensor, bool], tuple[Tensor, Tensor]]
"""Normalised (B, 3, H, W) and whether to average with the mirrored image -> heatmaps and positions."""

GRAPHS = "DEKRPOSE_CUDA_GRAPHS"
"""Environment variable; "1" records and replays what the device is asked to do."""


class DevicePath:
    """What an estimator does between reading photos and their poses in input pixels.

    Args:
        device: where.
        recordings: of the calls; None: those of CUDA graphs.
    """

    def __init__(self, device: torch.device, recordings: Recordings | None = None) -> None:
        self.device = device
        self.recordings = Recordings() if recordings is None else recordings
        self._layouts: dict[object, Layout] = {}

    @torch.inference_mode()
    def run(
        self,
        photos: Sequence[Pixels],
        geometries: Sequence[Sequence[Geometry]],
        maps: Maps,
        options: Options,
        model: ModelConfig,
        *,
        max_centers: int,
        key: object = None,
    ) -> tuple[list[tuple[Tensor, Tensor, Tensor]], dict[str, float]]:
        """The poses of photos of equal input size.

        Args:
            photos: (H, W, 3) uint8 each, of any sizes.
            geometries: of each photo, one per scale of the options.
            maps: the network.
            options: what was asked for.
            model: what its input is like, and its thresholds.
            max_centers: centers that are looked at per scale.
            key: changes when ``maps`` becomes another function, for recordings.

        Returns:
            Per photo poses (N, K, 2) in input pixels of scale 1, keypoint scores (N, K) and scores (N,) on the CPU, as
            from ``decode``; and milliseconds by stage. A device works while the CPU goes on, so "network" is the time
            until its answer is here.
        """
        start = time.perf_counter()
        shipment = pack(photos, geometries, pin=self.device.type == "cuda")
        inputs = resize_shipment(shipment.to(self.device))
        sent = time.perf_counter()
        matching = options.match is not None
        kind = (key, options.flip_test, options.scales, matching, max_centers, shipment.input_sizes)

        def call(images: Sequence[Tensor]) -> Tensor:
            found = [maps(normalise(image, model.mean, model.std), options.flip_test) for image in images]
            heatmaps = [own for own, _ in found]
            layout = layout_of(heatmaps, options.scales, max_centers=max_centers, with_heatmaps=matching)
            self._layouts[kind] = layout
            return answer(found, layout)

        with single_precision(self.device):
            values = _to_host(self.recordings(kind, call, inputs) if graphs_wanted(self.device) else call(inputs))
        answered = time.perf_counter()
        poses = [
            finish(
                own,
                self._layouts[kind],
                max_people=options.max_people,
                nms_threshold=options.nms_threshold,
                nms_min_keypoints=model.decode.nms_min_keypoints,
                other_scale_factor=model.decode.other_scale_factor,
                match=options.match,
            )
            for own in values
        ]
        while len(self._layouts) > _LAYOUTS:
            self._layouts.pop(next(iter(self._layouts)))
        moments = (start, sent, answered, time.perf_counter())
        stages = zip(("resize", "network", "decode"), moments, moments[1:], strict=False)
        return poses, {stage: 1000 * (end - begin) for stage, begin, end in stages}


@contextmanager
def single_precision(device: torch.device) -> Iterator[None]:
    """Within this block convolutions of float32 numbers are float32.

    Otherwise cuDNN rounds them to the 10 bits of TF32, which moves the positions where the offset head looks.
    """
    switches = torch.backends.cudnn
    try:
        before = switches.allow_tf32 if device.type == "cuda" else False
    except RuntimeError:  # somebody chose by operator, with PyTorch's newer switches: that stays
        before = False
    if before:
        switches.allow_tf32 = False
    try:
        yield
    finally:
        if before:
            switches.allow_tf32 = True


def graphs_wanted(device: torch.device) -> bool:
    """Whether calls shall be recorded: on CUDA, where DEKRPOSE_CUDA_GRAPHS is 1."""
    return device.type == "cuda" and os.environ.get(GRAPHS) == "1"


def _to_host(values: Tensor) -> Tensor:
    """One transfer into memory that the device writes by itself, and the only time that the CPU waits."""
    if values.device.type != "cuda":
        return values.cpu()
    place = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    place.copy_(values, non_blocking=True)
    torch.cuda.current_stream(values.device).synchronize()
    return place
