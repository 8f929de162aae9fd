"""From the command line of ``dekrpose train-temporal`` to a run: network, clips, recipe."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from dekrpose.architectures.contract import architecture_of
from dekrpose.architectures.dekr.recipes import tiny_recipe
from dekrpose.architectures.dekr.temporal import TemporalDEKR, with_memory
from dekrpose.architectures.learning import TrainConfig
from dekrpose.checkpoints import read_checkpoint
from dekrpose.config import TemporalConfig
from dekrpose.data.clips.clip import ClipShape, ClipSource
from dekrpose.data.clips.drawn import DrawnClips
from dekrpose.data.clips.photos import PhotoClips
from dekrpose.data.clips.sequences import SequenceClips, read_sequences
from dekrpose.data.dataset import KeypointDataset
from dekrpose.engines.devices import pick_device
from dekrpose.errors import DekrPoseError
from dekrpose.hub import models
from dekrpose.skeletons import COCO_17
from dekrpose.training.clips import ClipRecipe, CutoutClips, MixedClips
from dekrpose.training.run_log import summary_writer
from dekrpose.training.temporal import Parts, TemporalTrainer

_RATES: dict[Parts, float] = {"heads": 5e-4, "memory": 2e-3, "memory+heads": 1e-3, "all": 3e-5}


def train(options: argparse.Namespace) -> int:
    """Train; the exit status is 0 when the run ended."""
    if options.tensorboard:
        summary_writer()
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
        decode = replace(config.decode, scales=(1.0,))  # it reads maps of one size
        return with_memory(replace(config, input_size=options.size, decode=decode), weights, temporal)
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
