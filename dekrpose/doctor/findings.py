"""What a check finds, and the commands that repair it."""

from __future__ import annotations

import os
import re
import shlex
import sys
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "fault"]
WINDOWS = os.name == "nt"


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        check: what was looked at, one or two words.
        status: "fault" keeps something from working, "warning" may surprise.
        message: what was found, and what was expected where that differs.
        repair: the shell command that repairs it; None when nothing is wrong or no one command does.
    """

    check: str
    status: Status
    message: str
    repair: str | None = None


def numbers(version: str) -> tuple[int, ...]:
    """The release part of a version for comparing: "2.13.0+cpu" -> (2, 13)."""
    found = re.match(r"\d+(\.\d+)*", version.strip())
    parts = [int(part) for part in found[0].split(".")] if found else []
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def quote(word: str, windows: bool = WINDOWS) -> str:
    """A word as the shell reads it back."""
    if windows:
        return f'"{word}"' if re.search(r"[\s&()^;,]", word) else word
    return shlex.quote(word)


def pip(arguments: str, executable: str = sys.executable, windows: bool = WINDOWS) -> str:
    """A pip command for the Python that runs this, whichever one the shell would find."""
    return f"{quote(executable, windows)} -m pip {arguments}"


def unset(names: list[str], windows: bool = WINDOWS) -> str:
    """The command that removes environment variables from the shell."""
    return " && ".join(f"set {name}=" for name in names) if windows else f"unset {' '.join(names)}"


def export(name: str, value: str, windows: bool = WINDOWS) -> str:
    """The command that sets an environment variable in the shell."""
    return f"set {name}={value}" if windows else f"export {name}={quote(value, windows)}"
