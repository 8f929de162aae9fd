"""Names and folders lead to weights files; everything else is answered with what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dekrpose.checkpoints import Checkpoint, read_checkpoint
from dekrpose.config import ModelConfig
from dekrpose.errors import CheckpointError, DekrPoseError
from dekrpose.hub.models import PUBLISHED, resolve, save_folder
from tests import checkpoint_fixtures as fixtures


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return read_checkpoint(fixtures.save_official(tmp_path / "official.pth", fixtures.official(keypoints=3)))


def test_tiny_is_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundled = tmp_path / "tiny.safetensors"
    monkeypatch.setattr("dekrpose.hub.models._TINY", bundled)
    with pytest.raises(DekrPoseError, match="install dekrpose again"):
        resolve("tiny")
    bundled.write_bytes(b"weights")
    assert resolve("tiny") == resolve("tiny-mobilenet") == bundled


def test_an_existing_file_is_itself(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"x")
    assert resolve(path) == resolve(str(path)) == path


def test_a_saved_folder_resolves_to_its_weights(tmp_path: Path, checkpoint: Checkpoint) -> None:
    folder = tmp_path / "models" / "mine"
    save_folder(folder, checkpoint.config, checkpoint.state_dict)
    assert sorted(item.name for item in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert read_checkpoint(resolve(folder)).config == checkpoint.config
    assert sorted(item.name for item in folder.parent.iterdir()) == ["mine"]


def test_saving_again_replaces_the_three_files_and_keeps_others(tmp_path: Path, checkpoint: Checkpoint) -> None:
    folder = tmp_path / "mine"
    save_folder(folder, checkpoint.config, checkpoint.state_dict)
    (folder / "notes.txt").write_text("keep")
    config = ModelConfig.from_dict({**checkpoint.config.to_dict(), "name": "second"})
    save_folder(folder, config, checkpoint.state_dict)
    assert read_checkpoint(resolve(folder)).config.name == "second"
    assert len(list(folder.iterdir())) == 4


def test_a_failed_save_leaves_no_folder(tmp_path: Path, checkpoint: Checkpoint) -> None:
    with pytest.raises(CheckpointError, match="missing"):
        save_folder(tmp_path / "mine", checkpoint.config, {})
    assert [item.name for item in tmp_path.iterdir()] == ["official.pth"]


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path, checkpoint: Checkpoint) -> None:
    with pytest.raises(NotADirectoryError):
        save_folder(tmp_path / "official.pth", checkpoint.config, checkpoint.state_dict)


def test_a_folder_whose_files_disagree_is_refused(tmp_path: Path, checkpoint: Checkpoint) -> None:
    folder = tmp_path / "mine"
    save_folder(folder, checkpoint.config, checkpoint.state_dict)
    config_file = folder / "config.json"
    changed = {**json.loads(config_file.read_text()), "input_size": 256}
    config_file.write_text(json.dumps(changed))
    with pytest.raises(CheckpointError, match="disagree about input_size"):
        resolve(folder)
    config_file.write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        resolve(folder)
    config_file.unlink()
    assert resolve(folder).name == "model.safetensors"


def test_a_folder_without_our_weights_names_the_others(tmp_path: Path, checkpoint: Checkpoint) -> None:
    with pytest.raises(CheckpointError, match=r"no model\.safetensors; pass a file inside: official\.pth"):
        resolve(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="no weights at all"):
        resolve(tmp_path / "empty")


def test_unknown_names_list_known_and_similar_ones() -> None:
    with pytest.raises(DekrPoseError, match=r"Did you mean dekr-w32-coco.*Known names: tiny, dekr-w32-coco"):
        resolve("dekr_w32_coco")


def test_a_backbone_alone_is_no_model() -> None:
    with pytest.raises(DekrPoseError, match=r"hrnet-w32-imagenet is an ImageNet backbone.*Known names: tiny"):
        resolve("hrnet-w32-imagenet")


def test_missing_files_list_similar_files(tmp_path: Path, checkpoint: Checkpoint) -> None:
    with pytest.raises(DekrPoseError, match=r"no file or folder.*did you mean official\.pth"):
        resolve(tmp_path / "oficial.pth")
    with pytest.raises(DekrPoseError, match="no file or folder"):
        resolve("weights/none.safetensors")


def test_published_entries_carry_their_hash_in_the_name_and_a_scoring_net() -> None:
    for name, entry in PUBLISHED.items():
        assert name == entry.name
        assert entry.sha256_prefix in entry.filename
        assert entry.rescoring_net is None or PUBLISHED[entry.rescoring_net].kind == "rescoring net"
        assert entry.accuracy == "" or "published, other decoding" in entry.accuracy
