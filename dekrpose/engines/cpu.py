"""The engine for CPUs: networks in the form that suits them, and no more of an answer than poses are read from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dekrpose.engines.base import Answer, Looks, Memory, Photos, Stages
from dekrpose.engines.torch import TorchEngine
from dekrpose.images import Geometry
from dekrpose.options import Options


class CPUEngine(TorchEngine):
    """Without its mirror image, a photo's candidates come without whole maps."""

    name = "cpu"

    def __init__(self, model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(model, device, dtype)
        self.architecture.hasten(model)

    @torch.inference_mode()
    def find(self, photos: Photos, geometries: Looks, options: Options, memory: Memory | None = None) -> Answer:
        if memory is not None or options.flip_test or not self.gives_candidates:
            return super().find(photos, geometries, options, memory)
        stages, looks = Stages(), []
        for own in zip(*geometries, strict=True):
            with stages("resize"):
                inputs = self.input(photos, own)
            with stages("network"), self.autocast():
                looks.append(self.candidates(inputs, own[0], options, stages))
        stages.milliseconds["network"] -= stages.milliseconds.get("decode", 0.0)
        with stages("decode"):
            found = self.architecture.chosen(looks, self.config, options)
        return found, stages.milliseconds

    @property
    def gives_candidates(self) -> bool:
        """Whether ``candidates`` can be asked."""
        return self.architecture.gives_candidates(self.model)

    def candidates(self, inputs: Tensor, geometry: Geometry, options: Options, stages: Stages) -> Any:
        """As ``Architecture.candidates``."""
        return self.architecture.candidates(self.model, inputs, geometry, options, stages)
