"""``dekrpose train``: from a COCO keypoints file to a model folder, with resume."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from dekrpose.checkpoints import read_checkpoint
from dekrpose.config import ARCHITECTURES, ModelConfig
from dekrpose.evaluation.dataset import KeypointDataset
from dekrpose.training.augment import AugmentConfig
from dekrpose.training.loader import CachedPhotos
from dekrpose.training.loop import TrainConfig, Trainer, tiny_recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``dekrpose train``."""
    parser.add_argument("annotations", type=Path, help="COCO keypoints file, .json or .json.gz")
    parser.add_argument("--images", type=Path, nargs="+", help="folders, .tar or .zip files with the photos")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; an existing run is resumed")
    parser.add_argument("--arch", choices=sorted(ARCHITECTURES), default="tiny", help="network (default: tiny)")
    parser.add_argument("--init", type=Path, help="weights to start from, any format that dekrpose reads")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    for name, kind, text in (
        ("epochs", int, "times that every photo is seen"),
        ("batch-size", int, "crops per step"),
        ("size", int, "side of the crops, input pixels"),
        ("learning-rate", float, "peak learning rate"),
        ("warmup", int, "steps until it is reached"),
        ("seed", int, "decides the order and the augmentation"),
        ("workers", int, "processes that prepare batches"),
        ("limit", int, "use only the first photos"),
        ("checkpoint-minutes", float, "how often the state is saved"),
    ):
        parser.add_argument(f"--{name}", type=kind, help=f"{text} (default: the network's recipe)")
    parser.add_argument("--precision", choices=("float32", "bfloat16"))


def recipe(options: argparse.Namespace) -> TrainConfig:
    """The network's recipe with the changes that the command line asks for."""
    base = tiny_recipe() if options.arch == "tiny" else TrainConfig()
    names = (
        "epochs",
        "batch_size",
        "learning_rate",
        "warmup",
        "seed",
        "workers",
        "limit",
        "checkpoint_minutes",
        "precision",
    )
    changes = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    config = replace(base, **changes)
    size = options.size or (config.augment.size if options.arch == "tiny" else ARCHITECTURES[options.arch].input_size)
    return replace(config, augment=_with_size(config.augment, size))


def _with_size(augment: AugmentConfig, size: int) -> AugmentConfig:
    if size <= 0 or size % 32:
        raise ValueError(f"--size must be a multiple of 32, got {size}")
    return replace(augment, size=size)


def run(options: argparse.Namespace) -> int:
    """Train; the exit status is 0 when the run ended."""
    config = recipe(options)
    dataset = KeypointDataset(options.annotations, options.images)
    model_config: ModelConfig = ARCHITECTURES[options.arch]
    initial = None
    if options.init is not None:
        checkpoint = read_checkpoint(options.init)
        model_config, initial = checkpoint.config, checkpoint.state_dict
    trainer = Trainer(model_config, config, CachedPhotos(dataset, config.limit), options.out, options.device, initial)
    print(f"wrote {trainer.run()}")
    return 0
