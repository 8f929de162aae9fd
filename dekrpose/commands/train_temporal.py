"""``dekrpose train-temporal``: give an image model a memory and train it on clips."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import get_args

import torch

from dekrpose.architectures.contract import architecture_of
from dekrpose.architectures.dekr.recipes import tiny_recipe
from dekrpose.architectures.dekr.temporal import TemporalDEKR, with_memory
from dekrpose.architectures.learning import TrainConfig
from dekrpose.checkpoints import read_checkpoint
from dekrpose.config import TemporalConfig, TemporalKind
from dekrpose.data.clips.clip import ClipShape, ClipSource
from dekrpose.data.clips.drawn import DrawnClips
from dekrpose.data.clips.photos import PhotoClips
from dekrpose.data.clips.sequences import FORMATS, SequenceClips, read_sequences
from dekrpose.data.dataset import KeypointDataset
from dekrpose.engines.devices import pick_device
from dekrpose.errors import DekrPoseError
from dekrpose.hub import models
from dekrpose.skeletons import COCO_17
from dekrpose.training.clips import ClipRecipe, CutoutClips, MixedClips
from dekrpose.training.run_log import summary_writer
from dekrpose.training.temporal import Parts, TemporalTrainer

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
_RATES: dict[Parts, float] = {"heads": 5e-4, "memory": 2e-3, "memory+heads": 1e-3, "all": 3e-5}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``dekrpose train-temporal``."""
    parser.description = (
        "Give an image model a memory of earlier frames and train it on clips: of drawn people, of photos with known "
        "keypoints, of video data sets. Sources take turns."
    )
    parser.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="of the run; resumed if it is there")
    parser.add_argument("--init", metavar="MODEL", default="tiny", help="model to start from (default: tiny)")
    parser.add_argument(
        "--train", choices=get_args(Parts), default="memory", dest="parts",
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
        help=f"a video data set as published, {', '.join(FORMATS)}; may be given again",
    )  # fmt: skip
    parser.add_argument("--no-drawn", action="store_true", help="without drawn people")
    for name, kind, default, metavar, text in _OPTIONS:
        shown = "" if default is None else f" (default: {default})"
        parser.add_argument(f"--{name}", type=kind, default=default, metavar=metavar, help=f"{text}{shown}")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps, ...")
    parser.add_argument("--tensorboard", action="store_true", help="write event files into --out FOLDER/tensorboard")


def run(options: argparse.Namespace) -> int:
    """Train; the exit status is 0 when the run ended."""
    if options.tensorboard:
        summary_writer()
    if options.size % 32:
        raise ValueError(f"--size must be a multiple of 32, got {options.size}")
    torch.manual_seed(options.seed)
    model = _model(options)
    shape = ClipShape(frames=options.frames, size=options.size)
    recipe = ClipRecipe(shape, clips=options.clips, clean=options.clean, resets=options.resets)
    source = MixedClips(_sources(options))
    trainer = TemporalTrainer(
        model, _config(options), recipe, source, options.parts, options.out, pick_device(options.device),
        tensorboard=options.tensorboard,
    )  # fmt: skip
    weights = trainer.run()
    print(trainer.summary().replace("images", "clips"))
    print(f"wrote {weights}")
    return 0


def _config(options: argparse.Namespace) -> TrainConfig:
    names = ("epochs", "batch_size", "warmup", "ema", "seed", "workers", "checkpoint_minutes")
    chosen = {name: getattr(options, name) for name in names}
    rate = options.learning_rate or _RATES[options.parts]
    return replace(tiny_recipe(), precision="float32", learning_rate=rate, **chosen)


def _model(options: argparse.Namespace) -> TemporalDEKR:
    """The network to start from, with a fresh memory unless it has one."""
    checkpoint = read_checkpoint(models.resolve(options.init))
    config, weights = checkpoint.config, checkpoint.single()
    if not architecture_of(config).remembers:
        raise DekrPoseError(f"{architecture_of(config).title} has no memory; train-temporal trains DEKR networks")
    if config.skeleton.keypoints != COCO_17.keypoints:
        raise DekrPoseError(f"clips have COCO's 17 keypoints, {options.init} finds {config.skeleton.name}")
    before = config.training_data or "data that is not stated"
    names = [options.photos.name] if options.photos else []
    names += [kind for kind, _ in options.videos] + ([] if options.no_drawn else ["drawn people"])
    told = f"clips of {', '.join(names)}, from {Path(options.init).name}, which was trained on {before}"
    config = replace(config, name=options.out.resolve().name, training_data=told)
    if config.temporal is None:
        if options.memory == "convgru":
            return with_memory(config, weights)
        temporal = TemporalConfig(kind=options.memory, hidden=options.hidden, input_size=options.size)
        return with_memory(replace(config, input_size=options.size), weights, temporal)
    model = TemporalDEKR(config)
    model.load_state_dict(weights)
    return model


def _sources(options: argparse.Namespace) -> list[ClipSource]:
    sources: list[ClipSource] = [] if options.no_drawn else [DrawnClips("train", options.clips)]
    if options.photos is not None:
        dataset = KeypointDataset(options.photos, options.images)
        sources += [PhotoClips(dataset), CutoutClips(dataset)]
    sources += [SequenceClips(read_sequences(kind, folder, "train")) for kind, folder in options.videos]
    return sources
