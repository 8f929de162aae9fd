"""One repository at one revision: what the hub says about it, what the cache holds of it, its download."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from dekrpose.config import ModelConfig
from dekrpose.errors import DekrPoseError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
NEEDED = (WEIGHTS, CONFIG)
FILES = (WEIGHTS, CONFIG, CARD)
"""What belongs to a model; whatever else lies in a repository is left there."""


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
        """Ask the hub which commit a revision is and what it holds.

        Raises:
            DekrPoseError: it does not hold a model in our format.
        """
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
        """Bring the commit's files into the cache, and the revision's name with them.

        Raises:
            DekrPoseError: the model was made for another library.
        """
        api = self.api()
        # small and first: a model of another library is found out before its weights are fetched
        config = api.hf_hub_download(self.repo_id, CONFIG, revision=commit.sha, cache_dir=self.cache)
        if not is_ours(Path(config)):
            raise DekrPoseError(
                f"{self} was not saved by dekrpose: its {CONFIG} describes another network; use the library that it "
                "was made for"
            )
        folder = api.snapshot_download(
            self.repo_id,
            revision=self.revision,
            cache_dir=self.cache,
            allow_patterns=list(FILES),
            force_download=force,
        )
        return Path(folder)


def is_ours(config: Path) -> bool:
    """Whether a config.json is that of a dekrpose model, of this version or another."""
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    known = {item.name for item in fields(ModelConfig)}
    return isinstance(values, dict) and {"skeleton", "backbone", "head"} <= known & values.keys()
