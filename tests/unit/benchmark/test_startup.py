"""Time to the first pose: every phase is reported, and cold means an empty cache folder each time."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from dekrpose.benchmark import first_pose as startup
from dekrpose.cli import main
from dekrpose.errors import DekrPoseError
from dekrpose.hub.published import PUBLISHED
from tests import checkpoint_fixtures as fixtures
from tests.file_server import serve
from tests.small_model import write_small_model

PHASES = ["import", "from_pretrained", "first estimate", "to the first pose", "second estimate"]


class Processes:
    """Stands for the fresh processes: notes what each would find, and fills its cache as a download does."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Path | None, list[str]]] = []

    def __call__(
        self, script: str, asked: Mapping[str, Any], environment: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        cache = None if environment is None else Path(environment["DEKRPOSE_CACHE"])
        self.seen.append((asked["model"], cache, [] if cache is None else [item.name for item in cache.iterdir()]))
        if cache is not None:
            assert environment is not None
            assert Path(environment["HF_HUB_CACHE"]).parent == cache
            (cache / "converted.safetensors").touch()
        slow = 10.0 * len(self.seen)
        times = {"import": 1.0, "from_pretrained": slow, "first estimate": 3.0, "second estimate": 2.0}
        return {"times": times, "device": "cpu", "threads": 1}


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Processes:
    monkeypatch.delenv("DEKRPOSE_CACHE", raising=False)
    monkeypatch.delenv("DEKRPOSE_MIRROR", raising=False)
    stand_in = Processes()
    monkeypatch.setattr(startup, "in_fresh_process", stand_in)
    return stand_in


def test_warm_processes_use_the_users_own_cache_and_the_first_does_not_count(processes: Processes) -> None:
    measured = startup.first_pose("dekr-w32-coco", runs=3)
    assert processes.seen == [("dekr-w32-coco", None, [])] * 4
    assert measured.cold is None
    assert list(measured.warm) == PHASES
    load = measured.warm["from_pretrained"]
    assert (load.fastest_ms, load.median_ms, load.slowest_ms) == (20, 30, 40)
    assert measured.warm["to the first pose"].median_ms == 34


def test_each_cold_process_starts_from_an_empty_cache_that_a_warm_one_reuses(processes: Processes) -> None:
    measured = startup.first_pose("dekr-w32-coco", runs=2, cold=True)
    (warm_up, *_), *pairs = processes.seen
    assert warm_up == "tiny"
    folders = [cache for _, cache, _ in pairs]
    assert folders[0] == folders[1] != folders[2] == folders[3]
    assert [found for _, _, found in pairs] == [[], ["converted.safetensors"]] * 2
    assert not any(folder is None or folder.exists() for folder in folders)
    assert measured.cold is not None
    assert (measured.cold["from_pretrained"].median_ms, measured.warm["from_pretrained"].median_ms) == (30, 40)
    table = measured.table()
    for words in ("cold to the first pose", "warm to the first pose", "times as long cold as warm", "usual address"):
        assert words in table


def test_what_cold_means_is_said(processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = fixtures.save_official(tmp_path / "official.pth", fixtures.official(keypoints=3))
    assert "official.pth is converted in memory at every load" in startup.first_pose(str(foreign), runs=1).table()
    assert "Nothing has to be downloaded" in startup.first_pose("tiny", runs=1).table()
    monkeypatch.setenv("DEKRPOSE_MIRROR", "http://mirror/weights")
    assert "downloaded from http://mirror/weights" in startup.first_pose("dekr-w32-coco", runs=1).note


def test_a_fresh_process_reports_its_phases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_small_model(tmp_path / "small.safetensors")
    monkeypatch.chdir(tmp_path)  # the model's path is relative, and no checkout of the library is here
    words = ["benchmark", "small.safetensors", "--first-pose", "--runs", "1", "--device", "cpu", "--photo", "80x64"]
    assert main([*words, "--json", "out.json"]) == 0
    printed = capsys.readouterr().out
    written = json.loads(Path("out.json").read_text())
    assert list(written["warm"]) == PHASES
    assert all(phase in printed for phase in PHASES)
    assert all(phase["median_ms"] > 0 for phase in written["warm"].values())
    assert (written["cold"], written["runs"], written["photo"], written["device"]) == (None, 1, [80, 64], "cpu")


@pytest.mark.slow
def test_a_published_name_is_fetched_and_converted_at_each_cold_start_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = fixtures.save_mmpose_1(tmp_path / "model.pth", fixtures.mmpose_1()).read_bytes()
    replacement = f"replace(published.PUBLISHED['dekr-w32-coco'], sha256_prefix={sha256(content).hexdigest()[:8]!r})"
    monkeypatch.setattr(
        startup,
        "_PROBE",
        "import sys, json; sys.path[:] = json.loads(sys.argv[1])['path']\n"
        "from dataclasses import replace\nfrom dekrpose.hub import published\n"
        f"published.PUBLISHED['dekr-w32-coco'] = {replacement}\n" + startup._PROBE,
    )
    filename = PUBLISHED["dekr-w32-coco"].filename
    with serve() as server:
        server.files[filename] = content
        monkeypatch.setenv("DEKRPOSE_MIRROR", server.address)
        measured = startup.first_pose(
            "dekr-w32-coco", runs=2, cold=True, photo=(80, 64), load={"device": "cpu", "rescoring_net": False}
        )
        assert [path for _, path, _ in server.requests] == [f"/{filename}"] * 2
        assert f"downloaded from {server.address}" in measured.note


def test_what_goes_wrong_in_a_process_is_told(tmp_path: Path) -> None:
    with pytest.raises(DekrPoseError, match="there is no file or folder"):
        startup.first_pose(str(tmp_path / "none.safetensors"), runs=1)


def test_a_process_that_dies_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "_PROBE", "import sys; sys.exit(3)")
    with pytest.raises(DekrPoseError, match="ended with status 3"):
        startup.first_pose("tiny", runs=1)


def test_the_environment_of_a_cold_process_is_its_own(tmp_path: Path) -> None:
    before = dict(os.environ)
    environment = startup.with_cache(tmp_path)
    assert environment["DEKRPOSE_CACHE"] == str(tmp_path)
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cold"], "belongs to --first-pose"),
        (["--first-pose", "--compare", "loop"], "leave out --compare"),
        (["--first-pose", "--runs", "0"], "at least 1"),
        (["--first-pose", "--photo", "large"], "640x480"),
    ],
)
def test_options_that_do_not_go_together(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "tiny", *words]) == 1
    assert message in capsys.readouterr().err
