"""Repositories as a user's processes see them: settings come from the environment alone."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dekrpose.checkpoints import read_checkpoint
from dekrpose.hub.models import save_folder
from tests.hub_server import Account, HubServer
from tests.small_model import write_small_model

pytestmark = pytest.mark.slow

NAME = "ada/runners"
FETCH = """
import hashlib, json, logging, sys
from dekrpose.errors import DekrPoseError
from dekrpose.hub.repositories import fetch_repository, push_folder
logging.basicConfig(level="WARNING")
try:
    if sys.argv[1] == "push":
        print(push_folder(sys.argv[3], sys.argv[2]))
    else:
        weights = fetch_repository(sys.argv[2]) / "model.safetensors"
        print(hashlib.sha256(weights.read_bytes()).hexdigest())
except DekrPoseError as error:
    print("told:", error)
"""


class User:
    """Starts processes with a home of their own."""

    def __init__(self, hub: HubServer, home: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "*"}
        self.environment = {**kept, **settings, "no_proxy": "*"}

    def start(self, *arguments: str, **settings: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", FETCH, *arguments],
            env={**self.environment, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def says(self, *arguments: str, **settings: str) -> str:
        said, told = self.start(*arguments, **settings).communicate()
        assert "Traceback" not in told
        return said.strip()


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        server.accounts["hf_ada"] = Account("ada")
        yield server


def test_push_fetch_at_once_then_offline_then_dead(hub: HubServer, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(write_small_model(tmp_path / "small.safetensors"))
    save_folder(tmp_path / "model", checkpoint.config, checkpoint.state_dict)
    digest = hashlib.sha256((tmp_path / "model" / "model.safetensors").read_bytes()).hexdigest()
    user = User(hub, tmp_path / "home")

    assert "hf auth login" in user.says("push", NAME, str(tmp_path / "model"))
    assert f"{hub.url}/{NAME}/commit/" in user.says("push", NAME, str(tmp_path / "model"), HF_TOKEN="hf_ada")
    both = [user.start("fetch", NAME) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in both] == [digest, digest]

    hub.stop()
    assert user.says("fetch", NAME) == digest
    assert user.says("fetch", NAME, HF_HUB_OFFLINE="1") == digest
    empty = {"HF_HOME": str(tmp_path / "empty")}
    assert f"told: {NAME} cannot be fetched from {hub.url}" in user.says("fetch", NAME, **empty)
    assert "unset HF_HUB_OFFLINE" in user.says("fetch", NAME, HF_HUB_OFFLINE="1", **empty)


def test_a_private_repository_and_the_stored_login(hub: HubServer, tmp_path: Path) -> None:
    config = json.dumps(read_checkpoint(write_small_model(tmp_path / "small.safetensors")).config.to_dict())
    hub.add(NAME, {"model.safetensors": b"weights", "config.json": config.encode()}, private=True)
    user = User(hub, tmp_path / "home")
    assert "does not exist" in user.says("fetch", NAME)
    (tmp_path / "home").mkdir(exist_ok=True)
    (tmp_path / "home" / "token").write_text("hf_ada")
    assert user.says("fetch", NAME) == hashlib.sha256(b"weights").hexdigest()
