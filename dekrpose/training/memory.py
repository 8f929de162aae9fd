"""Memory that a training keeps between its steps."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Of glibc's mallopt."""


def keep_freed_memory() -> bool:
    """Let this process keep the memory of freed tensors for the next ones, instead of giving it back to the system.

    Every step on a CPU asks for the same large tensors; fresh memory for each costs a third of the step. Needs glibc.

    Returns:
        Whether it could be done.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))
