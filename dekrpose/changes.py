"""What ``--compare`` changes for the other run: another model, or words such as dtype=bfloat16."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def read_changes(words: Sequence[str], keys: Sequence[str], others: Sequence[str] = ()) -> dict[str, str]:
    """Values by key; a word without a key, or one that names a file, is the "model".

    Args:
        words: of the command line.
        keys: that there are besides "model".
        others: words of the command's own, for the message.

    Raises:
        ValueError: an unknown key, or one that is given twice.
    """
    changes: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or Path(word).exists():
            key, value = "model", word
        elif key not in keys:
            known = ", ".join([*others, "a model", *(f"{key}=..." for key in keys)])
            raise ValueError(f"--compare takes {known}; got {word!r}")
        if key in changes:
            raise ValueError(f"--compare takes one other {key}, got {changes[key]!r} and {value!r}")
        changes[key] = value
    return changes


def whole_number(key: str, value: str) -> int:
    """A value that counts something.

    Raises:
        ValueError: it is none.
    """
    try:
        return int(value)
    except ValueError as error:
        raise ValueError(f"{key} must be a whole number, got {value!r}") from error
