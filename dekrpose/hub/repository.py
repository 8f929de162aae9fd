"""One repository at one revision: what the hub says of it, the cache holds of it, its download, and what goes wrong."""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dekrpose.config import LONGEST_JSON, ModelConfig
from dekrpose.errors import DekrPoseError
from dekrpose.hub.cache import DISK_FULL, free_bytes

if TYPE_CHECKING:
    from huggingface_hub import HfApi

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
NEEDED = (WEIGHTS, CONFIG)
FILES = (WEIGHTS, CONFIG, CARD)
"""What belongs to a model; whatever else lies in a repository is left there."""
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}
_ELSEWHERE = "set HF_HOME or pass cache_dir to use a folder elsewhere"
_LOGIN = "log in with `hf auth login`, set HF_TOKEN, or pass token="


@dataclass(frozen=True)
class Commit:
    """What the hub says about one commit: sizes of our files and SHA-256 of the weights, None where it is silent."""

    sha: str
    sizes: dict[str, int | None]
    sha256: str | None


@dataclass(frozen=True)
class Repository:
    """A repository at a revision, as this user reaches it from this machine."""

    repo_id: str
    revision: str
    token: str | None = field(repr=False)
    cache: Path

    def __str__(self) -> str:
        return f"{self.repo_id} (revision {self.revision})"

    @property
    def by_hand(self) -> str:
        """The way out when nothing else works."""
        from huggingface_hub import hf_hub_url

        url = hf_hub_url(self.repo_id, WEIGHTS, revision=self.revision)
        return f"or download {url} by hand and pass the file's path"

    def api(self) -> HfApi:
        """The client, with this user's token."""
        from huggingface_hub import HfApi

        from dekrpose import __version__

        return HfApi(token=self.token, library_name="dekrpose", library_version=__version__)

    def cached(self, revision: str, names: tuple[str, ...] = NEEDED) -> Path | None:
        """The folder in the cache with these files of a revision; None unless it holds them all."""
        from huggingface_hub import try_to_load_from_cache

        found = [try_to_load_from_cache(self.repo_id, name, cache_dir=self.cache, revision=revision) for name in names]
        folders = {Path(path).parent if isinstance(path, str) else None for path in found}
        return folders.pop() if len(folders) == 1 else None

    def describe(self, revision: str) -> Commit:
        """Ask the hub which commit a revision is and what it holds; DekrPoseError if that is no model of ours."""
        from huggingface_hub import constants

        info = self.api().model_info(
            self.repo_id, revision=revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
        )
        files = {sibling.rfilename: sibling for sibling in info.siblings or ()}
        missing = [name for name in NEEDED if name not in files]
        if missing:
            others = sorted(name for name in files if not name.startswith("."))
            raise DekrPoseError(
                f"{self} has no {' and no '.join(missing)}, so it is no model of dekrpose; it holds "
                f"{', '.join(others[:5]) or 'nothing'}. Official and mmpose checkpoints are local files: download the "
                ".pth and pass its path"
            )
        large = files[WEIGHTS].lfs
        sizes = {name: files[name].size for name in FILES if name in files}
        return Commit(str(info.sha), sizes, large.sha256 if large else None)

    def download(self, commit: Commit, force: bool) -> Path:
        """Bring the commit's files into the cache, and the revision's name with them; DekrPoseError if not ours."""
        api = self.api()
        # small and first: a model of another library is found out before its weights are fetched
        config = api.hf_hub_download(self.repo_id, CONFIG, revision=commit.sha, cache_dir=self.cache)
        if not is_ours(Path(config)):
            raise DekrPoseError(
                f"{self} was not saved by dekrpose: its {CONFIG} describes another network; use the library that it "
                "was made for"
            )
        folder = api.snapshot_download(
            self.repo_id, revision=self.revision, cache_dir=self.cache, allow_patterns=list(FILES), force_download=force
        )
        return Path(folder)


def config_text(config: Path) -> str:
    """What a config.json holds; OSError or ValueError if it cannot be read, also because it is too large for one."""
    with config.open("rb") as file:
        data = file.read(LONGEST_JSON + 1)
    if len(data) > LONGEST_JSON:
        raise ValueError(f"it is larger than {LONGEST_JSON >> 20} MiB")
    return data.decode("utf-8")


def is_ours(config: Path) -> bool:
    """Whether a config.json is that of a dekrpose model, of this version or another."""
    try:
        values = json.loads(config_text(config))
    except (OSError, ValueError, RecursionError):
        return False
    known = {item.name for item in fields(ModelConfig)}
    return isinstance(values, dict) and {"skeleton", "backbone", "head"} <= known & values.keys()


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

    The error is one of ``client_errors``; ``needed`` are the bytes of the download.
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
    if error.errno in DISK_FULL or os.strerror(errno.ENOSPC) in reason:
        amount = f"{needed / 1e6:,.1f} MB are needed" if needed else "more is needed"
        with contextlib.suppress(OSError):
            amount += f", {free_bytes(cache) / 1e6:,.1f} MB are free on its disk"
        return f"{repository} does not fit into {cache} ({reason}): {amount}", f"make room, or {_ELSEWHERE}"
    if error.errno in _NOT_WRITABLE:
        what = f"{repository} is not in the cache {cache}, which cannot be written"
        return f"{what} ({reason}: {error.filename or cache})", f"make it writable, or {_ELSEWHERE}"
    return None


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
