"""What all commands share: their parser, and checks of arguments that need neither torch nor a model."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

from dekrpose.config import FORMER_NAMES, MatchMode
from dekrpose.errors import DekrPoseError, unknown_model

_WEIGHTS = {".safetensors", ".pth", ".pt", ".onnx", ".xml", ".pt2"}
MODELS = ("tiny", "dekr-w32-coco", "dekr-w48-coco", "dekr-w32-crowdpose", "dekr-w48-crowdpose")
"""The names that ``dekrpose.hub`` knows, which is slow to load; a test compares them."""
SCORING_NETS = ("rescore-coco", "rescore-crowdpose")
"""The same for ``--rescoring-net``."""
VIDEO_SETS = ("posetrack", "jhmdb", "penn")
"""Those that ``data.clips.sequences`` knows."""
URL = re.compile(r"https?://", re.IGNORECASE)


class Word(argparse.Action):
    """An option that may be followed by one of its ``words``: ``--json``, ``--json -``.

    Any other word behind it is not its own: in ``--json photo.jpg`` the photo is a photo.
    """

    def __init__(self, option_strings: Sequence[str], dest: str, const: str, words: Sequence[str], **more: Any):
        super().__init__(option_strings, dest, nargs="?", const=const, **more)
        self.words = words

    def __call__(self, _parser: object, namespace: argparse.Namespace, value: object, _option: object = None) -> None:
        if value not in (self.const, *self.words):
            raise argparse.ArgumentError(self, f"may be followed by {', '.join(self.words)}, got {value!r}")
        setattr(namespace, self.dest, value)


class Parser(argparse.ArgumentParser):
    """Tells what was meant, and the usage of the command that was given."""

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        words = self._joined(sys.argv[1:] if args is None else args)
        found, unknown = super().parse_known_args(words, namespace)
        several = [action for action in self._actions if not action.option_strings and action.nargs == "+"]
        if unknown and several and not any(word.startswith("-") for word in unknown):
            # argparse takes those before an option and leaves those behind it: predict a.jpg --flip b.jpg
            getattr(found, several[0].dest).extend(self._get_value(several[0], word) for word in unknown)
            unknown = []
        if unknown:
            known = [option for action in self._actions for option in action.option_strings]
            meant = [near(word.split("=")[0], known) for word in unknown if word.startswith("-")]
            self.error(f"unrecognized arguments: {' '.join(unknown)}{next(filter(None, meant), '')}")
        return found, unknown

    def _joined(self, words: Sequence[str]) -> list[str]:
        """Options of ``Word`` with what is theirs, in one word."""
        options = {
            option: action for action in self._actions if isinstance(action, Word) for option in action.option_strings
        }
        joined: list[str] = []
        rest = list(words)
        while rest:
            word = rest.pop(0)
            if word == "--":
                return [*joined, word, *rest]
            if word in options:
                action = options[word]
                word = f"{word}={rest.pop(0) if rest and rest[0] in action.words else action.const}"
            joined.append(word)
        return joined


class HelpFormat(argparse.HelpFormatter):
    """Text of several lines stays as it is."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


def near(word: str, known: Sequence[str]) -> str:
    """What somebody may have meant by a word, for the end of a message; empty if nothing is like it."""
    found = difflib.get_close_matches(word, known, n=1, cutoff=0.75)
    return f"; did you mean {found[0]}?" if found else ""


def add_match_argument(parser: argparse.ArgumentParser) -> None:
    """``--match-heatmap`` of all commands that estimate."""
    parser.add_argument(
        "--match-heatmap", action=Word, const="official", words=(*get_args(MatchMode), "off"), metavar="MODE",
        help="move keypoints to heatmap peaks: as the released code does (official, also without a MODE), without its "
        "mix-up near borders (paper), to the likeliest peak instead of the nearest (weighted), or not (off); default: "
        "the model's own",
    )  # fmt: skip


def add_trust_code(parser: argparse.ArgumentParser) -> None:
    """``--trust-code``, which every command has that takes a model."""
    parser.add_argument(
        "--trust-code", action="store_true", help="open a .pt2 model, which can run whatever code its author put inside"
    )


def share(text: str) -> float:
    """An argument from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, got {text}")
    return value


def scale(text: str) -> float:
    """One of several input scales."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"takes numbers such as 0.5 1 2, got {text!r}; what else there is goes first"
        ) from None


def check_out(folder: Path | None) -> None:
    """Say so before anything is loaded when ``--out`` cannot be a folder, because it or a part of it is a file.

    Raises:
        NotADirectoryError: it is.
    """
    for part in [] if folder is None else [folder, *folder.parents]:
        if part.exists() and not part.is_dir():
            raise NotADirectoryError(f"--out must be a folder, and {part} is a file")


def check_files(paths: Iterable[Path | None]) -> None:
    """Say so before anything is loaded when a file or folder is not there; None is passed over.

    Raises:
        FileNotFoundError: it is not.
    """
    for path in paths:
        if path is not None and not path.exists():
            raise FileNotFoundError(f"{path} does not exist; relative paths start at {Path.cwd()}")


def check_model(model: str, others: Sequence[str] = (), rescoring_net: str | Path | None = None) -> None:
    """The same for a model: a file or folder by its suffix, or a first dot, slash or ~; or a name without a slash.

    ``others`` are names that the command knows besides ``MODELS``; ``rescoring_net`` is looked at in the same way.

    Raises:
        DekrPoseError: it is not there, or nothing has this name.
    """
    path = Path(model).expanduser()
    is_place = path.suffix.lower() in _WEIGHTS or model[:1] in (".", "/", "~")
    if is_place and not URL.match(model) and not path.exists():
        raise DekrPoseError(f"there is no weights file or model folder {model!r}; relative paths start at {Path.cwd()}")
    names = list(dict.fromkeys([*MODELS, *others]))
    if "/" not in model and model not in (*names, *FORMER_NAMES) and not path.exists():
        raise DekrPoseError(unknown_model(model, names))
    if rescoring_net is not None:
        check_model(str(rescoring_net), SCORING_NETS)
