"""Several threads share one estimator: python thread_pool.py photos"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dekrpose import PoseEstimator, Poses
from dekrpose.images import find_images


def main(folder: str) -> None:
    estimator = PoseEstimator.from_pretrained()

    def find(photo: Path) -> Poses:
        return next(estimator.estimate_many([photo], on_error="skip"))  # a broken photo does not end the rest

    photos = find_images(folder)
    with ThreadPoolExecutor(2) as pool:
        for photo, poses in zip(photos, pool.map(find, photos), strict=True):
            print(f"{photo.name}: {poses.error or len(poses)}")


if __name__ == "__main__":
    main(*sys.argv[1:] or sys.exit(__doc__))
