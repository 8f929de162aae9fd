"""The engine for CUDA devices: one transfer there, one back, and nothing in between waits for the CPU.

It has not run on a GPU yet. So it is used where it is asked for (``engine="cuda"``, or DEKRPOSE_ENGINE=cuda), and its
first answer is compared with the plain engine's. All of it runs on any device, so that it can be tested without a GPU.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dekrpose.architectures.contract import Found
from dekrpose.engines.base import Memory, Stages
from dekrpose.engines.cuda_graphs import Recordings
from dekrpose.engines.torch import TorchEngine
from dekrpose.images import Geometry, Pixels
from dekrpose.images.on_device import normalise, pack, resize_shipment
from dekrpose.options import Options

logger = logging.getLogger(__name__)

_LAYOUTS = 64
"""Kinds of input whose layouts are kept."""
TOLERANCE = 2.0
"""Input pixels that keypoints may lie apart from the plain engine's: devices round otherwise, wrong code is far off."""

GRAPHS = "DEKRPOSE_CUDA_GRAPHS"
"""Environment variable; "1" records and replays what the device is asked to do."""


class CUDAEngine(TorchEngine):
    """Photos are resized, looked at and decoded on the device; suppression alone takes place on the CPU.

    Args:
        model, device, dtype: see ``Engine``.
        recordings: of the calls; None: those of CUDA graphs.
    """

    name = "cuda"

    def __init__(
        self, model: nn.Module, device: torch.device, dtype: torch.dtype, recordings: Recordings | None = None
    ) -> None:
        super().__init__(model, device, dtype)
        self.recordings = Recordings() if recordings is None else recordings
        self._layouts: dict[object, Any] = {}
        self._trusted: bool | None = None  # None: not compared yet

    @torch.inference_mode()
    def find(
        self,
        photos: Sequence[Pixels],
        geometries: Sequence[Sequence[Geometry]],
        options: Options,
        memory: Memory | None = None,
    ) -> tuple[list[Found], dict[str, float]]:
        """As ``Engine.find``. A device works while the CPU goes on: "network" is the time until its answer is here."""
        if memory is not None or self._trusted is False:
            return super().find(photos, geometries, options, memory)
        if self._trusted:
            return self.find_on_device(photos, geometries, options)
        plain = super().find(photos, geometries, options)
        difference = self._difference(photos, geometries, options, plain[0])
        self._trusted = difference is None
        if difference is not None:
            logger.warning("the plain engine goes on in place of the CUDA engine, which %s", difference)
        return plain

    def _difference(
        self, photos: Sequence[Pixels], geometries: Sequence[Sequence[Geometry]], options: Options, plain: list[Found]
    ) -> str | None:
        """How this engine's answer differs from the plain one's, in words; None when it does not."""
        try:
            found = self.find_on_device(photos, geometries, options)[0]
        except Exception as error:  # whatever it is, the plain engine has an answer
            return f"failed: {type(error).__name__}: {error}"
        for own, other in zip(found, plain, strict=True):
            if own.keypoints.shape != other.keypoints.shape:
                return f"found {len(own.keypoints)} people instead of {len(other.keypoints)}"
            apart = (own.keypoints - other.keypoints).abs().amax() if len(own.keypoints) else torch.zeros(())
            if not float(apart) <= TOLERANCE:
                return f"has keypoints {float(apart):.1f} pixels away"
        return None

    @torch.inference_mode()
    def find_on_device(
        self, photos: Sequence[Pixels], geometries: Sequence[Sequence[Geometry]], options: Options
    ) -> tuple[list[Found], dict[str, float]]:
        """``find`` without memory and without comparing."""
        stages = Stages()
        with stages("resize"):
            shipment = pack(photos, geometries, pin=self.device.type == "cuda")
            inputs = resize_shipment(shipment.to(self.device))
        asked = (options.flip_test, options.scales, options.match is not None, options.max_centers)
        own = (self.model, *asked, shipment.input_sizes)

        def call(images: Sequence[Tensor]) -> Tensor:
            normalised = (normalise(image, self.config.mean, self.config.std) for image in images)
            seen = [self.maps(image, options.flip_test, self.model) for image in normalised]
            self._layouts[own], values = self.architecture.packed(seen, options)
            return values

        with stages("network"), single_precision(self.device):
            values = _to_host(self.recordings(own, call, inputs) if graphs_wanted(self.device) else call(inputs))
        with stages("decode"):
            layout = self._layouts[own]
            found = [self.architecture.unpacked(row, layout, self.config, options) for row in values]
        while len(self._layouts) > _LAYOUTS:
            self._layouts.pop(next(iter(self._layouts)))
        return found, stages.milliseconds


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
