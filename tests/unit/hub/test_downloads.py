"""Downloads: checked, resumed, and never half-written."""

from __future__ import annotations

import hashlib
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dekrpose.errors import DekrPoseError
from dekrpose.hub import cache, downloads
from dekrpose.hub.downloads import download
from tests.conftest import DEAD
from tests.file_server import FileServer, serve

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
WAY_OUT = "carry it here by hand"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serve() as state:
        state.files["weights.pth"] = CONTENT
        yield state


def fetch(server: FileServer, target: Path, prefix: str = SHA256[:8], name: str = "weights.pth") -> str:
    return download(f"{server.address}/{name}", target, prefix, way_out=WAY_OUT, progress=False)


def test_a_file_arrives_and_its_hash_is_returned(server: FileServer, tmp_path: Path) -> None:
    assert fetch(server, tmp_path / "file") == SHA256
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.requests == [("GET", "/weights.pth", None)]


def test_a_broken_connection_is_continued_where_it_ended(server: FileServer, tmp_path: Path) -> None:
    server.cut_after, server.cuts = 300_000, 2
    assert fetch(server, tmp_path / "file") == SHA256
    assert [asked for _, _, asked in server.requests] == [None, "bytes=300000-", "bytes=600000-"]


def test_a_server_that_cannot_continue_sends_everything_again(server: FileServer, tmp_path: Path) -> None:
    server.cut_after, server.cuts, server.ranges = 300_000, 1, False
    assert fetch(server, tmp_path / "file") == SHA256
    assert len(server.requests) == 2


def test_a_silent_host_is_left_and_the_file_continued(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "TIMEOUT", 0.3)
    server.stall_after = 500_000
    assert fetch(server, tmp_path / "file") == SHA256
    assert server.requests[1][2] == "bytes=500000-"


def test_what_an_earlier_process_left_is_continued(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT[:100_000])
    assert fetch(server, tmp_path / "file") == SHA256
    assert server.requests == [("GET", "/weights.pth", "bytes=100000-")]


def test_what_an_earlier_process_finished_is_not_fetched_again(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    assert fetch(server, tmp_path / "file") == SHA256


def test_leftovers_of_another_file_are_replaced(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    assert fetch(server, tmp_path / "file") == SHA256
    (tmp_path / "file").write_bytes(b"x" * 2_000_000)
    assert fetch(server, tmp_path / "file") == SHA256


def test_a_host_that_always_breaks_off_keeps_what_came(server: FileServer, tmp_path: Path) -> None:
    server.files["weights.pth"] = CONTENT
    server.cut_after = 0
    (tmp_path / "file").write_bytes(CONTENT[:1000])
    with pytest.raises(DekrPoseError, match=r"ended after 1,000 of 1,024,000 bytes.*1,000 bytes are kept.*by hand"):
        fetch(server, tmp_path / "file")
    assert len(server.requests) == downloads.ATTEMPTS


def test_another_file_is_deleted(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(DekrPoseError, match=f"starts with {SHA256[:8]}, expected 12345678.*login page.*by hand"):
        fetch(server, tmp_path / "file", "12345678")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_not_asked_for_twice(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(DekrPoseError, match=r"HTTP 404.*by hand"):
        fetch(server, tmp_path / "file", name="other.pth")
    assert len(server.requests) == 1


def test_a_busy_server_is_asked_again(server: FileServer, tmp_path: Path) -> None:
    server.statuses = [503, 429]
    assert fetch(server, tmp_path / "file") == SHA256


def test_redirects_are_followed(server: FileServer, tmp_path: Path) -> None:
    server.redirects["/old.pth"] = f"{server.address}/weights.pth"
    assert fetch(server, tmp_path / "file", name="old.pth") == SHA256


def test_a_dead_host_is_named_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(DekrPoseError, match=rf"{DEAD}/x\.pth cannot be fetched: .*refused.*; carry it here by hand"):
        download(f"{DEAD}/x.pth", tmp_path / "file", "00", way_out=WAY_OUT, progress=False)


def test_a_full_disk_is_noticed_before_the_download(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "free_bytes", lambda _: 1000)
    with pytest.raises(DekrPoseError, match=r"disk of .* is full.*1 MB are needed.*DEKRPOSE_CACHE"):
        fetch(server, tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_a_quota_that_is_reached_while_writing(server: FileServer, tmp_path: Path) -> None:
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from dekrpose.hub.downloads import download\n"
        "from dekrpose.errors import DekrPoseError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "try:\n"
        f"    download({server.address + '/weights.pth'!r}, Path({str(tmp_path / 'file')!r}), 'x', way_out='')\n"
        "except DekrPoseError as error:\n"
        "    print(error)\n"
    )
    assert hasattr(resource, "RLIMIT_FSIZE")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "is full" in run.stdout
    assert "DEKRPOSE_CACHE" in run.stdout
    assert not (tmp_path / "file").exists()


def test_a_folder_that_cannot_be_written(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DekrPoseError, match="cannot be written"):
        fetch(server, tmp_path / "file" / "inside")


def test_the_cache_folder_is_the_argument_the_variable_or_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache.cache_folder(tmp_path) == tmp_path
    monkeypatch.setenv("DEKRPOSE_CACHE", str(tmp_path / "own"))
    assert cache.cache_folder() == tmp_path / "own"
    monkeypatch.delenv("DEKRPOSE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / "dekrpose"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / ".cache" / "dekrpose"
