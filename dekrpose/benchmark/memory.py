"""Peak memory of an estimate, measured in a fresh process each time."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dekrpose.benchmark import made_up
from dekrpose.benchmark.first_pose import in_fresh_process
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
    """MiB of a process (or, on CUDA, of tensors on the device) before the first run and at most.

    The model is loaded before the first run; ``peak_mib`` is None where the system does not tell.
    """

    case: str
    loaded_mib: float
    peak_mib: float | None

    @property
    def growth_mib(self) -> float | None:
        """What running adds to what loading took."""
        return None if self.peak_mib is None else max(0.0, self.peak_mib - self.loaded_mib)


class Case(NamedTuple):
    """Photos of these sizes (width, height) and what is asked of ``estimate_many`` for each."""

    words: str
    sizes: list[tuple[int, int]]
    options: dict[str, Any]


_SCALES = {"scales": (0.5, 1, 2)}
CASES = {
    "flip": Case("a 640x480 photo, flip test", [(640, 480)], {"flip_test": True}),
    "scales": Case("a 4000x3000 photo, scales 0.5, 1 and 2", [(4000, 3000)], _SCALES),
    "everything": Case(
        "the same with flip test, and matching where there are heatmaps",
        [(4000, 3000)],
        {**_SCALES, "flip_test": True, "match_heatmap": "paper"},
    ),
    "many": Case(
        f"estimate_many of {_MANY} sizes up to 3040x2280, batches of 8",
        [(640 + 160 * index, 480 + (index * 7 % _MANY) * 120) for index in range(_MANY)],
        {},
    ),
}


def _run_case(estimator: PoseEstimator, setting: Setting, case: Case) -> Callable[[], None]:
    files = [made_up.jpeg(made_up.photo(width, height)) for width, height in case.sizes]
    options = {**case.options, "input_size": setting.input_size}
    try:
        estimator.estimate_many([], **options)
    except ValueError:  # no heatmaps that keypoints could be moved to
        options["match_heatmap"] = None

    def run() -> None:
        for _ in estimator.estimate_many(iter(files), batch_size=8, **options):
            pass

    return run


def named_cases(setting: Setting, names: Sequence[str]) -> list[Memory]:
    """Measure some of ``CASES``; ValueError if one is unknown, DekrPoseError if a process fails."""
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
            f"{memory.case}: {CASES[memory.case].words}",
            number(memory.loaded_mib),
            *("unknown" if value is None else number(value) for value in (memory.peak_mib, memory.growth_mib)),
        ]
        for memory in measured
    ]
    head = f"peak memory of {setting.label()}, MiB, a fresh process each"
    return "\n".join([head, table(["", "loaded", "peak", "more"], rows)])


def _measured(setting: Setting, case: str, **options: Any) -> Memory:
    asked = {"path": sys.path, "setting": asdict(as_file(setting)), "case": case, **options}
    return Memory(case, **in_fresh_process(_PROBE, asked))


def answer(asked: dict[str, Any]) -> dict[str, float | None]:
    """What the fresh process measures: a case's two numbers."""
    setting = Setting(**asked["setting"])
    estimator = load(setting)
    if asked["case"] in CASES:
        run: Callable[[], object] = _run_case(estimator, setting, CASES[asked["case"]])
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
        found = dict(re.findall(r"^(\w+):\s+(\d+) kB$", status.read_text(encoding="utf-8"), re.MULTILINE))
        return int(found["VmRSS"]) / 1024, int(found["VmHWM"]) / 1024
    try:
        import resource
    except ImportError:
        return 0.0, None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes, on macOS
    return peak, peak
