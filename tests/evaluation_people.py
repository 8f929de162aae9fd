"""Annotated people drawn by hand, for the tests of the evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dekrpose.data.dataset import KeypointDataset

STANDING = np.float32(
    [
        (0.00, 0.05), (0.03, 0.03), (-0.03, 0.03), (0.06, 0.05), (-0.06, 0.05), (0.12, 0.20), (-0.12, 0.20),
        (0.16, 0.35), (-0.16, 0.35), (0.18, 0.50), (-0.18, 0.50), (0.08, 0.52), (-0.08, 0.52),
        (0.09, 0.75), (-0.09, 0.75), (0.10, 0.97), (-0.10, 0.97),
    ]
)  # fmt: skip
"""COCO's 17 keypoints of someone who faces the camera, from (0, 0), one unit tall."""


def standing(x: float, y: float, height: float = 100.0) -> NDArray[np.float32]:
    """(17, 2) image pixels, the head's top at x, y."""
    return np.asarray(STANDING * height + np.float32([x, y]), np.float32)


def human(photo: int, keypoints: NDArray[np.float32], source: str = "human", **fields: Any) -> dict[str, Any]:
    """An annotation with all keypoints labelled; its area is 0.6 of the box."""
    low, high = keypoints.min(axis=0), keypoints.max(axis=0)
    triples = np.concatenate([keypoints, np.full((len(keypoints), 1), 2)], axis=1)
    return {
        "image_id": photo,
        "category_id": 1,
        "iscrowd": 0,
        "num_keypoints": len(keypoints),
        "keypoints": triples.reshape(-1).tolist(),
        "bbox": [*low.tolist(), *(high - low).tolist()],
        "area": float(0.6 * (high - low).prod()),
        "source": source,
        **fields,
    }


def unlabelled(photo: int, box: tuple[float, float, float, float], **fields: Any) -> dict[str, Any]:
    """Somebody of whom only the box is known."""
    area = 0.6 * box[2] * box[3]
    empty = {"keypoints": [0] * 51, "num_keypoints": 0, "iscrowd": 0, "category_id": 1, "source": "unlabelled"}
    return {**empty, "image_id": photo, "bbox": list(box), "area": area, **fields}


def hide(annotation: dict[str, Any], *keypoints: int) -> dict[str, Any]:
    """The annotation without the labels of some keypoints."""
    triples = np.array(annotation["keypoints"]).reshape(-1, 3)
    triples[list(keypoints)] = 0
    return {**annotation, "keypoints": triples.reshape(-1).tolist()}


def dataset(folder: Path, names: list[str], annotations: list[dict[str, Any]], **images: Any) -> KeypointDataset:
    """Photos called ``names`` with ids from 1; ``images`` are lists of further fields, one value per photo."""
    records = [
        {"id": number, "file_name": name, "width": 320, "height": 240}
        | {field: values[number - 1] for field, values in images.items()}
        for number, name in enumerate(names, 1)
    ]
    path = folder / "people.json"
    path.write_text(json.dumps({"images": records, "annotations": annotations}))
    return KeypointDataset(path)
