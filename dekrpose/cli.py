"""The command line: ``dekrpose predict|video|webcam|train|train-scoring|eval|benchmark|convert|models|doctor``."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module

from dekrpose.errors import DekrPoseError, error_words

COMMANDS = {
    "predict": "draw the poses of photos",
    "video": "draw the poses of a video",
    "webcam": "show the poses of a camera",
    "train": "train or fine-tune on COCO-format keypoints",
    "train-scoring": "train the net that judges poses",
    "train-temporal": "give a model a memory for video",
    "eval": "measure a model on annotated photos",
    "eval-tracking": "measure identities and smoothing on made clips",
    "benchmark": "measure speed, alone or against another",
    "convert": "turn official and mmpose .pth files into safetensors",
    "export": "write an ONNX, OpenVINO or torch file",
    "models": "list models, check and clean the cache",
    "doctor": "find what is wrong with this installation",
}
"""What each does; it lives in the module of its name in ``commands``, with ``add_arguments(parser)`` and ``run``."""


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
        print(f"dekrpose: {error_words(error)}", file=sys.stderr)
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
    for name, text in COMMANDS.items():
        own = commands.add_parser(name, help=text, description=text)
        if name in arguments:  # the others are not even imported
            command = import_module(f"dekrpose.commands.{name.replace('-', '_')}")
            command.add_arguments(own)
            own.set_defaults(run=command.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
