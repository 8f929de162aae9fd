"""The engine for CUDA devices: one transfer there, one back, and nothing in between waits for the CPU.

It has not run on a GPU yet. So it is used where it is asked for (``engine="cuda"``, or DEKRPOSE_ENGINE=cuda), and its
first answer is compared with the plain engine's. All of it runs on any device, so that it can be tested without a GPU.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from dekrpose.architectures.contract import Found
from dekrpose.engines.base import Answer, Looks, Memory, Photos, Stages
from dekrpose.engines.torch import TorchEngine
from dekrpose.errors import counted
from dekrpose.images.on_device import normalise, pack, resize_shipment
from dekrpose.options import Options

logger = logging.getLogger(__name__)

TOLERANCE = 2.0
"""Input pixels that keypoints may lie apart from the plain engine's: devices round otherwise, wrong code is far off."""


class CUDAEngine(TorchEngine):
    """Photos are resized, looked at and decoded on the device; suppression alone takes place on the CPU.

    Attributes:
        difference: how the first answer with somebody in it differed from the plain engine's, in words, "" when it did
            not; None before.
    """

    name = "cuda"

    def __init__(self, model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(model, device, dtype)
        self.difference: str | None = None

    @torch.inference_mode()
    def find(self, photos: Photos, geometries: Looks, options: Options, memory: Memory | None = None) -> Answer:
        """As ``Engine.find``. A device works while the CPU goes on: "network" is the time until its answer is here."""
        if self.difference == "" and memory is None:
            return self.find_on_device(photos, geometries, options)
        plain = super().find(photos, geometries, options, memory)
        if self.difference is None and memory is None:
            difference = self._compare(photos, geometries, options, plain[0])
            if difference or any(len(own.scores) for own in plain[0]):  # that both see nobody says little
                self.difference = difference
            if self.difference:
                logger.warning("the plain engine goes on in place of the CUDA engine, which %s", self.difference)
        return plain

    def _compare(self, photos: Photos, geometries: Looks, options: Options, plain: list[Found]) -> str:
        """See ``difference``."""
        try:
            found = self.find_on_device(photos, geometries, options)[0]
        except Exception as error:  # whatever it is, the plain engine has an answer
            return f"failed: {type(error).__name__}: {error}"
        for own, other in zip(found, plain, strict=True):
            if own.keypoints.shape != other.keypoints.shape:
                return f"found {counted(len(own.keypoints), 'person', 'people')} instead of {len(other.keypoints)}"
            apart = (own.keypoints - other.keypoints).abs().amax() if len(own.keypoints) else torch.zeros(())
            if not float(apart) <= TOLERANCE:
                return f"has keypoints {float(apart):.1f} pixels away"
        return ""

    @torch.inference_mode()
    def find_on_device(self, photos: Photos, geometries: Looks, options: Options) -> Answer:
        """``find`` without memory and without comparing."""
        stages = Stages()
        with stages("resize"):
            shipment = pack(photos, geometries, pin=self.device.type == "cuda")
            inputs = resize_shipment(shipment.to(self.device))
        with stages("network"):
            normalised = (normalise(image, self.config.mean, self.config.std) for image in inputs)
            seen = [self.maps(image, options.flip_test, self.model) for image in normalised]
            layout, packed = self.architecture.packed(seen, options)
            values = _to_host(packed)
        with stages("decode"):
            found = [self.architecture.unpacked(row, layout, self.config, options) for row in values]
        return found, stages.milliseconds


def _to_host(values: Tensor) -> Tensor:
    """One transfer into memory that the device writes by itself, and the only time that the CPU waits."""
    if values.device.type != "cuda":
        return values.cpu()
    place = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    place.copy_(values, non_blocking=True)
    torch.cuda.current_stream(values.device).synchronize()
    return place
