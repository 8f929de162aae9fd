"""YOLO-pose, as Ultralytics has it: data.yaml with ``kpt_shape``, and a text file of shares beside each photo."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

from dekrpose.data.coco_fields import LARGEST, shown
from dekrpose.data.dataset import ends_with, parts_of
from dekrpose.data.importers.base import Files, Human, Labelled, Labels, Wishes
from dekrpose.errors import DekrPoseError, counted
from dekrpose.skeletons import MOST_KEYPOINTS

TITLE = "YOLO-pose (Ultralytics)"
_LONGEST = 2**18
"""Characters of a data.yaml; PyYAML takes seconds for a million."""
_SPLITS = ("train", "val", "valid", "test")


def recognises(files: Files) -> bool:
    """By a data.yaml with ``kpt_shape``, or folders of photos and of label texts."""
    return _yaml_name(files) is not None or (not files.only and _looks_alike(files))


def read(files: Files, wishes: Wishes) -> Labels:
    """See ``Importer``."""
    name = _yaml_name(files)
    if name is None:
        raise DekrPoseError(
            f"{files.place} has label texts as YOLO has them, but no data.yaml with kpt_shape, which says how many "
            "keypoints a person has; write one: kpt_shape: [17, 3]"
        )
    settings = _settings(files, name)
    count, values = _shape(settings, name)
    labels = Labels([], count, _names(settings, count), None, _flips(settings, count))
    classes = _classes(settings)
    labels.category = next(iter(classes.values())) if len(classes) == 1 else "person"
    if wishes.category is not None:
        if wishes.category not in classes.values():
            known = ", ".join(classes.values()) or "without names"
            raise DekrPoseError(f"there is no class {wishes.category!r}; the classes of {name} are {known}")
        labels.category = wishes.category
    counts, shares = Counter[str](), 0
    for photo, split in _photos(files, settings, name, labels):
        label = _label_name(photo)
        try:
            lines = enumerate(files.text(label).splitlines() if label in files.known else [], 1)
            found = [_human(line, f"line {number}", count, values) for number, line in lines if line.strip()]
        except DekrPoseError as error:
            labels.problems.append(f"{label}: {error}")
            continue
        taken = [each for each in found if wishes.category in (None, classes.get(each[1], each[1]))]
        counts.update(classes.get(kind, kind) for _, kind, _ in taken)
        shares += sum(fractions for *_, fractions in taken)
        labels.photos.append(Labelled(photo, [human for human, *_ in taken], split=split, relative=True))
    if shares:
        labels.remarks.append(f"{counted(shares, 'visibility', 'visibilities')} between 0 and 1, taken for visible")
    if len(counts) > 1:
        told = ", ".join(f"{kind} {number:,}" for kind, number in counts.most_common())
        labels.remarks.append(f"of several classes, all taken: {told}; --class takes one")
    return labels


def _yaml_name(files: Files) -> str | None:
    for name in files.ending(".yaml", ".yml"):
        try:
            if "kpt_shape" in files.text(name):
                return name
        except DekrPoseError:
            continue
    return None


def _looks_alike(files: Files) -> bool:
    names = files.known
    return any("/images/" in f"/{photo}" and _label_name(photo) in names for photo in files.photos)


def _settings(files: Files, name: str) -> dict[str, Any]:
    import yaml

    text = files.text(name)
    try:
        if len(text) > _LONGEST:
            raise ValueError(f"it has {len(text):,} characters, more than the {_LONGEST:,} that are read")
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise ValueError("it repeats parts of itself by *, which may double again and again")
        settings = yaml.safe_load(text)
    except Exception as error:  # PyYAML raises whatever comes to it
        raise DekrPoseError(f"{name} is no YAML: {error}") from error
    if not isinstance(settings, dict):
        raise DekrPoseError(f"{name} must be an object with kpt_shape, train and val")
    return settings


def _shape(settings: dict[str, Any], name: str) -> tuple[int, int]:
    shape = settings.get("kpt_shape")
    if (
        not isinstance(shape, list) or len(shape) != 2 or type(shape[0]) is not int
        or not 0 < shape[0] <= MOST_KEYPOINTS
        or shape[1] not in (2, 3)
    ):  # fmt: skip
        raise DekrPoseError(f"kpt_shape of {name} must be [keypoints, 2] or [keypoints, 3], got {shown(shape)}")
    return shape[0], shape[1]


def _names(settings: dict[str, Any], count: int) -> tuple[str, ...] | None:
    """``kpt_names``, which newer files have: a list per class."""
    given = settings.get("kpt_names")
    given = next(iter(given.values()), None) if isinstance(given, dict) else given
    if not isinstance(given, list) or len(given) != count or len(set(map(str, given))) != count:
        return None
    return tuple(map(str, given))


def _flips(settings: dict[str, Any], count: int) -> tuple[tuple[int, int], ...] | None:
    flips = settings.get("flip_idx")
    if not isinstance(flips, list) or sorted(flips, key=str) != sorted(range(count), key=str):
        return None
    return tuple((index, other) for index, other in enumerate(flips) if index < other)


def _classes(settings: dict[str, Any]) -> dict[str, str]:
    """Name by the number that labels have, as text."""
    names = settings.get("names")
    names = dict(enumerate(names)) if isinstance(names, list) else names
    return {str(key): str(name) for key, name in names.items()} if isinstance(names, dict) else {}


def _photos(files: Files, settings: dict[str, Any], yaml_name: str, labels: Labels) -> list[tuple[str, str]]:
    """Each photo and its split: folders, lists of files, or all photos where data.yaml names none that is here."""
    found: dict[str, str] = {}
    for split in _SPLITS:
        given = settings.get(split)
        for entry in given if isinstance(given, list) else [given] if isinstance(given, str) else []:
            for photo in _of_entry(files, str(entry), str(settings.get("path") or ""), yaml_name, labels):
                found.setdefault(photo, split)
    if not found:
        found = dict.fromkeys(sorted(files.photos), "")
    return list(found.items())


def _of_entry(files: Files, entry: str, root: str, yaml_name: str, labels: Labels) -> list[str]:
    if entry.endswith(".txt"):
        name = next((each for each in files.names if ends_with(each, [PurePosixPath(entry).name])), None)
        lines = files.text(name).split("\n") if name else []
        listed = {line.strip(): files.find(line.strip(), name or "") for line in lines if line.strip()}
        labels.problems += [f"{name}: there is no photo {line}" for line, photo in listed.items() if photo is None]
        return [photo for photo in listed.values() if photo]
    wanted, before = parts_of(entry), parts_of(root)
    beside = list(PurePosixPath(yaml_name).parent.parts)
    for folder in ([*beside, *wanted], [*before, *wanted], wanted, wanted[-2:], wanted[-1:]):
        start = "".join(f"{part}/" for part in folder)
        photos = sorted(name for name in files.photos if name.startswith(start))
        if photos and folder:
            return photos
    return []


def _label_name(photo: str) -> str:
    """labels/train/a.txt for images/train/a.jpg."""
    parts = list(Path(photo).with_suffix(".txt").parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return "/".join(parts)


def _human(line: str, place: str, count: int, values: int) -> tuple[Human, str, int]:
    """One line: class, box by its center, keypoints, as shares of the photo; a box alone is somebody unlabelled.

    Returns:
        The person, the class's number as text, and how many keypoints have a confidence for a visibility.
    """
    try:
        numbers = [float(word) for word in line.split()]
    except ValueError as error:
        raise DekrPoseError(f"{place}: expected numbers, got {line[:60]!r}") from error
    wanted = 5 + count * values
    if len(numbers) not in (5, wanted) or not all(abs(number) <= LARGEST for number in numbers):
        raise DekrPoseError(
            f"{place} has {counted(len(numbers), 'number')}, expected {wanted} for {counted(count, 'keypoint')}"
        )
    kind, x, y, width, height, *rest = numbers
    points, fractions = [], 0
    for start in range(0, len(rest), values):
        px, py = rest[start : start + 2]
        seen = rest[start + 2] if values == 3 else 2 * ((px, py) != (0, 0))
        if 0 < seen < 1:
            seen, fractions = 2, fractions + 1
        if seen not in (0, 1, 2):
            raise DekrPoseError(f"{place}: a visibility is 0 (no label), 1 (hidden) or 2 (visible), got {seen:g}")
        points.append((px, py, int(seen)) if seen else (0.0, 0.0, 0))
    box = (x - width / 2, y - height / 2, width, height)
    return Human(points or [(0.0, 0.0, 0)] * count, box), f"{kind:g}", fractions
