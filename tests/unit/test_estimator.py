"""PoseEstimator on a small network with seeded weights: every input, every option, one by one or in batches."""

from __future__ import annotations

import io
import os
import random
import re
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from dekrpose import CheckpointError, DekrPoseError, PoseEstimator, Poses
from dekrpose.architectures.dekr.foreign_names import official_to_ours
from dekrpose.checkpoints import read_checkpoint, write_checkpoint
from dekrpose.errors import ImageError
from dekrpose.evaluation.evaluate import own_threshold
from tests import checkpoint_fixtures as fixtures
from tests.golden.mmpose_names import official_to_mmpose
from tests.golden.seeded_weights import synthetic_image
from tests.small_model import write_small_model

Image = NDArray[np.uint8]


def lively() -> dict[str, Tensor]:
    """Official weights whose centers rise above the threshold, so that every photo has people."""
    weights = {name: tensor.clone() for name, tensor in fixtures.official(seed=1).items()}
    weights["head_heatmap.1.weight"] *= 8
    weights["head_heatmap.1.bias"] += 0.3
    return weights


def photo(height: int = 96, width: int = 128, seed: int = 0) -> Image:
    return np.asarray(synthetic_image(height, width, seed))  # type: ignore[no-untyped-call]


def model_file(folder: Path, weights: dict[str, Tensor], **parts: Any) -> Path:
    """Our format, for inputs whose short side has 64 pixels."""
    config = read_checkpoint(fixtures.save_official(folder / "official.pth", weights)).config
    path = folder / "model.safetensors"
    write_checkpoint(path, replace(config, input_size=64), official_to_ours(weights), **parts)
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_file(tmp_path_factory.mktemp("model"), lively())


@pytest.fixture(scope="module")
def net_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("net") / "final_rescore_coco_kpt.pth"
    torch.save(fixtures.scoring_net(), file)
    return file


@pytest.fixture(scope="module")
def estimator(path: Path) -> PoseEstimator:
    return PoseEstimator.from_pretrained(path, device="cpu")


@pytest.fixture(scope="module")
def nobody(tmp_path_factory: pytest.TempPathFactory, net_path: Path) -> PoseEstimator:
    """Its centers never rise above the threshold."""
    folder = tmp_path_factory.mktemp("nobody")
    return PoseEstimator.from_pretrained(model_file(folder, fixtures.official()), rescoring_net=net_path, device="cpu")


def assert_same(actual: Poses, expected: Poses, tolerance: float = 0.0) -> None:
    assert len(actual) == len(expected)
    np.testing.assert_allclose(actual.keypoints, expected.keypoints, rtol=0, atol=tolerance)
    np.testing.assert_allclose(actual.keypoint_scores, expected.keypoint_scores, rtol=0, atol=tolerance)
    np.testing.assert_allclose(actual.scores, expected.scores, rtol=0, atol=tolerance)
    assert actual.image_size == expected.image_size
    assert actual.skeleton == expected.skeleton


# Inputs


def png(image: Image) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def kinds(image: Image, file: Path) -> dict[str, tuple[Any, dict[str, Any]]]:
    file.write_bytes(png(image))
    alpha = np.full((*image.shape[:2], 1), 7, np.uint8)
    return {
        "path": (file, {}),
        "path as text": (str(file), {}),
        "bytes": (png(image), {}),
        "Pillow": (PIL.Image.fromarray(image), {}),
        "array": (image, {}),
        "array with alpha": (np.concatenate([image, alpha], axis=2), {}),
        "view": (np.repeat(image, 2, axis=1)[:, ::2], {}),
        "tensor": (torch.from_numpy(image).permute(2, 0, 1), {}),
        "BGR array": (image[..., ::-1], {"color": "bgr"}),
        "OpenCV": (cv2.cvtColor(image, cv2.COLOR_RGB2BGR), {"color": "bgr"}),
        "BGR tensor": (torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1), {"color": "bgr"}),
    }


def test_every_kind_of_input_gives_the_same_poses(estimator: PoseEstimator, tmp_path: Path) -> None:
    expected = estimator.estimate(photo())
    assert len(expected) >= 3
    for name, (image, options) in kinds(photo(), tmp_path / "photo.png").items():
        poses = estimator.estimate(image, **options)
        assert_same(poses, expected)
        assert poses.source == (str(tmp_path / "photo.png") if "path" in name else None), name


def test_grey_images_are_their_three_equal_channels(estimator: PoseEstimator) -> None:
    grey = photo()[..., 1]
    assert_same(estimator.estimate(grey), estimator.estimate(np.stack([grey] * 3, axis=2)))


def test_colors_matter(estimator: PoseEstimator) -> None:
    """Were red and blue mixed up somewhere, RGB and BGR would agree."""
    right, wrong = (estimator.estimate(photo(), color=color, score_threshold=0) for color in ("rgb", "bgr"))
    assert len(right) != len(wrong) or np.abs(right.keypoints - wrong.keypoints).max() > 0.01


def test_the_image_is_kept_and_the_callers_array_left_alone(estimator: PoseEstimator) -> None:
    image = photo()
    poses = estimator.estimate(image)
    assert np.array_equal(image, photo())
    assert image.flags.writeable
    assert poses.image is not None
    assert not np.shares_memory(poses.image, image)
    assert np.array_equal(poses.image, image)


def test_poses_are_in_image_pixels(estimator: PoseEstimator) -> None:
    """Of a photo with every pixel doubled the resize takes each one once: the same input, poses twice as far."""
    small = estimator.estimate(photo(64, 64))
    large = estimator.estimate(photo(64, 64).repeat(2, axis=0).repeat(2, axis=1))
    assert len(small) > 0
    assert large.image_size == (128, 128)
    np.testing.assert_allclose(large.keypoints, 2 * small.keypoints, atol=1e-3)
    np.testing.assert_array_equal(large.scores, small.scores)


@pytest.mark.parametrize("size", [(1, 1), (1, 32), (7, 5), (63, 65)])
def test_small_and_odd_photos_are_read(estimator: PoseEstimator, size: tuple[int, int]) -> None:
    poses = estimator.estimate(np.full((*size, 3), 90, np.uint8))
    assert poses.image_size == size
    assert np.isfinite(poses.keypoints).all()


def test_strips_that_would_need_a_huge_input_are_refused(estimator: PoseEstimator) -> None:
    with pytest.raises(ImageError, match="cut it up"):
        estimator.estimate(np.zeros((1, 40_000, 3), np.uint8))


@pytest.mark.parametrize(
    ("shape", "inputs"), [((20, 120), [(384, 2304), (192, 1152)]), ((240, 20), [(3072, 256), (1536, 128)])]
)
def test_the_bundled_model_sees_very_long_photos_at_a_smaller_size(
    shape: tuple[int, int], inputs: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled, seen = PoseEstimator.from_pretrained(device="cpu"), []
    find = bundled.engine.find

    def watched(photos: Any, looks: Any, *others: Any) -> Any:
        seen.extend(geometry.input_size for geometry in looks[0])
        return find(photos, looks, *others)

    monkeypatch.setattr(bundled.engine, "find", watched)
    bundled.estimate(np.zeros((*shape, 3), np.uint8))
    assert seen == inputs


# Many images


def album() -> list[Image]:
    sizes = [(96, 128), (128, 80), (96, 128), (64, 64), (128, 80), (100, 130), (50, 200)]
    return [photo(*size, seed) for seed, size in enumerate(sizes)]


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_batches_equal_single_images_in_their_order(estimator: PoseEstimator, batch_size: int) -> None:
    found = list(estimator.estimate_many(album(), batch_size=batch_size, score_threshold=0))
    assert [poses.index for poses in found] == list(range(len(album())))
    for poses, image in zip(found, album(), strict=True):
        assert_same(poses, estimator.estimate(image, score_threshold=0), tolerance=1e-3)


def test_batches_equal_single_images_with_flip_and_scales(estimator: PoseEstimator) -> None:
    options: dict[str, Any] = {"flip_test": True, "scales": (0.5, 1), "match_heatmap": True, "score_threshold": 0}
    for poses, image in zip(estimator.estimate_many(album()[:3], **options), album(), strict=False):
        assert_same(poses, estimator.estimate(image, **options), tolerance=0.05)


def test_a_stream_holds_one_batch_and_no_images(estimator: PoseEstimator) -> None:
    read = []

    def camera() -> Iterator[Image]:
        for index in range(100):
            read.append(index)
            yield photo(64, 64, index)

    first = next(iter(estimator.estimate_many(camera(), batch_size=3)))
    assert len(read) == 3
    assert first.image is None


def test_no_images_give_no_poses(estimator: PoseEstimator) -> None:
    assert list(estimator.estimate_many([])) == []


@pytest.mark.parametrize("match", [None, "official", "weighted"])
def test_what_a_program_tells_numpy_about_rounding_does_not_matter(estimator: PoseEstimator, match: Any) -> None:
    expected = estimator.estimate(photo(), match_heatmap=match, score_threshold=0)
    with np.errstate(all="raise"):
        found = estimator.estimate(photo(), match_heatmap=match, score_threshold=0)
    np.testing.assert_array_equal(found.keypoints, expected.keypoints)


@pytest.mark.parametrize(
    "bad", ["zero\0byte.jpg", Path("zero\0byte"), "http://[::1", "http://\udce9/", b"DDS |" + bytes(200)], ids=repr
)
def test_one_bad_input_leaves_the_others_alone(estimator: PoseEstimator, bad: Any) -> None:
    found = list(estimator.estimate_many([photo(), bad, photo()], on_error="skip", score_threshold=0))
    assert [poses.error is None for poses in found] == [True, False, True]
    assert len(found[0]) == len(found[2]) > 0


def test_unreadable_images_raise_or_are_skipped_with_their_reason(estimator: PoseEstimator, tmp_path: Path) -> None:
    broken = [tmp_path / "missing.png", b"no image", np.zeros((4, 4), np.float32), None]
    for item in broken:
        with pytest.raises((ImageError, FileNotFoundError)):
            list(estimator.estimate_many([item]))
    found = list(estimator.estimate_many([photo(), *broken, photo()], on_error="skip", batch_size=2))
    assert [poses.index for poses in found] == list(range(6))
    assert [poses.error is None for poses in found] == [True, False, False, False, False, True]
    assert "missing.png" in str(found[1].error)
    assert found[1].source == str(broken[0])
    assert all(len(poses) == 0 and poses.keypoints.shape == (0, 17, 2) for poses in found[1:5])
    assert_same(found[5], estimator.estimate(photo()), tolerance=1e-3)


def test_images_before_a_broken_one_are_not_lost(estimator: PoseEstimator) -> None:
    stream = estimator.estimate_many([photo(), b"broken", photo()], batch_size=8)
    assert next(stream).index == 0
    with pytest.raises(ImageError):
        next(stream)


def test_options_of_a_stream_are_checked_before_the_first_image(estimator: PoseEstimator) -> None:
    with pytest.raises(ValueError, match="scales"):
        estimator.estimate_many([], scales=(2,))
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1, got 0"):
        estimator.estimate_many([], batch_size=0)
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1, got '4'"):
        estimator.estimate_many([], batch_size="4")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='on_error must be "raise" or "skip", got \'ignore\''):
        estimator.estimate_many([], on_error="ignore")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="scale"):
        estimator.estimate_many([], scale=2)


def test_threads_may_share_an_estimator(estimator: PoseEstimator) -> None:
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda image: estimator.estimate(image, flip_test=True), album()[:4]))
    for poses, image in zip(found, album(), strict=False):
        assert_same(poses, estimator.estimate(image, flip_test=True), tolerance=1e-3)


# Options


def test_the_threshold_leaves_out_and_orders(estimator: PoseEstimator) -> None:
    everyone = estimator.estimate(photo(), score_threshold=0)
    limit = float(np.median(everyone.scores))
    some = estimator.estimate(photo(), score_threshold=limit)
    assert 0 < len(some) < len(everyone)
    assert some.scores.min() >= limit
    assert list(some.scores) == sorted(some.scores, reverse=True)
    assert_same(estimator.estimate(photo()), estimator.estimate(photo(), score_threshold=0.05))
    assert len(estimator.estimate(photo(), score_threshold=1)) == 0


def test_no_threshold_keeps_everyone_in_the_official_order(estimator: PoseEstimator) -> None:
    keypoints, _, scores = estimator.estimate_raw(photo(seed=2))
    for threshold in (0, -1.0):
        poses = estimator.estimate(photo(seed=2), score_threshold=threshold)
        assert np.array_equal(poses.keypoints, keypoints)
        assert np.array_equal(poses.scores, scores.clip(0, 1))
    assert list(scores) != sorted(scores, reverse=True)  # the official order is not the order of scores


@pytest.mark.parametrize("with_net", [False, True])
def test_fewer_people_are_the_best_of_all(path: Path, net_path: Path, with_net: bool) -> None:
    """As many as asked for, though several centers may belong to one person; the scoring net's scores count."""
    estimator = PoseEstimator.from_pretrained(path, rescoring_net=net_path if with_net else False, device="cpu")
    everyone = estimator.estimate(photo(), score_threshold=0)
    best = np.argsort(-everyone.scores, kind="stable")
    for count in range(1, len(everyone) + 1):
        poses = estimator.estimate(photo(), max_people=count, score_threshold=0)
        assert np.array_equal(poses.keypoints, everyone.keypoints[np.sort(best[:count])])


def test_thresholds_of_the_models_own(estimator: PoseEstimator) -> None:
    """0.05 at one scale and 0.15 at several."""
    for scales, own in (((1.0,), 0.05), ((0.5, 1.0, 2.0), 0.15)):
        options: dict[str, Any] = {"scales": scales, "score_threshold": 0}
        expected = estimator.estimate(photo(), nms_threshold=own, **options)
        assert_same(estimator.estimate(photo(), **options), expected)
        assert len(estimator.estimate(photo(), nms_threshold=1.0, **options)) < len(expected)


def test_the_order_of_scales_does_not_matter(estimator: PoseEstimator) -> None:
    poses, other = (estimator.estimate(photo(), scales=scales) for scales in ((0.5, 1, 2), (2, 0.5, 1)))
    assert len(poses) > 0
    assert_same(poses, other)


def test_scales_that_fit_no_grid_are_run(estimator: PoseEstimator) -> None:
    assert np.isfinite(estimator.estimate(photo(), scales=(1, 0.3, 1.37), flip_test=True).keypoints).all()


def test_matching_means_the_official_one(estimator: PoseEstimator) -> None:
    plain, matched, official, paper = (
        estimator.estimate(photo(), match_heatmap=match, score_threshold=0)
        for match in (False, True, "official", "paper")
    )
    assert_same(matched, official)
    assert len(paper) == len(plain)
    assert_same(estimator.estimate(photo(), score_threshold=0), plain)
    assert np.abs(matched.keypoints - plain.keypoints).max() > 0.5
    np.testing.assert_array_equal(matched.scores, plain.scores)  # scores are not looked up again


def test_a_model_that_asks_for_matching_gets_it(estimator: PoseEstimator, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, paper = (estimator.estimate(photo(), match_heatmap=match) for match in (False, "paper"))
    own = replace(estimator.config.decode, match_heatmap="paper")
    monkeypatch.setattr(estimator, "config", replace(estimator.config, decode=own))
    assert_same(estimator.estimate(photo()), paper)
    assert_same(estimator.estimate(photo(), match_heatmap=False), plain)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": (0.5, 2)}, "scales must be different positive numbers with 1 among them, got (0.5, 2.0)"),
        ({"scales": (1, 1)}, "scales must be different positive numbers"),
        ({"scales": (1, -1)}, "scales must be different positive numbers"),
        ({"scales": ()}, "scales must be different positive numbers"),
        ({"max_people": 0}, "max_people must be a whole number of at least 1, got 0"),
        ({"input_size": 0}, "input_size must be a whole number of at least 32 pixels, got 0"),
        ({"match_heatmap": "papre"}, "False, True or one of ('official', 'paper', 'weighted'), got 'papre'"),
        ({"rescore": True}, "rescore=True needs a rescoring net"),
        ({"color": "hsv"}, "color must be"),
    ],
)
def test_wrong_options_say_what_is_right(estimator: PoseEstimator, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        estimator.estimate(photo(), **options)


def test_unknown_options_raise(estimator: PoseEstimator) -> None:
    with pytest.raises(TypeError, match="treshold"):
        estimator.estimate(photo(), treshold=0.1)  # type: ignore[call-arg]


def test_nobody_is_a_normal_answer(nobody: PoseEstimator) -> None:
    for options in ({}, {"flip_test": True, "scales": (0.5, 1, 2), "match_heatmap": True, "rescore": True}):
        poses = nobody.estimate(photo(), score_threshold=0, **options)  # type: ignore[arg-type]
        assert len(poses) == 0
        assert poses.keypoints.shape == (0, 17, 2)
        assert poses.keypoint_scores.shape == (0, 17)
        assert poses.scores.shape == (0,)
        assert poses.to_coco(1) == []
        assert poses.error is None


# The rescoring net


def test_a_rescoring_net_multiplies_scores_and_moves_nothing(path: Path, net_path: Path, tmp_path: Path) -> None:
    rescored = PoseEstimator.from_pretrained(path, rescoring_net=net_path, device="cpu")
    plain = rescored.estimate(photo(), score_threshold=0, rescore=False)
    poses = rescored.estimate(photo(), score_threshold=0)
    assert_same(rescored.estimate(photo(), score_threshold=0, rescore=True), poses)
    assert np.array_equal(poses.keypoints, plain.keypoints)
    assert np.array_equal(poses.keypoint_scores, plain.keypoint_scores)
    assert np.abs(poses.scores - plain.scores).max() > 1e-3


def test_a_net_inside_the_file_is_used_unless_refused(path: Path, tmp_path: Path) -> None:
    both = model_file(tmp_path, lively(), rescoring=fixtures.scoring_net())
    nets = {choice: PoseEstimator.from_pretrained(both, rescoring_net=choice, device="cpu") for choice in (None, True)}
    assert all(estimator.rescoring_net is not None for estimator in nets.values())
    assert PoseEstimator.from_pretrained(both, rescoring_net=False, device="cpu").rescoring_net is None
    assert PoseEstimator.from_pretrained(path, device="cpu").rescoring_net is None
    with pytest.raises(CheckpointError, match="holds no rescoring net; pass rescoring_net=PATH"):
        PoseEstimator.from_pretrained(path, rescoring_net=True)


def test_scores_of_the_net_have_a_threshold_of_their_own(tmp_path: Path) -> None:
    both = model_file(tmp_path, lively(), rescoring=fixtures.scoring_net())
    checkpoint = read_checkpoint(both)
    nobody = replace(checkpoint.config.decode, score_threshold=1.1, rescored_threshold=0)
    write_checkpoint(both, replace(checkpoint.config, decode=nobody), checkpoint.state_dict, checkpoint.rescoring)
    rescored, plain = (PoseEstimator.from_pretrained(both, rescoring_net=net, device="cpu") for net in (None, False))
    assert len(rescored.estimate(photo())) > 0
    assert len(rescored.estimate(photo(), rescore=False)) == len(plain.estimate(photo())) == 0
    assert own_threshold(rescored) == 0
    assert own_threshold(plain) == 1.1


def test_a_net_for_another_skeleton_is_refused(path: Path, tmp_path: Path) -> None:
    torch.save(fixtures.scoring_net(59), tmp_path / "crowdpose.pth")
    with pytest.raises(CheckpointError, match="reads 59 features, but coco-17 gives 74"):
        PoseEstimator.from_pretrained(path, rescoring_net=tmp_path / "crowdpose.pth")


# Files


def test_a_saved_model_gives_the_same_poses_to_the_bit(path: Path, net_path: Path, tmp_path: Path) -> None:
    first = PoseEstimator.from_pretrained(path, rescoring_net=net_path, device="cpu")
    first.save_pretrained(tmp_path / "saved")
    second = PoseEstimator.from_pretrained(tmp_path / "saved", device="cpu")
    assert second.config == first.config
    assert second.rescoring_net is not None
    options: dict[str, Any] = {"flip_test": True, "score_threshold": 0}
    assert_same(second.estimate(photo(), **options), first.estimate(photo(), **options))


def test_official_and_mmpose_files_of_the_same_weights_give_the_same_poses(
    estimator: PoseEstimator, tmp_path: Path
) -> None:
    weights = lively()
    arrays = official_to_mmpose({name: tensor.numpy() for name, tensor in weights.items()}, 17)  # type: ignore[no-untyped-call]
    mmpose = OrderedDict((name, torch.from_numpy(array)) for name, array in arrays.items())
    files = {
        "official": fixtures.save_official(tmp_path / "official.pth", weights),
        "official, old": fixtures.save_official(tmp_path / "old.pth", weights, zipped=False),
        "official training": fixtures.save_official_training(tmp_path / "checkpoint.pth.tar", weights),
        "mmpose": fixtures.save_mmpose_1(tmp_path / "mmpose.pth", mmpose),
    }
    expected = estimator.estimate(photo(), score_threshold=0)
    for name, file in files.items():
        other = PoseEstimator.from_pretrained(file, device="cpu")
        poses = other.estimate(photo(), input_size=64, score_threshold=0)
        assert_same(poses, expected, tolerance=1e-3 if name == "mmpose" else 0.0)
        assert other.config.decode.score_threshold == 0.05


def test_unknown_names_devices_and_types_are_explained(path: Path) -> None:
    with pytest.raises(DekrPoseError, match="dekr-w32-coco"):
        PoseEstimator.from_pretrained("dekr-w32-cocos")
    with pytest.raises(ValueError, match='device must be "auto", "cpu"'):
        PoseEstimator.from_pretrained(path, device="gpu")
    with pytest.raises(ValueError, match='dtype must be "auto", "float32"'):
        PoseEstimator.from_pretrained(path, dtype="int8")


def test_half_precision_keeps_keypoints_in_place(path: Path, estimator: PoseEstimator) -> None:
    """The regressed offsets are computed in float32: where the same person is found, it is found in the same place."""
    half = PoseEstimator.from_pretrained(path, device="cpu", dtype="bfloat16")
    poses, expected = (one.estimate(photo(), score_threshold=0).keypoints for one in (half, estimator))
    assert poses.dtype == np.float32
    distances = np.abs(poses[:, None] - expected[None]).max(axis=(2, 3)).min(axis=0)
    assert np.median(distances) < 4


# Manners


def settings() -> dict[str, Any]:
    return {
        "threads": (torch.get_num_threads(), cv2.getNumThreads()),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled()),
        "types": (torch.get_default_dtype(), torch.get_float32_matmul_precision(), np.geterr()),
        "backends": (torch.backends.cudnn.benchmark, torch.are_deterministic_algorithms_enabled()),
        "random": (torch.get_rng_state().tolist(), repr(np.random.get_state()), random.getstate()),
    }


def test_estimating_changes_no_global_setting(path: Path, net_path: Path) -> None:
    before = settings()
    estimator = PoseEstimator.from_pretrained(path, rescoring_net=net_path, device="cpu")
    estimator.warmup()
    estimator.estimate(photo(), flip_test=True, scales=(0.5, 1), match_heatmap=True)
    list(estimator.estimate_many(album()[:2]))
    assert settings() == before


def test_the_callers_default_type_does_not_matter(estimator: PoseEstimator) -> None:
    options: dict[str, Any] = {"flip_test": True, "scales": (0.5, 1), "match_heatmap": True}
    expected = estimator.estimate(photo(), **options)
    torch.set_default_dtype(torch.float64)
    try:
        assert_same(estimator.estimate(photo(), **options), expected, tolerance=1e-3)
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_model_takes_normalised_batches_in_the_official_convention(estimator: PoseEstimator) -> None:
    heatmaps, offsets = estimator.model(torch.zeros(2, 3, 64, 96))
    assert heatmaps.shape == (2, 18, 16, 24)
    assert offsets.shape == (2, 34, 16, 24)
    assert not heatmaps.requires_grad


def test_timing_tells_milliseconds_per_stage(estimator: PoseEstimator) -> None:
    timing = estimator.estimate(photo()).timing
    assert set(timing) == {"read", "resize", "network", "decode"}
    assert all(value >= 0 for value in timing.values())


def test_repr_names_model_keypoints_and_device(estimator: PoseEstimator) -> None:
    assert repr(estimator) == "PoseEstimator('dekr-w8-coco', 17 keypoints, input_size=64, device='cpu')"


FORKED = """
import multiprocessing, sys
from dekrpose import PoseEstimator

def count(queue, photo, own):
    estimator = PoseEstimator.from_pretrained(sys.argv[1]) if own else parents
    queue.put(len(estimator.estimate(photo, score_threshold=0)))

parents = PoseEstimator.from_pretrained(sys.argv[1])
print(len(parents.estimate(sys.argv[2], score_threshold=0)))
context = multiprocessing.get_context("fork")
queue = context.Queue()
for own in (False, True):
    child = context.Process(target=count, args=(queue, sys.argv[2], own))
    child.start()
    child.join(60)
    print("hangs" if child.is_alive() else queue.get())
    child.kill()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_process_forked_after_an_estimate_works(tmp_path: Path) -> None:
    """As ``gunicorn --preload`` and ``multiprocessing`` fork: the threads of torch are not there any more."""
    model = write_small_model(tmp_path / "small.safetensors")
    PIL.Image.fromarray(photo(200, 300)).save(tmp_path / "photo.png")
    words = [sys.executable, "-c", FORKED, str(model), str(tmp_path / "photo.png")]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=200, check=True)
    assert len(set(done.stdout.split())) == 1, done.stdout
