"""What a CUDA device does between photo and poses is what the CPU does: the same code, run here on the CPU."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dekrpose import PoseEstimator, images
from dekrpose.architectures.contract import Found
from dekrpose.config import IMAGE_MEAN, IMAGE_STD
from dekrpose.engines import VARIABLE, choose_engine
from dekrpose.engines.cuda import CUDAEngine
from dekrpose.engines.torch import TorchEngine, single_precision
from dekrpose.images import Geometry, Pixels
from dekrpose.images.on_device import network_input_on, normalise
from tests.nothing_waits import NothingWaits
from tests.small_model import write_small_model

SIZES = [(97, 131), (131, 97), (64, 64), (300, 220)]


def photo(height: int, width: int) -> Pixels:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def estimator(tmp_path_factory: pytest.TempPathFactory) -> PoseEstimator:
    return PoseEstimator.from_pretrained(
        write_small_model(tmp_path_factory.mktemp("small") / "small.safetensors"), device="cpu"
    )


@pytest.mark.parametrize("sizes", [*([size] for size in SIZES), [(100, 100), (64, 64), (333, 333)]])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_a_device_makes_the_same_input(sizes: list[tuple[int, int]], scale: float) -> None:
    photos = [photo(*size) for size in sizes]
    geometries = [Geometry.fit(*size, 192, scale) for size in sizes]
    ours = network_input_on(torch.device("cpu"), photos, geometries, IMAGE_MEAN, IMAGE_STD)
    expected = images.network_input(photos, geometries, IMAGE_MEAN, IMAGE_STD)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ours, expected, rtol=0, atol=0)


def test_a_device_normalises_to_the_same_numbers() -> None:
    resized = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    ours = normalise(torch.from_numpy(resized))
    torch.testing.assert_close(ours, images.to_tensor(list(resized)), rtol=0, atol=0)


def test_nothing_waits_while_inputs_are_made() -> None:
    photos = [photo(100, 100), photo(64, 64)]
    geometries = [Geometry.fit(*own.shape[:2], 64) for own in photos]
    arguments = torch.device("cpu"), photos, geometries, IMAGE_MEAN, IMAGE_STD
    network_input_on(*arguments)  # what is kept for later calls may wait once
    with NothingWaits():
        network_input_on(*arguments)


def engine(estimator: PoseEstimator) -> CUDAEngine:
    """Without what hastens networks on CPUs."""
    model = copy.deepcopy(estimator.model)
    model.fast_path = None  # type: ignore[assignment]
    return CUDAEngine(model, torch.device("cpu"), torch.float32)


def run(path: CUDAEngine, estimator: PoseEstimator, photos: Sequence[Pixels], **options: object) -> list[Tensor]:
    checked = estimator._options(**options)
    geometries = [[Geometry.fit(*own.shape[:2], checked.input_size, s) for s in checked.scales] for own in photos]
    found, timing = path.find_on_device(photos, geometries, checked)
    assert set(timing) == {"resize", "network", "decode"}
    return [part for own in found for part in (own.keypoints, own.keypoint_scores, own.scores)]


def expected(estimator: PoseEstimator, photos: Sequence[Pixels], **options: object) -> list[Tensor]:
    parts: list[Tensor] = []
    for own in photos:
        checked = estimator._options(**options)
        geometry = Geometry.fit(*own.shape[:2], checked.input_size)
        keypoints, keypoint_scores, scores = estimator.estimate_raw(own, rescore=False, **options)
        parts += [torch.from_numpy(part) for part in (geometry.to_input(keypoints), keypoint_scores, scores)]
    return parts


@pytest.mark.parametrize(
    "options",
    [{}, {"flip_test": True}, {"scales": (1.0, 2.0)}, {"match_heatmap": "paper"}, {"max_people": 40}],
    ids=str,
)
def test_a_device_finds_the_same_people(estimator: PoseEstimator, options: dict[str, object]) -> None:
    photos = [photo(97, 97), photo(64, 64)]
    ours = run(engine(estimator), estimator, photos, **options)
    others = expected(estimator, photos, **options)
    assert len(others[0])
    for own, other in zip(ours, others, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-2)  # input pixels, there and back


def test_convolutions_are_not_rounded_to_tf32_meanwhile() -> None:
    switches = torch.backends.cudnn
    before = switches.allow_tf32
    with single_precision(torch.device("cuda")):
        assert not switches.allow_tf32
    assert switches.allow_tf32 == before
    with single_precision(torch.device("cpu")):
        assert switches.allow_tf32 == before


def test_candidates_are_found_in_single_precision(estimator: PoseEstimator, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []

    @contextmanager
    def watched(device: torch.device) -> Iterator[None]:
        asked.append(device)
        yield

    for module in ("cuda", "torch"):
        monkeypatch.setattr(f"dekrpose.engines.{module}.single_precision", watched)
    for options in ({}, {"flip_test": True}):
        asked.clear()
        run(engine(estimator), estimator, [photo(64, 64)], **options)
        assert len(asked) == 1


def test_an_estimator_on_a_device_gives_the_same_poses(
    estimator: PoseEstimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = photo(97, 131)
    plain, fewer = estimator.estimate(own), estimator.estimate(own, max_people=3)
    monkeypatch.setattr(estimator, "engine", engine(estimator))
    estimator.estimate(own)  # the first answer is the plain engine's, and the other is compared with it
    ours = estimator.estimate(own)
    assert estimator.engine.difference == ""  # type: ignore[attr-defined]
    np.testing.assert_allclose(ours.keypoints, plain.keypoints, rtol=0, atol=1e-2)
    np.testing.assert_allclose(ours.scores, plain.scores, rtol=0, atol=1e-5)
    np.testing.assert_allclose(estimator.estimate(own, max_people=3).keypoints, fewer.keypoints, rtol=0, atol=1e-2)
    assert set(ours.timing or {}) == set(plain.timing or {})
    many = list(estimator.estimate_many([own, photo(64, 64), own]))
    np.testing.assert_allclose(many[2].keypoints, plain.keypoints, rtol=0, atol=1e-2)


@pytest.mark.parametrize(
    ("fault", "words"), [("shift", "pixels away"), ("lose", "0 people"), ("raise", "failed: Runt")]
)
def test_an_engine_that_answers_otherwise_steps_back_with_one_warning(
    estimator: PoseEstimator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: str, words: str
) -> None:
    own, wrong = photo(97, 131), engine(estimator)
    right = wrong.find_on_device

    def find(*arguments: Any) -> Any:
        if fault == "raise":
            raise RuntimeError("no kernel image is available")
        found, timing = right(*arguments)
        kept = found if fault == "shift" else [Found(*(part[:0] for part in vars(one).values())) for one in found]
        return [replace(one, keypoints=one.keypoints + 5) for one in kept], timing

    monkeypatch.setattr(wrong, "find_on_device", find)
    plain = estimator.estimate(own)
    monkeypatch.setattr(estimator, "engine", wrong)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            np.testing.assert_allclose(estimator.estimate(own).keypoints, plain.keypoints, rtol=0, atol=1e-2)
    assert [words in record.getMessage() for record in caplog.records] == [True]


def test_another_network_answers_from_then_on(estimator: PoseEstimator) -> None:
    changed = PoseEstimator(copy.deepcopy(estimator.model), device="cpu")
    changed.engine = engine(estimator)
    nobody = copy.deepcopy(estimator.model)
    nobody.heatmap_head.final.bias.data.fill_(-5)  # type: ignore[union-attr]
    assert len(changed.estimate(photo(97, 131), score_threshold=0))
    changed.model = nobody
    for _ in range(2):
        assert len(changed.estimate(photo(97, 131), score_threshold=0)) == 0


def test_nobody_in_the_first_photo_settles_nothing(monkeypatch: pytest.MonkeyPatch, estimator: PoseEstimator) -> None:
    wrong, own = engine(estimator), photo(97, 131)
    count = len(estimator.config.skeleton)
    nobody = Found(torch.zeros(0, count, 2), torch.zeros(0, count), torch.zeros(0))
    with monkeypatch.context() as patched:
        patched.setattr(TorchEngine, "find", lambda *_: ([nobody], {"decode": 0.0}))
        patched.setattr(wrong, "find_on_device", lambda *_: ([nobody], {"decode": 0.0}))
        patched.setattr(estimator, "engine", wrong)
        assert len(estimator.estimate(own)) == 0
    assert wrong.difference is None


def test_which_engine_runs_where(estimator: PoseEstimator, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, model = torch.device("cpu"), estimator.model
    assert choose_engine(model, cpu, torch.float32).name == "cpu"
    assert choose_engine(model, cpu, torch.float32, "torch").name == "torch"
    with pytest.raises(ValueError, match="runs on device 'cuda', got 'cpu'"):
        choose_engine(model, cpu, torch.float32, "cuda")
    with pytest.raises(ValueError, match="engine must be one of"):
        choose_engine(model, cpu, torch.float32, "tensorrt")
    monkeypatch.setenv(VARIABLE, "torch")
    assert choose_engine(model, cpu, torch.float32).name == "torch"
    monkeypatch.setenv(VARIABLE, "cuda")
    assert choose_engine(model, cpu, torch.float32).name == "cpu"
