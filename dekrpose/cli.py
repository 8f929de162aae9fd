"""The command line: ``dekrpose COMMAND ...``; each command is a module of ``commands``, read when it is asked for."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module

from dekrpose.errors import DekrPoseError, error_words

COMMANDS = {
    "predict": "draw the poses of photos",
    "video": "draw the poses of a video",
    "webcam": "show the poses of a camera",
    "import": "turn labels of other tools into a COCO keypoints file",
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
"""What each does; it lives in the module of its name in ``commands``, with ``EXAMPLES``, ``add_arguments(parser)`` and
``run``. It imports what is slow to load, torch above all, only within ``run``, after it has checked the arguments."""
_MODULES = {"import": "import_data"}
"""Where the module has another name than the command."""
BROKEN_PIPE = 141
"""The exit status of a command whose reader went away, as shells have it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status: 0 done, 1 something failed, 2 wrong usage."""
    from dekrpose.commands.decoder_noise import without_decoder_noise

    with _printable_names(), without_decoder_noise():
        return _main(sys.argv[1:] if arguments is None else arguments)


def _main(arguments: Sequence[str]) -> int:
    if arguments and arguments[0] == "help":
        arguments = [*arguments[1:2], "--help"] if arguments[1:] else []
    try:
        parser = _parser(arguments)
        if not arguments:
            parser.print_help()
            return 0
        options = parser.parse_args(arguments)
        run: Callable[[argparse.Namespace], int] = options.run
        status = run(options)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as head, has what it wanted
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python itself flushes at its end
        return BROKEN_PIPE
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
    from dekrpose.commands.arguments import HelpFormat, Parser, near

    parser = Parser(prog="dekrpose", description="Find the body keypoints of everyone in a photo.")
    parser.add_argument("--version", action="version", version=f"dekrpose {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    wanted = next((word for word in arguments if not word.startswith("-")), None)
    for name, text in COMMANDS.items():
        own = commands.add_parser(name, help=text, description=text, formatter_class=HelpFormat)
        if name == wanted:  # the others are not even imported
            command = import_module(f"dekrpose.commands.{_MODULES.get(name, name.replace('-', '_'))}")
            command.add_arguments(own)
            own.epilog = "\n".join(["examples:", *(f"  {line}" for line in command.EXAMPLES)])
            own.set_defaults(run=command.run)
    if wanted is not None and wanted not in COMMANDS:
        meant = near(wanted, list(COMMANDS)) or f"; there are {', '.join(COMMANDS)}"
        parser.error(f"there is no command {wanted!r}{meant}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
