"""What the hub's client raises, in words that say what to do."""

from __future__ import annotations

import errno
import importlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dekrpose.hub.repositories.repository import Repository

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}
_ELSEWHERE = "set HF_HOME or pass cache_dir to use a folder elsewhere"
_LOGIN = "log in with `hf auth login`, set HF_TOKEN, or pass token="


def names() -> Any:
    """The module that names the client's errors in its old versions and in its new ones."""
    return importlib.import_module("huggingface_hub.utils")


def client_errors() -> tuple[type[BaseException], ...]:
    """What the client raises; the base of HfHubHTTPError is that of its HTTP library, whichever it uses."""
    return (*names().HfHubHTTPError.__bases__, OSError, ValueError, KeyError, RuntimeError)


def explain(
    error: BaseException, repository: Repository, *, needed: int | None = None, pushing: bool = False
) -> tuple[str, str]:
    """What went wrong and the way out, from the first error in the chain of causes that tells.

    Args:
        error: one of ``client_errors``.
        repository: what was to be fetched or pushed.
        needed: bytes of the download.
        pushing: whether it was a push.
    """
    for link in _causes(error):
        told = _switch_problem(link, repository) or (
            _push_problem(link, repository)
            if pushing
            else _access_problem(link, repository) or _disk_problem(link, repository, needed)
        )
        if told is not None:
            return told
    return _network_problem(error, repository, pushing)


def _causes(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _switch_problem(error: BaseException, repository: Repository) -> tuple[str, str] | None:
    if isinstance(error, names().HFValidationError):
        return f"{repository.repo_id!r} is no name of a repository", "names look like organisation/repository"
    if isinstance(error, names().OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) is set", "unset it (`unset HF_HUB_OFFLINE`)"
    return None


def _push_problem(error: BaseException, repository: Repository) -> tuple[str, str] | None:
    from huggingface_hub import constants

    nothing = f"nothing was pushed to {repository.repo_id}"
    if _status(error) == 403:
        way_out = f"use a token that may write ({constants.ENDPOINT}/settings/tokens), or a name of your own"
        return f"{nothing}: this login may not write there", way_out
    if _status(error) == 401 or isinstance(error, names().RepositoryNotFoundError):
        return f"{nothing}: no valid login was sent", f"{_LOGIN} with a token that may write"
    return None


def _access_problem(error: BaseException, repository: Repository) -> tuple[str, str] | None:
    from huggingface_hub import constants

    name, page = repository.repo_id, f"{constants.ENDPOINT}/{repository.repo_id}"
    if isinstance(error, names().GatedRepoError):
        return f"{name} is open only to those whom its owner lets in", f"ask for access at {page}, then {_LOGIN}"
    if isinstance(error, names().RevisionNotFoundError):
        way_out = f"{page}/commits/main lists commits, {page}/tree/main branches and tags"
        return f"{name} has no revision {repository.revision!r}", way_out
    if isinstance(error, names().RepositoryNotFoundError):
        return f"{name} does not exist at {constants.ENDPOINT}, or is private", f"check the name; if private, {_LOGIN}"
    if _status(error) in (401, 403):
        return f"{constants.ENDPOINT} refuses the login that was sent for {name}", f"{_LOGIN}; unset an old HF_TOKEN"
    return None


def _disk_problem(error: BaseException, repository: Repository, needed: int | None) -> tuple[str, str] | None:
    if not isinstance(error, OSError):
        return None
    cache, reason = repository.cache, error.strerror or str(error)
    # the part of the client that is written in Rust tells by text alone
    if error.errno in _FULL or os.strerror(errno.ENOSPC) in reason:
        amount = f"{needed / 1e6:,.1f} MB are needed" if needed else "more is needed"
        return (
            f"{repository} does not fit into {cache} ({reason}): {amount}{_free(cache)}",
            f"make room, or {_ELSEWHERE}",
        )
    if error.errno in _NOT_WRITABLE:
        what = f"{repository} is not in the cache {cache}, which cannot be written"
        return f"{what} ({reason}: {error.filename or cache})", f"make it writable, or {_ELSEWHERE}"
    return None


def _free(folder: Path) -> str:
    try:
        existing = next(place for place in (folder, *folder.parents) if place.exists())
        return f", {shutil.disk_usage(existing).free / 1e6:,.1f} MB are free on its disk"
    except OSError:
        return ""


def _network_problem(error: BaseException, repository: Repository, pushing: bool) -> tuple[str, str]:
    """Everything else: a dead or odd host, a download that broke off."""
    from huggingface_hub import constants

    # the client wraps what happened into "not found in the cache"
    root = next((link for link in _causes(error) if not isinstance(link, FileNotFoundError)), error)
    reason = next((line.strip() for line in str(root).splitlines() if line.strip()), type(root).__name__)
    if isinstance(root, (json.JSONDecodeError, KeyError)):
        reason = f"its answer is not that of a hub ({reason}); a login page or a proxy may be in between"
    done = "pushed to" if pushing else "fetched from"
    by_hand = "" if pushing else f", {repository.by_hand}"
    return (
        f"{repository.repo_id} cannot be {done} {constants.ENDPOINT}: {reason}",
        f"check the connection, the proxy (HTTPS_PROXY) and HF_ENDPOINT, and try again{by_hand}",
    )
