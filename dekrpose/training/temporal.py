"""Training a network for video on clips: the loop of photos with clips, a frozen backbone whose maps are kept."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from dekrpose.architectures.dekr.temporal import TemporalDEKR
from dekrpose.architectures.learning import TrainConfig, normalised
from dekrpose.architectures.parts.blocks import gather_pixels
from dekrpose.data.clips.clip import ClipSource
from dekrpose.errors import DekrPoseError, counted
from dekrpose.formats import json_text, write_whole
from dekrpose.progress import Bar
from dekrpose.training.clips import ClipBatch, ClipRecipe, ClipSamples, collate_clips
from dekrpose.training.distributed import Processes
from dekrpose.training.loop import Trainer
from dekrpose.training.order import EpochOrder, make_loader
from dekrpose.training.recipes import make_optimizer

logger = logging.getLogger(__name__)

CLIPS = "clips.json"
"""The file in a run's folder that says what clips it is trained on, and which parts of the network."""
Parts = Literal["heads", "memory", "memory+heads", "all"]
"""What is trained. "heads": what is behind the memory, without it, as a start and as a baseline for the others."""
_HEADS = ("heatmap_head.block.", "heatmap_head.final.", "offset_head.groups.")


@dataclass(frozen=True)
class SeenClips:
    """B clips as a frozen network sees them.

    The maps are those of both heads' transitions, (B * T, C, h, w).
    """

    maps: tuple[Tensor, Tensor]
    clips: ClipBatch

    def to(self, device: torch.device) -> SeenClips:
        """The same batch on another device."""
        heatmaps, offsets = (maps.to(device, non_blocking=True) for maps in self.maps)
        return SeenClips((heatmaps, offsets), self.clips.to(device))


class TemporalTrainer(Trainer):
    """Trains a network for video; ``run`` goes on where the folder's checkpoint ended.

    Batch norm stays as it is in the image model. While the backbone and the transitions behind it are not trained, what
    they see of the clips is kept in memory and every epoch shows the same clips; otherwise clips are drawn anew.

    Args:
        model: with what it starts from; its configuration goes into the weights file.
        config: the run; ``epochs`` and ``batch_size`` count clips. ``augment`` and ``keep_early_layers`` mean nothing.
        recipe: the clips.
        source: where they come from.
        parts: what is trained.
        folder: gets what ``Trainer`` writes, and ``clips.json``.
        device: where to train.

    Raises:
        DekrPoseError: the folder holds another run, or there are fewer clips than one batch needs.
    """

    def __init__(
        self,
        model: TemporalDEKR,
        config: TrainConfig,
        recipe: ClipRecipe,
        source: ClipSource,
        parts: Parts,
        folder: str | Path,
        device: str | torch.device = "cpu",
        tensorboard: bool = False,
    ) -> None:
        if parts not in get_args(Parts):
            raise ValueError(f"parts must be one of {get_args(Parts)}, got {parts!r}")
        self.recipe, self.parts = recipe, parts
        self.teacher = self.validation = None
        self._prepare(model.config, config, folder, device, tensorboard, Processes())
        self._check_clips()
        self.model: TemporalDEKR = model.to(self.device)
        self._kept = [self.model]  # batch norm keeps its statistics
        for name, value in self.model.named_parameters():
            value.requires_grad_(_is_trained(name, parts))
        self.average = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.optimizer = make_optimizer(self.model, config)
        self.order = EpochOrder(recipe.clips, config.batch_size, config.seed)
        if len(self.order) == 0:
            raise DekrPoseError(
                f"too few for a batch of {config.batch_size}: {counted(recipe.clips, 'clip')}; take a smaller "
                "--batch-size"
            )
        samples = ClipSamples(source, recipe, config.targets, config.seed, repeat=self.is_frozen)
        self.loader: Any = make_loader(samples, self.order, config.workers, collate_clips)
        if self.is_frozen:
            self.loader = KeptMaps(self.model, samples, self.order, self.device)
        self._begin()

    @property
    def is_frozen(self) -> bool:
        """Whether nothing before the memory is trained."""
        return self.parts != "all"

    def losses(self, batch: ClipBatch | SeenClips) -> dict[str, Tensor]:  # type: ignore[override]
        """As of photos, over the batch's labelled frames."""
        clips = batch.clips if isinstance(batch, SeenClips) else batch
        maps = batch.maps if isinstance(batch, SeenClips) else transition_maps(self.model, batch.frames.images)
        remembers, flat = self.parts != "heads", self.model.offset_gru is not None
        if remembers and not flat:
            maps, _ = self.model.remember((maps[0].float(), maps[1].float()), clips.resets, None)
        frames = clips.frames
        heatmaps = self.model.heatmap_head.from_transition(maps[0].float())
        head = self.model.offset_head
        if frames.pixels is not None and not (remembers and flat):
            offsets = head.at_transition(maps[1].float(), frames.pixels)
        else:
            offsets = head.from_transition(maps[1].float())
        if remembers and flat:  # it reads whole maps
            offsets = self.model.flat(offsets.reshape(*clips.resets.shape, *offsets.shape[1:]), clips.resets).flatten(
                0, 1
            )
            offsets = offsets if frames.pixels is None else gather_pixels(offsets, frames.pixels)
        return self.learning.losses((heatmaps, offsets), frames, self.config, self.model_config, self._mean)

    def _check_clips(self) -> None:
        """Write what the run is made of, or compare it with what the folder's run was made of."""
        path = self.folder / CLIPS
        wanted = json.loads(json.dumps({"parts": self.parts, **asdict(self.recipe)}))
        if not path.exists():
            write_whole(path, json_text(wanted))
        elif json.loads(path.read_text(encoding="utf-8")) != wanted:
            raise DekrPoseError(f"{path} belongs to a run on other clips or of other parts; use another folder")


class KeptMaps:
    """Batches of what a frozen network sees; every clip goes through it once."""

    def __init__(self, model: TemporalDEKR, samples: ClipSamples, order: EpochOrder, device: torch.device) -> None:
        self.model, self.samples, self.order, self.device = model, samples, order, device
        self._clips: list[SeenClips] = []

    def __iter__(self) -> Iterator[SeenClips]:
        if not self._clips:
            count = self.samples.recipe.clips
            bar = Bar(range(count), desc="looking at clips", unit="clip")
            self._clips = [self._keep(index) for index in bar]
        for batch in self.order:
            kept = [self._clips[index[2]] for index in batch]
            resets = [self.samples.resets(index)[None] for index in batch]
            clips = [replace(clip.clips, resets=own) for clip, own in zip(kept, resets, strict=True)]
            heatmaps, offsets = (torch.cat([clip.maps[head] for clip in kept]) for head in (0, 1))
            yield SeenClips((heatmaps, offsets), collate_clips(clips))

    @torch.no_grad()
    def _keep(self, index: int) -> SeenClips:
        clip = self.samples[0, 0, index]
        was_training = self.model.training
        heatmaps, offsets = (
            maps.half().cpu() for maps in transition_maps(self.model.eval(), clip.frames.images.to(self.device))
        )
        self.model.train(was_training)
        empty = clip.frames.images[:0]
        return SeenClips((heatmaps, offsets), replace(clip, frames=replace(clip.frames, images=empty)))


def transition_maps(model: TemporalDEKR, images: Tensor) -> tuple[Tensor, Tensor]:
    """Maps (N, C, h, w) of both heads' transitions, before any memory, from (N, 3, H, W) uint8 RGB."""
    features = model.features(normalised(images, model.config))
    return model.heatmap_head.transition(features), model.offset_head.transition(features)


def _is_trained(name: str, parts: Parts) -> bool:
    memory = "_memory." in name or name.startswith("offset_gru.")
    heads = name.startswith(_HEADS)
    return {"heads": heads, "memory": memory, "memory+heads": memory or heads, "all": True}[parts]
