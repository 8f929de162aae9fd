"""Fetch a file from a URL: checked, resumed after a break, never half-written under its name."""

from __future__ import annotations

import contextlib
import errno
import http.client
import logging
import time
import urllib.error
import urllib.request
from pathlib import Path

from dekrpose.errors import DekrPoseError, without_password
from dekrpose.hub.cache import explain_disk_error, file_sha256, free_bytes
from dekrpose.progress import Bar

logger = logging.getLogger(__name__)

TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as broken."""
ATTEMPTS = 4
"""Attempts in a row that bring nothing before the download is given up."""
WAIT = 1.0
"""Seconds before the second attempt; doubled each time."""
_BLOCK = 1 << 18
_AGAIN = {408, 425, 429, 500, 502, 503, 504}


class _ConnectionEndedError(Exception):
    """Before everything came; what came is kept."""


def download(url: str, target: Path, sha256_prefix: str, *, way_out: str, progress: bool = True) -> str:
    """Fetch a file; what an earlier attempt left in ``target`` is continued.

    Args:
        url: http(s) or file address.
        target: where to write; its folder exists. Holds an unfinished file until this returns.
        sha256_prefix: the first hex digits of the file's SHA-256.
        way_out: what a user can do when the address is dead, added to messages.
        progress: show a bar on a terminal.

    Returns:
        The whole SHA-256.

    Raises:
        DekrPoseError: the host is dead, the file gone or another one, the disk full, the folder not writable.
    """
    resumed = target.exists() and target.stat().st_size > 0
    _fetch(url, target, way_out, progress)
    found = file_sha256(target)
    if not found.startswith(sha256_prefix) and resumed:
        logger.warning("%s changed since its download began; starting again", without_password(url))
        target.unlink()
        _fetch(url, target, way_out, progress)
        found = file_sha256(target)
    if not found.startswith(sha256_prefix):
        size = target.stat().st_size
        target.unlink()
        raise DekrPoseError(
            f"{without_password(url)} is not the file that was published: its SHA-256 starts with {found[:8]}, "
            f"expected {sha256_prefix} ({size:,} bytes came). It was deleted. Something between here and the host may "
            f"have replaced it, such as a login page; {way_out}"
        )
    return found


def _fetch(url: str, target: Path, way_out: str, progress: bool) -> None:
    failures, shown = 0, without_password(url)
    while True:
        before = target.stat().st_size if target.exists() else 0
        try:
            _receive(url, target, progress)
            return
        except urllib.error.HTTPError as error:
            reason = f"HTTP {error.code} {error.reason}"
            if error.code not in _AGAIN:
                raise DekrPoseError(f"{shown} cannot be fetched: {reason}; {way_out}") from error
            cause: Exception = error
        except (_ConnectionEndedError, OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
            if isinstance(error, http.client.InvalidURL):  # which quotes what may be a password
                reason = "its host or its port is none"
            cause = error
        received = target.stat().st_size if target.exists() else 0
        failures = 0 if received > before else failures + 1
        if failures >= ATTEMPTS:
            kept = f" ({received:,} bytes are kept and continued next time)" if received else ""
            raise DekrPoseError(f"{shown} cannot be fetched: {reason}{kept}; {way_out}") from cause
        logger.info("%s: %s; trying again", shown, reason)
        time.sleep(WAIT * 2**failures / 2)


def _receive(url: str, target: Path, progress: bool) -> None:
    """One connection: append to what is there, or write anew when the server sends everything."""
    from dekrpose import __version__

    have = target.stat().st_size if target.exists() else 0
    headers = {"User-Agent": f"dekrpose/{__version__}"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing follows: it was whole already, or another file lies there now
            if error.headers.get("Content-Range") != f"bytes */{have}":
                target.unlink()
                raise _ConnectionEndedError("the file on the server changed") from error
            return
        raise
    with response:
        if have and not (response.headers.get("Content-Range") or "").startswith(f"bytes {have}-"):
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        needed = (total or 0) - have
        if free_bytes(target.parent) < needed:
            full = explain_disk_error(OSError(errno.ENOSPC, "no space left"), target.parent, needed)
            assert full is not None
            raise full
        with Bar(total=total, initial=have, unit="byte", unit_scale=True, desc=target.stem, show=progress) as bar:
            _write(response, target, have, total, bar)


def _write(response: http.client.HTTPResponse, target: Path, have: int, total: int | None, bar: Bar) -> None:
    try:
        file = target.open("ab" if have else "wb")
    except OSError as error:
        raise _disk_error(error, target, total) from error
    received = have
    with file:
        while block := response.read1(_BLOCK):  # read() would drop what came before a break
            try:
                file.write(block)
                file.flush()
            except OSError as error:
                file.truncate(0)
                raise _disk_error(error, target, total) from error
            received += len(block)
            bar.update(len(block))
    if total is not None and received < total:
        raise _ConnectionEndedError(f"the connection ended after {received:,} of {total:,} bytes")


def _disk_error(error: OSError, target: Path, needed: int | None) -> DekrPoseError:
    with contextlib.suppress(OSError):
        target.unlink()
    return explain_disk_error(error, target.parent, needed) or DekrPoseError(f"{target} cannot be written: {error}")
