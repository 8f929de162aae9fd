"""No test reaches the network or the user's caches."""

from __future__ import annotations

from pathlib import Path

import pytest

from dekrpose.hub import downloads

DEAD = "http://127.0.0.1:9"
"""Nobody listens at the discard port."""


@pytest.fixture(autouse=True)
def _stay_here(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEKRPOSE_CACHE", str(tmp_path_factory.getbasetemp() / "dekrpose-cache"))
    monkeypatch.setenv("DEKRPOSE_MIRROR", DEAD)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path_factory.getbasetemp() / "hub-cache"))
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(downloads, "WAIT", 0.0)


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, where nothing lies yet."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("DEKRPOSE_CACHE", str(folder))
    return folder
