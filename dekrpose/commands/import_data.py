"""``dekrpose import``: labels of other tools as one COCO keypoints file, which ``train`` and ``eval`` read."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dekrpose.data.importers import IMPORTERS, Files, Wishes, coco_content, read_labels, skeleton_fields
from dekrpose.data.importers.base import Labels, Pairs, part_name
from dekrpose.errors import DekrPoseError, counted
from dekrpose.formats import write_whole

EXAMPLES = (
    "dekrpose import labelled --out people.json",
    "dekrpose import export.zip --out val.json --split val",
    "dekrpose import birds/data.yaml --out birds.json --names beak left_wing right_wing --edges beak:left_wing",
)
_SHOWN = 10
"""Problems that are printed one by one."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.description = (
        "Turn labels into a COCO keypoints file: YOLO-pose, labelme folders, COCO exports of Roboflow, CVAT and Label "
        "Studio with their subfolders or as a zip, Label Studio's JSON, CVAT's XML. The format is found out."
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="a folder, a .zip, a data.yaml or an export's file")
    parser.add_argument("--out", type=Path, metavar="PEOPLE.json", required=True, help="the file to write")
    parser.add_argument("--format", choices=sorted(IMPORTERS), help="default: found out")
    parser.add_argument("--split", metavar="NAME", help="only this part, such as train or val; default: all of them")
    parser.add_argument("--class", dest="category", metavar="NAME", help="only people of this class, of YOLO's labels")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="of the keypoints, in their order")
    parser.add_argument("--edges", nargs="+", metavar="A:B", help="keypoints that are joined by a limb, by name")
    parser.add_argument(
        "--flip-pairs", nargs="*", metavar="A:B",
        help="keypoints that change places in a mirrored photo, left first; default: the format's, else guessed from "
        "left and right in the names",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Write the file and say what is in it; 1 when something was left out."""
    if options.out.suffix != ".json":
        raise ValueError(f"--out must end in .json, got {options.out}")
    twice = [name for name, count in Counter(options.names or ()).items() if count > 1]
    if twice:
        raise ValueError(f"--names must differ, got {', '.join(twice)} more than once")
    files, wishes = Files(options.source), Wishes(tuple(options.names) if options.names else None, options.category)
    kind, labels = read_labels(files, wishes, options.format)
    names = wishes.names or labels.names or ()
    edges, flips = _pairs(options.edges, names, "--edges"), _pairs(options.flip_pairs, names, "--flip-pairs")
    category = skeleton_fields(labels, wishes, edges, flips)
    splits = Counter(photo.split for photo in labels.photos)
    split = None if options.split is None else part_name(options.split)
    if split is not None and not splits[split]:
        there = ", ".join(filter(None, splits)) or "none"
        raise DekrPoseError(f"{options.source} has no part {options.split!r}; parts are: {there}")
    content = coco_content(labels, files, category, split)
    if not content["images"]:
        raise DekrPoseError(f"no photo could be used; the first problem: {labels.problems[0]}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(options.out, json.dumps(content, allow_nan=False))
    if "flip_pairs" not in category:
        labels.remarks += _flip_remark(category["keypoints"])
    _tell(options, kind, labels, content["images"], content["annotations"], category["keypoints"])
    check = ["dekrpose", "train", "--check", str(options.out), "--images", str(files.place)]
    print(f"{options.out} is written; look at it with: {shlex.join(check)}")
    return 1 if labels.problems else 0


def _flip_remark(names: Sequence[str]) -> list[str]:
    """Where sides are called otherwise than left and right."""
    from dekrpose.training.skeleton_file import guess_flip_pairs, likely_flip_pair

    pair = None if guess_flip_pairs(names) else likely_flip_pair(names)
    if pair is None:
        return []
    first, second = pair
    return [
        f"no flip pairs, since no names say left and right; if {first} and {second} change places in a mirrored photo, "
        f"add --flip-pairs {shlex.quote(f'{first}:{second}')} ..."
    ]


def _tell(
    options: argparse.Namespace, kind: str, labels: Labels, images: Sequence[object],
    people: Sequence[dict[str, Any]], names: Sequence[str],
) -> None:  # fmt: skip
    labelled = sum(bool(person["num_keypoints"]) for person in people)
    pictures, learnt = counted(len(images), "photo"), counted(labelled, "person", "people")
    print(f"{options.source} is {IMPORTERS[kind].TITLE}: {pictures}, {learnt} with keypoints", end="")
    print(f", {len(people) - labelled:,} without (masked)" if labelled < len(people) else "")
    times = [sum(person["keypoints"][3 * index + 2] > 0 for person in people) for index in range(len(names))]
    told = ", ".join(f"{name} ({count:,})" for name, count in zip(names, times, strict=True))
    print(f"{counted(len(names), 'keypoint')}, and how often each is labelled: {told}")  # a misspelt name is rare
    parts = Counter(photo.split for photo in labels.photos if photo.split)
    if len(parts) > 1 and options.split is None:
        listed = ", ".join(f"{name} ({counted(count, 'photo')})" for name, count in parts.items())
        print(f"parts: {listed}; --split takes one")
    for remark in labels.remarks:
        print(remark)
    for problem in labels.problems[:_SHOWN]:
        print(f"left out: {problem}", file=sys.stderr)
    if len(labels.problems) > _SHOWN:
        print(f"left out: and {len(labels.problems) - _SHOWN:,} more", file=sys.stderr)


def _pairs(words: Sequence[str] | None, names: Sequence[str], option: str) -> Pairs | None:
    if words is None:
        return None
    pairs = []
    for word in words:
        first, _, second = word.partition(":")
        if first not in names or second not in names or first == second:
            known = ", ".join(names) or "not known; give --names"
            raise ValueError(
                f"{option} takes pairs of two keypoint names such as A:B, got {word!r}; keypoints are {known}"
            )
        pairs.append((names.index(first), names.index(second)))
    return tuple(pairs)
