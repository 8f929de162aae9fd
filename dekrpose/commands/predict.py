"""``dekrpose predict``: find everyone in photos and draw them."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dekrpose.errors import DekrPoseError, error_words

if TYPE_CHECKING:
    from dekrpose.results import Poses

_URL = re.compile(r"https?://", re.IGNORECASE)
_PICTURES = {".jpg", ".jpeg", ".png", ".webp"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.description = "Find everyone in photos; photo.jpg gets photo.poses.jpg beside it."
    parser.add_argument("images", nargs="+", metavar="PHOTO", help="files, folders, globs or URLs")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write there instead of beside each photo")
    parser.add_argument("--json", action="store_true", help="write photo.poses.json too")
    parser.add_argument("--no-picture", action="store_true", help="write no pictures")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0], metavar="S", help="such as 0.5 1 2")
    parser.add_argument(
        "--match-heatmap",
        action=argparse.BooleanOptionalAction,
        help="move keypoints to heatmap peaks; default: the model's own",
    )
    add_model_arguments(parser)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what all commands share that show what a model finds."""
    parser.add_argument("--model", default="tiny", help="name, folder or weights file (default: tiny)")
    parser.add_argument("--score-threshold", type=float, metavar="T", help="default: the model's own")
    parser.add_argument("--max-people", type=int, default=30, metavar="N")
    parser.add_argument("--input-size", type=int, metavar="N", help="short side in pixels; default: the model's own")
    parser.add_argument("--flip", action="store_true", help="average with the mirrored picture: slower, more accurate")
    parser.add_argument("--rescoring-net", metavar="FILE", help="weights of a scoring net, or its name")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")


def estimate_options(options: argparse.Namespace) -> dict[str, Any]:
    """What the shared arguments ask of ``PoseEstimator.estimate``."""
    chosen = {name: getattr(options, name) for name in ("score_threshold", "max_people", "input_size")}
    return {**chosen, "flip_test": options.flip}


def run(options: argparse.Namespace) -> int:
    """``dekrpose predict``: 0 when every photo worked, else 1."""
    from tqdm import tqdm

    from dekrpose.estimator import PoseEstimator

    photos, failures = _photos(options.images)
    outputs = _outputs(photos, options)
    if photos:
        estimator = PoseEstimator.from_pretrained(
            options.model, device=options.device, rescoring_net=options.rescoring_net
        )
    chosen = {**estimate_options(options), "scales": options.scales, "match_heatmap": options.match_heatmap}
    width = max(map(len, photos), default=0)
    for photo in tqdm(photos, unit="photo", disable=len(photos) == 1 or None):
        try:
            poses = estimator.estimate(photo, **chosen)
            for path in outputs[photo]:
                path.parent.mkdir(parents=True, exist_ok=True)
                poses.save(path)
        except (DekrPoseError, OSError) as error:
            reason = error_words(error)
            failures.append(reason if photo in reason else f"{photo}: {reason}")
        else:
            tqdm.write(_summary(f"{photo:{width}}", poses, outputs[photo]), file=sys.stdout)
    for reason in failures:
        print(f"failed: {reason}", file=sys.stderr)
    if failures and len(photos) > 1:
        print(f"{len(failures)} failed, the others are done", file=sys.stderr)
    return 1 if failures else 0


def _photos(patterns: Sequence[str]) -> tuple[list[str], list[str]]:
    """Files and URLs to read, and what is wrong with the patterns that name none.

    Pictures that this command wrote are left out: all of them in folders and globs; where they are named, which a
    shell's own globs do, those beside the photo that they were made of.
    """
    from dekrpose.images import find_images

    named: dict[str, None] = {}
    failures: list[str] = []
    for pattern in patterns:
        try:
            found = [pattern] if _URL.match(pattern) else [str(path) for path in find_images(pattern)]
        except FileNotFoundError as error:
            failures.append(error_words(error))
            continue
        photos = [photo for photo in found if photo == pattern or not _was_written(photo)]
        if not photos:
            failures.append(f"{pattern} holds only pictures that dekrpose wrote; name one of them to read it")
        named.update(dict.fromkeys(photos))
    beside = {(Path(photo).parent, Path(photo).stem) for photo in named}
    return [photo for photo in named if not _was_written(photo, beside)], failures


def _was_written(photo: str, beside: set[tuple[Path, str]] | None = None) -> bool:
    """Whether a path is named as this command names pictures; with ``beside``, only of those photos."""
    path = Path(photo)
    if _URL.match(photo) or not path.stem.endswith(".poses"):
        return False
    return beside is None or (path.parent, path.stem.removesuffix(".poses")) in beside


def _outputs(photos: Sequence[str], options: argparse.Namespace) -> dict[str, list[Path]]:
    """What is written for each photo; no two may share a file, and no photo is written over."""
    outputs: dict[str, list[Path]] = {}
    owners: dict[Path, str] = {}
    inputs = {Path(photo).resolve() for photo in photos if not _URL.match(photo)}
    for photo in photos:
        path = Path(_URL.sub("", photo).split("?")[0].rsplit("/", 1)[-1]) if _URL.match(photo) else Path(photo)
        suffix = path.suffix if path.suffix.lower() in _PICTURES else ".jpg"
        target = (options.out or path.parent) / f"{path.stem or 'photo'}.poses{suffix}"
        outputs[photo] = [] if options.no_picture else [target]
        if options.json:
            outputs[photo].append(target.with_suffix(".json"))
        for output in outputs[photo]:
            if output.resolve() in inputs:
                raise DekrPoseError(f"{output} is one of the photos and would be written over; pass another --out")
            if output in owners:
                raise DekrPoseError(f"{owners[output]} and {photo} would both write {output}; predict them apart")
            owners[output] = photo
    return outputs


def _summary(photo: str, poses: Poses, written: Sequence[Path]) -> str:
    people = {0: "nobody", 1: "1 person"}.get(len(poses), f"{len(poses)} people")
    arrow = f"  -> {', '.join(map(str, written))}" if written else ""
    scores = f"  scores {' '.join(f'{score:.2f}' for score in poses.scores[:5])}" if len(poses) else ""
    more = " ..." if len(poses) > 5 else ""
    return f"{photo}  {people:9} {sum(poses.timing.values()):6.0f} ms{arrow}{scores}{more}"
