"""The joint angles of everyone in a folder of photos, as CSV: python joint_angles.py photos angles.csv"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from dekrpose import PoseEstimator


def main(folder: str, output: str) -> None:
    estimator = PoseEstimator.from_pretrained()
    with Path(output).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        for number, poses in enumerate(estimator.estimate_many(folder, on_error="skip")):
            angles = poses.joint_angles()
            if number == 0:
                writer.writerow(["photo", "person", "score", *angles])
            if poses.error:
                print(poses.error, file=sys.stderr)
            for person, score in enumerate(poses.scores):
                degrees = [f"{values[person]:.1f}" for values in angles.values()]
                writer.writerow([poses.source, person, f"{score:.3f}", *degrees])


if __name__ == "__main__":
    main(*sys.argv[1:] or sys.exit(__doc__))
