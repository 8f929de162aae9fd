"""What was measured, as tables for a terminal and as plain values for JSON."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from dekrpose.benchmark.settings import Setting
from dekrpose.benchmark.stages import MATMUL, NETWORK, NETWORK_REST, PARTS, WHOLE, Timing
from dekrpose.errors import counted


@dataclass(frozen=True)
class Machine:
    """Where it was measured."""

    processor: str
    threads: int
    device: str
    library: str
    system: str

    @classmethod
    def here(cls, device: torch.device) -> Machine:
        """This one."""
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        system = f"{platform.system()} {platform.machine()}"
        return cls(_processor(), torch.get_num_threads(), name, f"torch {torch.__version__}", system)

    def __str__(self) -> str:
        device = "" if self.device == "cpu" else f"{self.device}; "
        return f"{device}{self.processor}, {counted(self.threads, 'thread')}; {self.library}; {self.system}"


@dataclass(frozen=True)
class Measured:
    """The times of one setting by stage, the whole last.

    Attributes:
        dtype: of backbone and heatmap head.
        input_size: (height, width) of the network's input.
        gmacs: multiply-accumulates of one run, 10^9, by the network's parts.
        limit: GFLOP/s of the machine's matrix product in this dtype, in the same run.
        peak_mib: by how much memory grows while it runs, in a fresh process, MiB; None where that is not known.
    """

    setting: Setting
    dtype: str
    input_size: tuple[int, int]
    stages: Mapping[str, Timing]
    gmacs: Mapping[str, float]
    limit: float
    peak_mib: float | None

    def gmacs_of(self, stage: str) -> float | None:
        """Multiply-accumulates of a stage, None where there are none."""
        network = NETWORK if NETWORK in self.stages else WHOLE
        return sum(self.gmacs.values()) if stage == network else self.gmacs.get(stage)

    def gflops(self, stage: str) -> float | None:
        """GFLOP/s that a stage reaches; a multiply-accumulate is two operations."""
        gmacs = self.gmacs_of(stage)
        return None if gmacs is None else 2 * gmacs / self.stages[stage].median_ms * 1000

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        stages = {}
        for name, timing in self.stages.items():
            gmacs, gflops = self.gmacs_of(name), self.gflops(name)
            cost = {} if gflops is None else {"gmacs": gmacs, "gflops": gflops, "share_of_limit": gflops / self.limit}
            stages[name] = {**asdict(timing), **cost}
        return {
            **asdict(self.setting), "dtype": self.dtype, "label": self.setting.label(),
            "network_input": list(self.input_size), "stages": stages, "matmul_gflops": self.limit,
            "peak_memory_mib": self.peak_mib,
        }  # fmt: skip

    def __str__(self) -> str:
        rows = []
        for name, timing in self.stages.items():
            gmacs, gflops = self.gmacs_of(name), self.gflops(name)
            cost = ["", "", ""]
            if gmacs is not None and gflops is not None:
                cost = [number(gmacs), number(gflops), f"{gflops / self.limit:.0%}"]
            times = [number(value) for value in (timing.median_ms, timing.fastest_ms, timing.slowest_ms)]
            rows.append([_indented(name, self.stages), *times, *cost])
        header = ["", "median ms", "fastest", "slowest", "GMAC", "GFLOP/s", "of limit"]
        height, width = self.input_size
        runs = self.stages[WHOLE].runs
        lines = [
            f"{self.setting.label()}: {self.dtype}, network input {width}x{height}, {counted(runs, 'run')}",
            table(header, rows, rules=(len(rows) - 1,)),
            f"limit: {self.limit:,.0f} GFLOP/s, a {self.dtype} product of two {MATMUL}x{MATMUL} matrices in this run",
        ]
        if self.setting.batch > 1:
            each = self.stages[WHOLE].median_ms / self.setting.batch
            lines.append(f"per image: {number(each)} ms, {1000 / each:,.1f} a second")
        if self.peak_mib is not None:
            lines.append(f"peak memory: {self.peak_mib:,.0f} MiB more than after loading")
        return "\n".join(lines)


def ratios(first: Measured, second: Measured) -> dict[str, float]:
    """How many times as long the second takes, by stage that both have."""
    return {
        stage: second.stages[stage].median_ms / timing.median_ms
        for stage, timing in first.stages.items()
        if stage in second.stages and timing.median_ms > 0
    }


def comparison(first: Measured, second: Measured) -> str:
    """Both settings side by side, with the ratio of medians."""
    rows = []
    for name, ratio in ratios(first, second).items():
        medians = [number(each.stages[name].median_ms) for each in (first, second)]
        rows.append([_indented(name, first.stages), *medians, f"{ratio:.2f}"])
    head = f"A: {first.setting.label()}\nB: {second.setting.label()}"
    last = f"ratio of medians: B takes {rows[-1][-1]} times as long as A"
    return "\n".join([head, table(["median ms", "A", "B", "B / A"], rows, rules=(len(rows) - 1,)), last])


def table(header: Sequence[str], rows: Iterable[Sequence[str]], rules: Sequence[int] = ()) -> str:
    """Columns for a terminal: the first to the left, the others to the right; a rule before some rows."""
    rows = [list(row) for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    lines = [_line(header, widths), "-" * (sum(widths) + 2 * len(widths) - 2)]
    for index, row in enumerate(rows):
        lines += [lines[1]] if index in rules else []
        lines.append(_line(row, widths))
    return "\n".join(lines)


def number(value: float) -> str:
    """Three or four digits: 0.57, 12.3, 1,234."""
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 1000 else f"{value:,.0f}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
    return "  ".join([cells[0].ljust(len(first)), *others]).rstrip()


def _indented(stage: str, stages: Mapping[str, Timing]) -> str:
    if stage == NETWORK_REST:
        return "  other"
    return f"  {stage}" if stage in PARTS and NETWORK in stages else stage


def _processor() -> str:
    """The processor's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
