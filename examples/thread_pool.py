"""Several threads share one estimator: python thread_pool.py photos"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from dekrpose import PoseEstimator
from dekrpose.images import find_images


def main(folder: str) -> None:
    estimator = PoseEstimator.from_pretrained()
    photos = find_images(folder)
    with ThreadPoolExecutor(2) as pool:
        for photo, poses in zip(photos, pool.map(estimator, photos), strict=True):
            print(f"{photo.name}: {len(poses)}")


if __name__ == "__main__":
    main(*sys.argv[1:] or sys.exit(__doc__))
