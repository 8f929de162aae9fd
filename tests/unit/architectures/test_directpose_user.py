"""The whole way of a user with DirectPose: train, evaluate, find people, export, load again; and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dekrpose import CheckpointError, DekrPoseError, PoseEstimator
from dekrpose.architectures.contract import build
from dekrpose.benchmark.memory import CASES, _run_case
from dekrpose.benchmark.settings import Setting, as_file
from dekrpose.cli import main
from dekrpose.config import ARCHITECTURES, DirectPoseHeadConfig, MobileNetConfig, TemporalConfig
from tests.training_photos import write_dataset

HEAD = DirectPoseHeadConfig(channels=8, levels=3, class_depth=1, group_channels=4, heatmap_channels=8)
SMALL = replace(ARCHITECTURES["directpose-tiny"], input_size=128, backbone=MobileNetConfig(channels=8), head=HEAD)


def estimator(seed: int = 0, **options: Any) -> PoseEstimator:
    """A network that sees people everywhere."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(SMALL)
        with torch.no_grad():
            for name, value in model.head.named_parameters():
                if value.ndim > 1:
                    value.normal_(std=0.2)
                if name == "classes.bias":
                    value.zero_()
    return PoseEstimator(model, **options)  # type: ignore[arg-type]


def photo(height: int = 160, width: int = 220, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (height // 20, width // 20, 3), dtype=np.uint8)
    return np.kron(noise, np.ones((20, 20, 1), np.uint8))


def test_every_engine_finds_the_same_people() -> None:
    plain = estimator(engine="torch")
    expected = plain.estimate(photo(), score_threshold=0)
    assert len(expected) > 1
    for options in ({}, {"flip_test": True}, {"scales": (0.5, 1, 2)}):
        own, other = (one.estimate(photo(), score_threshold=0, **options) for one in (plain, estimator(engine="cpu")))
        np.testing.assert_allclose(own.keypoints, other.keypoints, atol=1e-3)
    from dekrpose.engines.cuda import CUDAEngine
    from dekrpose.images import Geometry

    engine = CUDAEngine(estimator().model, torch.device("cpu"), torch.float32)
    geometry = [[Geometry.fit(160, 220, 128, multiple=32)]]
    options_ = estimator()._options(score_threshold=0)
    found, _ = engine.find_on_device([photo()], geometry, options_)
    np.testing.assert_allclose(geometry[0][0].to_image(found[0].keypoints.numpy()), expected.keypoints, atol=0.05)


def test_batches_and_streams_equal_single_photos() -> None:
    one = estimator()
    photos = [photo(seed=1), photo(seed=2)]
    for own, other in zip(one.estimate_many(photos, score_threshold=0), photos, strict=True):
        np.testing.assert_allclose(own.keypoints, one.estimate(other, score_threshold=0).keypoints, atol=1e-3)
    frames = list(one.estimate_video(photos, track=True, score_threshold=0))
    assert [len(poses) > 0 for poses in frames] == [True, True]


def test_its_memory_is_measured_without_matching() -> None:
    case = CASES["everything"]._replace(sizes=[(64, 48)])
    _run_case(estimator(device="cpu"), Setting("made here", input_size=64), case)()


def test_what_it_does_not_do_is_refused() -> None:
    one = estimator()
    for options, message in (
        ({"match_heatmap": True}, "no heatmaps that keypoints could be moved to"),
        ({"match_heatmap": "weighted"}, "no heatmaps that keypoints could be moved to"),
        ({"rescore": True}, "rescor"),
    ):
        with pytest.raises(ValueError, match=message):
            one.estimate(photo(), **options)
    with pytest.raises(ValueError, match="has no memory"):
        build(replace(SMALL, temporal=TemporalConfig()))


def test_no_scoring_net_is_trained_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    annotations, photos = write_dataset(tmp_path, photos=2)
    estimator().save_pretrained(tmp_path / "mine")
    data = [str(annotations), "--images", str(photos), "--out", str(tmp_path / "scored")]
    assert main(["train-scoring", str(tmp_path / "mine"), *data]) != 0
    assert "scores people by itself" in capsys.readouterr().err


@pytest.mark.slow
def test_benchmark_exports_it_with_its_maps(tmp_path: Path) -> None:
    estimator().save_pretrained(tmp_path / "mine")
    pytest.importorskip("onnxscript")
    assert as_file(Setting(str(tmp_path / "mine"), backend="onnx")).model.endswith(".onnx")


def test_a_saved_folder_says_which_architecture_it_is(tmp_path: Path) -> None:
    one = estimator()
    one.save_pretrained(tmp_path / "mine")
    other = PoseEstimator.from_pretrained(tmp_path / "mine")
    assert other.config.architecture == "directpose"
    assert "A DirectPose network" in (tmp_path / "mine" / "README.md").read_text(encoding="utf-8")
    assert "1911.07451" in (tmp_path / "mine" / "README.md").read_text(encoding="utf-8")
    own, found = (model.estimate(photo(), score_threshold=0) for model in (one, other))
    assert own.allclose(found)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pt2", ".onnx", ".xml"])
def test_exported_files_find_the_same_people(tmp_path: Path, suffix: str) -> None:
    if suffix != ".pt2":
        pytest.importorskip("onnxscript")
        pytest.importorskip("openvino" if suffix == ".xml" else "onnxruntime")
    one, path = estimator(), tmp_path / f"model{suffix}"
    kind: Any = {".pt2": "pt2", ".onnx": "onnx", ".xml": "openvino"}[suffix]
    written = one.export(kind, path)
    assert written.differences.keypoints <= 0.05
    other = PoseEstimator.from_pretrained(path, trust_code=True)
    for pixels in (photo(), photo(200, 140, seed=1)):
        own, found = (model.estimate(pixels, score_threshold=0) for model in (one, other))
        assert len(own) == len(found) > 0
        apart = np.abs(own.keypoints[:, None] - found.keypoints[None]).max(axis=(2, 3))
        assert apart.min(axis=1).max() <= 0.05
    with pytest.raises(ValueError, match="keypoints at every location"):
        one.export(kind, path, offsets="people")


@pytest.mark.slow
def test_the_whole_path_of_a_user(tmp_path: Path) -> None:
    data, places = write_dataset(tmp_path)
    data_of = [str(data), "--images", str(places)]
    start = [
        "train",
        *data_of,
        "--device",
        "cpu",
        "--workers",
        "0",
        "--epochs",
        "1",
        "--batch-size",
        "2",
        "--size",
        "64",
    ]
    assert main([*start, "--arch", "directpose-tiny", "--init", "tiny", "--keep-backbone",
                 "--out", str(tmp_path / "run")]) == 0  # fmt: skip
    config = json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))
    assert config["architecture"] == "directpose"
    bundled = PoseEstimator.from_pretrained("tiny").model.state_dict()
    own = PoseEstimator.from_pretrained(tmp_path / "run").model.state_dict()
    for name, value in own.items():
        if name.startswith("backbone."):
            torch.testing.assert_close(value, bundled[name])
    assert main(["eval", str(tmp_path / "run"), *data_of, "--device", "cpu"]) == 0
    picture = next(places.glob("*"))
    assert main(["predict", str(picture), "--model", str(tmp_path / "run"), "--out", str(tmp_path / "found")]) == 0
    assert main([*start, "--init", str(tmp_path / "run"), "--out", str(tmp_path / "next")]) == 0  # brings its network
    assert json.loads((tmp_path / "next" / "config.json").read_text(encoding="utf-8"))["architecture"] == "directpose"
    assert main([*start, "--arch", "directpose-tiny", "--head", "aligned=no", "--head", "boxes=yes",
                 "--out", str(tmp_path / "naive")]) == 0  # fmt: skip


def test_the_memory_and_other_backbones_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    estimator().save_pretrained(tmp_path / "mine")
    assert main(["train-temporal", "--init", str(tmp_path / "mine"), "--out", str(tmp_path / "run")]) != 0
    assert "has no memory" in capsys.readouterr().err
    data, places = write_dataset(tmp_path)
    start = ["train", str(data), "--images", str(places), "--out", str(tmp_path / "other")]
    assert main([*start, "--arch", "directpose-r50", "--init", "backbone=tiny"]) != 0
    assert "has the backbone MobileNetV2 1.5, the new network ResNet-50" in capsys.readouterr().err


@pytest.mark.slow
def test_all_networks_are_listed_with_their_cost(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--complexity", "--json"]) == 0
    costs = {own["name"]: own for own in json.loads(capsys.readouterr().out)}
    assert costs["directpose-r50"]["parameters"] == 32_881_351
    assert costs["directpose-r101"]["parameters"] == 51_873_479
    assert costs["directpose-tiny"]["gmacs"] == pytest.approx(1.43, abs=0.01)


def test_torchvisions_weights_fill_the_backbone(tmp_path: Path) -> None:
    from dekrpose.training.initial import read_backbone

    config = ARCHITECTURES["directpose-r50"]
    with torch.random.fork_rng(devices=[]):
        source = build(config).backbone.state_dict()
    torch.save({**source, "fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}, tmp_path / "r50.pth")
    weights = read_backbone(tmp_path / "r50.pth", config)
    torch.testing.assert_close(weights["backbone.layer3.5.conv2.weight"], source["layer3.5.conv2.weight"])
    with pytest.raises(CheckpointError, match="no ResNet-101 backbone"):
        read_backbone(tmp_path / "r50.pth", ARCHITECTURES["directpose-r101"])
    assert issubclass(CheckpointError, DekrPoseError)


ROOT = Path(__file__).parents[3]
HEADS, ASTRONAUT = ROOT / "tests" / "golden" / "heads.safetensors", ROOT / "examples" / "astronaut.jpg"


@pytest.mark.parametrize(
    ("name", "architecture", "head"),
    [
        ("directpose-naive", "directpose-tiny", {"aligned": False, "heatmaps": False}),
        ("directpose", "directpose-tiny", {"heatmaps": False}),
        ("dekr", "tiny", {}),
    ],
)
def test_the_heads_that_docs_compare_find_the_astronaut(name: str, architecture: str, head: dict[str, Any]) -> None:
    """They were trained on the backbone of tiny; docs/directpose.md says how."""
    bundled = PoseEstimator.from_pretrained("tiny", device="cpu")
    own = ARCHITECTURES[architecture]
    model = build(replace(own, head=replace(own.head, **head), backbone=bundled.config.backbone))
    weights = {key: value for key, value in bundled.model.state_dict().items() if key.startswith("backbone.")}
    heads = load_file(HEADS)
    weights |= {key.removeprefix(f"{name}/"): heads[key].float() for key in heads if key.startswith(f"{name}/")}
    model.load_state_dict(weights)
    found = PoseEstimator(model, device="cpu").estimate(ASTRONAUT, input_size=256, max_people=1, score_threshold=0)
    expected = bundled.estimate(ASTRONAUT)
    apart = np.linalg.norm(found.keypoints[0, :7] - expected.keypoints[0, :7], axis=1)  # face and shoulders
    assert np.median(apart) < expected.image_size[1] / 8
