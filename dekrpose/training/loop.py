"""The training loop: optimiser, averages, checkpoints, resume."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from tqdm import tqdm

from dekrpose import hub
from dekrpose.config import IMAGE_MEAN, IMAGE_STD, ModelConfig
from dekrpose.errors import DekrPoseError
from dekrpose.models.dekr import DEKR
from dekrpose.training.augment import AugmentConfig
from dekrpose.training.loader import Batch, CachedPhotos, EpochOrder, Samples, TargetConfig, make_loader
from dekrpose.training.losses import OFFSET_FACTORS, heatmap_loss, offset_loss

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Args:
        epochs, batch_size, seed: as usual; the last incomplete batch of an epoch is left out.
        learning_rate: its peak, reached after ``warmup`` steps, then a cosine to 1 % of it.
        weight_decay: AdamW's.
        clip_norm: largest gradient norm.
        ema: decay per step of the averaged weights, which are the ones that are saved.
        offset_factor: weight of the offset loss (the paper's lambda for true diagonals).
        precision: "float32" or "bfloat16" for backbone and heatmap head; the offset head stays in float32.
        workers: processes that prepare batches.
        checkpoint_minutes: how often the state is saved.
        limit: use only the first photos (ablations, tests).
        augment, targets: see their classes.
    """

    epochs: int = 140
    batch_size: int = 16
    seed: int = 0
    learning_rate: float = 1e-3
    warmup: int = 500
    weight_decay: float = 1e-2
    clip_norm: float = 5.0
    ema: float = 0.999
    offset_factor: float = OFFSET_FACTORS["paper"]
    precision: Literal["float32", "bfloat16"] = "float32"
    workers: int = 1
    checkpoint_minutes: float = 5.0
    limit: int | None = None
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    targets: TargetConfig = field(default_factory=TargetConfig)


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
        self.optimizer = _adamw(_parameter_groups(self.model, config.weight_decay), config.learning_rate)
        self.order = EpochOrder(len(photos.photos), config.batch_size, config.seed)
        if len(self.order) == 0:
            raise DekrPoseError(f"{len(photos.photos)} photos do not fill one batch of {config.batch_size}")
        samples = Samples(photos, config.augment, config.targets, config.seed)
        self.loader = make_loader(samples, self.order, config.workers)
        self.progress = _Progress()
        self._mean = torch.tensor(IMAGE_MEAN, device=self.device).view(1, 3, 1, 1) * 255
        self._std = torch.tensor(IMAGE_STD, device=self.device).view(1, 3, 1, 1) * 255
        self._resume()

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.config.epochs * len(self.order)

    def run(self, until: int | None = None) -> Path:
        """Train to the end, or to a step; return the path of the averaged weights."""
        end = min(self.total_steps, until or self.total_steps)
        self.model.train()
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

    def _step(self, batch: Batch, bar: Any, started: float) -> None:
        rate = self._learning_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        heat, offset = self.losses(batch.to(self.device))
        loss = heat + offset
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
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

    def _learning_rate(self) -> float:
        step, config = self.progress.step, self.config
        if step < config.warmup:
            return config.learning_rate * (step + 1) / config.warmup
        share = (step - config.warmup) / max(1, self.total_steps - config.warmup)
        return config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))))

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
        return self.folder / "model.safetensors"

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
    """Settings that differ although the run would not be the same run with them."""
    plain = json.loads(json.dumps(now)), json.loads(json.dumps(before))
    return [key for key in plain[0] if key not in _MAY_CHANGE and plain[0][key] != plain[1].get(key)]


def _adamw(groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.AdamW:
    try:
        return torch.optim.AdamW(groups, learning_rate, fused=True)
    except RuntimeError:  # torch before 2.4 has it for CUDA only
        return torch.optim.AdamW(groups, learning_rate)


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for convolutions only, not for biases and batch norm."""
    decayed = [value for value in model.parameters() if value.ndim > 1]
    others = [value for value in model.parameters() if value.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def tiny_recipe() -> TrainConfig:
    """How the bundled ``tiny`` is trained on a CPU: small crops, few offset pixels, mosaics."""
    return TrainConfig(
        epochs=12,
        batch_size=16,
        learning_rate=2e-3,
        offset_factor=0.04,  # balances the two losses' gradients in the backbone
        precision="bfloat16",
        augment=replace(
            AugmentConfig(size=160),
            rotation=25.0,
            scale=(0.6, 1.3),
            color=0.2,
            grey=0.1,
            mosaic=0.2,
            on_person=0.7,
            minimum_keypoints=3,
        ),
        targets=TargetConfig(sigma=1.5, center_sigma=2.0, radius=3, offset_pixels=160),
    )
