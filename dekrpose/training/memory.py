"""Memory of a training: kept from step to step, and shared with the processes that prepare its batches."""

from __future__ import annotations

import ctypes
import multiprocessing
import sys
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

_BLOCK_BYTES = 64 * 2**20
"""Of shared memory: each block takes one of the files that a process may have open."""
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Of glibc's mallopt."""


def keep_freed_memory() -> bool:
    """Let this process keep the memory of freed tensors for the next ones; whether it could be done, which needs glibc.

    Every step on a CPU asks for the same large tensors; fresh memory for each takes up to a third of it.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))


def start_method() -> Literal["fork", "spawn"]:
    """How processes that prepare batches are started.

    Forked ones share all memory, but Windows has no fork, and on macOS system libraries do not survive it.
    """
    can_fork = "fork" in multiprocessing.get_all_start_methods() and sys.platform != "darwin"
    return "fork" if can_fork else "spawn"


class SharedPictures:
    """Pictures in memory that other processes share, however they were started: a spawned one gets no copy."""

    def __init__(self) -> None:
        self._blocks: list[torch.Tensor] = []
        self._places: list[tuple[int, int, tuple[int, ...]]] = []
        self._free = 0

    def __len__(self) -> int:
        return len(self._places)

    def append(self, picture: NDArray[np.uint8]) -> None:
        """Copy a picture behind the others."""
        if picture.size > self._free:
            self._free = max(_BLOCK_BYTES, picture.size)
            block = torch.empty(self._free, dtype=torch.uint8)
            self._blocks.append(block.share_memory_())  # type: ignore[no-untyped-call]
        block = self._blocks[-1]
        start = len(block) - self._free
        block[start : start + picture.size] = torch.from_numpy(np.ascontiguousarray(picture)).flatten()
        self._places.append((len(self._blocks) - 1, start, picture.shape))
        self._free -= picture.size

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        block, start, shape = self._places[index]
        flat: NDArray[np.uint8] = self._blocks[block][start : start + int(np.prod(shape))].numpy()
        return flat.reshape(shape)
