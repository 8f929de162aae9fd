"""Pictures in colours of one's own: python own_colors.py photo.jpg folder"""

from __future__ import annotations

import sys
from pathlib import Path

from dekrpose import PoseEstimator


def main(photo: str, folder: str) -> None:
    poses = PoseEstimator.from_pretrained().estimate(photo)
    out = Path(folder)
    poses.save(out / "palette.jpg", colors=["#e4572e", "#17bebb", "#ffc914"])
    poses.save(out / "sides.jpg", colors={"left": "deepskyblue", "right": "tomato", "middle": "white"})
    poses.save(out / "scores.jpg", color_by="score", boxes=True, labels="score")
    poses.save(out / "texts.jpg", labels=lambda person: f"elbow {person.angle('left_elbow'):.0f} degrees")
    poses.save(out / "private.jpg", blur_faces=True)
    poses.save(out / "blank.png", background="white", thickness=4, names=True)


if __name__ == "__main__":
    main(*sys.argv[1:] or sys.exit(__doc__))
