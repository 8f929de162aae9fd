"""What a training starts from: models of other skeletons, ImageNet backbones."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dekrpose import COCO_17, CheckpointError, Skeleton
from dekrpose.architectures.dekr.initial import fit_to_skeleton
from dekrpose.architectures.dekr.network import DEKR
from dekrpose.config import HeadConfig
from dekrpose.hub import published
from dekrpose.training.initial import read_backbone, read_initial
from tests.small_model import SMALL, write_small_model

FIVE = Skeleton(
    name="five",
    keypoints=("right_wrist", "nose", "tail", "left_wrist", "left_hip"),
    edges=((0, 1), (1, 3)),
    flip_pairs=((0, 3),),
    sigmas=(0.06, 0.03, 0.1, 0.06, 0.1),
)


def test_keypoints_of_the_same_name_keep_their_branch(tmp_path: Path) -> None:
    path = write_small_model(tmp_path / "model.safetensors")
    config, weights = read_initial(str(path), SMALL, FIVE)
    assert config.skeleton == FIVE
    old, new = DEKR(SMALL), DEKR(config)
    old.load_state_dict(read_initial(str(path), SMALL, COCO_17)[1])
    new.load_state_dict(weights)
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        (heat, offset), (new_heat, new_offset) = (model.eval()(images) for model in (old, new))
    known = [
        (position, COCO_17.keypoints.index(name)) for position, name in enumerate(FIVE.keypoints) if name != "tail"
    ]
    for position, source in known:
        torch.testing.assert_close(new_heat[:, position], heat[:, source])
        torch.testing.assert_close(
            new_offset[:, 2 * position : 2 * position + 2], offset[:, 2 * source : 2 * source + 2]
        )
    torch.testing.assert_close(new_heat[:, -1], heat[:, -1])  # the centers
    assert not torch.allclose(new_heat[:, 2], heat[:, 2])


def test_other_names_for_as_many_keypoints_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_small_model(tmp_path / "model.safetensors")
    names = tuple(name.replace("left_", "l_") for name in COCO_17.keypoints)
    read_initial(str(path), SMALL, replace(COCO_17, keypoints=names))
    (told,) = caplog.messages
    assert "has 9 of these 17 keypoints; fresh weights for l_eye, l_ear, " in told
    assert "(it calls its own nose, left_eye, " in told
    caplog.clear()
    read_initial(str(path), SMALL, replace(COCO_17, name="other"))
    assert not caplog.messages


def test_branches_of_several_keypoints_cannot_be_taken_apart() -> None:
    config = replace(SMALL, head=HeadConfig(branches="shared", heatmap_channels=8, blocks=1))
    with pytest.raises(CheckpointError, match="several keypoints per branch"):
        fit_to_skeleton({}, config, FIVE)


def test_an_imagenet_backbone_from_its_published_name(
    tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = {f"backbone.{name}": value + 1 for name, value in DEKR(SMALL).backbone.state_dict().items()}
    entry = published.PUBLISHED["hrnet-w32-imagenet"]
    file = tmp_path / entry.filename
    torch.save({"state_dict": {**source, "classifier.weight": torch.zeros(3)}}, file)
    prefix = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    monkeypatch.setitem(published.PUBLISHED, entry.name, replace(entry, sha256_prefix=prefix))
    monkeypatch.setenv("DEKRPOSE_MIRROR", tmp_path.as_uri())
    config, weights = read_initial(entry.name, SMALL, COCO_17)
    assert config == SMALL
    for name, value in source.items():
        torch.testing.assert_close(weights[name], value)
    assert not DEKR(SMALL).load_state_dict(weights, strict=False).unexpected_keys
    file.unlink()
    read_initial(entry.name, SMALL, COCO_17)  # from the cache


def test_another_backbone_is_refused(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "resnet.pth")
    with pytest.raises(CheckpointError, match=r"no HRNet-W8 backbone: \d+ of its \d+ tensors"):
        read_backbone(tmp_path / "resnet.pth", SMALL)
