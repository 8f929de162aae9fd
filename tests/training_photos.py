"""A made-up dataset: coloured dots as keypoints on grey photos."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from dekrpose.config import BackboneConfig, HeadConfig, ModelConfig
from dekrpose.data.dataset import KeypointDataset

SMALL = ModelConfig(
    name="small",
    input_size=64,
    backbone=BackboneConfig(width=4, stem_channels=8, layer1_channels=4, layer1_blocks=1, modules=(1, 1, 1), blocks=1),
    head=HeadConfig(heatmap_channels=8, keypoint_channels=4, blocks=1),
)
"""A network that trains in milliseconds."""


def write_dataset(folder: Path, photos: int = 6, size: int = 96) -> tuple[Path, Path]:
    """Write photos of one person each, whose 17 keypoints are dots; return the annotations and the photos' folder."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    (folder / "photos").mkdir(parents=True)
    for index in range(photos):
        image = np.full((size, size, 3), 90, np.uint8)
        points = rng.integers(size // 4, 3 * size // 4, (17, 2))
        for channel, (x, y) in enumerate(points.tolist()):
            cv2.circle(image, (x, y), 2, (15 * channel, 255 - 15 * channel, 200), -1)
        cv2.imwrite(str(folder / "photos" / f"{index}.png"), image)
        images.append({"id": index, "file_name": f"{index}.png", "width": size, "height": size})
        annotations.append(
            {
                "id": index, "image_id": index, "category_id": 1, "iscrowd": 0, "area": 900.0,
                "bbox": [size / 4, size / 4, size / 2, size / 2], "num_keypoints": 17,
                "keypoints": [value for x, y in points.tolist() for value in (x, y, 2)],
            }
        )  # fmt: skip
    path = folder / "people.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": []}))
    return path, folder / "photos"


def made_up_dataset(folder: Path, photos: int = 6) -> KeypointDataset:
    """The dataset itself."""
    annotations, images = write_dataset(folder, photos)
    return KeypointDataset(annotations, [images])
