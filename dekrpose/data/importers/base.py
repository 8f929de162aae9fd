"""What an importer is: it knows one format of labels and turns files into ``Labels``.

A new format is a module beside this one with ``TITLE``, ``recognises(files)`` and ``read(files, wishes)``, and an entry
in ``IMPORTERS``. ``Labels`` are for the photo as its labeller saw it, upright; ``coco_content`` turns them where photos
are stored otherwise.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import PIL.Image

from dekrpose.data.coco_fields import LARGEST
from dekrpose.data.dataset import ends_with, parts_of
from dekrpose.data.packed import open_zip
from dekrpose.errors import DekrPoseError
from dekrpose.images import SUFFIXES
from dekrpose.skeletons import COCO_17, CROWDPOSE_14, MOST_KEYPOINTS

Pairs = tuple[tuple[int, int], ...]


class Importer(Protocol):
    """A module that knows a format."""

    TITLE: str
    """What messages call the format."""

    def recognises(self, files: Files) -> bool:
        """Whether these files are in this format."""

    def read(self, files: Files, wishes: Wishes) -> Labels:
        """What the files say.

        Raises:
            DekrPoseError: they cannot be used; what is wrong with one photo goes into ``Labels.problems`` instead.
        """


@dataclass(frozen=True)
class Wishes:
    """What the user says about the labels: names of the keypoints in their order, the class to take, or None."""

    names: tuple[str, ...] | None = None
    category: str | None = None


@dataclass
class Human:
    """One person: (x, y, visibility) per keypoint, 0 for none, 1 hidden, 2 visible; box x, y, width, height."""

    keypoints: list[tuple[float, float, int]]
    box: tuple[float, float, float, float] | None = None
    more: dict[str, Any] = field(default_factory=dict)
    """Other fields of COCO's annotation: area, segmentation, iscrowd."""


@dataclass
class Labelled:
    """A photo: its name among the files, its size where the labels say it, its people, and the part it belongs to."""

    name: str
    people: list[Human]
    size: tuple[int, int] | None = None
    """Width and height that the labels are for."""
    split: str = ""
    relative: bool = False
    """Keypoints and boxes are shares of width and height."""

    def __post_init__(self) -> None:
        self.split = part_name(self.split)


@dataclass
class Labels:
    """All photos of a source.

    Attributes:
        count: keypoints of a person.
        names: of the keypoints; None where the format does not say.
        edges, flip_pairs: indices; None where the format does not say.
        category: what a person is called.
        problems: what could not be read and was left out, one line each.
        remarks: what else the user should know.
        shapes: how many there are of each kind of shape, as the format calls them.
    """

    photos: list[Labelled]
    count: int
    names: tuple[str, ...] | None = None
    edges: Pairs | None = None
    flip_pairs: Pairs | None = None
    category: str = "person"
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    shapes: Counter[str] = field(default_factory=Counter)


class Files:
    """The files of a folder or a zip, by names relative to it; hidden ones are left out.

    Args:
        place: a folder, a .zip, or one file, which stands for itself and the photos in its folder.
    """

    def __init__(self, place: Path) -> None:
        self.place, self.only = place, ""
        self._zip: zipfile.ZipFile | None = None
        if not place.exists():
            raise FileNotFoundError(f"{place} does not exist; relative paths start at {Path.cwd()}")
        if place.is_file() and zipfile.is_zipfile(place):
            try:
                self._zip = open_zip(place)
            except (zipfile.BadZipFile, OSError, ValueError) as error:
                raise DekrPoseError(f"{place} is a damaged zip file ({error}); make or copy it again") from error
        elif place.suffix.lower() == ".zip" and place.is_file():
            raise DekrPoseError(f"{place} is no zip file, or was cut off; make or copy it again")
        elif place.is_file():
            self.place, self.only = place.parent, place.name

    @cached_property
    def names(self) -> list[str]:
        """In order, with / between folders."""
        if self._zip is not None:
            names = [name for name in self._zip.namelist() if not name.endswith("/")]
        else:
            names = [path.relative_to(self.place).as_posix() for path in self.place.rglob("*") if path.is_file()]
        return sorted(name for name in names if not any(part.startswith((".", "_")) for part in name.split("/")[:-1])
                      and not name.split("/")[-1].startswith("."))  # fmt: skip

    @cached_property
    def known(self) -> set[str]:
        """The same names, to look them up."""
        return set(self.names)

    def ending(self, *suffixes: str) -> Iterator[str]:
        """Names of the files to read labels from; only the one that was named, if one was."""
        for name in [self.only] if self.only else self.names:
            if name.lower().endswith(suffixes):
                yield name

    @cached_property
    def photos(self) -> set[str]:
        """Names of the photos, without pictures that ``dekrpose predict`` drew beside them."""
        from dekrpose.images.listing import without_drawn

        paths = [PurePosixPath(name) for name in self.names]
        return {str(path) for path in without_drawn([path for path in paths if path.suffix.lower() in SUFFIXES])}

    @cached_property
    def _by_last_name(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name in sorted(self.photos):
            found.setdefault(name.rsplit("/", 1)[-1], []).append(name)
        return found

    def find(self, wanted: str, beside: str = "", hint: str = "") -> str | None:
        """The photo that labels call ``wanted``: beside their own file, from the top, or anywhere in a subfolder.

        Of several photos of that name the one whose path has ``hint`` in it is meant; None if that is not one.
        """
        wanted = wanted.replace("\\", "/")
        folder = PurePosixPath(beside).parent
        for name in ((folder / wanted).as_posix(), wanted, wanted.removeprefix("./")):
            name = _without_dots(name)
            if name in self.photos:
                return name
        parts = parts_of(wanted)
        same = self._by_last_name.get(parts[-1], []) if parts else []
        for fits in (
            [name for name in same if ends_with(name, parts)],
            [name for name in same if hint and hint in name.split("/")],
            same,
        ):
            if len(fits) == 1:
                return fits[0]
        uploaded = re.sub(r"(^|/)[0-9a-f]{8}-(?=[^/]*$)", r"\1", wanted)  # Label Studio marks what it takes in
        return None if uploaded == wanted else self.find(uploaded, beside, hint)

    def read(self, name: str) -> bytes:
        """The content of a file; DekrPoseError if it cannot be read."""
        try:
            if self._zip is None:
                return (self.place / name).read_bytes()
            return self._zip.read(name)
        except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise DekrPoseError(f"{name} cannot be read: {error}") from error

    def text(self, name: str) -> str:
        """The text of a file; DekrPoseError if it is none."""
        try:
            return self.read(name).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DekrPoseError(f"{name} is no text in UTF-8: {error}") from error

    def json(self, name: str) -> Any:
        """What a JSON file holds; None if it cannot be read."""
        try:
            return json.loads(self.text(name))
        except (DekrPoseError, ValueError, RecursionError):
            return None

    def photo(self, name: str) -> tuple[int, int, int]:
        """Width and height of a photo as it is stored, and its EXIF orientation; DekrPoseError if it is none."""
        try:
            source = self.place / name if self._zip is None else io.BytesIO(self.read(name))
            with PIL.Image.open(source) as image:
                # not its own getexif: a PNG would be decoded for it
                return *image.size, int(PIL.Image.Image.getexif(image).get(0x0112, 1))
        except Exception as error:  # decoders of broken files raise whatever comes to them
            raise DekrPoseError(f"{name} is broken or no photo: {error}") from error


def _without_dots(name: str) -> str:
    parts: list[str] = []
    for part in name.split("/"):
        if part == ".." and parts:
            parts.pop()
        elif part not in ("", ".", ".."):
            parts.append(part)
    return "/".join(parts)


def part_name(word: str) -> str:
    """What a part of the photos is called here: tools call val valid or Validation."""
    word = word.lower()
    return "val" if word in ("valid", "validation") else word


Point = tuple[str, float, float, int]
"""Keypoint's name, x, y, visibility."""
Box = tuple[float, float, float, float]
People = list[tuple[list[Point], Box | None]]
"""Of a photo, each with keypoints that have names but no order, and a box if there is one."""


def group(points: Sequence[tuple[Any, Point]], boxes: Sequence[tuple[Any, Box]]) -> People:
    """People from loose points and boxes, as tools have them where nobody said which belong together.

    By their group (a number, an id; None for none), else by the one box that a point lies in, else all are one person.

    Raises:
        DekrPoseError: a person would have two keypoints of a name, or a coordinate is no place in a photo.
    """
    placed = [(point[0], point[1:3]) for _, point in points]
    for what, coordinates in [*placed, *(("a box", box) for _, box in boxes)]:
        if not all(abs(value) <= LARGEST for value in coordinates):  # NaN is not
            raise DekrPoseError(f"{what[:60]} has a coordinate that is no place in a photo")
    people: dict[Any, tuple[list[Point], Box | None]] = {}
    for index, (key, box) in enumerate(boxes):
        people[("box", index) if key is None else key] = ([], box)
    loose = [key for key, (_, box) in people.items() if box is not None]
    for key, point in points:
        if key is None:
            around = [owner for owner in loose if inside(people[owner][1], point)]
            if len(around) > 1:
                raise DekrPoseError(
                    f"{point[0]} lies in {len(around)} boxes; give points and box of a person one group"
                )
            key = around[0] if around else ("alone",)
        people.setdefault(key, ([], None))[0].append(point)
    for own, _ in people.values():
        twice = sorted(name for name, count in Counter(name for name, *_ in own).items() if count > 1)
        if twice:
            raise DekrPoseError(
                f"{', '.join(twice)} twice in one person; give each person's points a group of their own"
            )
    return list(people.values())


def inside(box: Box | None, point: Point) -> bool:
    """Whether a point lies in a box."""
    assert box is not None
    return box[0] <= point[1] <= box[0] + box[2] and box[1] <= point[2] <= box[1] + box[3]


def in_order(found: Sequence[str], wishes: Wishes) -> tuple[str, ...]:
    """The order of keypoints that have names but no order: the user's, COCO's for COCO's names, else as they came.

    Raises:
        DekrPoseError: there are too many, or the user's names leave some out.
    """
    names = list(dict.fromkeys(found))
    if len(names) > MOST_KEYPOINTS:
        raise DekrPoseError(f"the labels have {len(names):,} names of keypoints, a network up to {MOST_KEYPOINTS:,}")
    if wishes.names is not None:
        missing = [name for name in names if name not in wishes.names]
        if missing:
            raise DekrPoseError(f"--names leaves out {', '.join(missing)}; the labels have {', '.join(names)}")
        return wishes.names
    for known in (COCO_17, CROWDPOSE_14):
        if names and set(names) <= set(known.keypoints):
            return tuple(name for name in known.keypoints if name in names)
    return tuple(names)


def by_names(
    found: Sequence[tuple[Labelled, People]], wishes: Wishes, declared: Sequence[str] = (),
    joined: Sequence[tuple[str, str]] = (), **fields: Any,
) -> Labels:  # fmt: skip
    """Labels of photos whose keypoints have names but no order, or one ``declared`` also for those nobody labelled.

    ``joined`` are edges by name; ``fields`` are further ones of ``Labels``.
    """
    labelled = [point[0] for _, people in found for points, _ in people for point in points]
    names = in_order([*([] if wishes.names else declared), *labelled], wishes)
    for photo, people in found:
        photo.people = [Human(_arranged(points, names), box) for points, box in people]
    whole = [pair for pair in dict.fromkeys(joined) if len({*pair} & {*names}) == 2]
    edges = tuple((names.index(start), names.index(end)) for start, end in whole) or None
    return Labels([photo for photo, _ in found], len(names), names, edges, **fields)


def _arranged(points: Sequence[Point], names: Sequence[str]) -> list[tuple[float, float, int]]:
    """A person's points in the order of ``names``."""
    by_name = {name: (x, y, visibility) for name, x, y, visibility in points}
    return [by_name.get(name, (0.0, 0.0, 0)) for name in names]
