"""Where and in which number type a model runs, and what forked processes need."""

from __future__ import annotations

import os
from functools import cache

import cv2
import torch

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    torch.float32: torch.float32,
    torch.bfloat16: torch.bfloat16,
    torch.float16: torch.float16,
}


def pick_device(device: str | torch.device) -> torch.device:
    """The device to run on: "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        ValueError: it is no device, or this machine or this torch does not have it.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        picked = torch.device(device)
        torch.empty(0, device=picked)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split(". ")[0]
        raise ValueError(f'device must be "auto", "cpu", or one that is here, got {device!r}: {reason}') from error
    return picked


def pick_dtype(dtype: str | torch.dtype) -> torch.dtype:
    if dtype == "auto":
        return torch.float32
    if dtype not in _DTYPES:
        raise ValueError(f'dtype must be "auto", "float32", "bfloat16" or "float16", got {dtype!r}')
    return _DTYPES[dtype]


@cache
def mind_forks() -> None:
    """From now on processes forked from this one compute with one thread.

    The threads of torch and OpenCV do not live on in a forked process, which would wait for them for ever as soon as
    the parent has used them.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_one_thread)


def _one_thread() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
