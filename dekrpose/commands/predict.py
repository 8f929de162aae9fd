"""``dekrpose predict``: find everyone in photos and draw them."""

from __future__ import annotations

import argparse
import glob
import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dekrpose.commands.arguments import URL, Word, add_match_argument, add_trust_code, check_model, check_out, scale
from dekrpose.commands.drawing import add_draw_arguments, draw_options
from dekrpose.errors import DekrPoseError, counted, error_words, without_password

if TYPE_CHECKING:
    from dekrpose.draw import DrawOptions
    from dekrpose.results import Poses

EXAMPLES = (
    "dekrpose predict photo.jpg",
    "dekrpose predict photos --out results --json",
    "dekrpose predict 'photos/**/*.jpg' --no-picture --csv - > people.csv",
    "dekrpose predict - --json - < photo.jpg",
)
_PICTURES = {".jpg", ".jpeg", ".png", ".webp"}
_SMALL = 256
"""Short side, input pixels, of networks that start in no time; those of others start with a single photo itself."""
_STREAM = "-"
"""Standard input as a photo, standard output behind ``--json`` and ``--csv``."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.description = "Find everyone in photos; photo.jpg gets photo.poses.jpg beside it."
    parser.add_argument("images", nargs="+", metavar="PHOTO", help="files, folders, globs or URLs; - is standard input")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write there instead of beside each photo")
    parser.add_argument(
        "--json", action=Word, const="files", words=(_STREAM,), metavar="-",
        help="write photo.poses.json too; with - behind it, a line of JSON per photo to standard output",
    )  # fmt: skip
    parser.add_argument(
        "--csv", action=Word, const="files", words=(_STREAM,), metavar="-",
        help="write photo.poses.csv too, a row per person; with - behind it, the rows of all photos to standard output",
    )  # fmt: skip
    parser.add_argument("--no-picture", action="store_true", help="write no pictures")
    parser.add_argument("--resume", action="store_true", help="leave out photos whose files are all there already")
    parser.add_argument("--scales", type=scale, nargs="+", metavar="S", help="such as 0.5 1 2")
    how_much = parser.add_mutually_exclusive_group()
    how_much.add_argument("-q", "--quiet", action="store_true", help="print nothing but what failed")
    how_much.add_argument("-v", "--verbose", action="store_true", help="print the time of each stage, and the log")
    add_draw_arguments(parser, stream=False)
    add_model_arguments(parser)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what all commands share that show what a model finds."""
    parser.add_argument("--model", default="tiny", help="name, folder or weights file (default: tiny)")
    parser.add_argument("--score-threshold", type=float, metavar="T", help="default: the model's own")
    parser.add_argument("--max-people", type=int, default=30, metavar="N")
    parser.add_argument("--input-size", type=int, metavar="N", help="short side in pixels; default: the model's own")
    parser.add_argument("--flip", action="store_true", help="average with the mirrored picture: slower, more accurate")
    add_match_argument(parser)
    parser.add_argument("--rescoring-net", metavar="FILE", help="weights of a scoring net, or its name")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    add_trust_code(parser)


def estimate_options(options: argparse.Namespace) -> dict[str, Any]:
    """What the shared arguments ask of ``PoseEstimator.estimate``, as far as that can be checked without a model.

    Raises:
        ValueError: an option is out of range.
        DekrPoseError: the model is no file that there is.
    """
    from dekrpose.config import DecodeConfig
    from dekrpose.options import matching, resolve_options

    names = ("score_threshold", "max_people", "input_size", "scales")
    chosen = {name: getattr(options, name) for name in names if hasattr(options, name)}
    chosen |= {"flip_test": options.flip, "match_heatmap": matching(options.match_heatmap)}
    resolve_options(DecodeConfig(), 64, False, **chosen)
    check_model(options.model, rescoring_net=options.rescoring_net)
    return chosen


def run(options: argparse.Namespace) -> int:
    """``dekrpose predict``: 0 when every photo worked, else 1."""
    if options.verbose:
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    chosen = estimate_options(options)
    if options.json == options.csv == _STREAM:
        raise ValueError("--json - and --csv - would mix on standard output; write one of them into files")
    if options.resume and _STREAM in (options.json, options.csv):
        raise ValueError("--resume leaves out photos, and standard output would lack them; write files instead of -")
    check_out(options.out)
    look = draw_options(options)
    below, failures = _photos(options.images)
    photos, outputs = list(below), _outputs(below, options)
    if options.resume:
        done = {photo for photo in photos if outputs[photo] and all(path.exists() for path in outputs[photo])}
        photos = [photo for photo in photos if photo not in done]
        if not options.quiet:
            print(f"{counted(len(done), 'photo')} done before", file=sys.stderr)
    if photos:
        _predict(photos, outputs, options, chosen, look, failures)
    for reason in failures:
        print(f"failed: {reason}", file=sys.stderr)
    if failures and len(photos) > 1:
        print(f"{len(failures)} failed, the others are done", file=sys.stderr)
    return 1 if failures else 0


def _predict(
    photos: Sequence[str],
    outputs: dict[str, list[Path]],
    options: argparse.Namespace,
    chosen: dict[str, Any],
    look: DrawOptions,
    failures: list[str],
) -> None:
    """Photo by photo; what fails is added to ``failures``."""
    from dekrpose.estimator import PoseEstimator
    from dekrpose.progress import Bar

    estimator = PoseEstimator.from_pretrained(
        options.model, device=options.device, rescoring_net=options.rescoring_net, trust_code=options.trust_code
    )
    chosen = {**chosen, "allow_private": True}  # whoever types the command has chosen the URLs
    if len(photos) > 1 or estimator.config.input_size <= _SMALL:
        estimator.warmup(input_size=options.input_size)  # the first photo's time is not the start-up
    width = max(map(len, photos))
    streams = _STREAM in (options.json, options.csv)
    header = True
    for photo in Bar(photos, unit="photo", show=len(photos) > 1 and not options.quiet):
        name = without_password(photo)
        try:
            poses = estimator.estimate(_standard_input() if photo == _STREAM else photo, **chosen)
            poses = replace(poses, source=name)  # standard input has a name, too
            for path in outputs[photo]:
                poses.save(path, **(look if path.suffix.lower() in _PICTURES else {}))
        except BrokenPipeError:
            raise
        except (DekrPoseError, OSError) as error:
            reason = error_words(error)
            failures.append(reason if name in reason else f"{name}: {reason}")
            if options.json == _STREAM:
                _say(json.dumps({"source": name, "error": reason}, ensure_ascii=False))
            continue
        if options.json == _STREAM:
            _say(poses.to_json())
        elif options.csv == _STREAM:
            print(poses.to_csv(header=header), end="", flush=True)
            header = False
        if not options.quiet and not streams:
            _say(_summary(f"{name:{width}}", poses, outputs[photo], options.verbose))


def _standard_input() -> bytes:
    content = b"" if sys.stdin is None else sys.stdin.buffer.read()  # None where it is closed
    if not content:
        state = "closed" if sys.stdin is None else "empty"
        raise DekrPoseError(f"standard input is {state}; it must hold a photo: dekrpose predict - < photo.jpg")
    return content


def _say(line: str) -> None:
    from dekrpose.progress import Bar

    Bar.write(line, file=sys.stdout)
    sys.stdout.flush()  # a reader gets each photo when it is done


def _photos(patterns: Sequence[str]) -> tuple[dict[str, Path], list[str]]:
    """Files and URLs to read, each with its folder below the pattern's; and what is wrong with patterns that name none.

    Pictures that this command wrote are left out: all of them in folders and globs; where they are named, which a
    shell's own globs do, those beside the photo that they were made of.
    """
    from dekrpose.images.listing import find_images, without_drawn

    named: dict[str, Path] = {}
    failures: list[str] = []
    for pattern in patterns:
        try:
            as_it_is = pattern == _STREAM or URL.match(pattern)
            found = [pattern] if as_it_is else [str(path) for path in find_images(pattern)]
        except FileNotFoundError as error:
            failures.append(error_words(error))
            continue
        photos = [photo for photo in found if photo == pattern or not _was_written(photo)]
        if not photos:
            failures.append(f"{pattern} holds only pictures that dekrpose wrote; name one of them to read it")
        top = _fixed_part(pattern)
        for photo in photos:
            folder = Path(photo).parent
            named.setdefault(photo, folder.relative_to(top) if folder.is_relative_to(top) else Path())
    kept = set(without_drawn([Path(photo) for photo in named if not URL.match(photo)]))
    return {photo: folder for photo, folder in named.items() if URL.match(photo) or Path(photo) in kept}, failures


def _fixed_part(pattern: str) -> Path:
    """The folder that a pattern names before its first wildcard."""
    path = Path(pattern).expanduser()
    return next(part for part in (path, *path.parents) if not glob.has_magic(str(part)))


def _was_written(photo: str) -> bool:
    """Whether a path is named as this command names pictures."""
    return not URL.match(photo) and Path(photo).stem.endswith(".poses")


def _outputs(photos: Mapping[str, Path], options: argparse.Namespace) -> dict[str, list[Path]]:
    """What is written for each photo, in --out in its folder; no two may share a file, no photo is written over."""
    outputs: dict[str, list[Path]] = {}
    owners: dict[Path, str] = {}
    inputs = {Path(photo).resolve() for photo in photos if not URL.match(photo)}
    for photo, folder in photos.items():
        outputs[photo] = list(_written_for(photo, options.out and options.out / folder, options))
        for output in outputs[photo]:
            if output.resolve() in inputs:
                raise DekrPoseError(f"{output} is one of the photos and would be written over; pass another --out")
            if output in owners:
                raise DekrPoseError(
                    f"{owners[output]} and {without_password(photo)} would both write {output}; predict them apart"
                )
            owners[output] = without_password(photo)
    return outputs


def _written_for(photo: str, out: Path | None, options: argparse.Namespace) -> Iterator[Path]:
    """The files of one photo. What comes from standard input and goes to standard output makes none but in --out."""
    path = Path(photo)
    if URL.match(photo):
        path = Path(URL.sub("", without_password(photo)).split("?")[0].rsplit("/", 1)[-1])
    if photo == _STREAM:
        path = Path("stdin")
    suffix = path.suffix if path.suffix.lower() in _PICTURES else ".jpg"
    target = (out or path.parent) / f"{path.stem or 'photo'}.poses{suffix}"
    passed_on = photo == _STREAM in (options.json, options.csv) and options.out is None
    if not options.no_picture and not passed_on:
        yield target
    for kind in ("json", "csv"):
        if getattr(options, kind) == "files":
            yield target.with_suffix(f".{kind}")


def _summary(photo: str, poses: Poses, written: Sequence[Path], verbose: bool) -> str:
    people = counted(len(poses), "person", "people") if len(poses) else "nobody"
    arrow = f"  -> {', '.join(map(str, written))}" if written else ""
    scores = f"  scores {' '.join(f'{score:.2f}' for score in poses.scores[:5])}" if len(poses) else ""
    more = " ..." if len(poses) > 5 else ""
    stages = ", ".join(f"{stage} {milliseconds:.0f}" for stage, milliseconds in poses.timing.items())
    times = f"{sum(poses.timing.values()):6.0f} ms{f' ({stages})' if verbose else ''}"
    return f"{photo}  {people:9} {times}{arrow}{scores}{more}"
