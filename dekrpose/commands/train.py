"""``dekrpose train``: from a COCO keypoints file to a model folder, with resume."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from dekrpose.architectures.contract import Network, build
from dekrpose.architectures.learning import AugmentConfig, TrainConfig, learning_of
from dekrpose.config import ARCHITECTURES, Branches, HeadConfig, MobileNetConfig, ModelConfig, with_head
from dekrpose.data.dataset import KeypointDataset
from dekrpose.errors import DekrPoseError
from dekrpose.skeletons import Skeleton
from dekrpose.training.check import check_dataset
from dekrpose.training.check_report import Findings, report
from dekrpose.training.contact_sheet import contact_sheet
from dekrpose.training.distributed import Processes, joined
from dekrpose.training.initial import BACKBONES, brought, for_skeleton, read_initial
from dekrpose.training.loader import CachedPhotos
from dekrpose.training.loop import Trainer
from dekrpose.training.run_log import summary_writer
from dekrpose.training.skeleton_file import skeleton_of
from dekrpose.training.validation import Validation

SAMPLES = 16
"""Crops on a contact sheet."""
_NOBODY = (
    "there is nobody to learn from: no person in these photos has a labelled keypoint; see keypoints, category_id and "
    "image_id of the annotations, and --limit"
)
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
    ("optimizer", ("adamw", "adam"), "default: the recipe's"),
    ("schedule", ("cosine", "steps"), "of the learning rate; default: the recipe's"),
    ("head-branches", get_args(Branches), "of a new network's offset head; default: the network's"),
)
_SWITCHES = (
    ("keep-early-layers", "leave the backbone's first layers as they are in --init"),
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
        "--arch", metavar="NAME", choices=sorted(ARCHITECTURES), default="tiny",
        help=f"network: {', '.join(sorted(ARCHITECTURES))} (default: tiny)",
    )  # fmt: skip
    parser.add_argument(
        "--skeleton",
        metavar="FILE.json",
        type=Path,
        help="names, edges, flip pairs, sigmas that DATA.json does not say",
    )
    parser.add_argument(
        "--init", metavar="MODEL",
        help=f"weights to start from: a model's name, folder or file; {', '.join(BACKBONES)}; or "
        "movenet-multipose=PATH, MoveNet's JSON file or its folder",
    )  # fmt: skip
    parser.add_argument(
        "--teacher", metavar="MODEL", help="a trained model, as for --init, that teaches beside the labels"
    )
    parser.add_argument(
        "--teacher-share", metavar="P", type=_share, help="its weight against the labels, 0 to 1; default: the recipe's"
    )
    parser.add_argument(
        "--pretrained-rate", metavar="P", type=_share,
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
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps, ...")
    for name, kind, metavar, text in _RECIPE_OPTIONS:
        parser.add_argument(f"--{name}", type=kind, metavar=metavar, help=f"{text}; default: the network's recipe")
    for name, choices, text in _CHOICES:
        parser.add_argument(f"--{name}", choices=choices, help=text)
    for name, text in _SWITCHES:
        parser.add_argument(f"--{name}", action="store_true", help=text)
    for name, text in _CROWD_OPTIONS:
        parser.add_argument(f"--{name}", type=_share, metavar="P", help=f"{text}, 0 to 1; default: the recipe's")
    parser.add_argument(
        "--targets", choices=("paper", "official"), default="paper",
        help="the paper's (default), or those of the released training code, with its weight of the offset loss; "
        "with --paper they repeat that training",
    )  # fmt: skip


def recipe(options: argparse.Namespace) -> TrainConfig:
    """The network's recipe with the changes that the command line asks for."""
    network = brought(options.init, ARCHITECTURES[options.arch])
    learning, asked = learning_of(network), ARCHITECTURES[options.arch]
    if options.paper:
        base = learning.paper_recipe(asked)
    else:
        own = learning.recipe(options.arch, network, options.on_device)
        base = own or TrainConfig(augment=AugmentConfig(size=asked.input_size))
    names = [name.replace("-", "_") for name, *_ in _RECIPE_OPTIONS if name != "size"]
    names += ["precision", "optimizer", "schedule", "teacher_share", "pretrained_rate"]
    changes = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    switches = {"on_device": options.on_device, "compiled": options.compile}
    config = replace(base, keep_early_layers=options.keep_early_layers, **switches, **changes)
    size = options.size or base.augment.size
    if size <= 0 or size % 32:
        raise ValueError(f"--size must be a multiple of 32, got {size}")
    names = [name.replace("-", "_") for name, _ in _CROWD_OPTIONS]
    shares = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    config = replace(config, augment=replace(config.augment, size=size, **shares))
    config = learning.official(config) if options.targets == "official" else config
    config.targets.check(config.augment)
    return config


def _dataset(text: str) -> tuple[Path, int]:
    """A data file and how many times an epoch shows its photos: FILE or FILE=3."""
    path, mark, times = text.rpartition("=")
    if not mark or not times.isdigit() or Path(text).exists():
        return Path(text), 1
    if int(times) < 1:
        raise argparse.ArgumentTypeError(f"photos are shown once or more in an epoch, got {text}")
    return Path(path), int(times)


def _teacher(source: str, skeleton: Skeleton) -> Network:
    """A trained network that speaks of the same keypoints."""
    # a MoveNet alone: no path beside its pyramid, and branches that have next to nothing to do
    alone = ModelConfig(backbone=MobileNetConfig(channels=0), head=HeadConfig(keypoint_channels=1, blocks=1))
    config, weights = read_initial(source, alone, skeleton)
    model = build(config)
    model.load_state_dict(weights)
    return model


def _share(text: str) -> float:
    if not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, got {text}")
    return float(text)


def check(options: argparse.Namespace, config: TrainConfig) -> int:
    """Report problems of the data and draw a contact sheet; 1 when there are errors."""
    try:
        skeleton = _skeleton(options)
    except DekrPoseError as error:
        findings = Findings()
        findings.add("file", str(error))
        print(report(findings.problems()))
        return 1
    wrong, nobody = False, True
    for path, _ in options.annotations:
        problems = check_dataset(path, options.images, skeleton, progress=True)
        print(report(problems) if len(options.annotations) == 1 else f"{path.name}:\n{report(problems)}\n")
        wrong |= any(problem.severity == "error" for problem in problems)
        nobody &= any(problem.kind == "nobody" for problem in problems)
    if wrong:
        print("\nno samples are drawn before the errors are repaired", file=sys.stderr)
        return 1
    if nobody:
        print(f"\n{_NOBODY}", file=sys.stderr)
        return 1
    folder = options.out or Path()
    folder.mkdir(parents=True, exist_ok=True)
    for path, _ in options.annotations:
        photos = KeypointDataset(path, options.images, skeleton)
        sheet = folder / f"{path.name.split('.')[0]}.samples.jpg"
        print(f"\nwrote {contact_sheet(photos, config.augment, config.targets, sheet, SAMPLES, config.seed)}")
    return 0


def _skeleton(options: argparse.Namespace) -> Skeleton:
    """The skeleton of all data files, which must have the same keypoints."""
    first, *others = ((path, skeleton_of(path, options.skeleton)) for path, _ in options.annotations)
    for path, skeleton in others:
        if skeleton.keypoints != first[1].keypoints:
            raise DekrPoseError(
                f"{path} has other keypoints than {first[0]}: {', '.join(skeleton.keypoints)}, not "
                f"{', '.join(first[1].keypoints)}; train on files of one skeleton"
            )
    return first[1]


def run(options: argparse.Namespace) -> int:
    """Train; the exit status is 0 when the run ended."""
    config = recipe(options)
    if options.check:
        return check(options, config)
    _check_validation(options)
    if options.out is None:
        raise ValueError("--out FOLDER is needed: the run is kept there (or --check, to look at the data only)")
    if options.tensorboard:
        summary_writer()  # tells what is missing before photos are read
    with joined(options.device) as (processes, device):
        return _train(options, config, processes, device)


def _train(options: argparse.Namespace, config: TrainConfig, processes: Processes, device: torch.device) -> int:
    skeleton = _skeleton(options)
    torch.manual_seed(config.seed)  # what --init leaves open is the same in every process and every time
    model_config, initial = _start(options, skeleton)
    teacher = None if options.teacher is None else _teacher(options.teacher, model_config.skeleton)
    validation = _validation(options, model_config.skeleton)
    datasets = [KeypointDataset(path, options.images, model_config.skeleton) for path, _ in options.annotations]
    if not any(photo.labelled for dataset in datasets for photo in dataset.photos[: config.limit]):
        raise DekrPoseError(_NOBODY)
    times = [count for _, count in options.annotations]
    photos = CachedPhotos(datasets, config.limit, progress=processes.first, times=times)
    trainer = Trainer(
        model_config, config, photos, options.out, device, initial, processes=processes,
        tensorboard=options.tensorboard, teacher=teacher, validation=validation,
    )  # fmt: skip
    weights = trainer.run()
    if processes.first:
        print(trainer.summary())
        print(f"wrote {weights}")
    if trainer.stopped is not None:
        print(
            f"stopped at step {trainer.progress.step:,} of {trainer.total_steps:,}; the state is saved: give the same "
            "command again to go on",
            file=sys.stderr,
        )
        return 128 + trainer.stopped
    return 0


def _check_validation(options: argparse.Namespace) -> None:
    if options.val_images and len(options.val_images) != len(options.val):
        raise ValueError(
            f"each --val needs its own --val-images, or none has any: got {len(options.val)} --val and "
            f"{len(options.val_images)} --val-images"
        )
    if not options.val and (options.val_every or options.patience):
        raise ValueError("--val-every and --patience need photos to measure on: give --val VAL.json")


def _validation(options: argparse.Namespace, skeleton: Skeleton) -> Validation | None:
    if not options.val:
        return None
    places = options.val_images or [None] * len(options.val)
    datasets = [KeypointDataset(path, own, skeleton) for path, own in zip(options.val, places, strict=True)]
    for dataset in datasets:
        missing = dataset.missing()
        if missing:
            raise DekrPoseError(f"{len(missing)} photos of {dataset.path} are missing, for instance {missing[0]!r}")
    return Validation(datasets, options.val_every, options.patience)


def _start(options: argparse.Namespace, skeleton: Skeleton) -> tuple[ModelConfig, dict[str, Tensor] | None]:
    """The network, and what its weights start from: None for fresh ones."""
    model_config = for_skeleton(_architecture(options), skeleton)
    data, initial = ", ".join(path.name for path, _ in options.annotations), None
    if options.init is not None:
        model_config, initial = read_initial(options.init, model_config, skeleton)
        before = model_config.training_data or "data that is not stated"
        data = f"{data}, from {Path(options.init).name}, which was trained on {before}"
    return replace(model_config, name=options.out.resolve().name, training_data=data), initial


def _architecture(options: argparse.Namespace) -> ModelConfig:
    """The network to build, with the head that is asked for."""
    head: dict[str, object] = {"branches": options.head_branches} if options.head_branches else {}
    if options.no_adaptive:
        head["adaptive"] = False
    if head and options.init is not None and options.init not in BACKBONES:
        raise DekrPoseError(
            f"--head-branches and --no-adaptive shape new networks, but {options.init} brings its own head; leave them "
            f"out, or start from a backbone: {', '.join(BACKBONES)}"
        )
    return with_head(ARCHITECTURES[options.arch], options.arch, **head)
