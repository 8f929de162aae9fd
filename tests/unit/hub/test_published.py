"""Published names: fetched once, verified, converted once, with their scoring nets."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dekrpose import PoseEstimator
from dekrpose.cli import main
from dekrpose.errors import CheckpointError, DekrPoseError
from dekrpose.hub import cache, models, published
from tests import checkpoint_fixtures as fixtures
from tests.conftest import DEAD
from tests.file_server import FileServer, serve

NAME, NET = "dekr-w32-coco", "rescore-coco"
PHOTO = np.random.default_rng(5).integers(0, 256, (96, 96, 3), dtype=np.uint8)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, empty_cache: Path, tmp_path: Path) -> Iterator[FileServer]:
    """Small files in mmpose's format under the published names, with their own hashes in the registry."""
    model = fixtures.save_mmpose_1(tmp_path / "model.pth", fixtures.mmpose_1())
    net = tmp_path / "net.pth"
    torch.save(fixtures.scoring_net(), net)
    with serve() as state:
        for name, file in ((NAME, model), (NET, net)):
            content = file.read_bytes()
            prefix = hashlib.sha256(content).hexdigest()[:8]
            monkeypatch.setitem(published.PUBLISHED, name, replace(published.PUBLISHED[name], sha256_prefix=prefix))
            state.files[published.PUBLISHED[name].filename] = content
        monkeypatch.setenv("DEKRPOSE_MIRROR", state.address)
        yield state


def paths(server: FileServer) -> list[str]:
    return [path.removeprefix("/") for _, path, _ in server.requests]


def test_the_first_use_fetches_model_and_scoring_net_and_the_second_nothing(
    server: FileServer, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = PoseEstimator.from_pretrained(NAME)
    assert paths(server) == [published.PUBLISHED[name].filename for name in (NAME, NET)]
    assert first.rescoring_net is not None
    assert sorted(path.name for path in empty_cache.iterdir() if not path.name.endswith(".lock")) == [
        f"{NAME}.json", f"{NAME}.safetensors", "downloads", f"{NET}.json", f"{NET}.safetensors",
    ]  # fmt: skip
    assert list((empty_cache / "downloads").iterdir()) == []
    monkeypatch.setenv("DEKRPOSE_MIRROR", DEAD)
    monkeypatch.setattr(published, "_convert", lambda *_: pytest.fail("converted again"))
    second = PoseEstimator.from_pretrained(NAME)
    ours, theirs = (estimator.estimate(PHOTO, score_threshold=0) for estimator in (first, second))
    np.testing.assert_array_equal(ours.keypoints, theirs.keypoints)
    np.testing.assert_array_equal(ours.scores, theirs.scores)


def test_the_cached_model_is_the_downloaded_one(server: FileServer, tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    by_hand = PoseEstimator.from_pretrained(file)
    by_name = PoseEstimator.from_pretrained(NAME, rescoring_net=False)
    for name, value in by_hand.model.state_dict().items():
        assert torch.equal(value, by_name.model.state_dict()[name]), name
    assert by_name.config.license == "apache-2.0"
    assert by_name.config.training_data == "COCO train2017"
    assert by_name.config.metrics == {}
    assert by_name.config.published == {"AP": 68.6}


def test_the_note_says_where_the_weights_came_from(server: FileServer, empty_cache: Path) -> None:
    path = models.resolve(NAME)
    note = json.loads(path.with_suffix(".json").read_text())
    content = server.files[published.PUBLISHED[NAME].filename]
    assert note["download"]["url"] == f"{server.address}/{published.PUBLISHED[NAME].filename}"
    assert note["download"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert note["download"]["bytes"] == len(content)
    assert note["sha256"] == cache.file_sha256(path)


def test_no_scoring_net_is_fetched_where_none_is_wanted(server: FileServer) -> None:
    assert PoseEstimator.from_pretrained(NAME, rescoring_net=False).rescoring_net is None
    assert paths(server) == [published.PUBLISHED[NAME].filename]


def test_a_scoring_net_by_name_goes_with_any_model(server: FileServer, tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    assert PoseEstimator.from_pretrained(file, rescoring_net=NET).rescoring_net is not None
    assert paths(server) == [published.PUBLISHED[NET].filename]


def test_wrong_content_is_refused_and_leaves_nothing(server: FileServer, empty_cache: Path) -> None:
    server.files[published.PUBLISHED[NAME].filename] += b"changed"
    with pytest.raises(DekrPoseError, match=r"not the file that was published.*downloads"):
        models.resolve(NAME)
    assert not list(empty_cache.rglob("*.safetensors"))
    assert not list(empty_cache.rglob("*.part"))


def test_a_dead_host_says_what_to_fetch_by_hand_and_where_to_put_it(
    server: FileServer, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEKRPOSE_MIRROR", DEAD)
    entry = published.PUBLISHED[NAME]
    with pytest.raises(DekrPoseError) as error:
        models.resolve(NAME)
    for part in (entry.url, entry.sha256_prefix, str(empty_cache / "downloads"), "DEKRPOSE_MIRROR"):
        assert part in str(error.value)
    (empty_cache / "downloads" / entry.filename).write_bytes(server.files[entry.filename])
    path = models.resolve(NAME)
    assert "by hand" in json.loads(path.with_suffix(".json").read_text())["download"]["url"]
    assert (empty_cache / "downloads" / entry.filename).exists(), "the user's own file stays"


def test_a_wrong_file_put_there_by_hand_is_named(server: FileServer, empty_cache: Path) -> None:
    file = empty_cache / "downloads" / published.PUBLISHED[NAME].filename
    file.parent.mkdir(parents=True)
    file.write_bytes(b"<html>log in</html>")
    with pytest.raises(DekrPoseError, match=r"is not the published file.*delete it"):
        models.resolve(NAME)
    assert file.exists()


@pytest.mark.parametrize("switch", ["argument", "variable"])
def test_offline_uses_what_is_there_and_asks_nobody(
    server: FileServer, empty_cache: Path, monkeypatch: pytest.MonkeyPatch, switch: str
) -> None:
    if switch == "variable":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    only = switch == "argument"
    reason = "local_files_only" if only else "unset HF_HUB_OFFLINE"
    with pytest.raises(DekrPoseError, match=rf"{NAME} is not in the cache folder .*{reason}"):
        models.resolve(NAME, local_files_only=only)
    assert server.requests == []
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    models.resolve(NAME)
    if switch == "variable":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    models.resolve(NAME, local_files_only=only)
    assert len(server.requests) == 1


def test_a_cached_model_without_its_scoring_net_says_how_to_go_without(server: FileServer) -> None:
    PoseEstimator.from_pretrained(NAME, rescoring_net=False)
    with pytest.raises(DekrPoseError, match=r"rescore-coco is not in the cache.*rescoring_net=False"):
        PoseEstimator.from_pretrained(NAME, local_files_only=True)


def test_force_download_fetches_again(server: FileServer) -> None:
    models.resolve(NAME)
    models.resolve(NAME, force_download=True)
    assert len(server.requests) == 2


@pytest.mark.parametrize("damage", ["truncated", "no note", "older conversion"])
def test_broken_and_stale_weights_are_fetched_again(
    server: FileServer, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = models.resolve(NAME)
    whole = path.read_bytes()
    note = path.with_suffix(".json")
    if damage == "truncated":
        path.write_bytes(whole[:-1000])
    elif damage == "no note":
        note.unlink()
    else:
        note.write_text(json.dumps({**json.loads(note.read_text()), "conversion": 0}))
    with caplog.at_level(logging.WARNING):
        entry = cache.entry(models.resolve(NAME).parent, NAME)
    assert entry is not None
    assert cache.problem(entry) is None
    assert caplog.text.count("fetching it again") == 1
    assert len(server.requests) == 2


def test_a_file_that_holds_other_weights_than_its_name_says(
    server: FileServer, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = server.files[published.PUBLISHED[NET].filename]
    prefix = hashlib.sha256(content).hexdigest()[:8]
    monkeypatch.setitem(published.PUBLISHED, NAME, replace(published.PUBLISHED[NAME], sha256_prefix=prefix))
    server.files[published.PUBLISHED[NAME].filename] = content
    with pytest.raises(CheckpointError, match="scoring net alone"):
        models.resolve(NAME)
    assert not list(empty_cache.rglob("*.safetensors"))


def test_a_download_that_was_killed_goes_on(server: FileServer, empty_cache: Path) -> None:
    entry = published.PUBLISHED[NAME]
    part = empty_cache / "downloads" / f"{entry.filename}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(server.files[entry.filename][:5000])
    models.resolve(NAME)
    assert server.requests[0][2] == "bytes=5000-"
    assert not part.exists()


RESOLVE = """
import sys
from dataclasses import replace
from dekrpose.hub import models
from dekrpose.hub import cache
from dekrpose.hub import published
name, prefix = sys.argv[1:]
published.PUBLISHED[name] = replace(published.PUBLISHED[name], sha256_prefix=prefix)
print(cache.file_sha256(models.resolve(name)))
"""


def test_two_processes_at_once_fetch_once(server: FileServer) -> None:
    server.delay = 2.0  # the second comes while the first waits
    command = [sys.executable, "-c", RESOLVE, NAME, published.PUBLISHED[NAME].sha256_prefix]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]) for _ in range(2)
    ]
    hashes = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert hashes[0] == hashes[1] != ""
    assert len(server.requests) == 1


READ_ONLY = """
import os, sys
from dataclasses import replace
from dekrpose.hub import models
from dekrpose.hub import published
from dekrpose.errors import DekrPoseError
name, prefix = sys.argv[1:]
published.PUBLISHED[name] = replace(published.PUBLISHED[name], sha256_prefix=prefix)
if os.getuid() == 0:
    os.setuid(65534)  # permissions do not bind root
try:
    print(models.resolve(name))
except DekrPoseError as error:
    print("error:", error)
"""


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="needs permissions as on POSIX")
def test_a_read_only_cache_serves_what_it_has_and_says_so_otherwise(server: FileServer, empty_cache: Path) -> None:
    models.resolve(NAME)
    (empty_cache / "downloads").rmdir()
    for folder in (empty_cache, *empty_cache.parents):
        if folder.stat().st_uid == os.getuid() and folder != folder.parent:
            folder.chmod(0o555 if folder == empty_cache else folder.stat().st_mode | 0o055)

    def resolve(name: str) -> str:
        run = subprocess.run(
            [sys.executable, "-c", READ_ONLY, name, published.PUBLISHED[name].sha256_prefix],
            capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3],
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        return run.stdout.strip()

    try:
        assert resolve(NAME) == str(empty_cache / f"{NAME}.safetensors")
        message = resolve(NET)
    finally:
        empty_cache.chmod(0o755)
    assert message.startswith(f"error: the cache folder {empty_cache} cannot be written")
    assert "DEKRPOSE_CACHE" in message


def test_a_home_that_cannot_be_written_names_the_way_out(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("DEKRPOSE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", "/proc")  # where nothing can be made, by root neither
    if Path("/proc/self").exists():
        with pytest.raises(DekrPoseError, match=r"/proc/\.cache/dekrpose cannot be written .*set DEKRPOSE_CACHE"):
            models.resolve(NAME)

    def nowhere(_: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", nowhere)
    with pytest.raises(DekrPoseError, match="no home folder; set the environment variable DEKRPOSE_CACHE"):
        cache.cache_folder()


FULL = """
import resource, sys
from dekrpose.hub import published
from dataclasses import replace
from dekrpose.cli import main
name, prefix, limit = sys.argv[1:]
published.PUBLISHED[name] = replace(published.PUBLISHED[name], sha256_prefix=prefix)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
sys.exit(main(["predict", "photo.png", "--model", name]))
"""


@pytest.mark.parametrize("share", [0.5, 0.995])
def test_a_full_disk_during_download_or_conversion(
    server: FileServer, empty_cache: Path, tmp_path: Path, share: float
) -> None:
    entry = published.PUBLISHED[NAME]
    converted = models.resolve(NAME).stat().st_size
    shutil.rmtree(empty_cache)
    limit = int(share * min(converted, len(server.files[entry.filename])))
    if share > 0.9:  # what came by hand fits, what is made of it does not
        by_hand = empty_cache / "downloads" / entry.filename
        by_hand.parent.mkdir(parents=True)
        by_hand.write_bytes(server.files[entry.filename])
    (tmp_path / "photo.png").touch()
    run = subprocess.run(
        [sys.executable, "-c", FULL, NAME, entry.sha256_prefix, str(limit)],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    assert "is full" in run.stderr, run.stderr
    assert not list(empty_cache.rglob("*.safetensors*"))
    assert not list(empty_cache.rglob(".*.tmp"))


def test_models_lists_what_is_here_and_whose_numbers_they_are(
    server: FileServer, capsys: pytest.CaptureFixture[str], empty_cache: Path
) -> None:
    models.resolve(NAME)
    assert main(["models"]) == 0
    printed = capsys.readouterr().out
    block = printed.split(f"{NAME}\n")[1].split("\n\n")[0]
    assert f"cached, {empty_cache / NAME}.safetensors" in block
    assert "accuracy AP 68.6 (published, other decoding); not measured here" in block
    assert "Apache-2.0" in block
    assert "about 262.7 MB to fetch" in printed.split("dekr-w48-coco\n")[1]
    assert main(["models", "--json"]) == 0
    listed = {model["name"]: model for model in json.loads(capsys.readouterr().out)}
    assert listed[NAME]["available"]
    assert not listed["dekr-w48-coco"]["available"]
    assert listed[NAME]["published"] == {"AP": 68.6}
    assert listed[NAME]["measured"] == {}
    assert listed["tiny"]["measured"]


def test_verify_finds_and_clean_deletes_what_is_broken(
    server: FileServer, capsys: pytest.CaptureFixture[str], empty_cache: Path
) -> None:
    path, net = models.resolve(NAME), models.resolve(NET)
    (empty_cache / "downloads" / "other.pth.part").write_bytes(b"begun")
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)
    assert main(["models", "--verify"]) == 1
    printed = capsys.readouterr().out
    assert f"BROKEN  {path}: its content changed" in printed
    assert f"ok  {net}" in printed
    assert "other.pth.part: unfinished" in printed
    assert main(["models", "--clean"]) == 0
    assert not path.exists()
    assert net.exists()
    assert not (empty_cache / "downloads" / "other.pth.part").exists()
    assert main(["models", "--verify"]) == 0
    assert main(["models", "--clean", "--all"]) == 0
    assert not net.exists()
    assert "freed" in capsys.readouterr().out


def test_parameters_in_the_registry_are_those_of_the_networks() -> None:
    from dekrpose.architectures.complexity import complexity
    from dekrpose.config import ARCHITECTURES

    for name in (NAME, "dekr-w32-crowdpose"):
        assert published.PUBLISHED[name].parameters == complexity(ARCHITECTURES[name]).parameters


def test_mirror_may_be_a_folder(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = published.PUBLISHED[NAME]
    (tmp_path / entry.filename).write_bytes(server.files[entry.filename])
    monkeypatch.setenv("DEKRPOSE_MIRROR", tmp_path.as_uri())
    assert models.resolve(NAME).exists()
    assert server.requests == []
