"""The naive formulation is the same network: only slower."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from dekrpose.architectures.dekr.network import DEKR
from dekrpose.benchmark import made_up
from dekrpose.benchmark.naive import LoopOverBranches, NaiveDEKR
from dekrpose.benchmark.settings import Setting, load
from dekrpose.config import Branches
from tests.small_model import SMALL, write_small_model


def trained(branches: Branches, adaptive: bool = True) -> DEKR:
    """A network whose every weight and statistic matters."""
    torch.manual_seed(0)
    head = replace(SMALL.head, branches=branches, shared_channels=8, adaptive=adaptive)
    model = DEKR(replace(SMALL, head=head)).eval()
    for parameter in model.offset_head.parameters():
        nn.init.normal_(parameter, std=0.2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model


@pytest.mark.parametrize("branches", get_args(Branches))
@pytest.mark.parametrize("adaptive", [True, False])
def test_a_loop_over_branches_gives_the_same_offsets(branches: Branches, adaptive: bool) -> None:
    model = trained(branches, adaptive)
    loop = LoopOverBranches(model.offset_head).eval()
    features = torch.randn(2, model.backbone.out_channels, 16, 24)
    with torch.inference_mode():
        expected = model.offset_head(features)
        torch.testing.assert_close(loop(features), expected, atol=1e-4, rtol=1e-4)
    assert expected.abs().max() > 0.1


def test_one_sampling_for_each_branch_and_block(monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained("per_keypoint")
    calls: list[int] = []
    original = torch.nn.functional.grid_sample
    monkeypatch.setattr(
        "torch.nn.functional.grid_sample", lambda *args, **options: calls.append(1) or original(*args, **options)
    )
    with torch.inference_mode():
        NaiveDEKR(model).eval()(torch.randn(1, 3, 64, 64))
    assert len(calls) == 17 * SMALL.head.blocks


def test_both_find_the_same_people(tmp_path: Path) -> None:
    path = str(write_small_model(tmp_path / "small.safetensors"))
    data = made_up.photo_file("160x120")
    ours, naive = (load(Setting(path, device="cpu", backend=backend)) for backend in ("torch", "loop"))
    assert isinstance(naive.model, NaiveDEKR)
    assert any(isinstance(module, nn.BatchNorm2d) for module in naive.model.backbone.modules())
    expected, found = ours.estimate(data, score_threshold=0), naive.estimate(data, score_threshold=0)
    assert len(expected) > 0
    np.testing.assert_allclose(found.keypoints, expected.keypoints, atol=0.01)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
