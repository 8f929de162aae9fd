"""The command line: ``dekrpose predict|video|webcam|train|train-scoring|eval|benchmark|convert|models|doctor``."""

from __future__ import annotations

import argparse
import io
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dekrpose.errors import DekrPoseError

if TYPE_CHECKING:
    from dekrpose.estimator import PoseEstimator
    from dekrpose.results import Poses

_URL = re.compile(r"https?://", re.IGNORECASE)
_PICTURES = {".jpg", ".jpeg", ".png", ".webp"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status: 0 done, 1 something failed, 2 wrong usage."""
    with _printable_names():
        return _main(sys.argv[1:] if arguments is None else arguments)


def _main(arguments: Sequence[str]) -> int:
    try:
        options = _parser(arguments).parse_args(arguments)
        run: Callable[[argparse.Namespace], int] = options.run
        return run(options)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except (DekrPoseError, OSError, ValueError, ImportError) as error:
        print(f"dekrpose: {_words(error)}", file=sys.stderr)
        return 1


@contextmanager
def _printable_names() -> Iterator[None]:
    """Names that the terminal has no characters for are printed with escapes; they would end the command else."""
    changed: list[tuple[io.TextIOWrapper, str | None]] = []
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            changed.append((stream, stream.errors))
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for stream, errors in changed:
            with suppress(OSError, ValueError):  # a pipe whose reader has gone
                stream.reconfigure(errors=errors)


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    from dekrpose import __version__

    parser = argparse.ArgumentParser(prog="dekrpose", description="Find the body keypoints of everyone in a photo.")
    parser.add_argument("--version", action="version", version=f"dekrpose {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_predict(commands)
    _add_late(commands, arguments, "video", "draw the poses of a video", "dekrpose.video_command")
    _add_late(commands, arguments, "webcam", "show the poses of a camera", "dekrpose.webcam_command")
    _add_late(commands, arguments, "train", "train or fine-tune on COCO-format keypoints", "dekrpose.training.command")
    _add_late(
        commands, arguments, "train-scoring", "train the net that judges poses", "dekrpose.training.scoring_command"
    )
    _add_late(
        commands, arguments, "train-temporal", "give a model a memory for video", "dekrpose.training.temporal_command"
    )
    _add_late(commands, arguments, "eval", "measure a model on annotated photos", "dekrpose.evaluation.command")
    _add_late(
        commands, arguments, "eval-tracking", "measure identities and smoothing on made clips",
        "dekrpose.evaluation.tracking_command",
    )  # fmt: skip
    _add_late(commands, arguments, "benchmark", "measure speed, alone or against another", "dekrpose.benchmark")
    _add_convert(commands)
    _add_late(commands, arguments, "export", "write an ONNX, OpenVINO or torch file", "dekrpose.export.command")
    _add_late(commands, arguments, "models", "list models, check and clean the cache", "dekrpose.catalogue")
    _add_late(commands, arguments, "doctor", "find what is wrong with this installation", "dekrpose.doctor")
    return parser


def _add_late(commands: Any, arguments: Sequence[str], name: str, text: str, module: str) -> None:
    """A command that lives in another module, which is imported only when it was asked for."""
    parser = commands.add_parser(name, help=text, description=text)
    if name in arguments:
        from importlib import import_module

        command = import_module(module)
        command.add_arguments(parser)
        parser.set_defaults(run=command.run)


def _add_predict(commands: Any) -> None:
    parser = commands.add_parser(
        "predict",
        help="draw the poses of photos",
        description="Find everyone in photos; photo.jpg gets photo.poses.jpg beside it.",
    )
    parser.add_argument("images", nargs="+", metavar="PHOTO", help="files, folders, globs or URLs")
    parser.add_argument("--model", default="tiny", help="name, folder or weights file (default: tiny)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write there instead of beside each photo")
    parser.add_argument("--json", action="store_true", help="write photo.poses.json too")
    parser.add_argument("--no-picture", action="store_true", help="write no pictures")
    parser.add_argument("--score-threshold", type=float, metavar="T", help="default: the model's own")
    parser.add_argument("--max-people", type=int, default=30, metavar="N")
    parser.add_argument("--input-size", type=int, metavar="N", help="short side in pixels; default: the model's own")
    parser.add_argument("--flip", action="store_true", help="average with the mirrored photo: slower, more accurate")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0], metavar="S", help="such as 0.5 1 2")
    parser.add_argument(
        "--match-heatmap",
        action=argparse.BooleanOptionalAction,
        help="move keypoints to heatmap peaks; default: the model's own",
    )
    parser.add_argument("--rescoring-net", metavar="FILE", help="weights of a scoring net, or its name")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    parser.set_defaults(run=predict)


def _add_convert(commands: Any) -> None:
    parser = commands.add_parser(
        "convert",
        help="turn official and mmpose .pth files into safetensors",
        description="Read official, mmpose 0.x and 1.x checkpoints, recognised by their tensors; write safetensors.",
    )
    parser.add_argument("source", type=Path, metavar="IN.pth")
    parser.add_argument("target", type=Path, metavar="OUT.safetensors")
    parser.add_argument("--rescoring-net", type=Path, metavar="FILE", help="put this scoring net inside")
    smaller = parser.add_mutually_exclusive_group()
    smaller.add_argument("--half", action="store_true", help="store float16: half the size")
    smaller.add_argument("--int8", action="store_true", help="store weights as integers: a quarter of the size")
    parser.set_defaults(run=convert)


def predict(options: argparse.Namespace) -> int:
    """``dekrpose predict``: 0 when every photo worked, else 1."""
    from tqdm import tqdm

    from dekrpose.estimator import PoseEstimator

    photos, failures = _photos(options.images)
    outputs = _outputs(photos, options)
    if photos:
        estimator = PoseEstimator.from_pretrained(
            options.model, device=options.device, rescoring_net=options.rescoring_net
        )
    width = max(map(len, photos), default=0)
    for photo in tqdm(photos, unit="photo", disable=len(photos) == 1 or None):
        try:
            poses = _estimate(estimator, photo, options)
            for path in outputs[photo]:
                path.parent.mkdir(parents=True, exist_ok=True)
                poses.save(path)
        except (DekrPoseError, OSError) as error:
            reason = _words(error)
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
            failures.append(_words(error))
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


def _estimate(estimator: PoseEstimator, photo: str, options: argparse.Namespace) -> Poses:
    return estimator.estimate(
        photo,
        score_threshold=options.score_threshold,
        max_people=options.max_people,
        input_size=options.input_size,
        flip_test=options.flip,
        scales=options.scales,
        match_heatmap=options.match_heatmap,
    )


def _summary(photo: str, poses: Poses, written: Sequence[Path]) -> str:
    people = {0: "nobody", 1: "1 person"}.get(len(poses), f"{len(poses)} people")
    arrow = f"  -> {', '.join(map(str, written))}" if written else ""
    scores = f"  scores {' '.join(f'{score:.2f}' for score in poses.scores[:5])}" if len(poses) else ""
    more = " ..." if len(poses) > 5 else ""
    return f"{photo}  {people:9} {sum(poses.timing.values()):6.0f} ms{arrow}{scores}{more}"


def _words(error: Exception) -> str:
    """An error's message; the system's own without their number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def convert(options: argparse.Namespace) -> int:
    """``dekrpose convert``: read any known format, write ours."""
    from dekrpose.checkpoints import read_checkpoint, read_rescoring_net, write_checkpoint

    checkpoint = read_checkpoint(options.source)
    rescoring = checkpoint.rescoring
    if options.rescoring_net is not None:
        rescoring = read_rescoring_net(options.rescoring_net, checkpoint.config.skeleton)
    write_checkpoint(
        options.target, checkpoint.config, checkpoint.state_dict, rescoring, half=options.half, int8=options.int8
    )
    inside = "with a scoring net" if rescoring else "without a scoring net"
    print(f"{options.source} ({checkpoint.format}, {checkpoint.config.name}) -> {options.target}, {inside}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
