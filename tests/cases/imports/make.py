"""How ``yolo/`` and ``labelme/`` were made from ``truth.json``: by ultralytics' converter and by labelme's own writer.

``python tests/cases/imports/make.py FOLDER``, where both packages are installed (ultralytics 8.4, labelme 6.3).
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

TRUTH = json.loads((Path(__file__).parent / "truth.json").read_text())
NAMES = TRUTH["categories"][0]["keypoints"]


def draw(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for image in TRUTH["images"]:
        pixels = np.full((image["height"], image["width"], 3), 120, np.uint8)
        cv2.imwrite(str(folder / Path(image["file_name"]).name), pixels, [cv2.IMWRITE_JPEG_QUALITY, 30])


def make_yolo(folder: Path) -> None:
    import yaml
    from ultralytics.data.converter import convert_coco

    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "truth").mkdir()
        (Path(place) / "truth" / "train.json").write_text(json.dumps(TRUTH))
        convert_coco(f"{place}/truth", f"{place}/made", use_keypoints=True, cls91to80=False)
        shutil.copytree(f"{place}/made/labels", folder / "labels")
    draw(folder / "images" / "train")
    settings = {"path": "../datasets/drawn", "train": "images/train", "val": "images/val", "kpt_shape": [len(NAMES), 3]}
    settings |= {"flip_idx": [0, 2, 1], "names": {0: "bird"}}
    (folder / "data.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))


def make_labelme(folder: Path) -> None:
    from labelme._label_file import write_label_file

    draw(folder)
    for image in TRUTH["images"]:
        shapes = []
        for person in (each for each in TRUTH["annotations"] if each["image_id"] == image["id"]):
            x, y, width, height = person["bbox"]
            common = {"group_id": person["id"], "description": "", "flags": {}, "mask": None}
            corners = [[x, y], [x + width, y + height]]
            shapes.append({**common, "label": "bird", "points": corners, "shape_type": "rectangle"})
            for index, name in enumerate(NAMES):
                px, py, visibility = person["keypoints"][3 * index : 3 * index + 3]
                if visibility:
                    flags = {"occluded": visibility == 1}
                    shapes.append(
                        {**common, "label": name, "points": [[px, py]], "shape_type": "point", "flags": flags}
                    )
        name = Path(image["file_name"]).name
        write_label_file(
            str(folder / f"{Path(name).stem}.json"), shapes=shapes, image_path=name, image_height=image["height"],
            image_width=image["width"],
        )  # fmt: skip


if __name__ == "__main__":
    make_yolo(Path(sys.argv[1]) / "yolo")
    make_labelme(Path(sys.argv[1]) / "labelme")
