"""The engine for CUDA devices: photos are resized there, and offsets come back from the centers of people alone.

It has not run on a GPU yet. So it is used where it is asked for (``engine="cuda"``, or DEKRPOSE_ENGINE=cuda), and its
first answer is compared with the plain engine's. All of it runs on any device, so that it can be tested without a GPU.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dekrpose.architectures.contract import Found
from dekrpose.engines.base import Answer, Looks, Memory, Photos, Stages
from dekrpose.engines.cpu import CPUEngine
from dekrpose.engines.torch import TorchEngine, single_precision
from dekrpose.errors import counted
from dekrpose.images import Geometry
from dekrpose.images.on_device import network_input_on
from dekrpose.options import Options

logger = logging.getLogger(__name__)

TOLERANCE = 2.0
"""Input pixels that keypoints may lie apart from the plain engine's: devices round otherwise, wrong code is far off."""


class CUDAEngine(CPUEngine):
    """Finds candidates as on CPUs, but on the device, which resizes photos, too; the rest takes place on the CPU.

    Attributes:
        difference: how the first answer with somebody in it differed from the plain engine's, in words, "" when it did
            not; None before.
    """

    name = "cuda"

    def __init__(self, model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        TorchEngine.__init__(self, model, device, dtype)  # what hastens a network is for CPUs
        self.difference: str | None = None

    def input(self, photos: Photos, geometries: Sequence[Geometry]) -> Tensor:
        return network_input_on(self.device, photos, geometries, self.config.mean, self.config.std)

    def candidates(self, inputs: Tensor, geometry: Geometry, options: Options, stages: Stages) -> Any:
        with single_precision(self.device):
            return super().candidates(inputs, geometry, options, stages)

    def find(self, photos: Photos, geometries: Looks, options: Options, memory: Memory | None = None) -> Answer:
        """As ``Engine.find``. A device works while the CPU goes on: "network" is the time until its answer is here."""
        if self.difference == "":
            return self.find_on_device(photos, geometries, options, memory)
        plain = TorchEngine(self.model, self.device, self.dtype).find(photos, geometries, options, memory)
        if self.difference is None and memory is None:
            difference = self._compare(photos, geometries, options, plain[0])
            if difference or any(len(own.scores) for own in plain[0]):  # that both see nobody says little
                self.difference = difference
            if self.difference:
                logger.warning("the plain engine goes on in place of the CUDA engine, which %s", self.difference)
        return plain

    def find_on_device(
        self, photos: Photos, geometries: Looks, options: Options, memory: Memory | None = None
    ) -> Answer:
        """``find`` without comparing."""
        return super().find(photos, geometries, options, memory)

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
