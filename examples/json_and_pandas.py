"""To JSON and back, to pandas and back, which is mirrored there: python json_and_pandas.py photo.jpg poses.json"""

from __future__ import annotations

import sys

from dekrpose import PoseEstimator, Poses


def main(photo: str, output: str) -> None:
    poses = PoseEstimator.from_pretrained().estimate(photo)
    poses.save(output)
    read = Poses.from_json(output)
    assert read.allclose(poses)

    table = read.to_pandas()
    print(table.groupby("keypoint", sort=False).score.mean().round(2).to_string())
    names = read.skeleton.keypoints
    other = {names[a]: names[b] for pair in read.skeleton.flip_pairs for a, b in (pair, pair[::-1])}
    table["x"] = read.image_size[1] - 1 - table["x"]  # mirrored: what was left is right
    table["keypoint"] = table["keypoint"].replace(other)
    mirrored = Poses.from_pandas(table, skeleton=read.skeleton, image_size=read.image_size)
    print(
        f"mirrored: {len(mirrored)}; {mirrored.scores.round(2)}, left_eye now at {mirrored['left_eye'][:, :2].round()}"
    )


if __name__ == "__main__":
    main(*sys.argv[1:] or sys.exit(__doc__))
