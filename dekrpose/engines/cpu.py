"""The engine for CPUs: networks in the form that suits them, and no more of an answer than poses are read from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dekrpose.architectures.contract import Found
from dekrpose.engines.base import Memory, Stages
from dekrpose.engines.torch import TorchEngine
from dekrpose.images import Geometry, Pixels, network_input
from dekrpose.options import Options


class CPUEngine(TorchEngine):
    """At one scale and without its mirror image, a photo's candidates come without whole maps."""

    name = "cpu"

    def __init__(self, model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(model, device, dtype)
        self.architecture.hasten(model)

    @torch.inference_mode()
    def find(
        self,
        photos: Sequence[Pixels],
        geometries: Sequence[Sequence[Geometry]],
        options: Options,
        memory: Memory | None = None,
    ) -> tuple[list[Found], dict[str, float]]:
        one_look = memory is None and options.scales == (1.0,) and not options.flip_test
        if not one_look or not self.gives_candidates:
            return super().find(photos, geometries, options, memory)
        stages = Stages()
        with stages("resize"):
            inputs = network_input(photos, [scales[0] for scales in geometries], self.config.mean, self.config.std)
        with stages("network"), self.autocast():
            candidates = self.candidates(inputs, options, stages)
        stages.milliseconds["network"] -= stages.milliseconds.get("decode", 0.0)
        with stages("decode"):
            found = self.architecture.chosen(candidates, self.config, options)
        return found, stages.milliseconds

    @property
    def gives_candidates(self) -> bool:
        """Whether ``candidates`` can be asked."""
        return self.architecture.gives_candidates(self.model)

    def candidates(self, inputs: Tensor, options: Options, stages: Stages) -> Any:
        """As ``Architecture.candidates``."""
        return self.architecture.candidates(self.model, inputs, options, stages)
