"""The training loop: optimiser, averages, checkpoints, resume."""

from __future__ import annotations

import logging
import math
import pickle
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from tqdm import tqdm

from dekrpose.architectures.contract import Network, build
from dekrpose.architectures.learning import Batch, TrainConfig, learning_of
from dekrpose.config import ModelConfig
from dekrpose.errors import DekrPoseError, counted
from dekrpose.hub import models
from dekrpose.hub.repository import WEIGHTS
from dekrpose.training.device_batches import DeviceBatches
from dekrpose.training.distributed import Processes, parallel, synchronise_batch_norm
from dekrpose.training.forward import Precision, choose_precision
from dekrpose.training.loader import CachedPhotos, Samples, collate
from dekrpose.training.memory import keep_freed_memory
from dekrpose.training.order import EpochOrder, make_loader
from dekrpose.training.recipes import learning_rate, make_optimizer
from dekrpose.training.run_log import STATE, Progress, RunLog, changes, clear_unfinished
from dekrpose.training.validation import Validation

logger = logging.getLogger(__name__)

LOG_STEPS = 50
"""Steps between two lines of the log."""


class Trainer:
    """Trains a network; ``run`` goes on where the folder's checkpoint ended.

    Args:
        model_config: the network, and what its weights file will say.
        config: the run.
        photos: what to train on.
        folder: gets ``last.pt`` (state to resume from), ``log.jsonl``, and a model folder's files:
            ``model.safetensors`` (averaged weights), ``config.json``, ``README.md`` (the model card).
        device: where to train.
        initial: weights to start from, our names; what is not among them, or NaN, starts fresh. The same in every
            process.
        processes: those that train together, each with a trainer; the first one writes the files.
        tensorboard: write event files into the folder's ``tensorboard`` too.
        teacher: a trained network that teaches beside the labels.
        validation: measures the averaged weights now and then.

    Attributes:
        stopped: the number of the signal that ended the run early, after its state was saved; None if none did.
    """

    def __init__(
        self,
        model_config: ModelConfig,
        config: TrainConfig,
        photos: CachedPhotos,
        folder: str | Path,
        device: str | torch.device = "cpu",
        initial: Mapping[str, Tensor] | None = None,
        processes: Processes | None = None,
        tensorboard: bool = False,
        teacher: Network | None = None,
        validation: Validation | None = None,
    ) -> None:
        self.validation = validation
        self._prepare(model_config, config, folder, device, tensorboard, processes or Processes())
        self.model = build(model_config)
        initial, own = initial or {}, self.model.state_dict()
        for name, value in initial.items():
            own[name].copy_(torch.where(value.isnan(), own[name], value))
        self.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        whole = {name for name, value in initial.items() if not value.isnan().any()}
        brought = {id(value) for name, value in self.model.named_parameters() if name in whole}
        pretrained = [
            layer for layer in (self.model.pretrained() if config.pretrained_rate != 1 else [])
            if brought.issuperset(map(id, layer.parameters()))
        ]  # fmt: skip
        self._kept = self.model.backbone.early_layers() if config.keep_early_layers else []
        self._kept += pretrained if config.pretrained_rate == 0 else []
        self._kept += [self.model.backbone] if config.keep_backbone else []
        for layer in self._kept:
            layer.requires_grad_(False)
        if self.processes.count > 1:
            synchronise_batch_norm(self.model, self.device, self._kept)
        if config.compiled:
            for part in self.model.compilable():
                part.compile()
        self.average = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.optimizer = make_optimizer(self.model, config, pretrained)
        self.teacher = None if teacher is None else self.learning.teacher(teacher, config, self.device)
        self.loader = self._make_loader(photos)
        self._begin()
        half = self._precision() == "bfloat16"
        self._network = parallel(self.learning.forward(self.model, half), self.processes, self.device)

    def _prepare(
        self, model_config: ModelConfig, config: TrainConfig, folder: str | Path, device: str | torch.device,
        tensorboard: bool, processes: Processes,
    ) -> None:  # fmt: skip
        """What a run needs before it has a network."""
        self.config, self.model_config = config, model_config.without_numbers()
        self.learning = learning_of(model_config)
        self.stopped: int | None = None
        self.folder, self.device, self.tensorboard = Path(folder), torch.device(device), tensorboard
        self._runs_ahead = self.device.type == "cuda"  # and asking it for a number would make the CPU wait, too
        self.processes = processes
        self.folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed)
        if self.device.type == "cpu":
            keep_freed_memory()

    def _precision(self) -> Precision:
        """What backbone and heatmap head run in; all processes take the first one's choice."""
        if self.config.precision != "auto":
            return self.config.precision
        chosen, reason = choose_precision(self.device)
        first = torch.tensor(int(chosen == "bfloat16" and self.processes.first), device=self.device)
        precision: Precision = "bfloat16" if int(self.processes.total(first)) else "float32"
        if self.processes.first:
            print(f"precision: {precision}, because {reason}", file=sys.stderr)
        return precision

    def _begin(self) -> None:
        """Take the folder's state, if it has one, and start the clock."""
        self.progress = Progress()
        self._resume()
        state = self.model.state_dict()
        floating = [name for name, value in state.items() if value.is_floating_point()]
        self._averaged = [self.average[name] for name in floating], [state[name] for name in floating]
        self._norms = torch.zeros((), device=self.device)
        self._begun, self._clock = replace(self.progress), time.monotonic()

    def _make_loader(self, photos: CachedPhotos) -> Iterable[Batch]:
        config, number = self.config, len(photos.photos)
        self.order = EpochOrder(number, config.batch_size, config.seed, self.processes.rank, self.processes.count)
        if len(self.order) == 0:
            raise DekrPoseError(
                f"too few for a batch of {self.order.whole_batch}: {counted(number, 'photo')}; take a smaller "
                "--batch-size"
            )
        if config.on_device:
            return DeviceBatches(photos, self.order, config.augment, config.targets, config.seed, self.device)
        samples = Samples(photos, config.augment, config.targets, config.seed)
        return make_loader(samples, self.order, config.workers, collate)

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.config.epochs * len(self.order)

    def run(self, until: int | None = None) -> Path:
        """Train to the end, or to a step; return the path of the averaged weights."""
        end = min(self.total_steps, until or self.total_steps)
        self.model.train()
        for layer in self._kept:
            layer.eval()
        if self.processes.first:
            clear_unfinished(self.folder)
            if self.validation is not None:
                self.validation.begin(self.folder, self.progress.step)
            with closing(RunLog(self.folder, self.progress.step, self.tensorboard)) as log, self._signals():
                self._run(end, log)
        else:
            self._run(end, None)
        self.save()
        self.processes.wait()
        return self.folder / WEIGHTS

    def _run(self, end: int, log: RunLog | None) -> None:
        logged, saved = replace(self.progress), time.monotonic()
        hidden = True if log is None else None  # None: where there is no terminal
        with tqdm(total=self.total_steps, initial=self.progress.step, unit="step", disable=hidden) as bar:
            for batch in self._batches(end):
                values = self._step(batch)
                bar.update()
                if self.progress.step == 1 or self.progress.step % LOG_STEPS == 0:
                    self._check_norms()
                    self._report(values, logged, log, bar)
                    logged = replace(self.progress)
                if time.monotonic() - saved > 60 * self.config.checkpoint_minutes:
                    self.save()
                    saved = time.monotonic()
                if self.stopped is not None or self._is_hopeless(log, bar):
                    break

    def _is_hopeless(self, log: RunLog | None, bar: Any) -> bool:
        """Measure when it is time; whether training on is not worth it."""
        validation = self.validation
        if validation is None or not validation.is_due(self.progress.step, self.total_steps):
            return False
        hopeless = torch.zeros((), device=self.device)
        if log is not None:
            self.save()  # measured once, also when the run is killed meanwhile
            _say(bar, validation.measure(self.model_config, self.average, self.device, self.progress.step))
            if validation.is_hopeless:
                _say(bar, f"stopped early: {validation.patience} measurements in a row brought nothing better")
                hopeless += 1
        self._clock = time.monotonic()  # measuring is no training
        return bool(self.processes.total(hopeless))

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Within this block SIGTERM and Ctrl-C end the run after its next step, with its state saved.

        Several processes would end at different steps and wait for each other; they, and threads, keep what they have.
        """
        if self.processes.count > 1 or threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, _: object) -> None:
            self.stopped = number

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _report(self, values: Mapping[str, Tensor], logged: Progress, log: RunLog | None, bar: Any) -> None:
        """Write and show what a step found, as the mean over the processes, and the speed since the last report."""
        total = self.processes.total(torch.stack(list(values.values())))
        means = dict(zip(values, (total / self.processes.count).tolist(), strict=True))
        record = {
            **asdict(self.progress),
            "epoch": self.progress.step / len(self.order),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            **means,
            **self.progress.speed_since(logged),
        }
        if log is not None:
            log.write(record)
            losses = ", ".join(f"{name} {means[name]:.5f}" for name in self.learning.LOSSES if name in means)
            words = f"{losses}, waiting {record['waiting']:.0%}"
            if bar.disable:
                speed = f"{record['images_per_second']:.1f} images/s"
                _say(bar, f"step {self.progress.step:,} of {self.total_steps:,}, {speed}, {words}")
            else:
                bar.set_postfix_str(words)

    def _batches(self, end: int) -> Iterator[Batch]:
        """What comes from where the run stands to a step; seconds and waiting are counted."""
        self._clock = time.monotonic()
        while self.progress.step < end:
            self.order.epoch, self.order.first_batch = divmod(self.progress.step, len(self.order))
            batches = iter(self.loader)
            while self.progress.step < end:
                self._count_seconds()
                batch = next(batches, None)
                self.progress.waited += self._count_seconds()
                if batch is None:
                    break
                yield batch.to(self.device)

    def _count_seconds(self) -> float:
        """Add the time since the last call to the run's; return it."""
        now = time.monotonic()
        passed, self._clock = now - self._clock, now
        self.progress.seconds += passed
        return passed

    def _step(self, batch: Batch) -> dict[str, Tensor]:
        for group in self.optimizer.param_groups:
            rate = group.get("rate", 1.0)  # states of older runs have none
            group["lr"] = rate * learning_rate(self.config, self.progress.step, len(self.order))
        losses = self.losses(batch)
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm or math.inf)
        self._norms += norm.detach()
        if not self._runs_ahead:
            self._check_norms()
        self.optimizer.step()
        self.progress.step += 1
        self.progress.images += self.order.whole_batch
        self._update_average()
        self._count_seconds()
        return {**{name: loss.detach() for name, loss in losses.items()}, "gradient_norm": norm}

    def _check_norms(self) -> None:
        """Stop when a gradient since the last check was not finite."""
        norm = float(self._norms)
        if not math.isfinite(norm):
            raise DekrPoseError(self._diverged(f"gradient norm {norm}"))
        self._norms.zero_()

    def _diverged(self, sign: str) -> str:
        last = self.folder / STATE
        kept = f"{last} holds the last good state" if last.exists() else "no state was saved before"
        return f"training diverged at step {self.progress.step} ({sign}); {kept}; try a lower learning rate"

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Of a batch on the device, weighted, as ``Learning.LOSSES`` names them; their mean over processes counts."""
        if self.teacher is not None:
            batch = self.teacher.taught(batch)
        return self.learning.losses(self._network(batch), batch, self.config, self.model_config, self._mean)

    def _mean(self, value: Tensor) -> Tensor:
        return self.processes.total(value) / self.processes.count

    def _update_average(self) -> None:
        step = self.progress.step
        decay = min(self.config.ema, (1 + step) / (10 + step))  # short memory first, so that the start is forgotten
        torch._foreach_lerp_(*self._averaged, 1 - decay)

    def summary(self) -> str:
        """How much was trained since this trainer was made, how fast, and how long it waited for data."""
        return self.progress.summary_since(self._begun)

    def save(self) -> None:
        """Write the state and the model folder; each file appears under its name only when it is whole."""
        if not self.processes.first:
            return
        if not all(bool(value.isfinite().all()) for value in self.model.state_dict().values()):
            raise DekrPoseError(self._diverged("weights that are not finite"))
        state = {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "progress": asdict(self.progress),
            "config": self._settings(),
            "teacher": self._taught_by(),
        }
        temporary = self.folder / f"{STATE}.tmp"
        try:
            torch.save(state, temporary)
            temporary.replace(self.folder / STATE)
            models.save_folder(self.folder, self.model_config, self.average)
        except (OSError, RuntimeError) as error:  # torch's own for a full disk is a RuntimeError
            temporary.unlink(missing_ok=True)
            raise DekrPoseError(
                f"the state of step {self.progress.step} cannot be written to {self.folder}: {error}; free some space, "
                "then give the same command again: it goes on from the last state that was written whole"
            ) from error

    def _settings(self) -> dict[str, Any]:
        """With the batch of all processes: two of them may go on where one with twice the batch ended."""
        return {**asdict(self.config), "batch_size": self.order.whole_batch}

    def _taught_by(self) -> str | None:
        return None if self.teacher is None else self.teacher.fingerprint()

    def _resume(self) -> None:
        path = self.folder / STATE
        here = int(self.processes.total(torch.tensor(int(path.exists()), device=self.device)))
        if 0 < here < self.processes.count:
            raise DekrPoseError(f"{here} of {self.processes.count} processes see {path}; use a folder that all see")
        if not here:
            return
        try:
            state = cast(dict[str, Any], torch.load(path, map_location=self.device, weights_only=True))
            missing = {"model", "average", "optimizer", "progress", "config"} - state.keys()
        except (OSError, EOFError, RuntimeError, ValueError, AttributeError, pickle.UnpicklingError) as error:
            missing = {str(error).split("\n")[0]}
        if missing:
            raise DekrPoseError(
                f"{path} is no whole state of a run ({', '.join(sorted(missing))}); put a good copy there, or use "
                f"another folder and go on from its weights with --init {self.folder}"
            )
        changed = changes(state["config"], self._settings(), type(self.config.targets)())
        teacher = self._taught_by()
        if state.get("teacher", teacher) != teacher:  # older states do not say
            changed.append("teacher")
        if changed:
            raise DekrPoseError(
                f"{path} belongs to a run with other settings ({', '.join(changed)}); "
                "use another folder, or the same settings to go on"
            )
        shapes = [{name: value.shape for name, value in own.items()} for own in (state["model"], self.average)]
        if shapes[0] != shapes[1]:
            raise DekrPoseError(f"{path} belongs to another network; use another folder, or the same network to go on")
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**state["progress"])
        logger.info("resumed %s at step %d", path, self.progress.step)


def _say(bar: Any, line: str) -> None:
    """A line for people, above the bar where there is one."""
    if bar.disable:
        print(line, file=sys.stderr, flush=True)
    else:
        bar.write(line, file=sys.stderr)
