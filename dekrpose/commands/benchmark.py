"""The command line of ``dekrpose benchmark``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dekrpose.benchmark import first_pose as startup
from dekrpose.benchmark import made_up, memory
from dekrpose.benchmark.curves import CURVES, PEOPLE, measure_curve
from dekrpose.benchmark.report import Machine, Measured, comparison, ratios
from dekrpose.benchmark.settings import BACKENDS, LOOP, Setting, compared, load
from dekrpose.benchmark.stages import MATMUL, RUNS, WHOLE, Times, gmacs, matmul_job, measure, network_job, photo_job
from dekrpose.benchmark.streaming import measure_streaming
from dekrpose.commands.arguments import add_trust_code
from dekrpose.engines.devices import pick_device
from dekrpose.estimator import PoseEstimator
from dekrpose.formats import json_text, write_whole

PHOTO = "640x480"
"""The made-up photo of ``--curve`` and ``--first-pose``, unless another one is asked for."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``dekrpose benchmark``."""
    parser.add_argument("model", help="a model's name or file; a name without weights here gets random ones")
    parser.add_argument(
        "--compare", nargs="+", metavar="WHAT",
        help=f"measure a second setting in turn: another model, {LOOP!r} (naive: a loop over branches), or "
        "changes such as dtype=bfloat16 backend=onnx batch=4",
    )  # fmt: skip
    parser.add_argument(
        "--photo", metavar="FILE|WIDTHxHEIGHT", help="time the whole estimate of a photo, or of a made-up one"
    )
    parser.add_argument(
        "--people", type=int, metavar="N",
        help=f"made-up people to decode and draw in the place of those found (default: {PEOPLE} in a made-up photo)",
    )  # fmt: skip
    parser.add_argument("--input-size", type=int, metavar="N", help="short side in pixels; default: the model's own")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="photos at once (default: 1)")
    parser.add_argument("--flip", action="store_true", help="average with the mirrored photo")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    parser.add_argument("--dtype", default="auto", help="float32, bfloat16 or float16 for backbone and heatmap head")
    add_trust_code(parser)
    parser.add_argument("--backend", default="torch", help=f"{', '.join(BACKENDS)} (default: torch)")
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--curve", choices=CURVES, help="time against pixels, people or photos at once")
    modes.add_argument(
        "--memory", nargs="*", metavar="CASE",
        help=f"peak memory of these cases in fresh processes: {', '.join(memory.CASES)} (default: all)",
    )  # fmt: skip
    modes.add_argument(
        "--first-pose", action="store_true",
        help="time fresh processes from their first import to their second estimate",
    )  # fmt: skip
    modes.add_argument(
        "--stream", action="store_true", help="frames through the network with a memory of earlier ones, and without"
    )
    parser.add_argument("--at", type=int, nargs="+", metavar="N", help="with --curve: where to measure it")
    parser.add_argument("--svg", type=Path, metavar="OUT.svg", help="with --curve: draw it here")
    parser.add_argument(
        "--cold", action="store_true",
        help="with --first-pose: also with nothing downloaded or converted yet, each time",
    )  # fmt: skip
    parser.add_argument(
        "--runs", type=int, metavar="N", help="of each; the median is quoted (default: 9; with --first-pose: 5)"
    )
    parser.add_argument("--json", metavar="OUT.json", type=Path, help="write the numbers here")


def run(options: argparse.Namespace) -> int:
    """Measure as the options say and print tables."""
    _check(options)
    setting = Setting(
        options.model, options.device, options.dtype, options.backend, options.input_size, options.batch, options.flip,
        options.trust_code,
    )  # fmt: skip
    if options.first_pose:
        found = _first_pose(options)
    elif options.memory is not None:
        found = _memory(options, setting)
    elif options.curve:
        found = _curve(options, setting)
    elif options.stream:
        found = _stream(options, setting)
    else:
        found = _stages(options, setting)
    if options.json:
        _write(options.json, json_text(found))
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuse options that do not go together."""
    if options.runs is not None and options.runs < 1:
        raise ValueError(f"--runs must be at least 1, got {options.runs}")
    if options.people is not None and options.people < 0:
        raise ValueError(f"--people must be at least 0, got {options.people}")
    for name, owner in (("cold", "first_pose"), ("at", "curve"), ("svg", "curve")):
        if getattr(options, name) and not getattr(options, owner):
            raise ValueError(f"--{name} belongs to --{owner.replace('_', '-')}; give both")
    given = {
        "first-pose": options.first_pose, "memory": options.memory is not None, "curve": options.curve,
        "stream": options.stream,
    }  # fmt: skip
    mode = next((name for name, value in given.items() if value), None)
    if mode and options.compare is not None:
        raise ValueError(f"--{mode} measures one model; leave out --compare")
    if options.people is not None and not (options.photo or options.curve):
        raise ValueError("--people are decoded and drawn in a photo; give --photo too")
    if options.first_pose and (options.backend != "torch" or options.batch != 1 or options.flip):
        raise ValueError("--first-pose measures a plain estimate; leave out --backend, --batch and --flip")


def _stages(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    """By stage, one or two settings in turn."""
    settings = [setting] if options.compare is None else [setting, compared(setting, options.compare)]
    data = None if options.photo is None else made_up.photo_file(options.photo)
    people = _people(options, settings[0])
    estimators = [load(each) for each in settings]
    jobs: dict[str, Callable[[], Times]] = {}
    sizes = []
    for index, (estimator, each) in enumerate(zip(estimators, settings, strict=True)):
        job, size = network_job(estimator, each) if data is None else photo_job(estimator, each, data, people)
        jobs[str(index)] = job
        sizes.append(size)
    for estimator in estimators:
        jobs.setdefault(_limit(estimator), matmul_job(estimator.device, estimator.dtype))
    times = measure(jobs, options.runs or RUNS)
    measured = []
    for index, (estimator, each, size) in enumerate(zip(estimators, settings, sizes, strict=True)):
        limit = 2 * MATMUL**3 / 1e6 / times[_limit(estimator)][WHOLE].median_ms
        costs = gmacs(estimator, each, size)
        peak = memory.of_job(each, options.photo, people).growth_mib
        dtype = str(estimator.dtype).removeprefix("torch.")
        measured.append(Measured(each, dtype, size, times[str(index)], costs, limit, peak))
    machine = Machine.here(estimators[0].device)
    what = "network alone" if data is None else f"photo {options.photo} to picture{_planted(people)}"
    print(f"{what}\n{machine}\n")
    print("\n\n".join(str(each) for each in measured))
    found = {"machine": vars(machine), "photo": options.photo, "people": people}
    found["settings"] = [each.to_dict() for each in measured]
    if len(measured) == 2:
        print(f"\n{comparison(*measured)}")
        found["ratios"] = ratios(*measured)
    return found


def _limit(estimator: PoseEstimator) -> str:
    return f"{estimator.device}, {estimator.dtype}"


def _people(options: argparse.Namespace, setting: Setting) -> int | None:
    """How many people are planted: none in a photo that is a file, unless the user says so."""
    if options.people is not None or options.photo is None or Path(options.photo).is_file():
        people: int | None = options.people
        return people
    return PEOPLE


def _planted(people: int | None) -> str:
    if people is None:
        return ", people as found"
    return ", 1 made-up person" if people == 1 else f", {people} made-up people"


def _curve(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    """Times against one quantity."""
    options.photo = options.photo or PHOTO
    curve = measure_curve(
        options.curve, setting, load,
        photo=options.photo, data=made_up.photo_file(options.photo), values=options.at,
        people=_people(options, setting), runs=options.runs or RUNS,
    )  # fmt: skip
    machine = Machine.here(pick_device(setting.device))
    print(f"{machine}\n\n{curve}")
    if options.svg:
        _write(options.svg, curve.svg())
    return {"machine": vars(machine), **curve.to_dict()}


def _stream(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    """What a memory of earlier frames costs."""
    streaming = measure_streaming(setting, load, runs=options.runs or RUNS)
    machine = Machine.here(pick_device(setting.device))
    print(f"{machine}\n\n{streaming}")
    return {"machine": vars(machine), **streaming.to_dict()}


def _memory(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    """Peak memory of named cases."""
    measured = memory.named_cases(setting, options.memory or list(memory.CASES))
    machine = Machine.here(pick_device(setting.device))
    print(f"{machine}\n\n{memory.memory_table(setting, measured)}")
    cases = {each.case: {**vars(each), "growth_mib": each.growth_mib} for each in measured}
    return {"machine": vars(machine), "model": setting.model, "label": setting.label(), "cases": cases}


def _first_pose(options: argparse.Namespace) -> dict[str, Any]:
    """Fresh processes from their first import on."""
    measured = startup.first_pose(
        options.model,
        runs=options.runs or startup.RUNS,
        cold=options.cold,
        photo=made_up.photo_size(options.photo or PHOTO),
        load={"device": options.device, "dtype": options.dtype, "trust_code": options.trust_code},
        estimate={"input_size": options.input_size},
    )
    print(measured.table())
    return measured.to_dict()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)
