"""What ``dekrpose benchmark`` does with its options."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dekrpose.benchmark import first_pose as startup
from dekrpose.benchmark import made_up, memory
from dekrpose.benchmark.curves import PEOPLE, measure_curve
from dekrpose.benchmark.report import Machine, Measured, comparison, ratios
from dekrpose.benchmark.settings import Setting, compared, load
from dekrpose.benchmark.stages import MATMUL, RUNS, WHOLE, Times, gmacs, matmul_job, measure, network_job, photo_job
from dekrpose.benchmark.streaming import measure_streaming
from dekrpose.engines.devices import pick_device
from dekrpose.errors import counted
from dekrpose.estimator import PoseEstimator
from dekrpose.formats import json_text, write_whole
from dekrpose.options import matching

PHOTO = "640x480"
"""The made-up photo of ``--curve`` and ``--first-pose``, unless another one is asked for."""


def run(options: argparse.Namespace) -> int:
    """Measure as the options say and print tables."""
    setting = Setting(
        options.model, options.device, options.dtype, options.backend, options.input_size, options.batch, options.flip,
        options.trust_code, options.match_heatmap,
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


def _stages(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    """By stage, one or two settings in turn."""
    settings = [setting] if options.compare is None else [setting, compared(setting, options.compare)]
    data = None if options.photo is None else made_up.photo_file(options.photo)
    people = _people(options)
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
        costs = gmacs(estimator, each, size, (1.0,) if data is None else estimator.config.decode.scales)
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


def _people(options: argparse.Namespace) -> int | None:
    """How many people are planted: none in a photo that is a file, unless the user says so."""
    if options.people is not None or options.photo is None or Path(options.photo).is_file():
        people: int | None = options.people
        return people
    return PEOPLE


def _planted(people: int | None) -> str:
    return ", people as found" if people is None else f", {counted(people, 'made-up person', 'made-up people')}"


def _curve(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    """Times against one quantity."""
    options.photo = options.photo or PHOTO
    curve = measure_curve(
        options.curve, setting, load,
        photo=options.photo, data=made_up.photo_file(options.photo), values=options.at,
        people=_people(options), runs=options.runs or RUNS,
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
        estimate={"input_size": options.input_size, "match_heatmap": matching(options.match_heatmap)},
    )
    print(measured.table())
    return measured.to_dict()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)
