"""The plain engine: the network as it is trained, on any device that torch has. It is the reference for the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from dekrpose import images
from dekrpose.architectures.dekr.decode import decode, pose_map
from dekrpose.architectures.dekr.multiscale import flip_input, merge_flipped
from dekrpose.engines.base import Engine, Found, Maps, Memory, Stages
from dekrpose.images import Geometry, Pixels
from dekrpose.options import Options


class TorchEngine(Engine):
    """Photos are resized on the CPU, whole maps are computed on the device and decoded on the CPU."""

    name = "torch"

    def __init__(self, model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(model, device, dtype)
        if device.type == "cpu":
            model.to(device)
        else:
            model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def find(
        self,
        photos: Sequence[Pixels],
        geometries: Sequence[Sequence[Geometry]],
        options: Options,
        memory: Memory | None = None,
    ) -> tuple[list[Found], dict[str, float]]:
        stages, looks = Stages(), []
        for index, scale in enumerate(options.scales):
            with stages("resize"):
                inputs = self.inputs(photos, [scales[index] for scales in geometries])
            with stages("network"):
                looks.append(self.maps(inputs, options.flip_test, self.model if memory is None else memory.at(scale)))
        with stages("decode"):
            looks = [(heatmaps.cpu(), positions.cpu()) for heatmaps, positions in looks]
            found = [self._decode([(heat[i], own[i]) for heat, own in looks], options) for i in range(len(photos))]
        return found, stages.milliseconds

    def inputs(self, photos: Sequence[Pixels], geometries: Sequence[Geometry]) -> Tensor:
        """The network's input (B, 3, H, W) at one scale, on the device."""
        resized = [images.resize(photo, geometry) for photo, geometry in zip(photos, geometries, strict=True)]
        inputs = images.to_tensor(resized, self.config.mean, self.config.std).to(self.device)
        return inputs.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def maps(self, inputs: Tensor, flip_test: bool, network: Callable[[Tensor], Maps]) -> Maps:
        """Heatmaps (B, K+1, h, w) and positions (B, 2K, h, w), heatmap pixels, averaged over the mirror image."""
        count = len(inputs)
        if flip_test:
            inputs = torch.cat([inputs, flip_input(inputs)]).contiguous(memory_format=torch.channels_last)
        with self.autocast():
            heatmaps, offsets = network(inputs)
        heatmaps, positions = heatmaps.float(), pose_map(offsets)
        if flip_test:
            flip_indices = self.config.skeleton.flip_indices
            return merge_flipped(heatmaps[:count], heatmaps[count:], positions[:count], positions[count:], flip_indices)
        return heatmaps, positions

    def _decode(self, maps: Sequence[Maps], options: Options) -> Found:
        own = self.config.decode
        return Found(
            *decode(
                maps,
                options.scales,
                max_people=options.max_people,
                max_centers=options.max_centers,
                nms_threshold=options.nms_threshold,
                nms_min_keypoints=own.nms_min_keypoints,
                other_scale_factor=own.other_scale_factor,
                match=options.match,
            )
        )
