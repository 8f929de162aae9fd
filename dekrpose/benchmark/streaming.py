"""What a memory of earlier frames costs: a network with one, frame by frame, beside the same network without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from dekrpose.architectures.contract import architecture_of
from dekrpose.architectures.dekr.temporal import TemporalDEKR, TemporalState, with_memory
from dekrpose.benchmark.report import number, table
from dekrpose.benchmark.settings import Setting
from dekrpose.benchmark.stages import WHOLE, Clock, Times, Timing, measure
from dekrpose.errors import counted
from dekrpose.estimator import PoseEstimator

ALONE, STREAM = "per frame", "with memory"


@dataclass(frozen=True)
class Streaming:
    """Times of one square frame through the network, without history and with a memory that has seen one before.

    ``fresh``: the model is an image model; the memory is a fresh one, which takes the same time as a trained one.
    """

    setting: Setting
    input_size: int
    fresh: bool
    alone: Timing
    stream: Timing

    @property
    def ratio(self) -> float:
        """Of the medians, with memory to without."""
        return self.stream.median_ms / self.alone.median_ms

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "ratio": self.ratio}

    def __str__(self) -> str:
        head = f"network alone, frames of a stream: {self.setting.label()}, {self.input_size} x {self.input_size}, "
        head += f"{counted(self.alone.runs, 'run')} each" + (", a fresh memory" if self.fresh else "")
        rows = [
            [name, *(number(value) for value in (timing.median_ms, timing.fastest_ms, timing.slowest_ms))]
            for name, timing in ((ALONE, self.alone), (STREAM, self.stream))
        ]
        words = f"ratio of medians: {self.ratio:.2f}"
        return "\n".join([head, table(["", "median ms", "fastest", "slowest"], rows), words])


def measure_streaming(setting: Setting, load: Callable[[Setting], PoseEstimator], *, runs: int) -> Streaming:
    """Run a frame with and without memory in turn, ``batch`` streams at once; an image model gets a fresh memory.

    ValueError for another backend than torch, a flip test, or a network with a flat GRU, which has no state.
    """
    if setting.backend != "torch" or setting.flip:
        raise ValueError("--stream measures the network's own frames; leave out --backend and --flip")
    estimator = load(setting)
    architecture = architecture_of(estimator.config)
    if not architecture.remembers:
        raise ValueError(f"--stream measures networks with a memory; {architecture.title} has none")
    model = estimator.model
    fresh = not isinstance(model, TemporalDEKR)
    if not isinstance(model, TemporalDEKR):
        model = with_memory(estimator.config, model.state_dict())
        estimator = PoseEstimator(model, device=estimator.device, dtype=estimator.dtype)
    if model.temporal.kind != "convgru":
        raise ValueError("--stream measures convolutional GRUs; a flat GRU sees whole chunks of a clip")
    size = setting.input_size or estimator.config.input_size
    values = np.random.default_rng(0).standard_normal((setting.batch, 3, size, size), dtype=np.float32)
    images = torch.from_numpy(values).to(estimator.device).contiguous(memory_format=torch.channels_last)
    clock = Clock(estimator.device)
    state: TemporalState | None = None

    def alone() -> Times:
        with torch.inference_mode(), estimator.engine.autocast():
            model(images)
            clock.wait()
        return {}

    def stream() -> Times:
        nonlocal state
        with torch.inference_mode(), estimator.engine.autocast():
            _, state = model.step(images, state)
            clock.wait()
        return {}

    found = measure({ALONE: alone, STREAM: stream}, runs)  # the first runs, which begin the stream, do not count
    return Streaming(setting, size, fresh, found[ALONE][WHOLE], found[STREAM][WHOLE])
