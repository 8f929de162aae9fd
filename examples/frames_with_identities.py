"""A loop over frames: who stays how long in a film: python frames_with_identities.py film.mp4"""

from __future__ import annotations

import sys
from collections import Counter

from dekrpose import PoseEstimator


def main(film: str) -> None:
    estimator = PoseEstimator.from_pretrained()
    frames: Counter[int] = Counter()
    with estimator.estimate_video(film, track=True, smooth=True) as stream:
        for poses in stream:
            if poses.error:
                print(f"frame {poses.index}: {poses.error}", file=sys.stderr)
            for person in poses.filter(lambda person: person.track_id != -1):  # -1: no identity yet
                assert person.track_id is not None
                frames[person.track_id] += 1
    for identity, count in frames.most_common():
        print(f"#{identity}: {count} frames")


if __name__ == "__main__":
    main(*sys.argv[1:] or sys.exit(__doc__))
