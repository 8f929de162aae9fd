"""The order of a run's samples, which can resume anywhere and be shared by processes, and a loader that follows it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from dekrpose.training.memory import start_method

Sample = TypeVar("Sample")


class EpochOrder(Sampler[list[tuple[int, int, int]]]):
    """Batches of (epoch, position, photo) from any point on: the seed and the epoch decide the order.

    Photos that fill no whole batch of a process are left out, others in each epoch. The processes, of which this is
    ``rank``, together see what one process with their joined batch would see.
    """

    def __init__(self, photos: int, batch_size: int, seed: int, rank: int = 0, processes: int = 1) -> None:
        self.photos, self.whole_batch, self.seed = photos, batch_size * processes, seed
        self.own = slice(rank * batch_size, (rank + 1) * batch_size)
        self.epoch, self.first_batch = 0, 0

    def __len__(self) -> int:
        return self.photos // self.whole_batch

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        return (batch[self.own] for batch in self.whole_batches())

    def whole_batches(self) -> Iterator[list[tuple[int, int, int]]]:
        """Batches of all processes together; this one's part is ``batch[order.own]``."""
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.photos)
        for batch in range(self.first_batch, len(self)):
            positions = range(batch * self.whole_batch, (batch + 1) * self.whole_batch)
            yield [(self.epoch, position, int(order[position])) for position in positions]


def make_loader(
    samples: Dataset[Sample], order: EpochOrder, workers: int, join: Callable[[list[Sample]], Sample]
) -> DataLoader[Sample]:
    """A loader over ``order``; with workers the next batches are made while the network trains."""
    return ProcessLoader(
        samples,
        batch_sampler=order,
        num_workers=workers,
        collate_fn=join,
        worker_init_fn=start_worker,
        multiprocessing_context=start_method() if workers else None,
        prefetch_factor=4 if workers else None,
        persistent_workers=workers > 0,  # a new fork in every epoch would have all memory copied page by page
    )


class ProcessLoader(DataLoader[Sample]):
    """A loader whose spawned processes do not run the program's main module again.

    They need nothing of it, and a script without ``if __name__ == "__main__"`` would train in each of them.
    """

    def __iter__(self) -> Any:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            return super().__iter__()
        finally:
            sys.modules["__main__"] = main


def start_worker(_: int) -> None:
    """What a loader's process begins with.

    Signals that go to all processes of a run, as Ctrl-C and service managers send them, are the run's to answer: it
    still needs its batches. The loader ends its processes by a word in their queue.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
