"""``dekrpose train``: from a COCO keypoints file to a model folder, with resume."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import get_args

from dekrpose.commands.arguments import check_files, share
from dekrpose.config import ARCHITECTURES, FORMER_NAMES, Branches

EXAMPLES = (
    "dekrpose train --check people.json --images photos",
    "dekrpose train people.json --images photos --out runs/mine --init tiny --epochs 40",
    "dekrpose train people.json --images photos --out runs/mine --init tiny --val val.json --val-images val.tar",
)
BACKBONES = ("hrnet-w32-imagenet", "hrnet-w48-imagenet", "efficientnet-lite0-imagenet")
TARGETS = ("paper", "official")
_RECIPE_OPTIONS = (
    ("epochs", int, "N", "times that every photo is seen"),
    ("batch-size", int, "N", "crops per step and process"),
    ("size", int, "N", "side of the crops, input pixels, a multiple of 32"),
    ("learning-rate", float, "X", "peak learning rate"),
    ("warmup", int, "N", "steps until it is reached"),
    ("seed", int, "N", "decides the order and the augmentation"),
    ("workers", int, "N", "processes that prepare batches"),
    ("limit", int, "N", "use only the first photos"),
    ("checkpoint-minutes", float, "M", "how often the state is saved"),
)
_PRECISION = "of backbone and heatmap head, auto: what is faster here; offsets stay in float32; default: the recipe's"
_CHOICES = (
    ("precision", ("auto", "float32", "bfloat16"), _PRECISION),
    ("optimizer", ("adamw", "adam", "sgd"), "default: the recipe's"),
    ("schedule", ("cosine", "steps", "linear"), "of the learning rate; default: the recipe's"),
    ("head-branches", get_args(Branches), "of a new network's offset head; default: the network's"),
)
_SWITCHES = (
    ("keep-backbone", "leave the whole backbone as it is in --init"),
    ("keep-early-layers", "leave the backbone's first layers as they are in --init"),
    ("no-augmentation", "the middle square of each photo as it is: does a network learn a few by heart?"),
    ("on-device", "keep all photos and make batches on the device: for small datasets"),
    ("compile", "backbone and heatmap head by torch.compile: slow to start, then faster"),
    ("no-adaptive", "plain convolutions in a new network's offset head (ablation)"),
    ("tensorboard", "write event files for TensorBoard into --out FOLDER/tensorboard"),
    ("paper", "the paper's recipe: Adam, tenths at two epochs, 40 crops of the full size"),
)
_CROWD_OPTIONS = (
    ("mosaic", "share of crops that join two or four photos"),
    ("copy-paste", "share of the other crops into which people are pasted"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``dekrpose train``."""
    parser.add_argument(
        "annotations", type=_dataset, metavar="DATA.json", nargs="+",
        help="COCO keypoints files, .json or .json.gz; DATA.json=3 shows its photos three times in an epoch",
    )  # fmt: skip
    parser.add_argument(
        "--images", metavar="PLACE", type=Path, nargs="+", help="folders, .tar or .zip files; default: beside DATA.json"
    )
    parser.add_argument("--out", metavar="FOLDER", type=Path, help="of the run; one that is there already is resumed")
    parser.add_argument(
        "--check", action="store_true",
        help="train nothing: report what is wrong with the data, and draw crops with their targets into "
        "DATA.samples.jpg (in --out, or here)",
    )  # fmt: skip
    parser.add_argument(
        "--arch", metavar="NAME", choices=sorted(ARCHITECTURES), type=lambda name: FORMER_NAMES.get(name, name),
        help=f"network: {', '.join(sorted(ARCHITECTURES))} (default: the one of --init, or tiny); where --init is a "
        "model of another architecture, its backbone alone is taken",
    )  # fmt: skip
    parser.add_argument(
        "--skeleton",
        metavar="FILE.json",
        type=Path,
        help="names, edges, flip pairs, sigmas that DATA.json does not say",
    )
    parser.add_argument(
        "--init", metavar="MODEL",
        help=f"weights to start from: a model's name, folder or file; {', '.join(BACKBONES)}; backbone=MODEL, a "
        "model's backbone alone; or movenet-multipose=PATH, MoveNet's JSON file or its folder",
    )  # fmt: skip
    parser.add_argument(
        "--teacher", metavar="MODEL", help="a trained model, as for --init, that teaches beside the labels"
    )
    parser.add_argument(
        "--teacher-share", metavar="P", type=share, help="its weight against the labels, 0 to 1; default: the recipe's"
    )
    parser.add_argument(
        "--pretrained-rate", metavar="P", type=share,
        help="learning rate of what published weights fill, as a share of the others'; 0 leaves it as it is; "
        "default: the recipe's",
    )  # fmt: skip
    parser.add_argument(
        "--val", metavar="VAL.json", type=Path, action="append", default=[],
        help="annotated photos, never trained on, to measure the averaged weights on; may be given again",
    )  # fmt: skip
    parser.add_argument(
        "--val-images", metavar="PLACE", type=Path, nargs="+", action="append", default=[],
        help="of the --val in the same place, as --images; default: beside VAL.json",
    )  # fmt: skip
    parser.add_argument("--val-every", metavar="N", type=int, help="steps between measurements; default: ten in a run")
    parser.add_argument(
        "--patience", metavar="N", type=int, help="stop after N measurements in a row without a higher mean AP"
    )
    parser.add_argument(
        "--head", metavar="NAME=VALUE", action="append", default=[],
        help="a setting of a new network's head, such as DirectPose's aligned=no, heatmaps=no, boxes=yes (ablations); "
        "may be given again",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps, ...")
    for name, kind, metavar, text in _RECIPE_OPTIONS:
        parser.add_argument(f"--{name}", type=kind, metavar=metavar, help=f"{text}; default: the network's recipe")
    for name, choices, text in _CHOICES:
        parser.add_argument(f"--{name}", choices=choices, help=text)
    for name, text in _SWITCHES:
        parser.add_argument(f"--{name}", action="store_true", help=text)
    for name, text in _CROWD_OPTIONS:
        parser.add_argument(f"--{name}", type=share, metavar="P", help=f"{text}, 0 to 1; default: the recipe's")
    parser.add_argument(
        "--targets", choices=TARGETS, default="paper",
        help="the paper's (default), or those of the released training code, with its weight of the offset loss; "
        "with --paper they repeat that training",
    )  # fmt: skip


def _dataset(text: str) -> tuple[Path, int]:
    """A data file and how many times an epoch shows its photos: FILE or FILE=3."""
    path, mark, times = text.rpartition("=")
    if not mark or Path(text).exists():
        return Path(text), 1
    if not times.isdigit():
        if not re.search(r"\.json(\.gz)?$", path):
            return Path(text), 1
        raise argparse.ArgumentTypeError(
            f"{path}=3 shows its photos three times in an epoch; {times!r} is no such number"
        )
    if int(times) < 1:
        raise argparse.ArgumentTypeError(f"photos are shown once or more in an epoch, got {text}")
    return Path(path), int(times)


def run(options: argparse.Namespace) -> int:
    """Train; the exit status is 0 when the run ended."""
    _check(options)
    from dekrpose.training import start

    config = start.recipe(options)
    if options.check:
        return start.check(options, config)
    if options.tensorboard:
        start.summary_writer()  # tells what is missing before photos are read
    with start.joined(options.device) as (processes, device):
        return start.train(options, config, processes, device)


def _check(options: argparse.Namespace) -> None:
    """Refuse what can be refused before anything is loaded."""
    if options.out is None and not options.check:
        raise ValueError("--out FOLDER is needed: the run is kept there (or --check, to look at the data only)")
    if options.teacher_share is not None and options.teacher is None:
        raise ValueError("--teacher-share weighs what a teacher says; give --teacher MODEL, or leave it out")
    if options.pretrained_rate is not None and options.init is None:
        raise ValueError("--pretrained-rate is for what published weights fill; give them by --init, or leave it out")
    _check_validation(options)
    check_files([path for path, _ in options.annotations])
    check_files([options.skeleton, *(options.images or []), *options.val])
    check_files(place for places in options.val_images for place in places)


def _check_validation(options: argparse.Namespace) -> None:
    if options.val_images and len(options.val_images) != len(options.val):
        raise ValueError(
            f"each --val needs its own --val-images, or none has any: got {len(options.val)} --val and "
            f"{len(options.val_images)} --val-images"
        )
    if not options.val and (options.val_every or options.patience):
        raise ValueError("--val-every and --patience need photos to measure on: give --val VAL.json")
