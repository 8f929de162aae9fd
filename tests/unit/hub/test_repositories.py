"""Hugging Face repositories, with the real client against a hub on this machine: a model, or what to do."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import pytest

from dekrpose.checkpoints import read_checkpoint
from dekrpose.errors import DekrPoseError
from dekrpose.hub.models import save_folder
from dekrpose.hub.repositories import cached_repositories, fetch_repository, push_folder
from tests.hub_server import Account, HubServer, set_client
from tests.small_model import SMALL, write_small_model

NAME = "ada/runners"
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
FILES = {
    WEIGHTS: bytes(range(256)) * 40,
    CONFIG: json.dumps(SMALL.to_dict()).encode(),
    CARD: b"---\nlibrary_name: dekrpose\n---\n",
}
MANY_BYTES = bytes(range(256)) * (44 << 10)
"""11 MiB: the client writes 10 MiB at a time."""

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
forks = pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="needs fork")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer() as server:
        server.use(monkeypatch, home)
        server.accounts = {"hf_ada": Account("ada"), "hf_reads": Account("ada", writes=False), "hf_bob": Account("bob")}
        yield server


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client waits before it tries again; server threads do not sleep."""
    monkeypatch.setattr("time.sleep", lambda _: None)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refusal(name: str = NAME, **options: object) -> str:
    with pytest.raises(DekrPoseError) as caught:
        fetch_repository(name, **options)  # type: ignore[arg-type]
    return str(caught.value)


def fork(work: Callable[[], object]) -> Callable[[], str]:
    """Run in another process, which may set limits and drop rights; what comes back waits for what it says."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = str(work())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writer, said.encode()[:4000])
        os._exit(0)
    os.close(writer)

    def wait() -> str:
        with os.fdopen(reader, "rb") as pipe:
            said = pipe.read().decode()
        os.waitpid(child, 0)
        return said

    return wait


def test_first_use_fetches_the_files_of_one_commit(hub: HubServer) -> None:
    commit = hub.add(NAME, {**FILES, "optimizer.bin": b"not ours", ".gitattributes": b""})
    folder = fetch_repository(NAME)
    assert contents(folder) == FILES
    assert folder.name == commit
    assert all("dekrpose/" in request.headers["user-agent"] for request in hub.requests if request.host == "hub")


def test_large_files_come_from_another_host_which_never_sees_the_token(hub: HubServer) -> None:
    hub.add(NAME, FILES, private=True)
    fetch_repository(NAME, token="hf_ada")
    (download,) = hub.seen("GET", "/objects/")
    assert download.host == "store"
    assert "authorization" not in download.headers
    assert all(request.headers["authorization"] == "Bearer hf_ada" for request in hub.requests if request.host == "hub")


def test_second_use_asks_once_whether_the_branch_moved(hub: HubServer) -> None:
    hub.add(NAME, FILES)
    first = fetch_repository(NAME)
    hub.requests.clear()
    assert fetch_repository(NAME) == first
    assert [(request.method, request.path.split("?")[0]) for request in hub.requests] == [
        ("GET", f"/api/models/{NAME}/revision/main")
    ]
    hub.add(NAME, {WEIGHTS: b"better"})
    assert contents(fetch_repository(NAME)) == {**FILES, WEIGHTS: b"better"}


def test_force_download_fetches_again(hub: HubServer) -> None:
    hub.add(NAME, FILES)
    first = fetch_repository(NAME)
    hub.requests.clear()
    assert fetch_repository(NAME, force_download=True) == first
    assert len(hub.seen("GET", "/objects/")) == 1
    assert contents(first) == FILES


def test_cache_dir_is_used_instead_of_the_home(hub: HubServer, home: Path, tmp_path: Path) -> None:
    hub.add(NAME, FILES)
    assert (tmp_path / "elsewhere") in fetch_repository(NAME, cache_dir=tmp_path / "elsewhere").parents
    assert not (home / "hub").exists()


@pytest.mark.parametrize("fault", ["dead", "offline", "local", "down", "page", "gone"])
def test_second_use_without_the_hub(
    hub: HubServer, fault: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub.add(NAME, FILES)
    first = fetch_repository(NAME)
    if fault == "dead":
        hub.stop()
    elif fault == "offline":
        set_client(monkeypatch, HF_HUB_OFFLINE=True)
    elif fault == "down":
        hub.faults.status = 503
    elif fault == "page":
        hub.faults.page = True
    elif fault == "gone":
        hub.repositories.clear()
    hub.requests.clear()
    assert fetch_repository(NAME, local_files_only=fault == "local") == first
    assert contents(first) == FILES
    if fault in ("offline", "local"):
        assert hub.requests == []
        assert "using the copy" not in caplog.text
    else:
        assert f"using the copy in {first}" in caplog.text


@pytest.mark.parametrize("fault", ["dead", "silent", "down", "page"])
def test_first_use_without_the_hub(hub: HubServer, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_client(monkeypatch, HF_HUB_ETAG_TIMEOUT=0.2)
    if fault == "dead":
        hub.stop()
    hub.faults.status = 503 if fault == "down" else None
    hub.faults.silent, hub.faults.page = fault == "silent", fault == "page"
    message = refusal(revision="v1")
    assert f"cannot be fetched from {hub.url}" in message
    assert f"{hub.url}/{NAME}/resolve/v1/{WEIGHTS} by hand" in message
    assert "HF_ENDPOINT" in message
    assert "HTTPS_PROXY" in message
    assert {"down": "503", "page": "login page"}.get(fault, "") in message


def test_host_dies_before_the_weights_come(hub: HubServer, no_waiting: None) -> None:
    hub.add(NAME, FILES)
    hub.faults.cut, hub.faults.cut_at = 1000, 100
    assert "by hand" in refusal()
    assert cached_repositories() == []
    hub.stop()
    assert "cannot be fetched" in refusal()
    assert "not in the cache" in refusal(local_files_only=True)


@pytest.mark.parametrize("switch", ["offline", "local"])
def test_nothing_cached_and_no_network_wanted(
    hub: HubServer, home: Path, switch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(NAME, FILES)
    set_client(monkeypatch, HF_HUB_OFFLINE=switch == "offline")
    message = refusal(local_files_only=switch == "local")
    assert ("unset HF_HUB_OFFLINE" if switch == "offline" else "local_files_only=True") in message
    assert str(home / "hub") in message
    assert "force_download" in refusal(local_files_only=switch == "local", force_download=True)
    assert hub.requests == []


@pytest.mark.skipif(int(huggingface_hub.__version__.split(".")[0]) < 2, reason="older clients give up")
def test_a_body_that_ends_early_once_is_resumed(hub: HubServer, no_waiting: None) -> None:
    hub.add(NAME, {**FILES, WEIGHTS: MANY_BYTES})
    hub.faults.cut, hub.faults.cut_at = 1, 21 << 19
    assert (fetch_repository(NAME) / WEIGHTS).read_bytes() == MANY_BYTES
    assert [one.headers.get("range") for one in hub.seen("GET", "/objects/")] == [None, f"bytes={10 << 20}-"]


def test_a_host_that_stalls_once_is_resumed(hub: HubServer, no_waiting: None, monkeypatch: pytest.MonkeyPatch) -> None:
    set_client(monkeypatch, HF_HUB_DOWNLOAD_TIMEOUT=0.3)
    hub.add(NAME, {**FILES, WEIGHTS: MANY_BYTES})
    hub.faults.cut, hub.faults.cut_at, hub.faults.stall = 1, 21 << 19, True
    assert (fetch_repository(NAME) / WEIGHTS).read_bytes() == MANY_BYTES
    assert [one.headers.get("range") for one in hub.seen("GET", "/objects/")] == [None, f"bytes={10 << 20}-"]


@pytest.mark.parametrize("fault", ["wrong bytes", "short"])
def test_what_is_not_as_announced_is_never_kept(hub: HubServer, fault: str) -> None:
    hub.add(NAME, FILES)
    hub.faults.wrong_bytes, hub.faults.short = fault == "wrong bytes", 10 if fault == "short" else 0
    message = refusal()
    assert f"{hub.url}/{NAME}/resolve/main/{WEIGHTS} by hand" in message
    assert ("SHA-256" if fault == "wrong bytes" else "size") in message
    assert "not in the cache" in refusal(local_files_only=True)
    hub.faults.wrong_bytes, hub.faults.short = False, 0
    assert contents(fetch_repository(NAME)) == FILES


def test_a_forced_download_that_breaks_leaves_the_old_files(hub: HubServer) -> None:
    hub.add(NAME, FILES)
    folder = fetch_repository(NAME)
    hub.faults.short = 10
    assert "by hand" in refusal(force_download=True)
    assert contents(folder) == FILES


def test_a_cached_file_of_the_wrong_size_is_fetched_again(hub: HubServer, caplog: pytest.LogCaptureFixture) -> None:
    hub.add(NAME, FILES)
    weights = fetch_repository(NAME) / WEIGHTS
    weights.resolve().write_bytes(b"half")
    assert contents(fetch_repository(NAME)) == FILES
    assert "broken" in caplog.text


@forks
def test_two_processes_at_once_get_the_same_good_files(hub: HubServer) -> None:
    hub.add(NAME, {**FILES, WEIGHTS: MANY_BYTES})
    hub.gate = threading.Barrier(2)
    first, second = [wait() for wait in [fork(lambda: fetch_repository(NAME)) for _ in range(2)]]
    assert first == second
    assert contents(Path(first)) == {**FILES, WEIGHTS: MANY_BYTES}


@forks
def test_a_limit_on_file_sizes(hub: HubServer, home: Path) -> None:
    import resource

    hub.add(NAME, {**FILES, WEIGHTS: MANY_BYTES})

    def limited() -> Path:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        return fetch_repository(NAME)

    message = fork(limited)()
    assert message.startswith("DekrPoseError")
    assert "does not fit" in message
    assert "11.5 MB are needed" in message
    assert str(home / "hub") in message
    assert "HF_HOME" in message
    assert "cache_dir" in message
    assert "not in the cache" in refusal(local_files_only=True)


def test_a_full_disk(hub: HubServer, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        hub.add(NAME, {**FILES, WEIGHTS: MANY_BYTES})
        message = refusal(cache_dir=disk)
        assert "No space left on device" in message
        assert "11.5 MB are needed, " in message
        assert "MB are free" in message
        assert cached_repositories(disk) == []
        assert "not in the cache" in refusal(cache_dir=disk, local_files_only=True)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture
def foreign_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that other users may enter; the files of a test's own folder are its owner's alone."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    set_client(monkeypatch, HF_TOKEN_PATH=str(folder / "token"))
    yield folder
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)


def as_somebody_who_may_only_read(folder: Path, work: Callable[[], object]) -> str:
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o222 | (0o555 if path.is_dir() else 0o444))

    def restricted() -> object:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        return work()

    return fork(restricted)()


@forks
def test_a_read_only_cache_with_the_model(hub: HubServer, foreign_home: Path) -> None:
    hub.add(NAME, FILES)
    folder = fetch_repository(NAME, cache_dir=foreign_home)
    fetch = lambda **options: fetch_repository(NAME, cache_dir=foreign_home, **options)  # noqa: E731
    assert as_somebody_who_may_only_read(foreign_home, fetch) == str(folder)
    assert as_somebody_who_may_only_read(foreign_home, lambda: fetch(revision=folder.name)) == str(folder)
    assert as_somebody_who_may_only_read(foreign_home, lambda: fetch(local_files_only=True)) == str(folder)
    hub.repositories[NAME].tags["v1"] = folder.name
    assert as_somebody_who_may_only_read(foreign_home, lambda: fetch(revision="v1")) == str(folder)


@forks
def test_a_read_only_cache_without_the_model(hub: HubServer, foreign_home: Path) -> None:
    hub.add(NAME, FILES)
    fetch_repository(NAME)  # whatever the client imports late is imported now
    message = as_somebody_who_may_only_read(foreign_home, lambda: fetch_repository(NAME, cache_dir=foreign_home))
    assert message.startswith("DekrPoseError")
    assert f"not in the cache {foreign_home}, which cannot be written" in message
    assert "HF_HOME" in message
    assert "cache_dir" in message


def test_a_branch_a_tag_and_a_commit_stay_what_they_are(hub: HubServer) -> None:
    old = hub.add(NAME, FILES)
    hub.repositories[NAME].tags["v1"] = old
    hub.add(NAME, {WEIGHTS: b"new"})
    hub.add(NAME, {**FILES, WEIGHTS: b"trial"}, branch="trials/a")
    assert (fetch_repository(NAME) / WEIGHTS).read_bytes() == b"new"
    assert (fetch_repository(NAME, revision="trials/a") / WEIGHTS).read_bytes() == b"trial"
    assert (fetch_repository(NAME, revision="v1") / WEIGHTS).read_bytes() == FILES[WEIGHTS]
    assert fetch_repository(NAME, revision=old) == fetch_repository(NAME, revision="v1")
    hub.stop()
    for revision, weights in (("main", b"new"), ("trials/a", b"trial"), ("v1", FILES[WEIGHTS]), (old, FILES[WEIGHTS])):
        assert (fetch_repository(NAME, revision=revision) / WEIGHTS).read_bytes() == weights
    assert f"resolve/trials%2Fb/{WEIGHTS}" in refusal(revision="trials/b")


def test_an_unknown_revision(hub: HubServer) -> None:
    hub.add(NAME, FILES)
    fetch_repository(NAME)
    assert f"{NAME} has no revision 'v9'" in refusal(revision="v9")


def test_a_repository_that_moved(hub: HubServer) -> None:
    hub.add("ada/sprinters", FILES)
    hub.moved[NAME] = "ada/sprinters"
    assert contents(fetch_repository(NAME)) == FILES


def test_a_private_repository_without_a_token(hub: HubServer) -> None:
    hub.add(NAME, FILES, private=True)
    assert refusal() == refusal(token="hf_bob")
    assert f"{NAME} does not exist at {hub.url}, or is private" in refusal()
    assert "hf auth login" in refusal()
    assert "token=" in refusal()
    assert "ada/nothing does not exist" in refusal("ada/nothing")


@pytest.mark.parametrize("way", ["argument", "environment", "login"])
def test_a_private_repository_with_a_token(
    hub: HubServer, home: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(NAME, FILES, private=True)
    if way == "environment":
        monkeypatch.setenv("HF_TOKEN", "hf_ada")
    elif way == "login":
        home.mkdir()
        (home / "token").write_text("hf_ada")
    assert contents(fetch_repository(NAME, token="hf_ada" if way == "argument" else None)) == FILES


def test_a_token_that_is_no_longer_valid(hub: HubServer) -> None:
    hub.add(NAME, FILES)
    assert "refuses the login" in refusal(token="hf_old")


def test_a_gated_repository(hub: HubServer) -> None:
    hub.add(NAME, FILES, gated=True)
    assert f"ask for access at {hub.url}/{NAME}" in refusal()
    assert f"ask for access at {hub.url}/{NAME}" in refusal(token="hf_bob")


@pytest.mark.parametrize("name", ["ada//runners", "ada/runners/x", "ada/-runners-"])
def test_names_that_cannot_be(hub: HubServer, name: str) -> None:
    for local in (False, True):
        assert "names look like organisation/repository" in refusal(name, local_files_only=local)
    assert hub.requests == []


def test_models_of_other_libraries_are_not_downloaded(hub: HubServer) -> None:
    hub.add(NAME, {"pytorch_model.bin": b"x", CONFIG: b"{}"})
    assert f"has no {WEIGHTS}" in refusal()
    assert "pytorch_model.bin" in refusal()
    hub.add("ada/language", {**FILES, CONFIG: b'{"model_type": "bert"}'})
    assert "describes another network" in refusal("ada/language")
    assert hub.seen("GET", "/objects/") == []


def test_push_then_fetch_gives_the_same_bytes(hub: HubServer, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(write_small_model(tmp_path / "small.safetensors"))
    save_folder(tmp_path / "model", checkpoint.config, checkpoint.state_dict)
    (tmp_path / "model" / "notes.txt").write_text("stays here")
    url = push_folder(tmp_path / "model", NAME, token="hf_ada", commit_message="Faster")
    folder = fetch_repository(NAME)
    assert url == f"{hub.url}/{NAME}/commit/{folder.name}"
    saved = contents(tmp_path / "model")
    assert contents(folder) == {name: saved[name] for name in (WEIGHTS, CONFIG, CARD)}
    assert len(hub.seen("POST", "/commit/")) == 1
    assert json.loads(folder.joinpath(CONFIG).read_text())["name"] == "small"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    folder = tmp_path / "saved"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return folder


def test_push_to_a_branch_and_again(hub: HubServer, saved: Path) -> None:
    hub.add(NAME, {**FILES, WEIGHTS: b"old"}, private=True)
    push_folder(saved, NAME, revision="trial", token="hf_ada")
    push_folder(saved, NAME, revision="trial", token="hf_ada")
    assert (fetch_repository(NAME, token="hf_ada") / WEIGHTS).read_bytes() == b"old"
    assert contents(fetch_repository(NAME, revision="trial", token="hf_ada")) == FILES


def test_push_makes_a_private_repository(hub: HubServer, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_ada")
    push_folder(saved, NAME, private=True)
    assert hub.repositories[NAME].private
    assert contents(fetch_repository(NAME)) == FILES


@pytest.mark.parametrize(
    ("token", "exists", "words"),
    [
        (None, False, "hf auth login"),
        (None, True, "hf auth login"),
        ("hf_old", True, "hf auth login"),
        ("hf_reads", True, "may not write"),
        ("hf_bob", False, "may not write"),
        ("hf_bob", True, "may not write"),
    ],
)
def test_push_without_rights(hub: HubServer, saved: Path, token: str | None, exists: bool, words: str) -> None:
    if exists:
        hub.add(NAME, FILES)
    with pytest.raises(DekrPoseError, match=f"nothing was pushed to {NAME}.*{words}"):
        push_folder(saved, NAME, token=token)


def test_push_without_a_hub_or_a_model(hub: HubServer, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_client(monkeypatch, HF_HUB_OFFLINE=True)
    with pytest.raises(DekrPoseError, match="unset HF_HUB_OFFLINE"):
        push_folder(saved, NAME, token="hf_ada")
    set_client(monkeypatch, HF_HUB_OFFLINE=False)
    hub.stop()
    with pytest.raises(DekrPoseError, match=f"cannot be pushed to {hub.url}"):
        push_folder(saved, NAME, token="hf_ada")
    (saved / CONFIG).unlink()
    with pytest.raises(DekrPoseError, match=f"has no {CONFIG}; write it with"):
        push_folder(saved, NAME, token="hf_ada")


def test_cached_repositories_lists_ours(hub: HubServer, home: Path) -> None:
    old = hub.add(NAME, FILES)
    fetch_repository(NAME, revision=old)
    hub.add(NAME, {WEIGHTS: b"new"})
    fetch_repository(NAME)
    other = home / "hub" / "models--ada--language" / "snapshots" / ("0" * 40)
    other.mkdir(parents=True)
    (other / WEIGHTS).write_bytes(b"x")
    (other / CONFIG).write_text('{"model_type": "bert"}')
    found = {item.revision: item for item in cached_repositories()}
    assert set(found) == {"main", old}
    assert {item.repo_id for item in found.values()} == {NAME}
    assert found[old].size == sum(map(len, FILES.values()))
    assert (found["main"].folder / WEIGHTS).read_bytes() == b"new"


@pytest.mark.parametrize("content", [None, "file", "folder"])
def test_cached_repositories_of_an_odd_cache(tmp_path: Path, content: str | None) -> None:
    cache = tmp_path / "cache"
    if content == "file":
        cache.write_text("no folder")
    elif content == "folder":
        (cache / "models--ada--runners" / "snapshots").mkdir(parents=True)
        (cache / "models--x").write_text("")
    assert cached_repositories(cache) == []
