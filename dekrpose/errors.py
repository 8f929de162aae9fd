"""The error tree: everything that dekrpose itself raises about files and photos."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

_LOGIN = re.compile(
    r"([a-z][a-z0-9+.-]{1,30}:[/\\]++|://)(?:[^/?#]*@|[^/@\[]*:(?!\d*(?:[/?#]|$)).*@)", re.DOTALL | re.IGNORECASE
)
"""A name and a password in an address, also where a character in them hides the host, or a slash is wrong."""


_LONGEST = 2**15
"""Characters of an address or a path that a message shows."""


class DekrPoseError(Exception):
    """Base of all errors that dekrpose raises about its inputs' content."""


class CheckpointError(DekrPoseError):
    """A weights file is broken, foreign, or does not fit the network."""


class ImageError(DekrPoseError, ValueError):
    """An image cannot be read, or its type, shape or values are not supported."""


UNREADABLE = (DekrPoseError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What values of a file raise that are not as their format has them."""


def error_words(error: Exception) -> str:
    """An error's message; the system's own without their number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def counted(number: int, one: str, more: str = "") -> str:
    """A number of things for messages: 1 photo, 2 photos; ``more`` are several of what gets no s."""
    return f"{number:,} {one if number == 1 else more or one + 's'}"


def unknown_model(name: str, known: Sequence[str]) -> str:
    """For a name that is no model's, file's or folder's; ``known`` are those of models."""
    similar = difflib.get_close_matches(name.lower(), known, n=2, cutoff=0.5)
    hint = f" Did you mean {' or '.join(similar)}?" if similar else ""
    return f"no model, file or folder is called {name!r}.{hint} Known names: {', '.join(known)}"


def unquoted(error: BaseException) -> str:
    """Another library's error without what it quotes, which may be the content of a file that is none of ours."""
    line = (str(error) or type(error).__name__).strip().split("\n", 1)[0]
    return re.sub(r"""(["'`]).*(?:\1|$)""", "...", line)[:200]


def without_password(address: str) -> str:
    """An address for messages: ``http://name:password@host`` as ``http://host``; other texts as they are."""
    if len(address) > _LONGEST:
        return f"a text of {len(address):,} characters"
    before, at, rest = address.rpartition("@")  # what is cut out ends at one, and most texts have none
    return _LOGIN.sub(r"\1", before + at, count=1) + rest
