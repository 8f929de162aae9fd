"""From the command line of ``dekrpose train`` to a run: recipe, network, data, what the weights start from."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dekrpose.architectures.contract import Network, build
from dekrpose.architectures.learning import AugmentConfig, TrainConfig, learning_of
from dekrpose.config import ARCHITECTURES, DecodeConfig, HeadConfig, MobileNetConfig, ModelConfig, with_head
from dekrpose.data.dataset import KeypointDataset
from dekrpose.errors import DekrPoseError, counted
from dekrpose.options import whole_number
from dekrpose.skeletons import Skeleton
from dekrpose.training.check import check_dataset
from dekrpose.training.check_report import Findings, report
from dekrpose.training.contact_sheet import contact_sheet
from dekrpose.training.distributed import Processes, joined
from dekrpose.training.initial import BACKBONE, BACKBONES, brought, for_skeleton, read_initial
from dekrpose.training.loader import CachedPhotos
from dekrpose.training.loop import Trainer
from dekrpose.training.run_log import summary_writer
from dekrpose.training.skeleton_file import skeleton_of
from dekrpose.training.validation import Validation

__all__ = ["check", "joined", "recipe", "summary_writer", "train"]

SAMPLES = 16
"""Crops on a contact sheet."""
_SETTINGS = (
    "epochs", "batch_size", "learning_rate", "warmup", "seed", "workers", "limit", "checkpoint_minutes", "precision",
    "optimizer", "schedule", "teacher_share", "pretrained_rate",
)  # fmt: skip
_STILL: dict[str, Any] = {"rotation": 0.0, "scale": (1.0, 1.0), "translation": 0.0, "flip": 0.0}
_CROWDS = ("mosaic", "copy_paste")
"""Options of the same names in ``TrainConfig`` and ``AugmentConfig``."""
_NOBODY = (
    "there is nobody to learn from: no person in these photos has a labelled keypoint; see keypoints, category_id and "
    "image_id of the annotations, and --limit"
)


def recipe(options: argparse.Namespace) -> TrainConfig:
    """The network's recipe with the changes that the command line asks for."""
    asked = _architecture(options)
    network = asked if _backbone_alone(options) else brought(options.init, asked)
    learning = learning_of(network)
    if options.paper:
        base = learning.paper_recipe(asked if asked.architecture == network.architecture else network)
    else:
        own = learning.recipe(network, options.on_device)
        base = own or TrainConfig(augment=AugmentConfig(size=asked.input_size))
    changes = {name: getattr(options, name) for name in _SETTINGS if getattr(options, name) is not None}
    switches = {"on_device": options.on_device, "compiled": options.compile}
    switches |= {"keep_early_layers": options.keep_early_layers, "keep_backbone": options.keep_backbone}
    config = replace(base, **switches, **changes)
    size = options.size or base.augment.size
    if size <= 0 or size % 32:
        raise ValueError(f"--size must be a multiple of 32, got {size}")
    shares = {name: getattr(options, name) for name in _CROWDS if getattr(options, name) is not None}
    augment = AugmentConfig(**_STILL) if options.no_augmentation else config.augment
    config = replace(config, augment=replace(augment, size=size, **shares))
    config = learning.official(config) if options.targets == "official" else config
    config.targets.check(config.augment)
    return config


def train(options: argparse.Namespace, config: TrainConfig, processes: Processes, device: torch.device) -> int:
    """The whole run, in one of its processes; the exit status is 0 when it ended."""
    skeleton = _skeleton(options)
    torch.manual_seed(config.seed)  # what --init leaves open is the same in every process and every time
    model_config, initial = _start(options, skeleton)
    # it has learnt people of the size that they have in its crops
    looks = replace(model_config.decode, scales=(1.0,), max_aspect=DecodeConfig.max_aspect)
    model_config = replace(model_config, input_size=config.augment.size, decode=looks)
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
    done = trainer.progress.step >= trainer.total_steps
    weights = trainer.run()
    if processes.first and done:
        print(f"this run had ended before, at step {trainer.progress.step:,}; more --epochs go on from there")
    elif processes.first:
        print(trainer.summary())
    if processes.first:
        print(f"wrote {weights}")
    if trainer.stopped is not None:
        print(
            f"stopped at step {trainer.progress.step:,} of {trainer.total_steps:,}; the state is saved: give the same "
            "command again to go on",
            file=sys.stderr,
        )
        return 128 + trainer.stopped
    return 0


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


def _teacher(source: str, skeleton: Skeleton) -> Network:
    """A trained network that speaks of the same keypoints."""
    # a MoveNet alone: no path beside its pyramid, and branches that have next to nothing to do
    alone = ModelConfig(backbone=MobileNetConfig(channels=0), head=HeadConfig(keypoint_channels=1, blocks=1))
    config, weights = read_initial(source, alone, skeleton)
    model = build(config)
    if model.state_dict().keys() - weights.keys() or any(value.isnan().any() for value in weights.values()):
        raise DekrPoseError(f"--teacher must be a whole model of the data's keypoints, and {source} is none")
    model.load_state_dict(weights)
    return model


def _validation(options: argparse.Namespace, skeleton: Skeleton) -> Validation | None:
    if not options.val:
        return None
    places = options.val_images or [None] * len(options.val)
    datasets = [KeypointDataset(path, own, skeleton) for path, own in zip(options.val, places, strict=True)]
    for dataset in datasets:
        missing = dataset.missing()
        if missing:
            lost = f"{counted(len(missing), 'photo')} missing, first {missing[0]!r}"
            raise DekrPoseError(f"{dataset.path}: {lost}; check --val-images")
    return Validation(datasets, options.val_every, options.patience)


def _start(options: argparse.Namespace, skeleton: Skeleton) -> tuple[ModelConfig, dict[str, Tensor] | None]:
    """The network, and what its weights start from: None for fresh ones."""
    model_config = for_skeleton(_architecture(options), skeleton)
    data, initial = ", ".join(path.name for path, _ in options.annotations), None
    source = options.init
    if _backbone_alone(options):
        source = f"{BACKBONE}={source.removeprefix(f'{BACKBONE}=')}"
    if source is not None:
        model_config, initial = read_initial(source, model_config, skeleton)
        before = model_config.training_data or "data that is not stated"
        data = f"{data}, from {Path(source).name}, which was trained on {before}"
    return replace(model_config, name=options.out.resolve().name, training_data=data), initial


def _architecture(options: argparse.Namespace) -> ModelConfig:
    """The network to build, with the head that is asked for."""
    config = ARCHITECTURES[options.arch or "tiny"]
    head = _head_changes(options.head, config)
    if options.head_branches:
        head["branches"] = options.head_branches
    if options.no_adaptive:
        head["adaptive"] = False
    if head and options.init is not None and options.init not in BACKBONES and not _backbone_alone(options):
        raise DekrPoseError(
            f"--head, --head-branches and --no-adaptive shape new networks, but {options.init} brings its own head; "
            f"leave them out, or start from a backbone: backbone={options.init}, {', '.join(BACKBONES)}"
        )
    unknown = sorted(head.keys() - asdict(config.head).keys())
    if unknown:
        raise ValueError(f"the head of {config.name} has no {unknown[0]}; it has {', '.join(asdict(config.head))}")
    return with_head(config, config.name, **head)


def _head_changes(words: Sequence[str], config: ModelConfig) -> dict[str, Any]:
    """Settings as NAME=VALUE, in the types that the head's have."""
    changes: dict[str, Any] = {}
    for word in words:
        name, _, value = word.partition("=")
        own = getattr(config.head, name, None)
        if isinstance(own, bool) and value not in ("yes", "no"):
            raise ValueError(f"--head {name} must be yes or no, got {value!r}")
        if isinstance(own, bool):
            changes[name] = value == "yes"
        else:
            changes[name] = whole_number(name, value) if isinstance(own, int) else value
    return changes


def _backbone_alone(options: argparse.Namespace) -> bool:
    """Whether the new network has nothing but the backbone from ``--init``."""
    if options.init is None or options.init in BACKBONES:
        return False
    if options.init.startswith(f"{BACKBONE}="):
        return True
    if options.arch is None:
        return False
    asked = ARCHITECTURES[options.arch]
    return brought(options.init, asked).architecture != asked.architecture
