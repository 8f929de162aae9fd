"""Weights files of every format give the same network; everything else is refused with a helpful message."""

from __future__ import annotations

import json
import math
import os
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from dekrpose.architectures.dekr.foreign_names import official_to_ours, ours_to_official
from dekrpose.architectures.dekr.network import DEKR
from dekrpose.checkpoints import (
    check_fits,
    expected_shapes,
    read_checkpoint,
    read_rescoring_net,
    read_stored_config,
    write_checkpoint,
)
from dekrpose.checkpoints.integers import LARGEST
from dekrpose.config import ARCHITECTURES, ModelConfig
from dekrpose.errors import CheckpointError
from dekrpose.skeletons import COCO_17, CROWDPOSE_14
from tests import checkpoint_fixtures as fixtures
from tests.small_model import SMALL


def assert_same(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float = 0.0) -> None:
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert actual[name].dtype == tensor.dtype, name
        torch.testing.assert_close(
            actual[name], tensor, rtol=0, atol=tolerance, msg=lambda text, n=name: f"{n}: {text}"
        )


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(path)
    assert str(path) in str(error.value)
    return str(error.value)


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def without(state_dict: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state_dict.items() if not name.startswith(prefix)}


@pytest.fixture
def ours() -> dict[str, Tensor]:
    return official_to_ours(fixtures.official())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "weights.pth"


# What is recognised


@pytest.mark.parametrize("zipped", [True, False])
def test_official_files_are_read_zipped_and_legacy(file: Path, ours: dict[str, Tensor], zipped: bool) -> None:
    checkpoint = read_checkpoint(fixtures.save_official(file, fixtures.official(), zipped))
    assert checkpoint.format == "official"
    assert checkpoint.rescoring is None
    assert_same(checkpoint.state_dict, ours)


def test_official_names_survive_the_way_there_and_back() -> None:
    state_dict = fixtures.official()
    assert_same(ours_to_official(official_to_ours(state_dict)), state_dict)


def test_converted_weights_load_strictly_into_the_network(file: Path) -> None:
    checkpoint = read_checkpoint(fixtures.save_official(file, fixtures.official()))
    DEKR(checkpoint.config).load_state_dict(checkpoint.state_dict, strict=True)


def test_official_training_checkpoints_are_unwrapped(file: Path, ours: dict[str, Tensor]) -> None:
    checkpoint = read_checkpoint(fixtures.save_official_training(file, fixtures.official()))
    assert checkpoint.format == "official"
    assert_same(checkpoint.state_dict, ours)


def test_mmpose_1_files_with_a_training_log_equal_official_ones(file: Path, ours: dict[str, Tensor]) -> None:
    checkpoint = read_checkpoint(fixtures.save_mmpose_1(file, fixtures.mmpose_1()))
    assert checkpoint.format == "mmpose-1.x"
    assert_same(checkpoint.state_dict, ours, tolerance=1e-6)


def test_mmpose_1_files_that_lost_their_version_keep_the_center_last(file: Path, ours: dict[str, Tensor]) -> None:
    checkpoint = read_checkpoint(saved(file, {"state_dict": dict(fixtures.mmpose_1())}))
    assert checkpoint.format == "mmpose-1.x"
    assert_same(checkpoint.state_dict, ours, tolerance=1e-6)


def test_mmpose_0_legacy_files_equal_official_ones(file: Path, ours: dict[str, Tensor]) -> None:
    checkpoint = read_checkpoint(fixtures.save_mmpose_0(file, fixtures.mmpose_0()))
    assert checkpoint.format == "mmpose-0.x"
    assert_same(checkpoint.state_dict, ours, tolerance=1e-6)


@pytest.mark.parametrize(
    ("wrapper", "prefix"),
    [("state_dict", "module."), ("model", "model.module."), ("ema_state_dict", "module."), ("net", "_orig_mod.")],
)
def test_wrappers_and_prefixes_are_taken_off(file: Path, ours: dict[str, Tensor], wrapper: str, prefix: str) -> None:
    content = {wrapper: {prefix + name: tensor for name, tensor in fixtures.official().items()}, "epoch": 3}
    assert_same(read_checkpoint(saved(file, content)).state_dict, ours)


def test_our_own_state_dict_saved_by_torch_is_read(file: Path, ours: dict[str, Tensor]) -> None:
    checkpoint = read_checkpoint(saved(file, ours))
    assert checkpoint.format == "dekrpose"
    assert_same(checkpoint.state_dict, ours)


def test_half_stays_half_and_double_becomes_float(file: Path) -> None:
    half = {n: t.half() if t.is_floating_point() else t for n, t in fixtures.official().items()}
    double = {n: t.double() if t.is_floating_point() else t for n, t in fixtures.official().items()}
    for content, dtype in ((half, torch.float16), (double, torch.float32)):
        state_dict = read_checkpoint(saved(file, content)).state_dict
        assert {t.dtype for n, t in state_dict.items() if not n.endswith("tracked")} == {dtype}


# What is inferred


def test_coco_and_crowdpose_are_told_apart_by_their_keypoints(file: Path) -> None:
    coco = read_checkpoint(fixtures.save_official(file, fixtures.official())).config
    crowdpose = read_checkpoint(fixtures.save_official(file, fixtures.official(keypoints=14))).config
    assert (coco.skeleton, coco.decode) == (COCO_17, ARCHITECTURES["dekr-w32-coco"].decode)
    assert (crowdpose.skeleton, crowdpose.decode) == (CROWDPOSE_14, ARCHITECTURES["dekr-w32-crowdpose"].decode)
    assert (coco.backbone.width, coco.head.heatmap_channels, coco.input_size) == (8, 8, 512)


def test_w48_gets_its_larger_input(file: Path) -> None:
    config = read_checkpoint(saved(file, fixtures.mmpose_1(width=48, keypoints=2))).config
    assert (config.backbone.width, config.input_size) == (48, 640)


def test_other_keypoint_counts_get_a_plain_skeleton(file: Path) -> None:
    skeleton = read_checkpoint(saved(file, fixtures.mmpose_0(keypoints=5))).config.skeleton
    assert skeleton.keypoints == tuple(f"keypoint_{index}" for index in range(5))
    assert skeleton.edges == skeleton.flip_pairs == ()


@pytest.mark.slow
def test_published_w32_layout_gives_the_registered_configuration(file: Path) -> None:
    state_dict = {name: torch.zeros(shape) for name, shape in fixtures.w32_shapes().items()}
    checkpoint = read_checkpoint(fixtures.save_official(file, state_dict))
    assert checkpoint.config == ARCHITECTURES["dekr-w32-coco"]
    assert {name: tuple(t.shape) for name, t in checkpoint.state_dict.items()} == expected_shapes(checkpoint.config)


# The scoring net


@pytest.mark.parametrize("prefix", ["", "module.", "head.rescore_net.", "rescore_net."])
def test_scoring_nets_are_read_under_any_prefix(file: Path, prefix: str) -> None:
    net = fixtures.scoring_net()
    path = saved(file, {prefix + name: tensor for name, tensor in net.items()})
    assert_same(read_rescoring_net(path, COCO_17), net)


def test_a_scoring_net_inside_an_mmpose_model_is_found(file: Path) -> None:
    net = fixtures.scoring_net()
    model = {**fixtures.mmpose_1(), **{f"head.rescore_net.{name}": tensor for name, tensor in net.items()}}
    rescoring = read_checkpoint(saved(file, model)).rescoring
    assert rescoring is not None
    assert_same(rescoring, net)
    assert_same(read_rescoring_net(file), net)


def test_a_scoring_net_for_another_skeleton_is_refused(file: Path) -> None:
    saved(file, fixtures.scoring_net(59))
    assert_same(read_rescoring_net(file, CROWDPOSE_14), fixtures.scoring_net(59))
    with pytest.raises(CheckpointError, match=r"59 features.*coco-17 gives 74"):
        read_rescoring_net(file, COCO_17)


def test_models_and_scoring_nets_are_not_confused(file: Path) -> None:
    assert "scoring net" in refusal(saved(file, fixtures.scoring_net()))
    with pytest.raises(CheckpointError, match=r"no scoring net.*official DEKR"):
        read_rescoring_net(saved(file, fixtures.official()))


# Our own format


def small_config(file: Path) -> ModelConfig:
    return read_checkpoint(fixtures.save_official(file, fixtures.official())).config


def test_written_weights_come_back_bit_equal(file: Path, ours: dict[str, Tensor]) -> None:
    config = ModelConfig.from_dict({**small_config(file).to_dict(), "license": "MIT", "metrics": {"AP": 68.0}})
    path = file.with_suffix(".safetensors")
    write_checkpoint(path, config, ours, fixtures.scoring_net())
    checkpoint = read_checkpoint(path)
    assert (checkpoint.config, checkpoint.format) == (config, "dekrpose")
    assert_same(checkpoint.state_dict, ours)
    assert checkpoint.rescoring is not None
    assert_same(checkpoint.rescoring, fixtures.scoring_net())
    assert read_stored_config(path) == config
    with safe_open(path, "pt") as opened:
        assert opened.metadata().keys() == {"format", "dekrpose"}


def test_writing_half_halves_the_file(file: Path, ours: dict[str, Tensor]) -> None:
    config, path = small_config(file), file.with_suffix(".safetensors")
    write_checkpoint(path, config, ours)
    full = path.stat().st_size
    write_checkpoint(path, config, ours, half=True)
    assert path.stat().st_size < 0.7 * full
    state_dict = read_checkpoint(path).state_dict
    assert_same(state_dict, {n: t.half() if t.is_floating_point() else t for n, t in ours.items()})


@pytest.fixture
def integers_for_small_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's network has none of the tensors that are stored as integers otherwise."""
    monkeypatch.setattr("dekrpose.checkpoints.integers._SMALLEST_TENSOR", 512)


@pytest.mark.usefixtures("integers_for_small_tensors")
def test_writing_integers_quarters_the_file(file: Path, ours: dict[str, Tensor]) -> None:
    config, path = small_config(file), file.with_suffix(".safetensors")
    write_checkpoint(path, config, ours)
    full = path.stat().st_size
    write_checkpoint(path, config, ours, int8=True)
    assert path.stat().st_size < 0.4 * full  # a small network has many small tensors
    state_dict = read_checkpoint(path).state_dict
    assert state_dict.keys() == ours.keys()
    for name, tensor in ours.items():
        if tensor.ndim < 2 or tensor.numel() < 512:
            assert torch.equal(state_dict[name], tensor.half() if tensor.is_floating_point() else tensor)
            continue
        largest = tensor.flatten(1).abs().amax(dim=1).view(-1, *[1] * (tensor.ndim - 1))
        assert state_dict[name].dtype == torch.float32
        assert bool(((state_dict[name] - tensor).abs() <= largest * (0.5 / LARGEST + 1e-3)).all())


@pytest.mark.usefixtures("integers_for_small_tensors")
def test_integers_stay_what_they_are_when_written_again(file: Path, ours: dict[str, Tensor]) -> None:
    config, path = small_config(file), file.with_suffix(".safetensors")
    write_checkpoint(path, config, ours, int8=True)
    before = load_file(path)
    write_checkpoint(path, config, read_checkpoint(path).state_dict, int8=True)
    after = load_file(path)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before if before[name].dtype == torch.int8)
    assert sum(tensor.dtype == torch.int8 for tensor in before.values()) > 10


@pytest.mark.usefixtures("integers_for_small_tensors")
def test_steps_that_do_not_fit_their_integers_are_refused(file: Path, ours: dict[str, Tensor]) -> None:
    config, path = small_config(file), file.with_suffix(".safetensors")
    write_checkpoint(path, config, ours, int8=True)
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith(".step"))
    save_file({**tensors, name: torch.ones(1)}, path, {"dekrpose": json.dumps(config.to_dict())})
    assert "one for each channel" in refusal(path)


def test_integers_of_what_is_no_number_are_refused(file: Path, ours: dict[str, Tensor]) -> None:
    ours["offset_head.transition.0.weight"] = torch.full_like(ours["offset_head.transition.0.weight"], torch.inf)
    with pytest.raises(CheckpointError, match=r"offset_head\.transition\.0\.weight.*not finite"):
        write_checkpoint(file.with_suffix(".safetensors"), small_config(file), ours, int8=True)


def test_values_beyond_half_are_refused(file: Path, ours: dict[str, Tensor]) -> None:
    ours["heatmap_head.final.bias"] = torch.full((18,), 1e6)
    with pytest.raises(CheckpointError, match=r"heatmap_head\.final\.bias.*float16"):
        write_checkpoint(file.with_suffix(".safetensors"), small_config(file), ours, half=True)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    file: Path, ours: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, path = small_config(file), file.with_suffix(".safetensors")
    write_checkpoint(path, config, ours)
    before = path.read_bytes()

    def full_disk(tensors: object, partial: Path, metadata: object) -> None:
        partial.write_bytes(b"half a file")
        raise OSError("no space left")

    monkeypatch.setattr("dekrpose.checkpoints.save_file", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write_checkpoint(path, config, ours)
    assert path.read_bytes() == before
    assert sorted(item.name for item in path.parent.iterdir()) == [file.name, path.name]


def test_writing_refuses_what_could_not_be_read(file: Path, ours: dict[str, Tensor]) -> None:
    config = small_config(file)
    with pytest.raises(CheckpointError, match=r"missing \(first: offset_head\.transition\.0\.weight\)"):
        write_checkpoint(file.with_suffix(".safetensors"), config, without(ours, "offset_head."))
    with pytest.raises(CheckpointError, match="10 features"):
        write_checkpoint(file.with_suffix(".safetensors"), config, ours, fixtures.scoring_net(10))
    with pytest.raises(ValueError, match=r"\.safetensors"):
        write_checkpoint(file, config, ours)


def test_a_configuration_of_a_later_version_is_refused_by_name(file: Path, ours: dict[str, Tensor]) -> None:
    save_file(ours, file, {"dekrpose": '{"wings": 2}'})
    assert "unknown ModelConfig key wings" in refusal(file)


# What does not fit


def test_an_unknown_architecture_is_refused_by_name(file: Path, ours: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match="unknown architecture 'centernet'"):
        ModelConfig(architecture="centernet")
    own = file.with_suffix(".safetensors")
    config = {**small_config(file).to_dict(), "architecture": "centernet"}
    save_file(ours, own, {"dekrpose": json.dumps(config)})
    assert "unknown architecture 'centernet'" in refusal(own)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("half", [False, True])
def test_weights_that_are_no_numbers_are_refused(file: Path, ours: dict[str, Tensor], value: float, half: bool) -> None:
    broken = {name: tensor.half() if half and tensor.is_floating_point() else tensor for name, tensor in ours.items()}
    name = "backbone.layer1.0.conv1.weight"
    broken[name] = broken[name].clone()
    broken[name].view(-1)[3] = value
    assert f"1 of its tensors hold values that are not finite (first: {name})" in refusal(saved(file, broken))


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("backbone.layer1.0.conv1.weight", lambda tensor: tensor.double() * 0 + 1e300, "values that are not finite"),
        ("backbone.layer1.0.conv1.weight", lambda tensor: tensor * 0 + 3e38, "values that no weights have"),
        ("backbone.bn1.running_var", lambda tensor: tensor * 0 - 1, "negative variances"),
        ("backbone.layer1.0.conv1.weight", lambda tensor: tensor.to(torch.float8_e4m3fn), "are no weights .*float8"),
        ("backbone.layer1.0.conv1.weight", lambda tensor: tensor.int(), "are no weights .*int32"),
        ("backbone.layer1.0.conv1.weight", lambda tensor: tensor.to(torch.int8), "are no weights .*int8"),
    ],
)
def test_weights_of_which_no_network_makes_numbers_are_refused(
    file: Path, ours: dict[str, Tensor], name: str, change: Callable[[Tensor], Tensor], words: str
) -> None:
    assert re.search(words, refusal(saved(file, {**ours, name: change(ours[name])})))


@pytest.mark.parametrize(
    "values",
    [
        {"mean": [math.nan] * 3},
        {"std": [0, 1, 1]},
        {"decode": {"score_threshold": math.nan}},
        {"skeleton": {**SMALL.to_dict()["skeleton"], "edges": [[math.inf, 1]]}},
        {"backbone": {"width": -3}},
        {"backbone": {"width": "wide"}},
    ],
    ids=str,
)
def test_configurations_that_make_no_network_are_refused(
    file: Path, ours: dict[str, Tensor], values: dict[str, Any]
) -> None:
    path, config = file.with_suffix(".safetensors"), {**small_config(file).to_dict(), **values}
    save_file(ours, path, {"dekrpose": json.dumps(config)})
    with pytest.raises(CheckpointError, match="configuration"):
        read_checkpoint(path)


def test_a_scoring_net_with_a_nan_is_refused(file: Path) -> None:
    net = dict(fixtures.scoring_net())
    net["l2.bias"] = torch.full_like(net["l2.bias"], float("nan"))
    with pytest.raises(CheckpointError, match=r"not finite \(first: l2\.bias\)"):
        read_rescoring_net(saved(file, net))


def test_counters_of_batch_norm_may_be_missing(file: Path, ours: dict[str, Tensor]) -> None:
    for state in (ours, fixtures.official(), fixtures.mmpose_1()):
        less = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
        found = read_checkpoint(saved(file, less)).state_dict
        assert {name: found[name] for name in ours if not name.endswith("num_batches_tracked")}
        DEKR(small_config(file)).load_state_dict({name: value.float() for name, value in found.items()})


def test_check_fits_counts_and_names_the_first_of_each() -> None:
    tensors = {"b": torch.zeros(2), "c": torch.zeros(3), "extra": torch.zeros(1)}
    with pytest.raises(CheckpointError) as error:
        check_fits(tensors, {"a": (1,), "a2": (1,), "b": (2,), "c": (4,)})
    for part in ("2 tensors missing (first: a)", "1 unexpected (first: extra)", "c is (3,), expected (4,)"):
        assert part in str(error.value)
    check_fits({"b": torch.zeros(2)}, {"b": (2,)})


def test_missing_heads_are_named_as_the_file_would(file: Path) -> None:
    state_dict = fixtures.official()
    offsets = refusal(saved(file, without(state_dict, "offset_final_layer.")))
    assert "34 tensors missing (first: offset_final_layer.0.weight)" in offsets
    assert "official DEKR checkpoint" in offsets
    heatmaps = refusal(saved(file, without(state_dict, "head_heatmap.")))
    assert "head_heatmap.0.0.conv1.weight" in heatmaps
    mmpose = refusal(saved(file, without(fixtures.mmpose_1(), "head.displacement_conv_layers.3.")))
    assert "2 tensors missing (first: head.displacement_conv_layers.3.weight)" in mmpose
    older = refusal(saved(file, without(fixtures.mmpose_0(), "keypoint_head.offset_conv_layers.3.")))
    assert "2 tensors missing (first: keypoint_head.offset_conv_layers.3.weight)" in older


def test_heads_of_different_keypoint_counts_are_explained(file: Path) -> None:
    offsets = {name: tensor for name, tensor in fixtures.official(keypoints=14).items() if "offset" in name}
    message = refusal(saved(file, {**without(without(fixtures.official(), "offset_"), "transition_offset"), **offsets}))
    assert "heatmap head has 17 keypoints and whose offset head has 14" in message
    assert "first: offset_feature_layers.14." in message


@pytest.mark.parametrize(
    ("content", "guess"),
    [
        (fixtures.resnet, "a ResNet classifier"),
        (fixtures.hrnet_top_down, "a top-down HRNet"),
        (fixtures.higher_hrnet, "a HigherHRNet"),
        (fixtures.super_gradients, "super-gradients.*not supported"),
    ],
)
def test_foreign_networks_are_recognised_and_refused(file: Path, content: Any, guess: str) -> None:
    message = refusal(saved(file, content()))
    assert "missing (first: " in message
    assert "unexpected (first: " in message
    with pytest.raises(CheckpointError, match=guess):
        read_checkpoint(file)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [torch.zeros(2)], torch.zeros(2), {"state_dict": {}}])
def test_files_without_weights_say_what_they_hold(file: Path, content: Any) -> None:
    assert "it holds" in refusal(saved(file, content))


def test_a_dictionary_that_wraps_itself_is_refused(file: Path) -> None:
    content: dict[str, Any] = {}
    content["state_dict"] = content
    assert "refused: its pickle nests" in refusal(saved(file, content))


def test_absurd_names_do_not_make_an_absurd_network(file: Path) -> None:
    content = {**fixtures.official(), "stage3.999999.branches.0.0.conv1.weight": torch.zeros(1)}
    assert "stage3.999999." in refusal(saved(file, content))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "web page"),
        (b"\n <HTML>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n", "git lfs pull"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(400), "JPEG"),
        (b"404: not found", "but a text"),
        (b"PK\x03\x04" + bytes(300), "cut off"),
        (bytes(range(256)), "damaged"),
    ],
)
def test_other_kinds_of_files_are_named(file: Path, content: bytes, kind: str) -> None:
    file.write_bytes(content)
    assert kind in refusal(file)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.0001, 0.01, 0.5, 0.999])
def test_cut_files_are_refused(file: Path, ours: dict[str, Tensor], kind: str, share: float) -> None:
    config = small_config(file)
    if kind == "safetensors":
        file = file.with_suffix(".safetensors")
        write_checkpoint(file, config, ours)
    else:
        fixtures.save_official(file, fixtures.official(), zipped=kind == "zip")
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    assert "again" in refusal(file)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "none.pth")
    assert "folder" in refusal(tmp_path)


# What must never run


class Attack:
    def __init__(self, function: Any, argument: str) -> None:
        self.call = (function, (argument,))

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(("function", "name"), [(os.system, "system"), (eval, "eval"), (exec, "exec")])
def test_code_in_a_pickle_is_refused_by_name_and_never_runs(
    file: Path, function: Any, name: str, protocol: int, zipped: bool
) -> None:
    trace = file.with_name("trace")
    argument = f"touch {trace}" if function is os.system else f"open({str(trace)!r}, 'w')"
    content = {"state_dict": fixtures.official(keypoints=1), "meta": {"config": Attack(function, argument)}}
    torch.save(content, file, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    message = refusal(file)
    assert "refused" in message
    assert f"{name}," in message
    assert not trace.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_bare_pickles_never_run(file: Path, protocol: int) -> None:
    trace = file.with_name("trace")
    file.write_bytes(pickle.dumps(Attack(os.system, f"touch {trace}"), protocol))
    refusal(file)
    assert not trace.exists()


def test_getattr_in_a_pickle_reaches_nothing(file: Path) -> None:
    # getattr("x", "upper")(): a stand-in takes getattr's place, and what it returns cannot be called
    file.write_bytes(b"\x80\x02cbuiltins\ngetattr\nX\x01\x00\x00\x00xX\x05\x00\x00\x00upper\x86R)R.")
    assert "its pickle" in refusal(file)


def test_whole_modules_are_refused_by_name(file: Path) -> None:
    assert "torch.nn.modules.linear.Linear" in refusal(saved(file, torch.nn.Linear(2, 2)))


def test_reading_ignores_and_keeps_what_the_program_allows(file: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    torch.serialization.add_safe_globals([eval])
    try:
        message = refusal(saved(file, {"state_dict": Attack(eval, "1 + 1")}))
        assert "eval" in message
        fixtures.save_mmpose_1(file, fixtures.mmpose_1())
        read_checkpoint(file)
        assert set(torch.serialization.get_safe_globals()) == before | {eval}
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(list(before))
