"""Offsets computed at centers alone give the poses that whole offset maps give, and whoever wants the maps has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dekrpose import PoseEstimator, Poses
from dekrpose.architectures import dekr
from dekrpose.architectures.dekr.fast import FastPath
from dekrpose.architectures.dekr.network import DEKR, takes_pick
from dekrpose.architectures.parts.blocks import gather_pixels
from dekrpose.architectures.parts.poses import OKSScoreNet
from dekrpose.config import DecodeConfig, EfficientNetLiteConfig, HeadConfig, ModelConfig
from dekrpose.engines.base import Stages
from dekrpose.images import Geometry
from dekrpose.options import resolve_options
from tests.small_model import SMALL

ROOT = Path(__file__).parents[3]
HEADS = {
    "as tiny": HeadConfig(heatmap_channels=8, keypoint_channels=4, blocks=1),
    "2 blocks": HeadConfig(heatmap_channels=8, keypoint_channels=4, blocks=2),
    "13 branches": HeadConfig(heatmap_channels=8, keypoint_channels=4, blocks=1, branches="grouped_13"),
    "5 branches": HeadConfig(heatmap_channels=8, keypoint_channels=3, blocks=2, branches="grouped_5"),
    "shared": HeadConfig(heatmap_channels=8, shared_channels=12, blocks=1, branches="shared"),
    "not adaptive": HeadConfig(heatmap_channels=8, keypoint_channels=4, blocks=2, adaptive=False),
}
Image = NDArray[np.uint8]


def network(config: ModelConfig, *, heat: float = 0.5, seed: int = 0) -> DEKR:
    """Random weights whose taps lie apart and whose heatmaps are about ``heat``, which is people everywhere."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DEKR(config).eval().requires_grad_(False)
        for name, module in model.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                nn.init.normal_(module.running_mean, std=0.1)
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.normal_(module.bias, std=3.0 if name.startswith("offset_head") else 0.1)
        final = model.heatmap_head.final
        final.weight *= 0.1
        assert final.bias is not None
        final.bias.fill_(heat)
    return model


def estimator(
    head: str = "as tiny", *, backbone: Any = SMALL.backbone, heat: float = 0.5, **options: Any
) -> PoseEstimator:
    return PoseEstimator(network(replace(SMALL, head=HEADS[head], backbone=backbone), heat=heat), **options)


def photo(height: int = 96, width: int = 128, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@contextmanager
def whole_maps(one: PoseEstimator) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Within this block somebody looks at the network's answers."""
    seen: list[tuple[Tensor, Tensor]] = []
    handle = one.model.register_forward_hook(lambda _, __, maps: seen.append(maps))
    try:
        yield seen
    finally:
        handle.remove()


def assert_same_people(found: Poses, expected: Poses, tolerance: float = 1e-3) -> None:
    assert len(found) == len(expected)
    np.testing.assert_allclose(found.keypoints, expected.keypoints, rtol=1e-5, atol=tolerance)
    np.testing.assert_allclose(found.keypoint_scores, expected.keypoint_scores, atol=1e-5)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)


@pytest.mark.parametrize("head", list(HEADS))
@pytest.mark.parametrize("match", [False, "paper", "weighted"])
@pytest.mark.parametrize("scales", [(1.0,), (1.0, 0.5), (0.3, 1.4, 1.0)])
def test_the_people_of_the_whole_maps(head: str, match: Any, scales: tuple[float, ...]) -> None:
    one = estimator(head)
    options: dict[str, Any] = {"score_threshold": 0, "match_heatmap": match, "scales": scales}
    found = one.estimate(photo(), **options)
    with whole_maps(one) as seen:
        expected = one.estimate(photo(), **options)
    assert len(seen) == len(scales)
    # by weight and at several scales, noise is soon one person
    assert len(found) > (3 if match != "weighted" and len(scales) == 1 else 0)
    assert_same_people(found, expected)


@pytest.mark.parametrize("max_people", [1, 30, 100])
def test_as_many_centers_as_are_asked_for(max_people: int) -> None:
    one = estimator(backbone=EfficientNetLiteConfig(channels=16, expansion=1))
    options: dict[str, Any] = {"score_threshold": 0, "max_people": max_people, "input_size": 192}
    found = one.estimate(photo(), **options)
    with whole_maps(one):
        expected = one.estimate(photo(), **options)
    assert len(found) == max_people or max_people == 100
    assert_same_people(found, expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_photos_of_a_batch_have_their_own_centers(dtype: str) -> None:
    one = estimator("2 blocks", heat=0.0, dtype=dtype)
    photos = [photo(seed=seed) for seed in range(4)]
    found = list(one.estimate_many(photos, batch_size=4, score_threshold=0))
    with whole_maps(one) as seen:
        expected = list(one.estimate_many(photos, batch_size=4, score_threshold=0))
    assert len(seen) == 1
    assert sum(map(len, found)) > 3
    for own, other in zip(found, expected, strict=True):
        assert_same_people(own, other, 1e-2)


def test_nobody_there() -> None:
    one = estimator(heat=-5.0)
    assert len(one.estimate(photo(), score_threshold=0)) == 0
    assert [len(poses) for poses in one.estimate_many([photo(), photo(seed=1)], score_threshold=0)] == [0, 0]


def test_somebody_beside_nobody_in_a_batch() -> None:
    heatmaps = torch.zeros(2, 3, 8, 8)
    heatmaps[1, -1, 2, 5] = 0.7
    picked: list[Tensor] = []

    def network(_: Tensor, *, pick: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        picked.append(pick(heatmaps))
        return heatmaps, torch.ones(2, 4, 1)

    geometry, options = Geometry.fit(32, 32, 32), resolve_options(DecodeConfig(), 32, False)
    _, candidates = dekr.candidates(network, torch.zeros(2, 3, 32, 32), geometry, options, Stages())
    assert picked[0].shape == (2, 1, 2)
    assert picked[0][1, 0].tolist() == [5, 2]
    nobody, somebody = candidates.of(0), candidates.of(1)
    assert nobody.shape == (0, 2, 3)
    np.testing.assert_allclose(somebody[0], [[16, 4, 0.7]] * 2)


@pytest.mark.parametrize("head", list(HEADS))
@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("maps", ["four", "one"])
@pytest.mark.parametrize("size", [(160, 128), (32, 32)])  # few pixels of many, and many of few
def test_offsets_at_pixels_are_the_maps(head: str, fast: bool, maps: str, size: tuple[int, int]) -> None:
    backbone = SMALL.backbone if maps == "four" else EfficientNetLiteConfig(channels=16, expansion=1)
    model = network(replace(SMALL, head=HEADS[head], backbone=backbone))
    model.fast_path = FastPath() if fast else None
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, 3, *size, generator=generator)
    height, width = size[0] // 4, size[1] // 4
    corners = torch.tensor([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]])
    others = torch.stack([torch.randint(side, (2, 7), generator=generator) for side in (width, height)], dim=2)
    pixels = torch.cat([corners.expand(2, -1, -1), others], dim=1)
    with torch.inference_mode():
        heatmaps, offsets = model(images)
        own_heatmaps, own_offsets = model(images, pick=lambda _: pixels)
    torch.testing.assert_close(own_heatmaps, heatmaps)
    expected = gather_pixels(offsets, pixels)
    assert expected.std() > 1
    torch.testing.assert_close(own_offsets, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_hooks_inside_the_network_see_everything() -> None:
    one = estimator()
    expected = one.estimate(photo(), score_threshold=0)
    sizes: list[torch.Size] = []
    block = one.model.offset_head.groups[0].blocks[0]  # type: ignore[union-attr,index]
    handle = block.register_forward_hook(lambda _, __, out: sizes.append(out.shape))
    found = one.estimate(photo(), score_threshold=0)
    handle.remove()
    assert [size[2:] for size in sizes] == [(16, 32)]
    assert_same_people(found, expected, 1e-2)


def test_a_flip_test_needs_whole_maps() -> None:
    one, calls = estimator(), []
    one.model.register_forward_pre_hook(
        lambda _, __, options: calls.append(bool(options)),
        with_kwargs=True,  # type: ignore[func-returns-value]
    )
    for options in ({}, {"flip_test": True}, {"scales": (0.5, 1)}):
        one.estimate(photo(), **options)
    assert calls == [True, False, True, True]


def test_who_takes_picked_pixels() -> None:
    model = network(SMALL)
    assert takes_pick(model)
    assert not takes_pick(torch.compile(model))
    assert not takes_pick(nn.Identity())
    assert not takes_pick(lambda images: images)
    model.compile()
    assert not takes_pick(model)


@pytest.mark.parametrize("name", ["astronaut.jpg", "photographer.jpg"])
def test_tiny_finds_the_same_people_in_photos(name: str) -> None:
    one = PoseEstimator.from_pretrained("tiny", device="cpu")
    for options in ({}, {"score_threshold": 0}, {"input_size": 320, "score_threshold": 0}, {"match_heatmap": False}):
        found = one.estimate(ROOT / "examples" / name, **options)
        with whole_maps(one):
            expected = one.estimate(ROOT / "examples" / name, **options)
        assert len(found)
        assert_same_people(found, expected, 5e-3)


def test_a_scoring_net_judges_them() -> None:
    net = OKSScoreNet(3 * len(SMALL.skeleton.edges) + len(SMALL.skeleton))
    one = estimator(rescoring_net=net)
    found = one.estimate(photo(), score_threshold=0)
    with whole_maps(one):
        assert_same_people(found, one.estimate(photo(), score_threshold=0))
