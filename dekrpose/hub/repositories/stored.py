"""Models in the hub's cache."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from dekrpose.hub.repositories.problems import names
from dekrpose.hub.repositories.repository import CONFIG, WEIGHTS, is_ours

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CachedRepository:
    """A model in the hub's cache.

    Attributes:
        repo_id: "organisation/repository".
        revision: names of branches and tags, joined by commas; the commit when it has none.
        size: bytes of this revision's files.
        folder: holds model.safetensors and config.json.
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
