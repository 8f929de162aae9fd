"""Peak memory of an estimate, measured in a fresh process each time."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from dekrpose.benchmark import first_pose as startup
from dekrpose.benchmark import made_up
from dekrpose.benchmark.report import number, table
from dekrpose.benchmark.settings import Setting, as_file, load
from dekrpose.benchmark.stages import network_job, photo_job
from dekrpose.estimator import PoseEstimator

_MANY = 16
_PROBE = """
import json, sys
asked = json.loads(sys.argv[1])
sys.path[:] = asked["path"]
try:
    from dekrpose.benchmark.memory import answer
    found = answer(asked)
except Exception as error:
    found = {"error": str(error) or type(error).__name__}
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Memory:
    """MiB of a process (or, on CUDA, of tensors on the device).

    Attributes:
        case: what was run.
        loaded_mib: after the model was loaded and before the first run.
        peak_mib: the most while it ran; None where the system does not tell.
    """

    case: str
    loaded_mib: float
    peak_mib: float | None

    @property
    def growth_mib(self) -> float | None:
        """What running adds to what loading took."""
        return None if self.peak_mib is None else max(0.0, self.peak_mib - self.loaded_mib)


def _flip(estimator: PoseEstimator, setting: Setting) -> Callable[[], None]:
    data = made_up.jpeg(made_up.photo(640, 480))

    def run() -> None:
        estimator.estimate(data, flip_test=True, input_size=setting.input_size)

    return run


def _scales(estimator: PoseEstimator, setting: Setting) -> Callable[[], None]:
    data = made_up.jpeg(made_up.photo(4000, 3000))

    def run() -> None:
        estimator.estimate(data, scales=(0.5, 1, 2), input_size=setting.input_size)

    return run


def _everything(estimator: PoseEstimator, setting: Setting) -> Callable[[], None]:
    data = made_up.jpeg(made_up.photo(4000, 3000))

    def run() -> None:
        estimator.estimate(
            data, scales=(0.5, 1, 2), flip_test=True, match_heatmap="paper", input_size=setting.input_size
        )

    return run


def _many(estimator: PoseEstimator, setting: Setting) -> Callable[[], None]:
    sizes = [(640 + 160 * index, 480 + (index * 7 % _MANY) * 120) for index in range(_MANY)]
    files = [made_up.jpeg(made_up.photo(width, height)) for width, height in sizes]

    def run() -> None:
        for _ in estimator.estimate_many(iter(files), batch_size=8, input_size=setting.input_size):
            pass

    return run


CASES: dict[str, tuple[str, Callable[[PoseEstimator, Setting], Callable[[], None]]]] = {
    "flip": ("a 640x480 photo, flip test", _flip),
    "scales": ("a 4000x3000 photo, scales 0.5, 1 and 2", _scales),
    "everything": ("the same with flip test and matching", _everything),
    "many": (f"estimate_many of {_MANY} sizes up to 3040x2280, batches of 8", _many),
}
"""Name to words and what is run."""


def named_cases(setting: Setting, names: Sequence[str]) -> list[Memory]:
    """Measure some of ``CASES``.

    Raises:
        ValueError: an unknown name.
        DekrPoseError: a process fails.
    """
    unknown = [name for name in names if name not in CASES]
    if unknown:
        raise ValueError(f"--memory knows {', '.join(CASES)}, got {unknown[0]!r}")
    return [_measured(setting, name) for name in names]


def of_job(setting: Setting, photo: str | None, people: int | None) -> Memory:
    """Measure what the benchmark itself runs: the network, or the estimate of a photo (see ``made_up.photo_file``)."""
    return _measured(setting, "job", photo=photo, people=people)


def memory_table(setting: Setting, measured: Sequence[Memory]) -> str:
    """Lines for a terminal."""
    rows = [
        [
            f"{memory.case}: {CASES[memory.case][0]}",
            number(memory.loaded_mib),
            *("unknown" if value is None else number(value) for value in (memory.peak_mib, memory.growth_mib)),
        ]
        for memory in measured
    ]
    head = f"peak memory of {setting.label()}, MiB, a fresh process each"
    return "\n".join([head, table(["", "loaded", "peak", "more"], rows)])


def _measured(setting: Setting, case: str, **options: Any) -> Memory:
    asked = {"path": sys.path, "setting": asdict(as_file(setting)), "case": case, **options}
    return Memory(case, **startup.in_fresh_process(_PROBE, asked))


def answer(asked: dict[str, Any]) -> dict[str, float | None]:
    """What the fresh process measures: a case's two numbers."""
    setting = Setting(**asked["setting"])
    estimator = load(setting)
    if asked["case"] in CASES:
        run: Callable[[], object] = CASES[asked["case"]][1](estimator, setting)
    elif asked["photo"] is None:
        run = network_job(estimator, setting)[0]
    else:
        run = photo_job(estimator, setting, made_up.photo_file(asked["photo"]), asked["people"])[0]
    gc.collect()
    if estimator.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(estimator.device)
        loaded = torch.cuda.memory_allocated(estimator.device) / 2**20
        run()
        return {"loaded_mib": loaded, "peak_mib": torch.cuda.max_memory_allocated(estimator.device) / 2**20}
    loaded, _ = _resident(reset=True)
    run()
    return {"loaded_mib": loaded, "peak_mib": _resident()[1]}


def _resident(reset: bool = False) -> tuple[float, float | None]:
    """MiB of this process in memory now, and at most since the last reset; None where the system does not tell."""
    status = Path("/proc/self/status")
    if status.exists():
        if reset:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        found = dict(_kilobytes(status.read_text(encoding="utf-8")))
        return found["VmRSS"] / 1024, found["VmHWM"] / 1024
    try:
        import resource
    except ImportError:
        return 0.0, None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes, on macOS
    return peak, peak


def _kilobytes(text: str) -> Iterator[tuple[str, int]]:
    for name, value in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE):
        yield name, int(value)
