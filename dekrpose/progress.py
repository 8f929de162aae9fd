"""How far a long loop is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm

SECONDS = 30.0
"""Between two lines where there is no terminal; what takes less time prints none."""
_LINE = "{desc}: {n_fmt} of {total_fmt} {unit}s, {rate_fmt}, {remaining} left"


class Bar(tqdm):  # type: ignore[misc]
    """tqdm's bar, and lines for logs and pipes, which cannot be drawn over.

    Args:
        arguments, options: of ``tqdm``; ``unit`` is one word in the singular.
        show: whether anything is shown at all.
    """

    def __init__(self, *arguments: Any, show: bool = True, **options: Any) -> None:
        self._in_lines = not sys.stderr.isatty()
        if self._in_lines:
            options = {**options, "mininterval": SECONDS, "maxinterval": SECONDS, "miniters": 1, "bar_format": _LINE}
        self.disable: bool
        self._told = time.monotonic()
        super().__init__(*arguments, disable=not show, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool | None:
        """Draw the bar, or print its line when it is time."""
        if not self._in_lines:
            shown: bool | None = super().display(msg, pos)
            return shown
        if time.monotonic() - self._told >= SECONDS:
            self._told = time.monotonic()
            print(str(self), file=sys.stderr, flush=True)
        return True

    def clear(self, nolock: bool = False) -> None:
        """Make room for other text; lines need none."""
        if not self._in_lines:
            super().clear(nolock)

    def close(self) -> None:
        """The end; no line follows."""
        if self._in_lines and not self.disable:
            self.disable = True  # for tqdm's own ``close``
            self._decr_instances(self)
        super().close()
