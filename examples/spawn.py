"""Several processes with an estimator each, as on macOS and Windows: python spawn.py photos"""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

import torch

from dekrpose import PoseEstimator, Poses
from dekrpose.images import find_images


def start() -> None:
    global estimator
    torch.set_num_threads(1)  # the processes share the cores
    estimator = PoseEstimator.from_pretrained()


def find(photo: Path) -> Poses:
    (poses,) = estimator.estimate_many([photo], on_error="skip")  # a broken photo does not end the rest
    return poses  # which holds no photo: only the numbers travel


def main(folder: str) -> None:
    with multiprocessing.get_context("spawn").Pool(2, initializer=start) as pool:
        for poses in pool.imap(find, find_images(folder)):
            print(f"{poses.source}: {poses.error or len(poses)}")


if __name__ == "__main__":
    main(*sys.argv[1:] or sys.exit(__doc__))
