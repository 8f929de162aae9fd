"""The error tree: everything that dekrpose itself raises about files and photos."""

from __future__ import annotations


class DekrPoseError(Exception):
    """Base of all errors that dekrpose raises about its inputs' content."""


class CheckpointError(DekrPoseError):
    """A weights file is broken, foreign, or does not fit the network."""


class ImageError(DekrPoseError, ValueError):
    """An image cannot be read, or its type, shape or values are not supported."""


def error_words(error: Exception) -> str:
    """An error's message; the system's own without their number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)
