"""Fine-tune tiny on your own keypoints: python fine_tune.py people.json photos runs/mine 20"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from dekrpose import PoseEstimator
from dekrpose.architectures.learning import TrainConfig, learning_of
from dekrpose.config import ARCHITECTURES
from dekrpose.data.dataset import KeypointDataset
from dekrpose.training.initial import read_initial
from dekrpose.training.loader import CachedPhotos
from dekrpose.training.loop import Trainer
from dekrpose.training.skeleton_file import skeleton_of


def main(people: str, photos: str, folder: str, epochs: str = "20") -> None:
    skeleton = skeleton_of(Path(people))
    config, weights = read_initial("tiny", ARCHITECTURES["tiny"], skeleton)
    dataset = KeypointDataset(people, [photos], skeleton)
    recipe = learning_of(config).recipe(config, on_device=False) or TrainConfig()
    recipe = replace(recipe, epochs=int(epochs), batch_size=min(16, len(dataset)), keep_early_layers=True, workers=0)
    named = replace(config, name=Path(folder).name, training_data=f"{people}, from tiny, {config.training_data}")
    trainer = Trainer(named, recipe, CachedPhotos([dataset]), folder, initial=weights)
    trainer.run()
    print(trainer.summary())
    poses = PoseEstimator.from_pretrained(folder).estimate(dataset.read(0))
    print(f"{len(poses)} people with {', '.join(poses.skeleton.keypoints)} in {dataset.photos[0].file_name}")


if __name__ == "__main__":
    main(*sys.argv[1:] or sys.exit(__doc__))
