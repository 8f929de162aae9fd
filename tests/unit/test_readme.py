"""What README.md and docs/ show works: every snippet is run, in a folder with the files that it names.

Python blocks of a document share their names, top to bottom. ``dekrpose`` lines run through the command line on the
example photos and a made-up dataset; training is cut short by ``SHORTER``, and ``PARSED`` lines are only parsed.
"""

from __future__ import annotations

import gzip
import inspect
import re
import shlex
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from dekrpose import PoseEstimator
from dekrpose.architectures.complexity import complexity
from dekrpose.cli import _parser, main
from dekrpose.config import ARCHITECTURES
from dekrpose.hub import models, repositories
from dekrpose.hub.cache import file_sha256
from tests import checkpoint_fixtures as fixtures
from tests.lite_backbone import write_lite_package
from tests.movenet_files import write_movenet
from tests.small_model import write_small_model
from tests.training_photos import write_dataset

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BUNDLED = models._TINY.is_file()

SHORTER = {
    "train": ["--epochs", "1", "--limit", "2", "--batch-size", "2", "--size", "64", "--workers", "0"],
    "train-scoring": ["--minimum-steps", "10"],
    "train-temporal": ["--clips", "2", "--frames", "2", "--size", "64", "--epochs", "1", "--batch-size", "2"],
    "eval": ["--limit", "2", "--input-size", "64", "--clips", "1", "--frames", "3", "--seeds", "0"],
    "eval-tracking": ["--seeds", "1", "--frames", "700", "--cost-frames", "3"],
    "benchmark": ["--runs", "1"],
}
PARSED = {
    "dekrpose models --complexity": "counts twelve networks; the tests of the command line run it on one",
    "dekrpose benchmark tiny --photo 640x480 --compare dekr-w32-coco": "a minute; benchmark has tests of its own",
    "dekrpose benchmark dekr-w32-coco --compare loop": "a minute, as above",
    "dekrpose export runs/lamps lamps.onnx": "half a minute; export.md runs the same",
}
INSTALLS = "python3 -m venv .venv && "

SLOW = {"export.md", "gpu.md", "speed.md", "tracking.md", "video-training.md"}
"""Documents whose commands take minutes."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a reader's files; the bundled model, or an untrained one where that is not there."""
    if not BUNDLED:
        monkeypatch.setattr(models, "_TINY", write_small_model(tmp_path / "tiny.safetensors", ARCHITECTURES["tiny"]))
    here = tmp_path / "here"
    annotations, photos = write_dataset(here, photos=3)
    shutil.copytree(ROOT / "examples", here / "examples", ignore=shutil.ignore_patterns("*.poses.*"))
    shutil.copy(ROOT / "examples" / "astronaut.jpg", here / "photo.jpg")
    shutil.copy(ROOT / "examples" / "astronaut.jpg", photos / "astronaut.jpg")
    shutil.copytree(ROOT / "tests" / "cases" / "imports" / "labelme", here / "birds")
    (here / "train.json.gz").write_bytes(gzip.compress(annotations.read_bytes()))
    shutil.copy(here / "train.json.gz", here / "more.json.gz")
    shutil.copy(annotations, here / "val.json")
    write_movenet(here, "movenet-multipose")
    for name in ("train-0.tar", "val.tar"):
        with tarfile.open(here / name, "w") as archive:
            for photo in sorted(photos.glob("*.png")):
                archive.add(photo, photo.name)
    fixtures.save_official(here / "pose_dekr_hrnetw32_coco.pth", fixtures.official())
    fixtures.save_mmpose_1(here / "dekr_hrnet-w32_8xb10-140e_coco-512x512_ac7c17bf-20221228.pth", fixtures.mmpose_1())
    for name in ("final_rescore_coco_kpt.pth", "kpt_rescore_coco-33d58c5c.pth"):
        fixtures.save_official(here / name, fixtures.scoring_net())
    _stand_in_for_hosts(here, monkeypatch)
    monkeypatch.syspath_prepend(str(write_lite_package(tmp_path)))
    monkeypatch.chdir(here)
    return here


def _stand_in_for_hosts(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published files come from a folder under their own names; the hub is another folder."""
    monkeypatch.setenv("DEKRPOSE_MIRROR", here.as_uri())
    monkeypatch.setenv("DEKRPOSE_CACHE", str(here / "cache"))
    for name in ("dekr-w32-coco", "rescore-coco"):
        entry = models.PUBLISHED[name]
        prefix = file_sha256(here / entry.filename)[:8]
        monkeypatch.setitem(models.PUBLISHED, name, replace(entry, sha256_prefix=prefix))

    def push(folder: Path, repo_id: str, **_: object) -> str:
        shutil.copytree(folder, here / "hub" / repo_id)
        return f"https://huggingface.co/{repo_id}"

    monkeypatch.setattr(repositories, "push_folder", push)
    monkeypatch.setattr(repositories, "fetch_repository", lambda repo_id, **_: here / "hub" / repo_id)


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Language and content of every fenced block."""
    yield from re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def command_lines(text: str) -> list[str]:
    return [line for language, block in blocks(text) if language == "bash" for line in block.splitlines()]


def run_line(line: str) -> None:
    if line.startswith(INSTALLS):
        line = line.split(" && ")[-1].removeprefix(".venv/bin/")
    if line in ("python -m tests.golden", "python -m pytest"):
        assert find_spec(line.split()[-1])
        return
    arguments: list[str] = []
    for word in shlex.split(line, posix=False):  # keeps the quotes, within which a shell expands nothing
        arguments += sorted(map(str, Path().glob(word))) if "*" in word and word[0] != '"' else [word.strip('"')]
    assert arguments.pop(0) == "dekrpose", f"not known how to check: {line}"
    if line in PARSED:
        _parser(arguments).parse_args(arguments)
    else:
        assert main([*arguments, *SHORTER.get(arguments[0], [])]) == 0, line


@pytest.mark.parametrize(
    "document",
    [pytest.param(path, marks=[pytest.mark.slow] * (path.name in SLOW), id=path.name) for path in DOCUMENTS],
)
def test_every_snippet_works(document: Path, folder: Path) -> None:
    names: dict[str, object] = {}
    for language, block in blocks(document.read_text(encoding="utf-8")):
        if language == "python":
            exec(compile(block, f"{document.name}, a block", "exec"), names)
        elif language == "bash":
            for line in block.splitlines():
                run_line(line)
        else:
            assert language == "bibtex", f"blocks say their language, got {language!r}"
    if document.name == "README.md":
        written = ("poses.jpg", "poses.png", "photo.poses.jpg", "results/astronaut.poses.json", "w32.safetensors")
        for name in (*written, "runs/mine/model.safetensors", "examples/astronaut.poses.jpg"):
            assert (folder / name).is_file(), name


def test_ci_runs_the_tests_as_the_readme_says() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    steps = [line.removeprefix("step ") for line in script.splitlines() if line.startswith("step ")]
    steps = [re.sub(r'"\$venv(/bin/\w+)?"', r".venv\1", step) for step in steps]
    (command,) = (line for line in command_lines(README) if line.endswith("pytest"))
    positions = [steps.index(part) for part in command.split(" && ")]
    assert positions == sorted(positions)


def test_install_commands_pin_the_same_torch() -> None:
    lines = [line for line in command_lines(README) if line.startswith(INSTALLS)]
    assert len(lines) == 2
    assert len({word for line in lines for word in re.findall(r"torch==[\d.]+", line)}) == 1
    photo = lines[0].split()[-1]
    assert (ROOT / photo).is_file()


def test_the_table_of_options_is_complete() -> None:
    section = README.split("## Options")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|.*\| (?:`(--[\w-]+)` )?\|$", section, re.MULTILINE)
    assert [name for name, _ in rows] == list(inspect.signature(PoseEstimator.estimate).parameters)[2:]
    for _, option in rows:
        if option:
            value = {"--flip": [], "--match-heatmap": []}.get(option, ["1"])
            arguments = ["predict", "photo.jpg", option, *value]
            _parser(arguments).parse_args(arguments)


def test_published_numbers_are_named_as_published() -> None:
    for entry in models.PUBLISHED.values():
        if entry.kind == "model":
            (row,) = re.findall(rf"^\| `{entry.name}` .*$", README, re.MULTILINE)
            assert f"{entry.average_precision} (published, other decoding)" in row


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_sizes_and_costs_in_the_table(name: str) -> None:
    cost = complexity(ARCHITECTURES[name])
    directpose = (ROOT / "docs" / "directpose.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| `{name}` .*$", directpose if name.startswith("directpose") else README, re.MULTILINE)
    assert f"| {cost.input_size} | {cost.parameters:,} | {cost.gmacs:.2f} |" in row


@pytest.mark.parametrize("document", [*DOCUMENTS, ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if target.startswith("https://") or (not BUNDLED and target.endswith("poses.jpg")):
            continue
        name, _, heading = target.partition("#")
        path = document.parent / name if name else document
        assert path.exists(), target
        if heading:
            lines = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M)
            assert heading in {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in lines}, target
