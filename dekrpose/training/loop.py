"""The training loop: optimiser, averages, checkpoints, resume."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from tqdm import tqdm

from dekrpose import hub
from dekrpose.config import IMAGE_MEAN, IMAGE_STD, ModelConfig
from dekrpose.errors import DekrPoseError
from dekrpose.models.dekr import DEKR
from dekrpose.repositories.repository import WEIGHTS
from dekrpose.training.device_batches import DeviceBatches
from dekrpose.training.loader import Batch, CachedPhotos, Samples
from dekrpose.training.losses import heatmap_loss, offset_loss
from dekrpose.training.optimizers import learning_rate, make_optimizer
from dekrpose.training.order import EpochOrder, make_loader
from dekrpose.training.recipes import TrainConfig

logger = logging.getLogger(__name__)


@dataclass
class _Progress:
    """Where a run stands; saved with the weights."""

    step: int = 0
    images: int = 0
    seconds: float = 0.0


class Trainer:
    """Trains a DEKR network; ``run`` goes on where the folder's checkpoint ended.

    Args:
        model_config: the network, and what its weights file will say.
        config: the run.
        photos: what to train on.
        folder: gets ``last.pt`` (state to resume from), ``log.jsonl``, and a model folder's files:
            ``model.safetensors`` (averaged weights), ``config.json``, ``README.md`` (the model card).
        device: where to train.
        initial: weights to start from, our names; fresh ones if None.
    """

    def __init__(
        self,
        model_config: ModelConfig,
        config: TrainConfig,
        photos: CachedPhotos,
        folder: str | Path,
        device: str | torch.device = "cpu",
        initial: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.config, self.model_config = config, model_config.without_numbers()
        self.folder, self.device = Path(folder), torch.device(device)
        self.folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed)
        self.model = DEKR(model_config)
        if initial is not None:
            self.model.load_state_dict(initial)
        self.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.optimizer = make_optimizer(self.model, config)
        self.order = EpochOrder(len(photos.photos), config.batch_size, config.seed)
        if len(self.order) == 0:
            raise DekrPoseError(f"{len(photos.photos)} photos do not fill one batch of {config.batch_size}")
        self.loader = self._make_loader(photos)
        self.progress = _Progress()
        self._mean = torch.tensor(IMAGE_MEAN, device=self.device).view(1, 3, 1, 1) * 255
        self._std = torch.tensor(IMAGE_STD, device=self.device).view(1, 3, 1, 1) * 255
        self._resume()

    def _make_loader(self, photos: CachedPhotos) -> Iterable[Batch]:
        config = self.config
        if config.on_device:
            return DeviceBatches(photos, self.order, config.augment, config.targets, config.seed, self.device)
        samples = Samples(photos, config.augment, config.targets, config.seed)
        return make_loader(samples, self.order, config.workers)

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.config.epochs * len(self.order)

    def run(self, until: int | None = None) -> Path:
        """Train to the end, or to a step; return the path of the averaged weights."""
        end = min(self.total_steps, until or self.total_steps)
        self._train_mode()
        saved = time.monotonic()
        with tqdm(total=self.total_steps, initial=self.progress.step, unit="step") as bar:
            while self.progress.step < end:
                epoch, self.order.first_batch = divmod(self.progress.step, len(self.order))
                self.order.epoch = epoch
                for batch in self.loader:
                    started = time.monotonic()
                    self._step(batch, bar, started)
                    if time.monotonic() - saved > 60 * self.config.checkpoint_minutes:
                        self.save()
                        saved = time.monotonic()
                    if self.progress.step >= end:
                        break
        return self.save()

    def _train_mode(self) -> None:
        self.model.train()
        for layer in self.model.backbone.early_layers() if self.config.keep_early_layers else ():
            layer.eval().requires_grad_(False)

    def _step(self, batch: Batch, bar: Any, started: float) -> None:
        rate = learning_rate(self.config, self.progress.step, len(self.order))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        heat, offset = self.losses(batch.to(self.device))
        loss = heat + offset
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm or math.inf)
        if not math.isfinite(norm):
            raise DekrPoseError(
                f"training diverged at step {self.progress.step} (gradient norm {float(norm)}); "
                f"{self.folder / 'last.pt'} holds the last good state; try a lower learning rate"
            )
        self.optimizer.step()
        self.progress.step += 1
        self.progress.images += len(batch.images)
        self._update_average()
        self.progress.seconds += time.monotonic() - started
        bar.update()
        if self.progress.step % 50 == 0:
            losses = {"heat": float(heat.detach()), "offset": float(offset.detach())}
            bar.set_postfix({name: f"{value:.5f}" for name, value in losses.items()})
            self._log(**losses, learning_rate=rate, gradient_norm=float(norm))

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Heatmap loss and weighted offset loss of a batch on the device."""
        images = (batch.images.float() - self._mean) / self._std
        images = images.contiguous(memory_format=torch.channels_last)
        half = self.config.precision == "bfloat16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=half):
            features = self.model.features(images)
            heatmaps = self.model.heatmap_head(features)
            maps = None if batch.pixels is None else self.model.offset_head.transition(features)
        if batch.pixels is None or maps is None:
            offsets = self.model.offset_head(features.float())
        else:
            offsets = self.model.offset_head.at_transition(maps.float(), batch.pixels)
        heat = heatmap_loss(heatmaps.float(), batch.heatmaps, batch.heatmap_weights)
        offset = offset_loss(offsets, batch.offsets, batch.offset_weights)
        return heat, self.config.offset_factor * offset

    def _update_average(self) -> None:
        step = self.progress.step
        decay = min(self.config.ema, (1 + step) / (10 + step))  # short memory first, so that the start is forgotten
        state = self.model.state_dict()
        names = [name for name, value in state.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.average[name] for name in names], [state[name] for name in names], 1 - decay)

    def _log(self, **values: float) -> None:
        record = {**asdict(self.progress), "epoch": self.progress.step / len(self.order), **values}
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def save(self) -> Path:
        """Write the state and the model folder; each file appears under its name only when it is whole."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "progress": asdict(self.progress),
            "config": asdict(self.config),
        }
        temporary = self.folder / "last.pt.tmp"
        torch.save(state, temporary)
        temporary.replace(self.folder / "last.pt")
        hub.save_folder(self.folder, self.model_config, self.average)
        return self.folder / WEIGHTS

    def _resume(self) -> None:
        path = self.folder / "last.pt"
        if not path.exists():
            return
        state = cast(dict[str, Any], torch.load(path, map_location=self.device, weights_only=True))
        changed = _changes(state["config"], asdict(self.config))
        if changed:
            raise DekrPoseError(
                f"{path} belongs to a run with other settings ({', '.join(changed)}); "
                "use another folder, or the same settings to go on"
            )
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = _Progress(**state["progress"])
        logger.info("resumed %s at step %d", path, self.progress.step)


_MAY_CHANGE = {"workers", "checkpoint_minutes", "epochs"}


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Settings that differ although the run would not be the same run with them; older states lack newer ones."""
    after, old = json.loads(json.dumps(now)), json.loads(json.dumps(_filled(before, asdict(TrainConfig()))))
    return [key for key in after if key not in _MAY_CHANGE and after[key] != old[key]]


def _filled(before: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of an older state, with the defaults of those that it lacks, also within ``augment`` and ``targets``."""
    return {
        key: _filled(before.get(key, {}), default) if isinstance(default, dict) else before.get(key, default)
        for key, default in defaults.items()
    }
