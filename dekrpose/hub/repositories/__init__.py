"""Hugging Face repositories: fetch a model, push one, list what the hub's cache holds."""

from __future__ import annotations

from dekrpose.hub.repositories.fetch import fetch_repository
from dekrpose.hub.repositories.push import push_folder
from dekrpose.hub.repositories.stored import CachedRepository, cached_repositories

__all__ = ["CachedRepository", "cached_repositories", "fetch_repository", "push_folder"]
