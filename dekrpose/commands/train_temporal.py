"""``dekrpose train-temporal``: give an image model a memory and train it on clips."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from dekrpose.commands.arguments import VIDEO_SETS, check_files, check_model
from dekrpose.config import TemporalKind

EXAMPLES = (
    "dekrpose train-temporal --out runs/memory",
    "dekrpose train-temporal --out runs/memory --photos people.json --images photos --epochs 10",
)
_OPTIONS = (
    ("clips", int, 400, "N", "different clips in an epoch"),
    ("frames", int, 8, "N", "frames of a clip"),
    ("size", int, 160, "N", "side of the frames, input pixels, a multiple of 32; a flat GRU is made for it"),
    ("hidden", int, 512, "N", "units per layer and direction of a flat GRU"),
    ("epochs", int, 6, "N", "times that every clip is seen"),
    ("batch-size", int, 4, "N", "clips per step"),
    ("learning-rate", float, None, "X", "peak; default: 0.002 for a memory, less for the rest"),
    ("warmup", int, 20, "N", "steps until it is reached"),
    ("ema", float, 0.98, "X", "decay per step of the averaged weights"),
    ("resets", float, 0.1, "P", "share of frames before which everything is forgotten"),
    ("clean", float, 0.3, "P", "share of clips that stay clean"),
    ("seed", int, 0, "N", "decides the clips and their order"),
    ("workers", int, 0, "N", "processes that draw clips, with --train all"),
    ("checkpoint-minutes", float, 5.0, "M", "how often the state is saved"),
)  # fmt: skip
PARTS = ("heads", "memory", "memory+heads", "all")
"""The choices of the library, which is slow to load; a test compares them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``dekrpose train-temporal``."""
    parser.description = (
        "Give an image model a memory of earlier frames and train it on clips: of drawn people, of photos with known "
        "keypoints, of video data sets. Sources take turns."
    )
    parser.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="of the run; resumed if it is there")
    parser.add_argument("--init", metavar="MODEL", default="tiny", help="model to start from (default: tiny)")
    parser.add_argument(
        "--train", choices=PARTS, default="memory", dest="parts",
        help="the memory alone (default), the heads without memory, both, or the whole network at a low rate",
    )  # fmt: skip
    parser.add_argument(
        "--memory", choices=get_args(TemporalKind), default="convgru",
        help="of a new network: convolutional GRUs (default), or the seed project's flat GRU on offset maps",
    )  # fmt: skip
    parser.add_argument("--photos", metavar="DATA.json", type=Path, help="COCO keypoints: film these photos too")
    parser.add_argument("--images", metavar="PLACE", type=Path, nargs="+", help="folders, .tar, .zip of --photos")
    parser.add_argument(
        "--videos", metavar=("FORMAT", "FOLDER"), nargs=2, action="append", default=[],
        help=f"a video data set as published, {', '.join(VIDEO_SETS)}; may be given again",
    )  # fmt: skip
    parser.add_argument("--no-drawn", action="store_true", help="without drawn people")
    for name, kind, default, metavar, text in _OPTIONS:
        shown = "" if default is None else f" (default: {default})"
        parser.add_argument(f"--{name}", type=kind, default=default, metavar=metavar, help=f"{text}{shown}")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps, ...")
    parser.add_argument("--tensorboard", action="store_true", help="write event files into --out FOLDER/tensorboard")


def run(options: argparse.Namespace) -> int:
    """Train; the exit status is 0 when the run ended."""
    if options.size % 32:
        raise ValueError(f"--size must be a multiple of 32, got {options.size}")
    check_model(options.init)
    check_files([options.photos, *(options.images or []), *(Path(folder) for _, folder in options.videos)])
    from dekrpose.training import temporal_start

    return temporal_start.train(options)
