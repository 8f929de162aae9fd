"""Labels of other tools as one COCO keypoints file; ``base`` says what an importer is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from dekrpose.data.coco_file import AREA_OF_BOX
from dekrpose.data.importers import coco, cvat, label_studio, labelme, yolo
from dekrpose.data.importers.base import Files, Human, Importer, Labelled, Labels, Pairs, Wishes
from dekrpose.errors import DekrPoseError, counted
from dekrpose.skeletons import COCO_17

IMPORTERS: Mapping[str, Importer] = {
    "yolo": cast(Importer, yolo),
    "coco": cast(Importer, coco),
    "labelme": cast(Importer, labelme),
    "label-studio": cast(Importer, label_studio),
    "cvat": cast(Importer, cvat),
}


def recognise(files: Files) -> str | None:
    """The key in ``IMPORTERS`` of the format that files are in; None if it is none of them."""
    return next((name for name, importer in IMPORTERS.items() if importer.recognises(files)), None)


def read_labels(files: Files, wishes: Wishes, kind: str | None = None) -> tuple[str, Labels]:
    """The format of a source, and what it says.

    Raises:
        DekrPoseError: it is in none of the formats, or cannot be used.
    """
    name = kind or recognise(files)
    if name is None:
        known = ", ".join(importer.TITLE for importer in IMPORTERS.values())
        held = Counter(Path(name).suffix.lower() or "no suffix" for name in files.names)
        found = ", ".join(f"{count} {suffix}" for suffix, count in held.most_common(5)) or "nothing"
        raise DekrPoseError(f"{files.place} holds {found}, and no labels in a known format; known are {known}")
    if wishes.category is not None and name != "yolo":
        raise DekrPoseError(f"--class is for {yolo.TITLE}, {files.place} is {IMPORTERS[name].TITLE}")
    labels = IMPORTERS[name].read(files, wishes)
    why = f"; the first problem: {labels.problems[0]}" if labels.problems else ""
    if not labels.photos:
        raise DekrPoseError(f"{files.place} looks like {IMPORTERS[name].TITLE}, but no labelled photo was found{why}")
    if not any(point[2] for photo in labels.photos for human in photo.people for point in human.keypoints):
        held = labels.shapes or Counter(box=sum(len(photo.people) for photo in labels.photos))
        found = ", ".join(f"{count:,} {shape}" for shape, count in held.most_common() if count) or "nothing"
        raise DekrPoseError(
            f"{files.place} is {IMPORTERS[name].TITLE}, but no annotation has keypoints, so there is nothing to learn; "
            f"it holds {found}{why}"
        )
    return name, labels


def skeleton_fields(labels: Labels, wishes: Wishes, edges: Pairs | None, flip_pairs: Pairs | None) -> dict[str, Any]:
    """The category of a COCO keypoints file: names, edges and flip pairs, the user's before the format's.

    Raises:
        DekrPoseError: nobody names the keypoints, and they are not 17; or the user names another number.
    """
    names = wishes.names or labels.names
    if names is None:
        if labels.count != len(COCO_17):
            pairs = "" if labels.flip_pairs is None else f" (flip pairs, counted from 0: {list(labels.flip_pairs)})"
            raise DekrPoseError(
                f"these people have {counted(labels.count, 'keypoint')} without names{pairs}; name them in order with "
                "--names, edges with --edges A:B ..., and what changes places in a mirrored photo with "
                "--flip-pairs A:B ..."
            )
        labels.remarks.append("17 keypoints without names: they are taken for COCO's, nose first")
        names = COCO_17.keypoints
    if len(names) != labels.count:
        raise DekrPoseError(
            f"--names gives {counted(len(names), 'name')} ({', '.join(names)}), people have "
            f"{counted(labels.count, 'keypoint')}"
        )
    edges = edges if edges is not None else labels.edges
    if edges is None:
        joined = [(COCO_17.keypoints[a], COCO_17.keypoints[b]) for a, b in COCO_17.edges]
        of_coco = set(names) <= set(COCO_17.keypoints)
        edges = tuple((names.index(a), names.index(b)) for a, b in joined if of_coco and {a, b} <= set(names))
    if not edges and len(names) > 1:
        labels.remarks.append("no edges, so limbs will not be drawn; --edges A:B ... joins keypoints")
    flips = flip_pairs if flip_pairs is not None else labels.flip_pairs
    category: dict[str, Any] = {"id": 1, "name": labels.category, "keypoints": list(names)}
    category["skeleton"] = [[a + 1, b + 1] for a, b in edges]
    if flips is not None:
        category["flip_pairs"] = [[names[a], names[b]] for a, b in flips]
    return category


def coco_content(labels: Labels, files: Files, category: Mapping[str, Any], split: str | None = None) -> dict[str, Any]:
    """A COCO keypoints file; keypoints and boxes in pixels of the photos as they are stored, without EXIF rotation.

    Args:
        labels: of which photos that cannot be read are left out; ``labels.problems`` tells.
        files: where the photos are.
        category: from ``skeleton_fields``.
        split: only the photos of this part; None takes all.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    turned = 0
    for photo in labels.photos:
        if split is not None and photo.split != split:
            continue
        try:
            width, height, orientation = files.photo(photo.name)
        except DekrPoseError as error:
            labels.problems.append(str(error))
            continue
        upright = (height, width) if orientation in (5, 6, 7, 8) else (width, height)
        if photo.size == (width, height) != upright:
            upright, orientation = (width, height), 1  # the labels are for the photo as it is stored
        elif photo.size not in (None, upright):
            assert photo.size is not None
            labels.problems.append(
                f"{photo.name}: labelled at {photo.size[0]} x {photo.size[1]}, but it has {upright[0]} x {upright[1]} "
                "pixels; label this very file"
            )
            continue
        turned += orientation != 1
        images.append({"id": len(images) + 1, "file_name": photo.name, "width": width, "height": height})
        for human in photo.people:
            frame = _Frame(upright, orientation, photo.relative)
            annotations.append(_annotation(human, frame, len(annotations) + 1, len(images)))
    if turned:
        labels.remarks.append(f"stored turned (EXIF): {counted(turned, 'photo')}, whose labels were turned, too")
    return {"images": images, "annotations": annotations, "categories": [dict(category)]}


class _Frame:
    """From the photo as its labeller saw it, shares or pixels, to pixels of the photo as it is stored."""

    def __init__(self, upright: tuple[int, int], orientation: int, relative: bool) -> None:
        self._size, self._orientation = upright, orientation
        self._scale = upright if relative else (1, 1)

    def point(self, x: float, y: float) -> tuple[float, float]:
        x, y = x * self._scale[0], y * self._scale[1]
        if self._orientation in (3, 4, 7, 8):
            y = self._size[1] - y
        if self._orientation in (2, 3, 6, 7):
            x = self._size[0] - x
        if self._orientation in (5, 6, 7, 8):
            x, y = y, x
        return round(x, 2), round(y, 2)

    def box(self, box: tuple[float, float, float, float]) -> list[float]:
        corners = self.point(box[0], box[1]), self.point(box[0] + box[2], box[1] + box[3])
        (x0, x1), (y0, y1) = (sorted(axis) for axis in zip(*corners, strict=True))
        return [x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)]

    @property
    def stored(self) -> tuple[int, int]:
        """Width and height as the photo is stored."""
        return (self._size[1], self._size[0]) if self._orientation in (5, 6, 7, 8) else self._size

    @property
    def is_stored(self) -> bool:
        return self._orientation == 1


def _annotation(human: Human, frame: _Frame, number: int, image: int) -> dict[str, Any]:
    points = [(*frame.point(x, y), seen) if seen else (0, 0, 0) for x, y, seen in human.keypoints]
    seen = [(x, y) for x, y, visibility in points if visibility]
    entry: dict[str, Any] = {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "iscrowd": 0,
        "num_keypoints": len(seen),
    }
    entry["keypoints"] = [value for point in points for value in point]
    if human.box is not None:
        entry["bbox"] = frame.box(human.box)
    elif seen:
        (x0, x1), (y0, y1) = ((min(axis), max(axis)) for axis in zip(*seen, strict=True))
        margin = 0.1 * max(x1 - x0, y1 - y0, 10.0)  # a body is larger than its keypoints
        left, top = max(min(x0, 0.0), x0 - margin), max(min(y0, 0.0), y0 - margin)
        right, bottom = (min(max(most, end), end + margin) for most, end in zip(frame.stored, (x1, y1), strict=True))
        entry["bbox"] = [round(value, 2) for value in (left, top, right - left, bottom - top)]
    if "bbox" in entry:
        entry["area"] = round(AREA_OF_BOX * entry["bbox"][2] * entry["bbox"][3], 1)
    more = human.more if frame.is_stored else {key: human.more[key] for key in human.more if key != "segmentation"}
    return {**entry, **more}


__all__ = ["IMPORTERS", "Files", "Labelled", "Labels", "Wishes", "coco_content", "read_labels", "recognise",
           "skeleton_fields"]  # fmt: skip
