"""An exported file in ONNX Runtime, without dekrpose or torch: python exported_onnx.py tiny.onnx photo.jpg

``dekrpose export tiny tiny.onnx`` makes the file.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def main(model: str, path: str) -> None:
    session = onnxruntime.InferenceSession(model)
    config = json.loads(session.get_modelmeta().custom_metadata_map["dekrpose"])
    photo = ImageOps.exif_transpose(Image.open(path).convert("RGB"))
    scale = config["input_size"] / min(photo.size)
    small = np.asarray(photo.resize([round(side * scale) for side in photo.size], Image.Resampling.BILINEAR))
    height, width = (-(-side // 32) * 32 for side in small.shape[:2])
    images = np.zeros((1, 3, height, width), np.uint8)  # black at the right and bottom, up to multiples of 32
    images[0, :, : small.shape[0], : small.shape[1]] = small.transpose(2, 0, 1)
    keypoints, scores = session.run(["keypoints", "scores"], {"images": images})
    threshold = config["decode"]["rescored_threshold"] or config["decode"]["score_threshold"]  # the first: scoring net
    for person, score in zip(keypoints[0] / scale, scores[0], strict=True):
        if score > threshold:
            for name, (x, y) in zip(config["skeleton"]["keypoints"], person, strict=True):
                print(f"{score:.2f} {name} {x:.0f} {y:.0f}")
    if not (scores[0] > threshold).any():
        print(f"nobody above {threshold}")


if __name__ == "__main__":
    main(*sys.argv[1:] or sys.exit(__doc__))
