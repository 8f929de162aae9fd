"""Hostile inputs, made from a seed, in processes with a limit on their memory: what SECURITY.md promises, tried.

    python -m tests.fuzz                                  every kind, as many as SECURITY.md says
    python -m tests.fuzz images films --seconds 60        two kinds, a minute each
    python -m tests.fuzz images --seed 7 --first 123 --count 1 --keep FOLDER     one input again, kept as a file

It fails when an input ends in an error that is not documented, ends the process, or takes more than the bounds.
How inputs are made and used is in ``tests.hostile``. Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.hostile.checkpoints import CHECKPOINTS
from tests.hostile.films import FILMS
from tests.hostile.images import IMAGES
from tests.hostile.json_files import JSON_FILES
from tests.hostile.kind import Kind

KINDS: dict[str, Kind] = {"images": IMAGES, "checkpoints": CHECKPOINTS, "json": JSON_FILES, "films": FILMS}
SPARE = 2**30
"""Bytes beyond a kind's bound that a process may take before it is stopped, and not only reported."""
_PARENT_DEATH_SIGNAL = 1  # of prctl
PATIENCE = 240.0
"""Seconds without an answer after which a process counts as hanging."""


@dataclass(frozen=True)
class Result:
    """What became of one input.

    Args:
        index: its number.
        outcome: "answer", the name of a documented error, or what is wrong.
        wrong: whether that is a failure.
        seconds: of processor time.
        mebibytes: memory at the worst moment, above that of a process that has loaded what it needs.
    """

    index: int
    outcome: str
    wrong: bool
    seconds: float
    mebibytes: float


@dataclass
class Tally:
    """What became of all inputs of a kind."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: Result | None = None
    largest: Result | None = None
    failures: list[Result] = field(default_factory=list)

    def add(self, result: Result) -> None:
        self.outcomes[result.outcome.split(":")[0] if not result.wrong else "FAILURE"] += 1
        if self.slowest is None or result.seconds > self.slowest.seconds:
            self.slowest = result
        if self.largest is None or result.mebibytes > self.largest.mebibytes:
            self.largest = result
        if result.wrong:
            self.failures.append(result)


def _memory(key: str) -> float:
    """MiB that the system counts for this process under a name."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    raise KeyError(key)


def _serve(name: str, pipe: Connection) -> None:
    """A process of its own, which hands every input to a copy of itself and passes on what became of it."""
    kind = KINDS[name]
    os.setsid()  # so that a copy that hangs ends with it
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders have much to say about damaged files
    use, harmless = kind.prepare(), kind.harmless()
    use(harmless)
    system = ctypes.CDLL(None)
    system.malloc_trim(0)
    idle = _memory("RssAnon")
    most = int(2**20 * (_memory("VmSize") + kind.mebibytes)) + SPARE
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    pipe.send(None)
    while True:
        try:
            index, data = pipe.recv()
        except EOFError:
            return
        reading, writing = multiprocessing.Pipe(duplex=False)
        copy = os.fork()
        if copy == 0:
            system.prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
            try:
                writing.send(_tried(kind, use, harmless, index, data, idle))
            finally:
                os._exit(1)  # whatever it was that came up to here
        writing.close()
        try:
            pipe.send(reading.recv())
        except EOFError:
            pipe.send(Result(index, "its process ended without an answer", True, 0.0, 0.0))
        reading.close()
        os.waitpid(copy, 0)


def _tried(kind: Kind, use: Callable[[bytes], Any], harmless: bytes, index: int, data: bytes, idle: float) -> Result:
    use(harmless)  # a copy reads its libraries from the disk again, which is nobody's fault
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the worst moment until now
    read, start, outcome, wrong = _memory("RssFile"), time.process_time(), "answer", False
    try:
        use(data)
    except kind.documented as error:
        outcome = type(error).__name__
        wrong = kind.secret in str(error)
        outcome += ": quotes what the file holds" if wrong else ""
    except Exception:
        outcome, wrong = f"undocumented: {traceback.format_exc(limit=-4)}", True
    return Result(index, outcome, wrong, time.process_time() - start, _memory("VmHWM") - read - idle)


class _Child:
    """A process whose copies use inputs; a new one takes its place when it ends."""

    def __init__(self, name: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(name, other), daemon=True)
        self.process.start()
        other.close()
        self.pipe.recv()

    def run(self, index: int, data: bytes) -> Result:
        try:
            self.pipe.send((index, data))
            if self.pipe.poll(PATIENCE):
                result: Result = self.pipe.recv()
                return result
            reason = f"no answer after {PATIENCE:g} s"
        except (EOFError, OSError):
            self.process.join(10)
            reason = f"the process ended with {self.process.exitcode}"
        self.stop()
        return Result(index, reason, True, PATIENCE, 0.0)

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid or 0, signal.SIGKILL)
        self.process.join()
        self.pipe.close()


def fuzz(name: str, seed: int, first: int, count: int, seconds: float | None, keep: Path | None) -> Tally:
    """Try the inputs of a kind, from ``first`` on, until there were ``count`` or the time is over."""
    kind, tally, child = KINDS[name], Tally(), None
    end = time.monotonic() + (seconds or float("inf"))
    for index in range(first, first + count):
        if time.monotonic() > end:
            break
        child = child or _Child(name)
        data = kind.make(random.Random(f"{seed} {name} {index}"))
        result = child.run(index, data)
        if not child.process.is_alive():
            child = None
        if not result.wrong and (result.seconds > kind.seconds or result.mebibytes > kind.mebibytes):
            words = f"over the bounds: {result.seconds:.1f} s, {result.mebibytes:.0f} MiB, then {result.outcome}"
            result = Result(index, words, True, result.seconds, result.mebibytes)
        tally.add(result)
        if result.wrong:
            print(f"FAILURE {name} --seed {seed} --first {index}: {result.outcome}", flush=True)
        if keep is not None and (result.wrong or count == 1):
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{name}-{seed}-{index}").write_bytes(data)
        if (index - first + 1) % 1000 == 0:
            print(f"{name}: {index - first + 1} done", flush=True)
    if child is not None:
        child.stop()
    return tally


def report(name: str, tally: Tally) -> str:
    """Lines for people."""
    lines = [f"{name}: {tally.outcomes.total():,} inputs, {len(tally.failures)} failures"]
    lines += [f"  {count:7,}  {outcome}" for outcome, count in tally.outcomes.most_common()]
    if tally.slowest is not None and tally.largest is not None:
        lines.append(f"  slowest {tally.slowest.seconds:.1f} s (number {tally.slowest.index})")
        lines.append(f"  largest {tally.largest.mebibytes:.0f} MiB (number {tally.largest.index})")
    return "\n".join(lines)


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Try hostile inputs.")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(KINDS)} (default: all)")
    parser.add_argument("--seed", type=int, help="default: a new one, which is printed")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="begin with this input (default: 0)")
    parser.add_argument("--count", type=int, metavar="N", help="inputs of each kind (default: as SECURITY.md says)")
    parser.add_argument("--seconds", type=float, metavar="S", help="stop each kind after this time")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="write inputs that fail there")
    options: Any = parser.parse_args(words)
    unknown = [name for name in options.kinds if name not in KINDS]
    if unknown:
        parser.error(f"there is no kind {unknown[0]!r}; expected {', '.join(KINDS)}")
    seed = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    failed = False
    for name in options.kinds or KINDS:
        start = time.monotonic()
        tally = fuzz(name, seed, options.first, options.count or KINDS[name].count, options.seconds, options.keep)
        print(f"{report(name, tally)}\n  in {time.monotonic() - start:.0f} s", flush=True)
        failed |= bool(tally.failures)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
