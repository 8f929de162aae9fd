"""The networks are as large as the paper's: exact parameters, multiply-accumulates to two decimals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from dekrpose.architectures.complexity import complexity, variants
from dekrpose.architectures.dekr.adaptive_conv import AdaptiveConv
from dekrpose.architectures.dekr.complexity import MEMORY, gmacs_by_part
from dekrpose.architectures.dekr.network import DEKR
from dekrpose.config import ARCHITECTURES, TemporalConfig

PUBLISHED = {
    "dekr-w32-coco-baseline": (30_652_916, 63.28),
    "dekr-w32-coco-adaptive": (30_680_576, 63.73),
    "dekr-w32-coco-separate": (29_533_438, 44.93),
    "dekr-w32-coco": (29_561_182, 45.39),
    "dekr-w32-coco-grouped-13": (29_642_734, 46.72),
    "dekr-w32-coco-grouped-5": (29_740_558, 48.33),
    "dekr-w48-coco": (65_684_590, 141.53),
    "dekr-w32-crowdpose": (29_522_071, 44.75),
}
MEMORIES = {"dekr-w32-coco": (267_556, 4.37), "tiny-lite": (296_592, 0.68)}
OFFSET_HEADS = {
    "dekr-w32-coco-baseline": (1.31, 21.48),
    "dekr-w32-coco-adaptive": (1.34, 21.94),
    "dekr-w32-coco-separate": (0.19, 3.14),
    "dekr-w32-coco": (0.22, 3.59),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_cost_of_every_published_variant(name: str) -> None:
    measured = complexity(variants()[name])
    parameters, gmacs = PUBLISHED[name]
    assert measured.parameters == parameters
    assert measured.gmacs == pytest.approx(gmacs, abs=0.006)


@pytest.mark.parametrize("name", OFFSET_HEADS)
def test_offset_heads_are_as_large_as_in_the_ablation_table(name: str) -> None:
    with torch.device("meta"):
        head = DEKR(variants()[name]).offset_head
    weights = sum(module.weight.numel() for module in head.modules() if isinstance(module, (nn.Conv2d, AdaptiveConv)))
    parameters, gmacs = OFFSET_HEADS[name]
    assert sum(value.numel() for value in head.parameters()) / 1e6 == pytest.approx(parameters, abs=0.006)
    assert weights * 128 * 128 / 1e9 == pytest.approx(gmacs, abs=0.006)  # every layer runs on the 128 x 128 map


@pytest.mark.parametrize("name", MEMORIES)
def test_a_memory_is_counted_for_a_frame_that_has_one_before_it(name: str) -> None:
    parameters, gmacs = MEMORIES[name]
    config = ARCHITECTURES[name]
    with_memory = replace(config, temporal=TemporalConfig())
    alone, video = complexity(config), complexity(with_memory)
    assert video.parameters - alone.parameters == parameters
    assert video.gmacs - alone.gmacs == pytest.approx(gmacs, abs=0.006)
    assert gmacs_by_part(with_memory)[MEMORY] == pytest.approx(gmacs, abs=0.006)
    flat = replace(config, temporal=TemporalConfig(kind="gru_offset_flat"))
    with pytest.raises(ValueError, match="only convolutional GRUs"):
        gmacs_by_part(flat)


def test_every_architecture_is_counted_at_its_own_input_size() -> None:
    assert set(ARCHITECTURES) <= set(variants())
    assert complexity(ARCHITECTURES["tiny"]).input_size == ARCHITECTURES["tiny"].input_size
    assert complexity(ARCHITECTURES["tiny"]).parameters < 5_000_000
