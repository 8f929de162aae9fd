"""CUDA graphs: what a device is asked to do for a kind of input, recorded once and replayed with one call.

A network of hundreds of small kernels keeps the CPU busy with starting them; a replay starts them all at once.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from threading import Lock

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

Function = Callable[[Sequence[Tensor]], Tensor]
Recorder = Callable[[Function, Sequence[Tensor]], Function]

LIMIT = 8
"""Recordings that are kept: each holds the memory of its activations."""
_WARMUP = 2
"""Runs before recording, in which libraries choose their algorithms and kernels are compiled."""


def record_cuda_graph(function: Function, inputs: Sequence[Tensor]) -> Function:
    """Record what a function asks a CUDA device to do.

    Args:
        function: of tensors, to a tensor, all on one device; it must not wait for the device or copy from the CPU.
        inputs: an example; recordings fit its shapes and dtypes.

    Returns:
        The same function for inputs like these; its result is a new tensor.

    Raises:
        RuntimeError: the function does what cannot be recorded.
    """
    with torch.cuda.device(inputs[0].device):
        own = [tensor.clone() for tensor in inputs]
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARMUP):
                function(own)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = function(own)

    def replay(inputs: Sequence[Tensor]) -> Tensor:
        for place, tensor in zip(own, inputs, strict=True):
            place.copy_(tensor)
        graph.replay()
        return result.clone()

    return replay


class Recordings:
    """Calls functions, and records those that come again: the second call of a kind records, later ones replay.

    Args:
        record: makes a recording.
        limit: recordings that are kept; the one not used for longest goes first.
    """

    def __init__(self, record: Recorder = record_cuda_graph, limit: int = LIMIT) -> None:
        self._record, self._limit = record, limit
        self._kinds: OrderedDict[Hashable, Function | None] = OrderedDict()
        self._lock = Lock()  # a recording has one place for its inputs

    def __reduce__(self) -> tuple[type[Recordings], tuple[Recorder, int]]:
        return Recordings, (self._record, self._limit)  # copies record anew

    def __call__(self, key: Hashable, function: Function, inputs: Sequence[Tensor]) -> Tensor:
        """The function's result for these inputs.

        A function that cannot be recorded is called as it is from then on; a warning is logged.

        Args:
            key: stands for the function, and whatever else its result depends on.
            function, inputs: see ``record_cuda_graph``.
        """
        kind = (key, *((tensor.shape, tensor.dtype, tensor.device) for tensor in inputs))
        with self._lock:
            if kind not in self._kinds:
                self._keep(kind, None)
                return function(inputs)
            recording = self._kinds[kind]
            if recording is None:
                recording = self._recorded(function, inputs)
            self._keep(kind, recording)
            return recording(inputs)

    def _keep(self, kind: Hashable, recording: Function | None) -> None:
        self._kinds[kind] = recording
        self._kinds.move_to_end(kind)
        while len(self._kinds) > self._limit:
            self._kinds.popitem(last=False)

    def _recorded(self, function: Function, inputs: Sequence[Tensor]) -> Function:
        try:
            return self._record(function, inputs)
        except RuntimeError as error:  # what torch and CUDA raise
            logger.warning("this input is computed without a CUDA graph, because recording it failed: %s", error)
            return function
