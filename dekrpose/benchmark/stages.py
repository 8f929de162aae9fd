"""Times by stage: of a network's parts, and of everything between a photo's bytes and its picture."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dekrpose.architectures.contract import ARCHITECTURES, architecture_of, named
from dekrpose.benchmark.made_up import PlantedNetwork
from dekrpose.benchmark.settings import LOOP, Setting
from dekrpose.estimator import PoseEstimator
from dekrpose.images import Geometry, load

WARMUP = 2
"""Runs of each that do not count."""
RUNS = 9
"""Runs that count, unless another number is asked for."""
SETTLE = 0.25
"""Seconds: what is faster runs once before each run that counts, so that its data is in the caches again."""
MATMUL = 2048
"""Side of the matrices whose product is the machine's limit."""
NETWORK, REST, WHOLE = "network", "other", "whole"
NETWORK_REST = "network, other"
PARTS = tuple(dict.fromkeys(part for name in ARCHITECTURES for part in named(name).PARTS))
"""Of all networks, in the order in which they run, the backbone first."""

Times = Mapping[str, float]
"""Milliseconds by stage, in order."""


@dataclass(frozen=True)
class Timing:
    """Milliseconds of something over several runs."""

    median_ms: float
    fastest_ms: float
    slowest_ms: float
    runs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Timing:
        """Of milliseconds."""
        return cls(median(values), min(values), max(values), len(values))


def measure(jobs: Mapping[str, Callable[[], Times]], runs: int, settle: float = SETTLE) -> dict[str, dict[str, Timing]]:
    """Run jobs in turn, A B A B ..., so that a drifting machine meets all alike.

    Each job answers with the times of its stages. ``WARMUP`` more runs do not count; a job that is faster than
    ``settle`` seconds runs once unmeasured before each of its runs. By name and stage; "whole" comes last, and before
    it "other", which the stages leave of the whole.
    """
    found: dict[str, dict[str, list[float]]] = {name: {} for name in jobs}
    took = dict.fromkeys(jobs, 0.0)
    for index in range(WARMUP + runs):
        for name, job in jobs.items():
            if index >= WARMUP and took[name] < settle:
                job()
            start = time.perf_counter()
            stages = dict(job())
            took[name] = time.perf_counter() - start
            if index >= WARMUP:
                whole = 1000 * took[name]
                if stages:
                    stages[REST] = max(0.0, whole - sum(stages.values()))
                for stage, value in {**_with_network(stages), WHOLE: whole}.items():
                    found[name].setdefault(stage, []).append(value)
    return {name: {stage: Timing.of(values) for stage, values in stages.items()} for name, stages in found.items()}


def _with_network(stages: Times) -> dict[str, float]:
    """Put the network's own time before its parts, where it is told apart from the rest of the network."""
    total = sum(value for stage, value in stages.items() if stage in (*PARTS, NETWORK_REST))
    times: dict[str, float] = {}
    for stage, value in stages.items():
        if stage == PARTS[0] and NETWORK_REST in stages:
            times[NETWORK] = total
        times[stage] = value
    return times


class Clock:
    """Marks moments of a device's work: CUDA does so without waiting, the others are waited for at each."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def mark(self) -> Any:
        """Now, as the device sees it."""
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(self.device))
            return event
        self.wait()
        return time.perf_counter()

    def between(self, first: Any, second: Any) -> float:
        """Milliseconds between two marks; the device must have been waited for."""
        return float(first.elapsed_time(second) if self.device.type == "cuda" else 1000 * (second - first))

    def wait(self) -> None:
        """Until the device has done what it was asked for."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


class PartTimes:
    """Milliseconds of a network's parts, by hooks on the modules that carry them while it is watched.

    The backbone's time goes from the network's start to that of its first head, so the joining of maps is in it. Parts
    that the network does not have are not told apart.
    """

    def __init__(self, network: object, clock: Clock) -> None:
        self._network = network
        self._clock = clock
        self._handles: list[RemovableHandle] = []
        self._begun: dict[str, Any] = {}
        self._spans: list[tuple[str, Any, Any]] = []

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Within this block the parts' times are taken."""
        self._begun, self._spans = {}, []
        if isinstance(self._network, nn.Module) and len(_parts_of(self._network)) > 1:
            self._handles = [self._network.register_forward_pre_hook(self._start)]
        try:
            yield
        finally:
            for handle in self._handles:
                handle.remove()

    def _start(self, network: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Watch the heads of what runs in the network's place, if anything does."""
        choose = getattr(network, "running", None)
        running = network if choose is None else choose(*inputs)
        if len(self._handles) == 1:
            parts = running if isinstance(running, nn.Module) else network
            for part, head in list(_parts_of(parts).items())[1:]:
                self._handles.append(head.register_forward_pre_hook(lambda *_, part=part: self._begin(part)))
                self._handles.append(head.register_forward_hook(lambda *_, part=part: self._end(part)))
        self._begin(PARTS[0])

    def _begin(self, part: str) -> None:
        now = self._clock.mark()
        if part != PARTS[0] and PARTS[0] in self._begun:
            self._spans.append((PARTS[0], self._begun.pop(PARTS[0]), now))
        self._begun[part] = now

    def _end(self, part: str) -> None:
        self._spans.append((part, self._begun.pop(part), self._clock.mark()))

    def split(self, network_ms: float) -> dict[str, float]:
        """The network's time as that of its parts and what they leave of it."""
        times: dict[str, float] = {}
        for part, begin, end in self._spans:
            times[part] = times.get(part, 0.0) + self._clock.between(begin, end)
        if not times:
            return {NETWORK: network_ms}
        ordered = {part: times[part] for part in PARTS if part in times}
        return {**ordered, NETWORK_REST: max(0.0, network_ms - sum(ordered.values()))}


def _parts_of(network: nn.Module) -> dict[str, nn.Module]:
    attributes = {part: part.replace(" ", "_") for part in PARTS}
    return {part: getattr(network, name) for part, name in attributes.items() if hasattr(network, name)}


def network_job(estimator: PoseEstimator, setting: Setting) -> tuple[Callable[[], Times], tuple[int, int]]:
    """The network alone on square inputs, by part; and its input size (height, width)."""
    size = setting.input_size or estimator.config.input_size
    count = setting.batch * (2 if setting.flip else 1)
    values = np.random.default_rng(0).standard_normal((count, 3, size, size), dtype=np.float32)
    images = torch.from_numpy(values).to(estimator.device).contiguous(memory_format=torch.channels_last)
    clock = Clock(estimator.device)
    parts = PartTimes(_hookable(estimator, setting), clock)

    def forward() -> Times:
        start = time.perf_counter()
        with parts.watch(), torch.inference_mode(), estimator.engine.autocast():
            estimator.model(images)
            clock.wait()
        times = parts.split(1000 * (time.perf_counter() - start))
        return {stage: value for stage, value in times.items() if stage in PARTS}

    return forward, (size, size)


def photo_job(
    estimator: PoseEstimator, setting: Setting, data: bytes, people: int | None
) -> tuple[Callable[[], Times], tuple[int, int]]:
    """From a photo's bytes to its picture, a batch at once; and the network's input size (height, width).

    ``people`` made-up ones are decoded and drawn instead of the network's own; None leaves those.
    """
    pixels = load(data)[0]
    # on other devices the network is recorded with what it calls, and hooks would be too
    network = _hookable(estimator, setting) if estimator.device.type == "cpu" else None
    parts = PartTimes(network, Clock(estimator.device))
    if people is not None:
        planted = PlantedNetwork(estimator.model, people, len(estimator.config.skeleton))
        estimator.model = planted  # type: ignore[assignment]
    options: dict[str, Any] = {"input_size": setting.input_size, "flip_test": setting.flip}

    def estimate() -> Times:
        with parts.watch():
            found = list(estimator.estimate_many([data] * setting.batch, batch_size=setting.batch, **options))
        stages: dict[str, float] = {}
        for poses in found:
            for stage, value in (poses.timing or {}).items():
                stages[stage] = stages.get(stage, 0.0) + value
        times: dict[str, float] = {}
        for stage, value in stages.items():
            times |= parts.split(value) if stage == NETWORK else {stage: value}
        start = time.perf_counter()
        for poses in found:
            poses.draw(pixels)
        return {**times, "draw": 1000 * (time.perf_counter() - start)}

    height, width = pixels.shape[:2]
    multiple, aspect = estimator.config.backbone.size_multiple, estimator.config.decode.max_aspect
    size = estimator._options(**options).size_for(height, width, multiple, aspect)
    return estimate, Geometry.fit(height, width, size, multiple=multiple).input_size


def matmul_job(device: torch.device, dtype: torch.dtype) -> Callable[[], Times]:
    """The product of two large matrices: what the machine can do at best."""
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(MATMUL, MATMUL, generator=generator).to(device, dtype) for _ in range(2))
    clock = Clock(device)

    def multiply() -> Times:
        torch.mm(first, second)
        clock.wait()
        return {}

    return multiply


def gmacs(
    estimator: PoseEstimator, setting: Setting, input_size: tuple[int, int], scales: Sequence[float] = (1.0,)
) -> dict[str, float]:
    """Multiply-accumulates of one run by part, in 10^9: all layers are convolutions, so they grow with the pixels."""
    pixels = input_size[0] * input_size[1] * sum(scale**2 for scale in scales)
    factor = setting.batch * (2 if setting.flip else 1) * pixels / estimator.config.input_size**2
    return {
        part: factor * value
        for part, value in architecture_of(estimator.config).gmacs_by_part(estimator.config).items()
    }


def _hookable(estimator: PoseEstimator, setting: Setting) -> object:
    """The network, unless hooks would break it into pieces as they do a compiled one."""
    return estimator.model if setting.backend in ("torch", LOOP) else None
