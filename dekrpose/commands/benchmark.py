"""The command line of ``dekrpose benchmark``."""

from __future__ import annotations

import argparse
from pathlib import Path

from dekrpose.commands.arguments import add_match_argument, add_trust_code, check_model
from dekrpose.config import ARCHITECTURES

EXAMPLES = (
    "dekrpose benchmark tiny --photo photo.jpg",
    "dekrpose benchmark tiny --photo 640x480 --compare dtype=bfloat16",
    "dekrpose benchmark tiny --curve pixels --svg pixels.svg",
)
BACKENDS, LOOP = ("torch", "compile", "onnx", "openvino", "loop"), "loop"
CURVES, PEOPLE = ("pixels", "people", "batch"), 3
CASES = ("flip", "scales", "everything", "many")
"""The choices of ``dekrpose.benchmark``, which is slow to load; a test compares them."""


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
    add_match_argument(parser)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    parser.add_argument("--dtype", default="auto", help="float32, bfloat16 or float16 for backbone and heatmap head")
    add_trust_code(parser)
    parser.add_argument("--backend", default="torch", help=f"{', '.join(BACKENDS)} (default: torch)")
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--curve", choices=CURVES, help="time against pixels, people or photos at once")
    modes.add_argument(
        "--memory", nargs="*", metavar="CASE",
        help=f"peak memory of these cases in fresh processes: {', '.join(CASES)} (default: all)",
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
    from dekrpose.benchmark import command

    return command.run(options)


def _check(options: argparse.Namespace) -> None:
    """Refuse options that do not go together, and models that are not there."""
    check_model(options.model, tuple(ARCHITECTURES))
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
    if options.match_heatmap and not (
        options.photo or options.curve or options.first_pose or options.memory is not None
    ):
        raise ValueError("--match-heatmap moves keypoints, which the network alone has none of; give --photo too")
    if options.first_pose and (options.backend != "torch" or options.batch != 1 or options.flip):
        raise ValueError("--first-pose measures a plain estimate; leave out --backend, --batch and --flip")
