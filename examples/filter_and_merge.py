"""A second look at twice the size adds the people who were missed: python filter_and_merge.py photo.jpg out.jpg"""

from __future__ import annotations

import sys

from dekrpose import PoseEstimator


def main(photo: str, output: str) -> None:
    estimator = PoseEstimator.from_pretrained()
    first = estimator.estimate(photo).filter(score=0.6, keypoints=5)
    second = estimator.estimate(photo, input_size=2 * estimator.config.input_size).filter(score=0.6, keypoints=5)
    missed = second.filter(lambda person: all(person.similarity(other, aligned=False) < 0.3 for other in first))
    everyone = first + missed
    everyone.save(output, boxes=True, labels="score")
    print(f"{len(first)} and {len(missed)} more: {len(everyone)}")


if __name__ == "__main__":
    main(*sys.argv[1:] or sys.exit(__doc__))
