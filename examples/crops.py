"""A picture of each person: python crops.py photo.jpg folder"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from dekrpose import PoseEstimator


def main(photo: str, folder: str) -> None:
    poses = PoseEstimator.from_pretrained().estimate(photo)
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    for number, person in enumerate(poses.filter(area=1)):  # nobody who lies outside of the photo
        Image.fromarray(person.crop(margin=0.2)).save(out / f"{number}.png")
        print(number, person.to_dict()["keypoints"]["nose"])


if __name__ == "__main__":
    main(*sys.argv[1:] or sys.exit(__doc__))
