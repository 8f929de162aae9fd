"""What OpenCV and the decoders within it print by themselves about broken pictures stays off the terminal."""

from __future__ import annotations

import faulthandler
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread

_NOISE = re.compile(
    rb"libpng (warning|error): |\[ *(WARN|ERROR):\d+@.*(grfmt_|loadsave)|\[[\w,]+ @ 0x|Corrupt JPEG data|"
    rb"Premature end of JPEG|Invalid SOS parameters|Unsupported marker type|Warning: unknown JFIF revision"
)
_SETTINGS = {"OPENCV_LOG_LEVEL": "SILENT", "OPENCV_FFMPEG_LOGLEVEL": "-8"}
_END = b"\0end\n"


@contextmanager
def without_decoder_noise() -> Iterator[None]:
    """Within this block, errors of libpng and libjpeg are read off file descriptor 2 and dropped.

    Our own messages say what is wrong with a file, and which. Whatever else is written there goes on to the terminal.
    Where ``sys.stderr`` is no file descriptor 2, as within tests, nothing is changed.
    """
    before = sys.stderr
    try:
        ours = before.fileno() == 2
    except (OSError, ValueError, AttributeError):
        ours = False
    if not ours:
        yield
        return
    added = {name: value for name, value in _SETTINGS.items() if name not in os.environ}
    os.environ.update(added)  # OpenCV reads them when it is loaded
    before.flush()
    terminal, (reading, writing) = os.dup(2), os.pipe()
    os.dup2(writing, 2)
    os.close(writing)
    sys.stderr = open(terminal, "w", 1, before.encoding, before.errors, closefd=False)  # noqa: SIM115
    crashes = faulthandler.is_enabled()
    if not crashes:
        faulthandler.enable(terminal)  # the last words of a process that crashes would stay in the pipe
    reader = Thread(target=_pass_on, args=(reading, terminal), daemon=True)
    reader.start()
    try:
        yield
    finally:
        if not crashes:
            faulthandler.disable()
        os.write(2, _END)  # the pipe may stay open in processes that were started meanwhile
        os.dup2(terminal, 2)
        reader.join(timeout=1)
        sys.stderr.flush()
        sys.stderr = before
        if not reader.is_alive():
            os.close(terminal)
        for name in added:
            os.environ.pop(name, None)


def _pass_on(reading: int, terminal: int) -> None:
    with open(reading, "rb") as lines:
        for line in lines:
            text = line.removesuffix(_END)  # behind what was not ended by a new line
            if text and not _NOISE.search(text):
                with suppress(OSError):
                    os.write(terminal, text)
            if text != line:
                break
