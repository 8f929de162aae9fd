"""Finds what would make the CPU wait for a device, on a machine without one."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class NothingWaits(TorchDispatchMode):
    """Fails where the CPU would wait for the device: reading a value, or a shape that depends on values."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = func.__name__.split(".")[0]
        masked = name == "index" and any(index is not None and index.dtype == torch.bool for index in args[1])
        assert name not in self.WAITING, f"{name} waits for the device"
        assert not masked, "indexing with a mask waits for the device"
        return func(*args, **(kwargs or {}))
