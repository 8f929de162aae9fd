"""How long a fresh process takes from its first import to its first pose."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dekrpose.benchmark.stages import Timing
from dekrpose.errors import DekrPoseError

IMPORT, LOAD, FIRST, SECOND = "import", "from_pretrained", "first estimate", "second estimate"
TO_FIRST_POSE = "to the first pose"
PHOTO = (640, 480)
"""Width and height of the made-up photo, unless another one is asked for."""
RUNS = 5
"""Processes of each kind, unless another number is asked for."""

# A string, because the process must import nothing before its clock runs.
_PROBE = """
import json, sys, time
asked, times = json.loads(sys.argv[1]), {}
sys.path[:] = asked["path"]

def timed(phase, job):
    start = time.perf_counter()
    result = job()
    times[phase] = 1000 * (time.perf_counter() - start)
    return result

def load_library():
    from dekrpose import PoseEstimator
    return PoseEstimator

try:
    library = timed("import", load_library)
    estimator = timed("from_pretrained", lambda: library.from_pretrained(asked["model"], **asked["load"]))
    import numpy as np
    import torch
    pixels = np.random.default_rng(0).integers(0, 256, asked["shape"], dtype=np.uint8)
    for phase in ("first estimate", "second estimate"):
        timed(phase, lambda: estimator.estimate(pixels, **asked["estimate"]))
    answer = {"times": times, "device": str(estimator.device), "threads": torch.get_num_threads()}
except Exception as error:
    answer = {"error": str(error) or type(error).__name__}
print(json.dumps(answer))
"""


@dataclass(frozen=True)
class Startup:
    """How long it takes until the first pose, and where that was measured.

    Attributes:
        model, photo, runs: what was asked for: a name or file, width and height, processes of each kind.
        warm: phase to its times, with everything downloaded and converted.
        cold: the same with an empty cache folder each time; None when it was not asked for.
        note: what a cold start means for this model.
    """

    model: str
    photo: tuple[int, int]
    runs: int
    warm: Mapping[str, Timing]
    cold: Mapping[str, Timing] | None
    device: str
    threads: int
    torch: str
    machine: str
    note: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def table(self) -> str:
        """Lines for a terminal."""
        width, height = self.photo
        lines = [
            f"first pose of {self.model}, made-up {width}x{height} photo, a fresh process each time; {self.device}, "
            f"{self.threads} threads, torch {self.torch}, {self.machine}"
        ]
        kinds = {"cold": self.cold, "warm": self.warm} if self.cold else {"": self.warm}
        for kind, phases in kinds.items():
            lines += [
                f"{f'{kind} {name}'.strip():24} median {phase.median_ms:9.1f} ms   "
                f"{phase.fastest_ms:.1f} to {phase.slowest_ms:.1f} in {self.runs} runs"
                for name, phase in phases.items()
            ]
        if self.cold:
            ratio = self.cold[TO_FIRST_POSE].median_ms / self.warm[TO_FIRST_POSE].median_ms
            lines.append(f"ratio of medians: the first pose takes {ratio:.2f} times as long cold as warm")
        return "\n".join([*lines, self.note])


def first_pose(
    model: str,
    *,
    runs: int = RUNS,
    cold: bool = False,
    photo: tuple[int, int] = PHOTO,
    load: Mapping[str, Any] | None = None,
    estimate: Mapping[str, Any] | None = None,
) -> Startup:
    """Measure import, ``from_pretrained``, first and second ``estimate`` in fresh processes, one after the other.

    A first process that does not count brings files into memory and, unless ``cold``, downloads what is missing. The
    start of Python itself is not part of the times.

    Args:
        model: a name, folder or weights file.
        runs: processes of each kind; the median is quoted.
        cold: measure also with an empty cache folder, a new one for each run, followed by a warm run with that folder;
            the user's own cache is neither read nor changed.
        photo: width and height of the made-up photo.
        load, estimate: options of ``from_pretrained`` and of ``estimate``.

    Raises:
        DekrPoseError: a process fails, for example because there is no such model.
    """
    if runs < 1:
        raise ValueError(f"runs must be at least 1, got {runs}")
    width, height = photo
    asked = {
        "model": model, "shape": [height, width, 3], "load": dict(load or {}), "estimate": dict(estimate or {}),
        "path": sys.path,
    }  # fmt: skip
    answers: dict[str, list[dict[str, Any]]] = {"cold": [], "warm": []}
    in_fresh_process(_PROBE, {**asked, "model": "tiny"} if cold else asked)
    for _ in range(runs):
        with tempfile.TemporaryDirectory(prefix="dekrpose-cold-") as folder:
            for kind in ("cold", "warm") if cold else ("warm",):
                answers[kind].append(in_fresh_process(_PROBE, asked, with_cache(folder) if cold else None))
    import torch

    where = (answers["warm"][0]["device"], answers["warm"][0]["threads"], torch.__version__, platform.machine())
    colds = _phases(answers["cold"]) if cold else None
    return Startup(model, photo, runs, _phases(answers["warm"]), colds, *where, note=_note(model))


def with_cache(folder: str | Path) -> dict[str, str]:
    """This process's environment with all downloads going into a folder: ours, and those of Hugging Face's client."""
    return {**os.environ, "DEKRPOSE_CACHE": str(folder), "HF_HUB_CACHE": str(Path(folder) / "hub")}


def in_fresh_process(
    script: str, asked: Mapping[str, Any], environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What a Python process of its own answers.

    The script finds ``asked`` as JSON in its first argument and prints a JSON object last, with "error" in it when
    something failed. An environment of None is this process's. DekrPoseError if it fails, or dies without an answer.
    """
    command = [sys.executable, "-c", script, json.dumps(asked)]
    # stderr stays the terminal's: progress bars of downloads
    process = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    lines = process.stdout.splitlines()
    if process.returncode or not lines:
        raise DekrPoseError(
            f"the process that measures ended with status {process.returncode} before it had an answer; what it wrote "
            "above may say why"
        )
    answer: dict[str, Any] = json.loads(lines[-1])
    if "error" in answer:
        raise DekrPoseError(answer["error"])
    return answer


def _phases(answers: Sequence[Mapping[str, Any]]) -> dict[str, Timing]:
    phases = {name: [answer["times"][name] for answer in answers] for name in (IMPORT, LOAD, FIRST)}
    phases[TO_FIRST_POSE] = [sum(times) for times in zip(*phases.values(), strict=True)]
    phases[SECOND] = [answer["times"][SECOND] for answer in answers]
    return {name: Timing.of(times) for name, times in phases.items()}


def _note(model: str) -> str:
    """What a cold start means for a model."""
    path = Path(model).expanduser()
    kept = "files stay in the system's memory, cold or warm"
    if model == "tiny" or path.is_dir() or (path.is_file() and path.suffix == ".safetensors"):
        return f"Nothing has to be downloaded or converted; {kept}."
    if path.is_file():
        return (
            f"{path.name} is converted in memory at every load, cold or warm; `dekrpose convert` does that once and "
            f"for all. The {kept}."
        )
    source = os.environ.get("DEKRPOSE_MIRROR") or "its usual address"
    return f"Cold, it is downloaded from {source} and converted; warm, it comes from the cache. The {kept}."
