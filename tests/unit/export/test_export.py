"""Exported files answer as torch does, carry what the model carries, and appear whole or not at all."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dekrpose import CheckpointError, DekrPoseError, PoseEstimator, export
from dekrpose.architectures.dekr.candidates import Choice
from dekrpose.architectures.dekr.decode import decode, pose_map
from dekrpose.architectures.dekr.exported_network import ExportedNetwork
from dekrpose.architectures.dekr.exported_poses import PoseOutputs
from dekrpose.architectures.parts.poses import OKSScoreNet
from dekrpose.checkpoints import read_checkpoint
from dekrpose.cli import main
from dekrpose.config import EfficientNetLiteConfig, HeadConfig
from dekrpose.engines.file import FORMATS, open_exported, to_bytes
from dekrpose.images import to_tensor
from tests.movenet_files import OWN
from tests.small_model import SMALL, write_small_model

ROOT = Path(__file__).parents[3]
RUNTIMES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino", "onnx", "onnxscript"), "pt2": ()}
FEW_BRANCHES = HeadConfig(heatmap_channels=8, keypoint_channels=4, blocks=1, branches="grouped_5")


def small(folder: Path, **changes: Any) -> PoseEstimator:
    """A small estimator with a scoring net, whose taps lie apart."""
    estimator = PoseEstimator.from_pretrained(
        write_small_model(folder / "small.safetensors", replace(SMALL, **changes))
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for name, tensor in estimator.model.state_dict().items():
            if name.endswith("transform.bias"):
                tensor.normal_()
            elif name.endswith(("running_mean", "bn.bias")):
                tensor.normal_(std=0.1)
        net = OKSScoreNet(3 * len(SMALL.skeleton.edges) + len(SMALL.skeleton))
    return PoseEstimator(estimator.model, rescoring_net=net)


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


Files = Callable[[Any], Path]


def written_once(folder: Path, estimator: Callable[[], PoseEstimator], **options: Any) -> Files:
    """Writes an estimator in a format, once; skips the test where a package is missing."""

    @cache
    def written(name: Any) -> Path:
        suffix = next(suffix for suffix, kind in FORMATS.items() if kind == name)
        return estimator().export(name, folder / f"small{suffix}", **options).files[0]

    def file(name: Any) -> Path:
        for package in RUNTIMES[name]:
            pytest.importorskip(package)
        return written(name)

    return file


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("exported")
    return written_once(folder, lambda: small(folder), max_people=12)


@cache
def opened(path: Path) -> PoseEstimator:
    """An exported file's estimator; loading takes seconds, so tests that leave it as it is share one."""
    return PoseEstimator.from_pretrained(path, trust_code=True)


@pytest.fixture(params=["onnx", *(pytest.param(name, marks=pytest.mark.slow) for name in ("openvino", "pt2"))])
def exported(request: pytest.FixtureRequest, files: Files) -> Path:
    return files(request.param)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"backbone": EfficientNetLiteConfig(channels=16), "head": SMALL.head},
        {"head": replace(SMALL.head, blocks=2)},
        {"head": HeadConfig(heatmap_channels=8, keypoint_channels=4, blocks=1, adaptive=False)},
        {"backbone": OWN.backbone, "head": OWN.head, "mean": (0.5, 0.5, 0.5), "std": (0.4, 0.5, 0.6)},
    ],
    ids=["hrnet", "efficientnet-lite", "two blocks", "plain convolutions", "movenet's heads"],
)
def test_the_exported_network_gives_the_same_maps(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = small(tmp_path, **changes).model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pictures = torch.from_numpy(np.stack([photo(96, 128), photo(96, 128, seed=1)])).permute(0, 3, 1, 2)
    network = ExportedNetwork(model, "grid_sample").eval()
    with torch.inference_mode():
        expected = model(to_tensor(pictures.permute(0, 2, 3, 1).numpy(), model.config.mean, model.config.std))
        maps = network(pictures)
    for own, other in zip(maps, expected, strict=True):
        torch.testing.assert_close(own, other, atol=1e-3, rtol=1e-4)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


@pytest.mark.parametrize(("height", "width"), [(24, 40), (110, 100), (160, 150)], ids=["3x3", "5x5", "7x7 peaks"])
def test_poses_in_the_graph_are_those_of_decode(height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(height)
    count = len(SMALL.skeleton)
    heatmaps = torch.rand(2, count + 1, height, width, generator=generator)
    heatmaps[1, -1] = 0  # nobody
    centers = torch.randint(0, height * width, (6,), generator=generator)
    heatmaps[0, -1] = heatmaps[0, -1] * 0.005
    heatmaps[0, -1].view(-1)[centers] = torch.rand(6, generator=generator) + 0.1
    offsets = 5 * torch.randn(2, 2 * count, height, width, generator=generator)
    # the neighbour of the first center sees the same person
    offsets.flatten(2)[0, :, (centers[0] + 2 * width) % (height * width)] = offsets.flatten(2)[0, :, centers[0]]
    poses, keypoint_scores, scores = PoseOutputs(SMALL, None, 30)(heatmaps, offsets)
    assert torch.equal(scores[1], torch.zeros(30))
    choice = Choice(nms_min_keypoints=SMALL.decode.nms_min_keypoints)
    expected = decode([(heatmaps[0], pose_map(offsets[0]))], choice=choice)
    order = expected[2].argsort(descending=True)
    kept = int((scores[0] != 0).sum())
    assert kept == len(order) > 0
    torch.testing.assert_close(poses[0, :kept], expected[0][order], atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(keypoint_scores[0, :kept], expected[1][order], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(scores[0, :kept], expected[2][order], atol=1e-5, rtol=1e-4)


def test_bytes_survive_normalisation() -> None:
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    assert np.array_equal(to_bytes(to_tensor(pixels)), pixels.transpose(0, 3, 1, 2))


def test_any_batch_and_size(exported: Path, tmp_path: Path) -> None:
    model = small(tmp_path).model
    runner, _ = open_exported(exported, trust_code=True)
    for batch, height, width in ((1, 64, 64), (3, 96, 160), (2, 224, 64)):
        pictures = np.stack([photo(height, width, seed) for seed in range(batch)])
        with torch.inference_mode():
            expected = model(to_tensor(pictures))
        for own, other in zip(runner(pictures.transpose(0, 3, 1, 2).copy()), expected, strict=True):
            np.testing.assert_allclose(own, other.numpy(), atol=2e-3)


@pytest.mark.parametrize(
    "options",
    [{}, {"scales": (0.5, 1.0)}, {"match_heatmap": "paper"}, {"rescore": False, "max_people": 40}],
    ids=["default", "scales", "match", "many, not rescored"],
)
def test_every_option_gives_what_torch_gives(exported: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    estimator, other = small(tmp_path), opened(exported)
    pixels = photo(180, 260)
    options = {"score_threshold": 0, "input_size": 128, **options}
    expected, poses = (item.estimate(pixels, **options) for item in (estimator, other))
    assert len(poses) == len(expected) > 0
    # made-up people are nearly as good as each other, so rounding may change their order
    apart = np.abs(poses.keypoints[:, None] - expected.keypoints[None]).max(axis=3)
    nearest = apart[apart.mean(axis=2).argmin(axis=0), np.arange(len(expected))]
    # matching chooses among peaks of noise, some as high as others
    assert (nearest <= 0.05).mean() >= (0.95 if "match_heatmap" in options else 1)
    np.testing.assert_allclose(np.sort(poses.scores), np.sort(expected.scores), atol=1e-3)


def test_the_flip_test_sees_the_same_maps(exported: Path, tmp_path: Path) -> None:
    estimator, other = small(tmp_path), opened(exported)
    pictures = to_tensor(np.stack([photo(96, 160)]))
    # the maps and not the people: averaged with its mirror image, made-up heat is everywhere equally high
    maps = (item.engine.maps(pictures, True, item.model) for item in (estimator, other))
    for own, theirs in zip(*maps, strict=True):
        torch.testing.assert_close(own, theirs, atol=2e-3, rtol=0)


def test_many_photos(exported: Path, tmp_path: Path) -> None:
    photos = [photo(64, 64), photo(64, 100), photo(64, 64, seed=2)]
    expected = list(small(tmp_path).estimate_many(photos, batch_size=2))
    poses = list(opened(exported).estimate_many(photos, batch_size=2))
    assert [len(item) for item in poses] == [len(item) for item in expected]


def test_configuration_and_scoring_net_travel_along(exported: Path, tmp_path: Path) -> None:
    estimator, other = small(tmp_path), opened(exported)
    assert other.config == estimator.config
    assert estimator.rescoring_net is not None
    assert other.rescoring_net is not None
    for name, tensor in other.rescoring_net.state_dict().items():
        assert torch.equal(tensor, estimator.rescoring_net.state_dict()[name])
    assert PoseEstimator.from_pretrained(exported, rescoring_net=False, trust_code=True).rescoring_net is None


def test_what_only_weights_can_do_is_refused(exported: Path, tmp_path: Path) -> None:
    estimator = opened(exported)
    with pytest.raises(DekrPoseError, match="is an exported file and cannot be saved as weights"):
        estimator.save_pretrained(tmp_path / "folder")
    with pytest.raises(DekrPoseError, match="cannot be exported again"):
        estimator.export("onnx", tmp_path / "again.onnx")
    with pytest.raises(CheckpointError):
        read_checkpoint(exported)
    with pytest.raises(ValueError, match="run on the CPU"):
        PoseEstimator.from_pretrained(exported, device="meta")


def test_half_precision_is_for_openvino(files: Files) -> None:
    with pytest.raises(ValueError, match="export to OpenVINO"):
        PoseEstimator.from_pretrained(files("onnx"), dtype="bfloat16")


@pytest.mark.slow
def test_half_precision_on_openvino(files: Files) -> None:
    pytest.importorskip("openvino")
    pixels = photo(64, 64)
    poses = PoseEstimator.from_pretrained(files("openvino"), dtype="bfloat16").estimate(pixels, score_threshold=0)
    assert poses.keypoints.shape[1:] == (17, 2)
    assert np.isfinite(poses.keypoints).all()


@pytest.mark.parametrize("content", [b"", b"not a graph at all", b"<?xml version='1.0'?><net/>"])
def test_broken_files(exported: Path, tmp_path: Path, content: bytes) -> None:
    broken = tmp_path / f"broken{exported.suffix}"
    broken.write_bytes(content)
    broken.with_suffix(".bin").touch()
    with pytest.raises(CheckpointError, match="broken"):
        PoseEstimator.from_pretrained(broken)


def test_a_foreign_onnx_file(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    sides = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "foreign", sides[:1], sides[1:])
    opset = [onnx.helper.make_opsetid("", 20)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "foreign.onnx")
    with pytest.raises(CheckpointError, match="was not exported by dekrpose"):
        PoseEstimator.from_pretrained(tmp_path / "foreign.onnx")


@pytest.mark.slow
def test_openvino_needs_its_weights(files: Files, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    (tmp_path / "alone.xml").write_bytes(files("openvino").read_bytes())
    with pytest.raises(CheckpointError, match=r"needs alone\.bin beside it"):
        PoseEstimator.from_pretrained(tmp_path / "alone.xml")


@pytest.mark.slow
def test_a_file_that_differs_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    estimator = small(tmp_path)
    target = tmp_path / "out" / "small.pt2"
    target.parent.mkdir()
    target.write_bytes(b"older")
    monkeypatch.setattr(export, "LARGEST_SHIFT", -1.0)
    with pytest.raises(DekrPoseError, match=r"answered differently from torch, .* keypoints by \d"):
        estimator.export("pt2", target)
    assert [item.name for item in target.parent.iterdir()] == ["small.pt2"]
    assert target.read_bytes() == b"older"


@pytest.mark.parametrize(
    ("file_format", "missing", "line"),
    [
        ("onnx", "onnxscript", "pip install 'dekrpose[onnx]'"),
        pytest.param("onnx", "onnxruntime", "pip install 'dekrpose[onnx]'", marks=pytest.mark.slow),
        ("openvino", "openvino", "pip install 'dekrpose[openvino,onnx]'"),
    ],
)
def test_a_missing_package(
    file_format: Any, missing: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.split(".")[0] == missing:
            raise ImportError(f"No module named {name!r}", name=name)
        return real(name, *rest)

    estimator = small(tmp_path)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=line.replace("[", r"\[")):
        estimator.export(file_format, tmp_path / f"x{'.onnx' if file_format == 'onnx' else '.xml'}")
    monkeypatch.undo()
    assert [item.name for item in tmp_path.iterdir()] == ["small.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("tflite", "x.onnx"), "format must be one of"),
        (("onnx", "x.xml"), r"ends in \.onnx"),
        (("onnx", "x.onnx", {"max_people": 65}), "max_people must be 1 to 64"),
        (("onnx", "x.onnx", {"half": True}), "half=True is for OpenVINO"),
        (("onnx", "x.onnx", {"opset": 18}), "opset must be at least 19"),
        (("openvino", "x.xml", {"sampling": "deform_conv"}), "take grid_sample"),
    ],
)
def test_wrong_options(arguments: Any, words: str, tmp_path: Path) -> None:
    name, path, options = (*arguments, {})[:3]
    with pytest.raises(ValueError, match=words):
        small(tmp_path).export(name, tmp_path / path, **options)


@pytest.mark.slow
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_small_model(tmp_path / "small.safetensors", replace(SMALL, head=FEW_BRANCHES))
    assert main(["export", str(model), str(tmp_path / "small.pt2")]) == 0
    assert "keypoints differ by at most" in capsys.readouterr().out


def test_the_command_refuses_unknown_endings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_small_model(tmp_path / "small.safetensors", replace(SMALL, head=FEW_BRANCHES))
    assert main(["export", str(model), str(tmp_path / "small.tflite")]) == 1
    assert "must end in .onnx, .xml, .pt2" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", list(RUNTIMES))
def test_tiny_finds_the_same_people_in_photos(name: str, tmp_path: Path) -> None:
    for package in RUNTIMES[name]:
        pytest.importorskip(package)
    estimator = PoseEstimator.from_pretrained()
    suffix = next(suffix for suffix, kind in FORMATS.items() if kind == name)
    path = estimator.export(name, tmp_path / f"tiny{suffix}").files[0]
    other = PoseEstimator.from_pretrained(path, trust_code=True)
    photos: list[Any] = [ROOT / "examples" / "astronaut.jpg", ROOT / "examples" / "photographer.jpg"]
    photos += [photo(200, 300), np.full((240, 320, 3), 127, np.uint8), photo(480, 640, seed=1)]
    for item in photos:
        for options in ({}, {"flip_test": True}):
            expected, poses = (which.estimate(item, score_threshold=0, **options) for which in (estimator, other))
            assert len(poses) == len(expected)
            if len(poses):
                np.testing.assert_allclose(poses.keypoints, expected.keypoints, atol=0.05)
                np.testing.assert_allclose(poses.scores, expected.scores, atol=1e-3)


def test_no_file_of_this_name(tmp_path: Path) -> None:
    with pytest.raises(DekrPoseError, match="there is no file"):
        PoseEstimator.from_pretrained(tmp_path / "nothing.xml")
