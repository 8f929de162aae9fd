"""What a result is turned into: a method for each format, whose function lies in ``formats``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dekrpose.draw.figure import counting
from dekrpose.formats import others, tables
from dekrpose.formats.own_json import poses_to_dict
from dekrpose.skeletons import Skeleton


class Exports:
    """The part of ``Poses`` that writes; ``from_dict``, ``from_json`` and ``from_pandas`` there read again."""

    keypoints: NDArray[np.float32]
    keypoint_scores: NDArray[np.float32]
    scores: NDArray[np.float32]
    skeleton: Skeleton
    image_size: tuple[int, int]
    track_ids: NDArray[np.int64] | None

    if TYPE_CHECKING:

        @property
        def boxes(self) -> NDArray[np.float32]: ...

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types that say what they are; ``from_dict`` is the inverse. The image is left out."""
        return poses_to_dict(self)

    def to_json(self, indent: int | None = None) -> str:
        """``to_dict`` as strict JSON text."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False, ensure_ascii=False)

    def to_csv(self, *, header: bool = True) -> str:
        """CSV text, a row per person: source, index, timestamp, person, track_id, score, x0, y0, x1, y1 of the box, and
        x, y and score of each keypoint in image pixels.

        Nobody is no row; a number that is not finite, or is not known, an empty cell. Without the header, the rows of
        several results of one skeleton make one table.
        """
        return tables.csv_rows(self, header)

    def to_coco(self, image_id: int | str, category_id: int = 1) -> list[dict[str, Any]]:
        """COCO results: one dict per person with image_id, category_id, keypoints (x, y, score, flat) and score.

        Keypoints that are not finite are 0, 0, 0; see ``formats.others.coco_results``.
        """
        return others.coco_results(self.keypoints, self.keypoint_scores, self.scores, image_id, category_id)

    def to_yolo(self, *, class_id: int = 0, scores: bool = False) -> str:
        """YOLO-pose text, a line per person, all but the class as shares of the image's width and height.

        ``class x y width height``, with the middle of the box, then for each keypoint ``x y 2``, or ``0 0 0`` where
        it does not count (less than a tenth of the person's best score) or lies outside the image: labels, as
        Ultralytics trains on. With ``scores`` each keypoint is ``x y score`` as placed, and the person's score ends the
        line, as Ultralytics writes predictions. People outside the image have no line.
        """
        counts = counting(self.keypoints, self.keypoint_scores)
        arrays = (self.keypoints, self.keypoint_scores, self.scores, self.boxes, counts)
        return others.yolo_lines(*arrays, self.image_size, class_id, scores)

    def to_transformers(self) -> list[dict[str, Any]]:
        """One dict of tensors per person, as Transformers' ``post_process_pose_estimation`` gives for an image.

        keypoints (K, 2) and bbox (4,) x0, y0, x1, y1 in image pixels, scores (K,), labels (K,) the channels.
        """
        return others.transformers_people(self.keypoints, self.keypoint_scores, self.boxes)

    def to_openpose(self) -> dict[str, Any]:
        """OpenPose's JSON in its BODY_25 order; see ``formats.others.openpose_people``."""
        return others.openpose_people(self.keypoints, self.keypoint_scores, self.skeleton)

    def to_pandas(self) -> Any:
        """A DataFrame, one row per keypoint: person, keypoint, x, y, score, person_score (and track_id)."""
        return tables.pandas_table(self.keypoints, self.keypoint_scores, self.scores, self.track_ids, self.skeleton)

    def to_supervision(self) -> Any:
        """A ``supervision.KeyPoints``: xy, both confidences, what counts as ``visible``, ``data["tracker_id"]``."""
        counts = counting(self.keypoints, self.keypoint_scores)
        arrays = (self.keypoints, self.keypoint_scores, self.scores)
        return others.supervision_keypoints(*arrays, counts, self.track_ids)
