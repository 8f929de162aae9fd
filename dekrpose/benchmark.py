"""``dekrpose benchmark``: how long a network or a whole estimate takes, alone or against another in the same run."""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

from dekrpose.config import ARCHITECTURES, HeadConfig
from dekrpose.errors import DekrPoseError
from dekrpose.estimator import PoseEstimator
from dekrpose.models.adaptive_conv import AdaptiveConv
from dekrpose.models.dekr import DEKR, BranchGroup, OffsetHead

WARMUP = 2
"""Runs of each that do not count."""
RUNS = 9
"""Runs that count, unless another number is asked for."""
LOOP = "loop"
"""What ``--compare`` calls the network whose offset head is a loop over branches."""


class LoopOverBranches(nn.Module):
    """An offset head as the official code computes it: one branch after the other, one sampling each.

    Args:
        head: the head whose weights are copied.
        config: what it was built from.
    """

    def __init__(self, head: OffsetHead, config: HeadConfig) -> None:
        super().__init__()
        self.transition = head.transition
        self.branches = nn.ModuleList()
        self.widths: list[int] = []
        for group, width in zip(head.groups, head.splits, strict=True):
            final = group.final
            assert isinstance(group, BranchGroup)
            assert isinstance(final, nn.Conv2d)
            count = final.groups
            for index in range(count):
                branch = BranchGroup(1, width // count, final.out_channels // count // 2, config)
                branch.load_state_dict(
                    {
                        name: value.chunk(count)[index] if value.ndim else value
                        for name, value in group.state_dict().items()
                    }
                )
                self.branches.append(branch)
                self.widths.append(width // count)
        self.channel_order = head.channel_order

    def forward(self, features: Tensor) -> Tensor:
        parts = self.transition(features).split(self.widths, dim=1)
        offsets = torch.cat([branch(part) for branch, part in zip(self.branches, parts, strict=True)], dim=1)
        return offsets if self.channel_order is None else offsets[:, self.channel_order]


@dataclass(frozen=True)
class Timing:
    """One measured thing: milliseconds per run."""

    name: str
    median_ms: float
    fastest_ms: float
    slowest_ms: float
    runs: int


def measure(jobs: dict[str, Callable[[], object]], runs: int) -> list[Timing]:
    """Run jobs in turn, A B A B ..., so that a drifting machine meets all alike."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for index in range(WARMUP + runs):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            if index >= WARMUP:
                times[name].append(1000 * (time.perf_counter() - start))
    return [Timing(name, median(values), min(values), max(values), runs) for name, values in times.items()]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``dekrpose benchmark``."""
    parser.add_argument("model", help="a model's name or file; a name without weights here gets random ones")
    parser.add_argument("--compare", metavar="OTHER", help=f"another model, or {LOOP!r}: a loop over branches")
    parser.add_argument(
        "--photo", metavar="WIDTHxHEIGHT", help="time the whole estimate of a made-up photo of this size"
    )
    parser.add_argument("--input-size", type=int, metavar="N", help="short side in pixels; default: the model's own")
    parser.add_argument(
        "--first-pose",
        action="store_true",
        help="time fresh processes from their first import to their second estimate",
    )
    parser.add_argument(
        "--cold",
        action="store_true",
        help="with --first-pose: also with nothing downloaded or converted yet, each time",
    )
    parser.add_argument(
        "--runs", type=int, metavar="N", help="of each; the median is quoted (default: 9; with --first-pose: 5)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    parser.add_argument("--dtype", default="auto", help="float32, bfloat16 or float16 for backbone and heatmap head")
    parser.add_argument("--json", metavar="OUT.json", type=Path, help="write the numbers here")


def run(options: argparse.Namespace) -> int:
    """Measure as the options say and print a table."""
    if options.runs is not None and options.runs < 1:
        raise ValueError(f"--runs must be at least 1, got {options.runs}")
    if options.first_pose:
        return run_first_pose(options)
    if options.cold:
        raise ValueError("--cold belongs to --first-pose; give both")
    estimators = {options.model: load(options.model, options.device, options.dtype)}
    if options.compare == LOOP:
        looped = load(options.model, options.device, options.dtype)
        head = LoopOverBranches(looped.model.offset_head, looped.config.head).eval().to(looped.device)
        looped.model.offset_head = head  # type: ignore[assignment]
        estimators[f"{options.model}, loop over branches"] = looped
    elif options.compare is not None:
        estimators[options.compare] = load(options.compare, options.device, options.dtype)
    jobs = {name: job(estimator, options.photo, options.input_size) for name, estimator in estimators.items()}
    timings = measure(jobs, options.runs or RUNS)
    device = next(iter(estimators.values())).device
    what = f"estimate of a {options.photo} photo" if options.photo else "network alone, one image"
    print(f"{what}; {device}, {torch.get_num_threads()} threads, torch {torch.__version__}, {platform.machine()}")
    for timing in timings:
        spread = f"{timing.fastest_ms:.1f} to {timing.slowest_ms:.1f}"
        print(f"{timing.name:40} median {timing.median_ms:9.1f} ms   {spread} in {timing.runs} runs")
    if len(timings) == 2:
        first, second = timings
        print(f"ratio of medians: {second.name} takes {second.median_ms / first.median_ms:.2f} times {first.name}")
    if options.json:
        options.json.write_text(json.dumps([asdict(timing) for timing in timings], indent=1) + "\n", encoding="utf-8")
    return 0


def run_first_pose(options: argparse.Namespace) -> int:
    """Measure fresh processes as the options say and print a table."""
    from dekrpose import startup

    if options.compare is not None:
        raise ValueError("--first-pose measures one model; leave out --compare")
    measured = startup.first_pose(
        options.model,
        runs=options.runs or startup.RUNS,
        cold=options.cold,
        photo=photo_size(options.photo) if options.photo else startup.PHOTO,
        load={"device": options.device, "dtype": options.dtype},
        estimate={"input_size": options.input_size},
    )
    print(measured.table())
    if options.json:
        options.json.write_text(json.dumps(measured.to_dict(), indent=1) + "\n", encoding="utf-8")
    return 0


def photo_size(text: str) -> tuple[int, int]:
    """Width and height of a photo from words such as 640x480."""
    try:
        width, height = (int(side) for side in text.lower().split("x"))
    except ValueError as error:
        raise ValueError(f"--photo must look like 640x480, got {text!r}") from error
    return width, height


def load(name: str, device: str, dtype: str) -> PoseEstimator:
    """An estimator by name or file; architectures whose weights are not here get random ones of the usual size."""
    try:
        return PoseEstimator.from_pretrained(name, device=device, dtype=dtype, local_files_only=name in ARCHITECTURES)
    except DekrPoseError:
        if name not in ARCHITECTURES:
            raise
    torch.manual_seed(0)
    model = DEKR(ARCHITECTURES[name])
    for module in model.modules():
        if isinstance(module, AdaptiveConv) and module.transform.bias is not None:
            nn.init.normal_(module.transform.bias)  # taps apart from each other, as in trained weights
    return PoseEstimator(model, device=device, dtype=dtype)


def job(estimator: PoseEstimator, photo: str | None, input_size: int | None) -> Callable[[], object]:
    """What to time: the network on a square input, or the whole estimate of a photo."""
    generator = np.random.default_rng(0)
    if photo is not None:
        width, height = photo_size(photo)
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        return lambda: estimator.estimate(pixels, input_size=input_size)
    size = input_size or estimator.config.input_size
    images = torch.from_numpy(generator.standard_normal((1, 3, size, size), dtype=np.float32)).to(estimator.device)
    images = images.contiguous(memory_format=torch.channels_last)

    def forward() -> None:
        with torch.inference_mode(), estimator.autocast():
            estimator.model(images)
        if estimator.device.type == "cuda":
            torch.cuda.synchronize(estimator.device)

    return forward
