"""The engine for CPUs: folded layers in the order that suits them, and offsets at people's centers alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dekrpose.architectures.dekr.at_centers import CenterPicker, takes_pick
from dekrpose.architectures.dekr.candidates import Candidates
from dekrpose.architectures.dekr.decode import choose_poses
from dekrpose.architectures.dekr.fast import FastPath
from dekrpose.architectures.dekr.network import DEKR
from dekrpose.config import OUTPUT_STRIDE
from dekrpose.engines.base import Found, Memory, Stages
from dekrpose.engines.torch import TorchEngine
from dekrpose.images import Geometry, Pixels
from dekrpose.options import Options


class CPUEngine(TorchEngine):
    """At one scale and without its mirror image, a photo's centers are found before its offsets."""

    name = "cpu"

    def __init__(self, model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(model, device, dtype)
        if isinstance(model, DEKR):
            model.fast_path = FastPath()  # has weights of its own, in the order that suits CPUs

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
            inputs = self.inputs(photos, [scales[0] for scales in geometries])
        with stages("network"), self.autocast():
            heatmaps, candidates = self.candidates(inputs, options.max_centers, stages)
        stages.milliseconds["network"] -= stages.milliseconds.get("decode", 0.0)
        with stages("decode"):
            found = [self._choose(own, candidates.of(index), options) for index, own in enumerate(heatmaps.float())]
        return found, stages.milliseconds

    @property
    def gives_candidates(self) -> bool:
        """Whether ``candidates`` can be asked."""
        return takes_pick(self.model)

    def candidates(self, inputs: Tensor, max_centers: int, stages: Stages) -> tuple[Tensor, Candidates]:
        """Heatmaps (B, K+1, h, w), and who can be in each photo; finding centers counts as "decode"."""
        picker = CenterPicker(max_centers)

        def pick(heatmaps: Tensor) -> Tensor:
            with stages("decode"):
                return picker(heatmaps)

        heatmaps, offsets = self.model(inputs, pick=pick)
        return heatmaps, picker.candidates(offsets)

    def _choose(self, heatmaps: Tensor, candidates: Tensor, options: Options) -> Found:
        return Found(
            *choose_poses(
                candidates,
                [heatmaps[:-1]],
                (OUTPUT_STRIDE * heatmaps.shape[1], OUTPUT_STRIDE * heatmaps.shape[2]),
                max_people=options.max_people,
                nms_threshold=options.nms_threshold,
                nms_min_keypoints=self.config.decode.nms_min_keypoints,
                match=options.match,
            )
        )
