"""Hugging Face repositories: fetch a model, push one, list what the hub's cache holds."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from dekrpose.errors import DekrPoseError
from dekrpose.hub.cache import file_sha256
from dekrpose.hub.repository import (
    CONFIG,
    FILES,
    NEEDED,
    WEIGHTS,
    Commit,
    Repository,
    client_errors,
    explain,
    is_ours,
    names,
)

logger = logging.getLogger(__name__)


def fetch_repository(
    repo_id: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """Fetch a model from Hugging Face once; afterwards it comes from the hub's own cache, also without a network.

    The arguments are those of ``models.resolve``; a revision of None means main.

    Returns:
        A folder with model.safetensors and config.json, and README.md if there is one, of one commit.

    Raises:
        DekrPoseError: no such repository or revision, no access, no model of ours, host dead, offline and not cached,
            download broken or not what the hub announced, disk full or not writable. The message says what to do.
    """
    from huggingface_hub import constants

    cache = Path(cache_dir or constants.HF_HUB_CACHE).expanduser()
    repository = Repository(repo_id, revision or constants.DEFAULT_REVISION, token, cache)
    cached = needed = None
    try:
        cached = repository.cached(repository.revision)
        if local_files_only or constants.HF_HUB_OFFLINE:
            return _without_network(repository, cached, force_download)
        commit = repository.describe(repository.revision)
        cached, needed = None, sum(size or 0 for size in commit.sizes.values())
        return _fetch(repository, commit, force_download)
    except client_errors() as error:
        what, way_out = explain(error, repository, needed=needed)
        if cached is None or force_download or isinstance(error, names().RevisionNotFoundError):
            raise DekrPoseError(f"{what}; {way_out}") from error
        logger.warning("%s; using the copy in %s", what, cached)
        return cached


def _without_network(repository: Repository, cached: Path | None, force_download: bool) -> Path:
    from huggingface_hub import constants

    switch, off = "local_files_only=True is set", "leave it out"
    if constants.HF_HUB_OFFLINE:
        switch, off = "HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) is set", "unset it (`unset HF_HUB_OFFLINE`)"
    if force_download:
        raise DekrPoseError(f"force_download=True needs the network, but {switch}; {off}, or drop force_download")
    if cached is None:
        raise DekrPoseError(
            f"{switch} and {repository} is not in the cache {repository.cache}; {off} to fetch it once, pass the "
            "cache_dir that holds it, or pass the path of a local file or folder"
        )
    return cached


def _fetch(repository: Repository, commit: Commit, force: bool) -> Path:
    files = tuple(commit.sizes)
    cached = None if force else repository.cached(commit.sha, files)
    if cached is not None and _wrong_size(cached, commit):
        logger.warning("the copy in %s is broken; fetching %s again", cached, repository)
        cached, force = None, True
    if cached is not None and cached == repository.cached(repository.revision, files):
        return cached
    try:
        folder = repository.download(commit, force)
    except client_errors():
        if cached is None:
            raise
        return cached  # the commit is there; only the branch's name could not be noted
    if folder.name != commit.sha:  # the branch moved meanwhile
        commit, cached = repository.describe(folder.name), None
    if cached is None:
        _verify(folder, commit, repository)
    return folder


def _wrong_size(folder: Path, commit: Commit) -> str | None:
    """The first file that does not have the announced size."""
    for name, size in commit.sizes.items():
        if size is not None and (folder / name).stat().st_size != size:
            return name
    return None


def _verify(folder: Path, commit: Commit, repository: Repository) -> None:
    """Delete what is not as announced: the client compares a size that comes with the file, and no hash."""
    name = _wrong_size(folder, commit)
    if name is not None:
        found = f"{(folder / name).stat().st_size:,} bytes instead of {commit.sizes[name]:,}"
    elif commit.sha256 is not None and (sha256 := file_sha256(folder / WEIGHTS)) != commit.sha256:
        name, found = WEIGHTS, f"its SHA-256 starts with {sha256[:8]}, not with {commit.sha256[:8]}"
    else:
        return
    broken = folder / name
    broken.resolve().unlink(missing_ok=True)
    broken.unlink(missing_ok=True)
    raise DekrPoseError(
        f"what came for {name} of {repository} is not what the hub announced: {found}. It was deleted; try again, "
        f"check the proxy or mirror in between, {repository.by_hand}"
    )


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    private: bool = False,
    commit_message: str | None = None,
) -> str:
    """Upload what ``save_folder`` wrote to Hugging Face, in one commit, and return its URL.

    The repository and the branch (None means main) are made if they do not exist, the former private if it is to be;
    the token (None means HF_TOKEN or the stored login) must have write access.

    Raises:
        DekrPoseError: a file is missing, no login, no right to write, host dead. The message says what to do.
    """
    from huggingface_hub import CommitOperationAdd, constants

    folder = Path(folder)
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise DekrPoseError(f"{folder} has no {' and no '.join(missing)}; write it with estimator.save_pretrained")
    repository = Repository(repo_id, revision or constants.DEFAULT_REVISION, token, Path(constants.HF_HUB_CACHE))
    api = repository.api()
    additions = [CommitOperationAdd(name, folder / name) for name in FILES if (folder / name).is_file()]
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        if repository.revision != constants.DEFAULT_REVISION:
            api.create_branch(repo_id, branch=repository.revision, exist_ok=True)
        commit = api.create_commit(
            repo_id,
            additions,
            commit_message=commit_message or "Upload a model with dekrpose",
            revision=repository.revision,
        )
    except client_errors() as error:
        what, way_out = explain(error, repository, pushing=True)
        raise DekrPoseError(f"{what}; {way_out}") from error
    return str(commit.commit_url)


@dataclass(frozen=True)
class CachedRepository:
    """A model in the hub's cache: a folder with model.safetensors and config.json, and the bytes of its files.

    ``revision`` holds names of branches and tags, joined by commas; the commit when it has none.
    """

    repo_id: str
    revision: str
    size: int
    folder: Path


def cached_repositories(cache_dir: str | Path | None = None) -> list[CachedRepository]:
    """The models of dekrpose in the hub's cache, by name; none when there is no cache."""
    from huggingface_hub import constants, scan_cache_dir

    try:
        repositories = scan_cache_dir(cache_dir or constants.HF_HUB_CACHE).repos
    except (names().CacheNotFound, OSError, ValueError) as error:
        logger.debug("no hub cache: %s", error)
        return []
    found = [
        CachedRepository(
            repository.repo_id,
            ", ".join(sorted(revision.refs)) or revision.commit_hash,
            revision.size_on_disk,
            revision.snapshot_path,
        )
        for repository in repositories
        for revision in repository.revisions
        if repository.repo_type == "model"
        and (revision.snapshot_path / WEIGHTS).is_file()
        and is_ours(revision.snapshot_path / CONFIG)
    ]
    return sorted(found, key=lambda item: (item.repo_id, item.revision))
