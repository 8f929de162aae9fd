"""``dekrpose eval MODEL --video``: accuracy, smoothness and lag on clips whose truth is known."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from dekrpose.commands.arguments import VIDEO_SETS
from dekrpose.errors import DekrPoseError
from dekrpose.formats import json_text, write_whole

if TYPE_CHECKING:
    from dekrpose.data.clips.clip import ClipShape, ClipSource

KINDS = ("drawn", "photos", *VIDEO_SETS)
CONDITIONS = ("clean", "blurred", "noisy", "occluded")
"""What is measured unless told otherwise."""
ALL_CONDITIONS = (*CONDITIONS, "dropped")
_DRAWN_CLIPS = 10**6
_OF_PHOTOS = (
    "flip", "sweep", "errors", "random_weights", "record", "results", "nms_threshold", "rescoring_net",
    "score_threshold", "crowd_limits", "compare", "scales",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``--video`` understands to the arguments of ``dekrpose eval``."""
    group = parser.add_argument_group("clips (with --video)")
    group.add_argument(
        "--video", choices=KINDS, metavar="KIND",
        help=f"measure on clips: {', '.join(KINDS)}; drawn needs no DATA, photos films those of DATA.json, the others "
        "take the folder of a data set for DATA",
    )  # fmt: skip
    group.add_argument("--clips", type=int, default=8, metavar="N", help="of each seed and condition (default: 8)")
    group.add_argument("--frames", type=int, default=20, metavar="N", help="of a clip (default: 20)")
    group.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="S", help="default: 0 1 2")
    group.add_argument(
        "--conditions", nargs="+", choices=ALL_CONDITIONS, default=list(CONDITIONS), metavar="C",
        help=f"{', '.join(ALL_CONDITIONS)} (default: {' '.join(CONDITIONS)})",
    )  # fmt: skip
    group.add_argument("--no-controls", action="store_true", help="without the two negative controls")


def run(options: argparse.Namespace) -> int:
    """Measure and print the table and the verdict; 0 when done."""
    from dekrpose.estimator import PoseEstimator
    from dekrpose.evaluation.video.compare import Bootstrap, compare
    from dekrpose.evaluation.video.report import comparison_page, controls, criterion, numbers, table, verdict
    from dekrpose.options import with_matching
    from dekrpose.video.memory import remembers

    for name in ("clips", "frames"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(options, name)}")
    _refuse_options_of_photos(options)
    estimator = PoseEstimator.from_pretrained(
        options.model, device=options.device, rescoring_net=False, trust_code=options.trust_code
    )
    estimator.config = with_matching(estimator.config, options.match_heatmap)
    size = options.input_size or estimator.config.input_size
    results = compare(
        estimator, _source(options), _shape(options, size), seeds=options.seeds, clips=options.clips,
        conditions=options.conditions, controls=not options.no_controls, input_size=size,
    )  # fmt: skip
    print(table(results))
    findings, checks = [], []
    if remembers(estimator.model):
        bootstrap = Bootstrap(results)
        findings, checks = criterion(results, bootstrap), controls(results, bootstrap)
        print(f"\nwith its memory, against frame by frame (95 % intervals):\n{verdict(findings)}")
        for check in checks:
            state = "as it should be" if check.holds else "NOT AS IT SHOULD BE"
            print(f"control, {state}: {check.words}: {check.numbers}")
        if not all(check.holds for check in checks):
            print("A control failed: not everything that the memory gains comes from what it should come from.")
    names = {"model": Path(options.model).name, "data": f"{options.video} clips", "command": command_line(options)}
    if options.json:
        write_whole(options.json, json_text({**names, **numbers(results, [*findings, *checks])}))
    if options.report:
        write_whole(options.report, comparison_page(results, findings, **names))
        print(f"\nreport in {options.report}")
    return 0


def _refuse_options_of_photos(options: argparse.Namespace) -> None:
    given = [name for name in _OF_PHOTOS if getattr(options, name)]
    if given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise DekrPoseError(f"{names} are for photos and mean nothing with --video; leave them out")


def command_line(options: argparse.Namespace) -> str:
    """The command that gives the same numbers, with names of files and folders, not their paths."""
    words = ["dekrpose", "eval", Path(options.model).name]
    words += [options.data.name] if options.data else []
    words += ["--images", *(place.name for place in options.images)] if options.images else []
    words += ["--video", options.video, "--clips", str(options.clips), "--frames", str(options.frames)]
    words += ["--seeds", *map(str, options.seeds)]
    words += ["--conditions", *options.conditions] if options.conditions != list(CONDITIONS) else []
    words += ["--input-size", str(options.input_size)] if options.input_size else []
    words += ["--match-heatmap", options.match_heatmap] if options.match_heatmap else []
    return shlex.join(words)


def _source(options: argparse.Namespace) -> ClipSource:
    from dekrpose.data.clips.drawn import DrawnClips
    from dekrpose.data.clips.photos import PhotoClips
    from dekrpose.data.clips.sequences import SequenceClips, read_sequences
    from dekrpose.data.dataset import KeypointDataset

    if options.video == "drawn":
        return DrawnClips("test", _DRAWN_CLIPS)
    if options.data is None:
        wanted = "DATA.json" if options.video == "photos" else "the folder of the data set"
        raise DekrPoseError(f"--video {options.video} needs {wanted} behind the model")
    if options.video == "photos":
        return PhotoClips(KeypointDataset(options.data, options.images))
    return SequenceClips(read_sequences(options.video, options.data, "test"))


def _shape(options: argparse.Namespace, size: int) -> ClipShape:
    """Made clips move as in training; the frames of real videos are taken one after the other, as they are."""
    from dekrpose.data.clips.clip import ClipShape

    if options.video in VIDEO_SETS:
        return ClipShape(options.frames, size, strides=(1, 1), rotation=0, scale=(1.0, 1.0), flip=0, drift=0)
    return ClipShape(options.frames, size)
