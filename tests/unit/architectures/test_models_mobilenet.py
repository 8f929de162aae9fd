"""MobileNetV2 with MoveNet's pyramid and heads: TensorFlow's padding, MoveNet's files, the network around them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dekrpose import COCO_17, CheckpointError, PoseEstimator
from dekrpose.architectures.dekr.movenet import read_movenet
from dekrpose.architectures.dekr.network import DEKR
from dekrpose.architectures.parts.blocks import SameConv, SeparableConv
from dekrpose.architectures.parts.mobilenet import MobileNet, scaled
from dekrpose.config import MobileNetConfig, ModelConfig
from dekrpose.training.initial import brought, read_initial
from tests.movenet_files import HEAD, OWN, write_movenet
from tests.small_model import SMALL, write_small_model
from tests.unit.training.test_training_initial import FIVE


@pytest.fixture(scope="module")
def movenet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    return write_movenet(tmp_path_factory.mktemp("movenet"))


def images(height: int = 64, width: int = 96, batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("width", "expected"), [(1.0, (32, 16, 24, 320)), (1.5, (48, 24, 40, 480)), (1.75, (56, 32, 40, 560))]
)
def test_channels_are_those_of_the_published_widths(width: float, expected: tuple[int, ...]) -> None:
    assert tuple(scaled(channels, width) for channels in (32, 16, 24, 320)) == expected


@pytest.mark.parametrize("groups", [1, 6])
@pytest.mark.parametrize("training", [False, True])
def test_stride_2_is_padded_at_the_right_and_bottom(groups: int, training: bool) -> None:
    torch.manual_seed(0)
    conv = SameConv(6, 6, 2, groups).train(training)
    x = torch.randn(2, 6, 8, 10)
    expected = F.conv2d(F.pad(x, (0, 1, 0, 1)), conv.weight, conv.bias, stride=2, groups=groups)
    torch.testing.assert_close(conv(x), expected)


def test_a_separable_convolution_at_some_pixels_is_that_of_the_map() -> None:
    torch.manual_seed(0)
    conv = SeparableConv(5, 7)
    x, pixels = torch.randn(2, 5, 6, 9), torch.tensor([[[0, 0], [8, 5]], [[3, 2], [8, 0]]])
    whole, found = conv(x), conv.at(x, pixels)
    for image, own in enumerate(pixels):
        for index, (column, row) in enumerate(own.tolist()):
            torch.testing.assert_close(found[image, :, index], whole[image, :, row, column])


def test_the_file_becomes_the_network(movenet: tuple[Path, dict[str, Tensor]]) -> None:
    path, held = movenet
    config, found = read_movenet(path, ModelConfig(backbone=MobileNetConfig(channels=0)))
    assert isinstance(config.backbone, MobileNetConfig)
    assert (config.backbone.width, config.head.heatmaps, config.head.shared_offsets) == (1.0, "separable", 96)
    assert config.mean == config.std == pytest.approx((0.5,) * 3, abs=1e-4)
    assert set(found) == set(held)
    for name, value in held.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, msg=name)


def test_a_network_that_starts_from_movenet_answers_as_it_does(movenet: tuple[Path, dict[str, Tensor]]) -> None:
    """Its own path and its branches change nothing before they are trained."""
    alone, with_path = (
        read_initial(f"movenet-lightning={movenet[0]}", ModelConfig(backbone=backbone, head=HEAD), COCO_17)
        for backbone in (MobileNetConfig(channels=0), MobileNetConfig(channels=16))
    )
    maps = []
    for config, weights in (alone, with_path):
        model = DEKR(config).eval()
        model.load_state_dict(weights)
        with torch.inference_mode():
            maps.append(model(images()))
    for found, expected in zip(*maps, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert with_path[0].input_size == 256
    assert with_path[0].decode.match_heatmap == "weighted"


def test_other_keypoints_keep_movenets_where_names_agree(movenet: tuple[Path, dict[str, Tensor]]) -> None:
    source = f"movenet-lightning={movenet[0].parent}"  # a folder with one file
    outputs = []
    for skeleton in (COCO_17, FIVE):
        config, weights = read_initial(source, ModelConfig(head=HEAD), skeleton)
        model = DEKR(config).eval()
        model.load_state_dict(weights)
        with torch.inference_mode():
            outputs.append(model(images()))
    (heat, offsets), (new_heat, new_offsets) = outputs
    for position, name in enumerate(FIVE.keypoints):
        if name in COCO_17.keypoints:
            source_position = COCO_17.keypoints.index(name)
            torch.testing.assert_close(new_heat[:, position], heat[:, source_position], rtol=1e-4, atol=1e-5)
            own, theirs = (slice(2 * at, 2 * at + 2) for at in (position, source_position))
            torch.testing.assert_close(new_offsets[:, own], offsets[:, theirs], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(new_heat[:, -1], heat[:, -1], rtol=1e-4, atol=1e-5)


def changed(movenet: Path, folder: Path, change: str) -> Path:
    content = json.loads(movenet.read_text())
    weights = content["weightsManifest"][0]["weights"]
    data = movenet.with_suffix(".bin").read_bytes()
    if change == "cut off":
        data = data[:-1]
    elif change == "a missing tensor":
        weights[:] = [entry for entry in weights if "block_9_expand" not in entry["name"]]
    elif change == "8-bit weights":
        weights[3]["quantization"] = {"dtype": "uint8", "scale": 1.0, "min": 0.0}
    elif change == "no manifest":
        content = {"format": "graph-model"}
    elif change == "another folder":
        content["weightsManifest"][0]["paths"] = ["../../secret.bin"]
    (folder / "movenet-lightning.bin").write_bytes(data)
    (folder / "movenet-lightning.json").write_text(json.dumps(content))
    return folder / "movenet-lightning.json"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("cut off", "the weights end within"),
        ("a missing tensor", "no MoveNet"),
        ("8-bit weights", "stored as uint8"),
        ("no manifest", "no MoveNet as published"),
        ("another folder", "secret.bin"),
    ],
)
def test_broken_files_are_refused(
    movenet: tuple[Path, dict[str, Tensor]], tmp_path: Path, change: str, message: str
) -> None:
    path = changed(movenet[0], tmp_path, change)
    with pytest.raises(CheckpointError, match=message):
        read_initial(f"movenet-lightning={path}", ModelConfig(head=HEAD), COCO_17)


def test_a_missing_file_and_a_crowded_folder_are_named(movenet: tuple[Path, dict[str, Tensor]], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        read_movenet(tmp_path / "none.json", ModelConfig())
    for name in ("movenet-a.json", "movenet-b.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(CheckpointError, match=r"holds 2 files movenet-\*\.json"):
        read_movenet(tmp_path, ModelConfig())


def test_a_movenet_under_anothers_name_is_told(movenet: tuple[Path, dict[str, Tensor]]) -> None:
    with pytest.raises(CheckpointError, match=r"is movenet-lightning, not movenet-multipose; give movenet-lightning="):
        read_initial(f"movenet-multipose={movenet[0]}", ModelConfig(head=HEAD), COCO_17)


def test_the_licence_and_data_of_movenet_go_along(movenet: tuple[Path, dict[str, Tensor]]) -> None:
    config, _ = read_initial(f"movenet-lightning={movenet[0]}", ModelConfig(head=HEAD), COCO_17)
    assert config.license.startswith("Apache-2.0")
    assert "COCO" in config.training_data


def test_models_that_started_from_movenet_are_known(tmp_path: Path) -> None:
    other, own = (write_small_model(tmp_path / f"{name}.safetensors", config) for name, config in
                  (("small", SMALL), ("own", OWN)))  # fmt: skip
    sources = {"movenet-thunder=anywhere": True, str(own): True, str(other): False, "tiny": True}
    for source, is_movenet in sources.items():
        assert isinstance(brought(source, SMALL).backbone, MobileNetConfig) == is_movenet


def test_the_input_is_normalised_as_the_configuration_says(tmp_path: Path) -> None:
    path = write_small_model(tmp_path / "own.safetensors", replace(OWN, mean=(0.5,) * 3, std=(0.25,) * 3))
    estimator = PoseEstimator.from_pretrained(path)
    seen: list[Tensor] = []
    estimator.model.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    estimator.estimate(np.full((64, 64, 3), 255, np.uint8))
    torch.testing.assert_close(seen[0], torch.full((1, 3, 64, 64), 2.0))


@pytest.mark.parametrize(("backbone", "shape"), [(OWN.backbone, (224, 320)), (SMALL.backbone, (256, 384))])
def test_a_backbone_has_its_own_size_multiple(tmp_path: Path, backbone: Any, shape: tuple[int, int]) -> None:
    head = HEAD if isinstance(backbone, MobileNetConfig) else SMALL.head
    path = write_small_model(tmp_path / "own.safetensors", replace(OWN, backbone=backbone, head=head))
    estimator = PoseEstimator.from_pretrained(path)
    seen: list[tuple[int, ...]] = []
    estimator.model.register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape[2:])))
    estimator.estimate(np.zeros((210, 290, 3), np.uint8), input_size=200)
    assert seen == [shape]


def test_the_pyramid_alone_has_24_channels_that_are_never_negative() -> None:
    torch.manual_seed(0)
    network = MobileNet(MobileNetConfig(width=0.25, channels=0)).eval()
    network.reset_parameters()
    with torch.inference_mode():
        (found,) = network(images())
    assert found.shape == (1, 24, 16, 24)
    assert float(found.min()) >= 0
    assert 1e-3 < float(found.max()) < 1e3  # nothing fades away or explodes on the way
