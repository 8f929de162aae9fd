"""The check of annotations: boxes, keypoints, areas and regions of people, one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dekrpose.data.coco_fields import LARGEST, Id, as_number, as_numbers, as_triples, region_problem, shown
from dekrpose.data.coco_file import read_person
from dekrpose.errors import DekrPoseError, counted
from dekrpose.skeletons import Skeleton
from dekrpose.training.check_report import Findings
from dekrpose.training.skeleton_file import side_of

Points = NDArray[np.float64]

_BOX_SLACK = 2.0
"""Boxes may reach so far outside the photo, image pixels: rounding and half pixels."""
_AREA_SLACK = 1.02
"""Areas may be so much larger than their box: rounding."""
_FEWEST_PEOPLE, _SHARE = 20, 0.6
"""Sides look exchanged when that share of at least so many people says so."""


@dataclass(frozen=True)
class PhotoInfo:
    """What the check of people needs of a photo; image pixels, unknown sizes are infinite."""

    name: str
    width: float
    height: float
    id: Id = ""


class PeopleCheck:
    """Looks at annotations, tells the findings, and remembers what only many of them tell."""

    def __init__(self, skeleton: Skeleton, findings: Findings) -> None:
        self._skeleton, self._findings = skeleton, findings
        self._seen: dict[tuple[Id, bytes], str] = {}
        self._labelled = 0
        sides = [(side_of(skeleton.keypoints[a]), (a, b), (b, a)) for a, b in skeleton.flip_pairs]
        self._pairs = [reverse if side == "right" else pair for side, pair, reverse in sides if side]
        self._exchanged, self._paired = np.zeros(len(self._pairs), int), np.zeros(len(self._pairs), int)

    def look_at(self, entry: Mapping[str, Any], photo: PhotoInfo, label: str) -> None:
        """Check one annotation of a photo; ``label`` names it."""
        errors = self._findings.errors
        points = self._keypoints(entry, photo, label)
        labelled = None if points is None else points[points[:, 2] > 0, :2]
        box = self._box(entry, photo, labelled, label)
        self._area(entry, photo, box, label)
        if labelled is not None:
            masked = bool(entry.get("iscrowd")) or len(labelled) == 0
            problem = region_problem(entry.get("segmentation"), photo.width, photo.height)
            problem = problem or (_too_few_corners(entry.get("segmentation")) if masked else "")
            if problem:
                self._findings.add("segmentation", f"{label}: {problem}")
            self._labelled += not masked
        if points is not None and labelled is not None and len(labelled):
            self._compare(points, photo, label)
        if self._findings.errors == errors:
            try:  # as training and evaluation do, which refuse more than is looked for here one by one
                read_person(entry, (photo.width, photo.height), len(self._skeleton), label)
            except DekrPoseError as error:
                self._findings.add("annotation-entry", str(error))

    def finish(self) -> None:
        """Tell what all annotations together look like."""
        if not self._labelled:
            self._findings.add("nobody", "no annotation has a labelled keypoint")
        names = self._skeleton.keypoints
        mirrored = {index for pair in self._skeleton.flip_pairs for index in pair}
        for index, name in enumerate(names):
            if side_of(name) and index not in mirrored:
                self._findings.add("side-without-pair", name)
        for (left, right), exchanged, people in zip(self._pairs, self._exchanged, self._paired, strict=True):
            if people >= _FEWEST_PEOPLE and exchanged > _SHARE * people:
                share = f"{100 * exchanged / people:.0f} % of {people:,} people"
                self._findings.add("sides-exchanged", f"{names[left]} and {names[right]}: {share}")

    def _keypoints(self, entry: Mapping[str, Any], photo: PhotoInfo, label: str) -> Points | None:
        """(K, 3), without labels where there are none; None if they cannot be used."""
        count = len(self._skeleton)
        values = entry.get("keypoints")
        values = [0] * (3 * count) if values is None or values == [] else values
        if not isinstance(values, list) or len(values) != 3 * count:
            what = counted(len(values), "number") if isinstance(values, list) else "no list"
            self._findings.add(
                "keypoint-count", f"{label}: {what}, expected {3 * count} ({counted(count, 'keypoint')})"
            )
            return None
        found = as_triples(values)
        if found is None:
            wrong = next((value for value in values if as_number(value) is None), None)
            self._findings.add("keypoint-value", f"{label}: {shown(wrong)}")
            return None
        points = np.array(found, np.float64).reshape(count, 3)
        strange = points[~np.isin(points[:, 2], (0, 1, 2)), 2]
        if len(strange):
            self._findings.add("visibility", f"{label}: {strange[0]:g}")
        stated, labelled = entry.get("num_keypoints"), int((points[:, 2] > 0).sum())
        if stated is not None and stated != labelled:
            self._findings.add("num-keypoints", f"{label}: says {shown(stated)}, {labelled} are labelled")
        x, y, visibility = points.T
        outside = (visibility > 0) & ((x < 0) | (y < 0) | (x > photo.width) | (y > photo.height))
        for index in np.flatnonzero(outside):
            where = f"{x[index]:g}, {y[index]:g} in {photo.width:g} x {photo.height:g}"
            self._findings.add("keypoint-outside", f"{label}: {self._skeleton.keypoints[index]} at {where}")
        return points

    def _box(
        self, entry: Mapping[str, Any], photo: PhotoInfo, labelled: Points | None, label: str
    ) -> list[float] | None:
        """x, y, width, height, if they can be used."""
        if entry.get("bbox") is None or entry["bbox"] == []:
            self._findings.add("box-missing", label)
            return None
        box = as_numbers(entry["bbox"])
        if box is None or len(box) != 4 or min(box[2:]) <= 0:
            self._findings.add("box-impossible", f"{label}: {shown(entry['bbox'])}")
            return None
        x, y, width, height = box
        written = ", ".join(f"{value:g}" for value in box)
        if max(-x, -y, x + width - photo.width, y + height - photo.height) > _BOX_SLACK:
            self._findings.add("box-outside", f"{label}: {written} in {photo.width:g} x {photo.height:g}")
        if labelled is not None and len(labelled):
            low, high = np.array([x, y]), np.array([x + width, y + height])
            slack = (high - low) / 4
            near = ((labelled >= low - slack) & (labelled <= high + slack)).all(axis=1)
            if near.mean() < 0.5:
                far = f"{(~near).sum()} of {len(near)} keypoints are far from"
                self._findings.add("box-elsewhere", f"{label}: {far} {written}")
        return box

    def _area(self, entry: Mapping[str, Any], photo: PhotoInfo, box: Sequence[float] | None, label: str) -> None:
        if entry.get("area") is None:
            self._findings.add("area-missing", label)
            return
        area = as_number(entry["area"], LARGEST**2)
        largest = (box[2] * box[3] if box else photo.width * photo.height) * _AREA_SLACK + 1
        if area is None or not 0 < area <= largest:
            within = f" in a box of {box[2]:g} x {box[3]:g}" if box else ""
            self._findings.add("area-impossible", f"{label}: {shown(entry['area'])}{within}")

    def _compare(self, points: Points, photo: PhotoInfo, label: str) -> None:
        """With people seen before: the same keypoints in the same photo; which side is where."""
        key = (photo.id, np.where(points[:, 2:] > 0, points[:, :2], -1).tobytes())
        if key in self._seen:
            self._findings.add("same-person", f"{label} is as {self._seen[key]}")
        self._seen.setdefault(key, label)
        for number_of_pair, (left, right) in enumerate(self._pairs):
            if points[left, 2] > 0 and points[right, 2] > 0 and points[left, 0] != points[right, 0]:
                self._paired[number_of_pair] += 1
                self._exchanged[number_of_pair] += points[left, 0] < points[right, 0]


def _too_few_corners(shape: object) -> str:
    """Why polygons that can be read enclose nothing; empty if all of them do."""
    polygons = shape if isinstance(shape, list) else []
    return next((f"{shown(polygon)} has fewer than three corners" for polygon in polygons if len(polygon) < 6), "")
