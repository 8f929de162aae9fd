"""DEKR with a memory: without history it is the image model, with it earlier frames count."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from dekrpose.architectures.dekr.fast import FastPath
from dekrpose.architectures.dekr.network import DEKR
from dekrpose.architectures.dekr.temporal import TemporalDEKR, TemporalState, build_model, with_memory
from dekrpose.architectures.dekr.temporal_memory import ConvGRU
from dekrpose.config import ARCHITECTURES, Branches, ModelConfig, TemporalConfig, with_head
from tests.movenet_files import OWN
from tests.small_model import SMALL

CONV = replace(SMALL, temporal=TemporalConfig())


def small(config: ModelConfig = CONV, *, trained: bool) -> TemporalDEKR:
    """A network whose heads answer visibly; a trained memory is a random one that is not silent."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = TemporalDEKR(config)
        for name, value in model.named_parameters():
            if name.endswith("out.weight"):
                torch.nn.init.normal_(value, std=float(trained))
            elif value.ndim > 1 and "transform" not in name:
                torch.nn.init.kaiming_normal_(value)
    return model.eval().requires_grad_(False)


def clip(batch: int = 2, frames: int = 4, size: tuple[int, int] = (64, 96)) -> Tensor:
    return torch.randn(batch, frames, 3, *size, generator=torch.Generator().manual_seed(1))


def per_frame(model: DEKR, images: Tensor) -> tuple[Tensor, Tensor]:
    """What the image model says of every frame of a clip."""
    image_model = DEKR(replace(model.config, temporal=None)).eval()
    names = image_model.state_dict().keys()
    image_model.load_state_dict({name: value for name, value in model.state_dict().items() if name in names})
    with torch.no_grad():
        pairs = [image_model(images[:, index]) for index in range(images.shape[1])]
    return torch.stack([heat for heat, _ in pairs], 1), torch.stack([offset for _, offset in pairs], 1)


def assert_close(got: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    for ours, theirs in zip(got, expected, strict=True):
        spread = float(theirs.max() - theirs.min())  # rounding grows with what is added up, and with the processor
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * max(10.0, spread))


def differ(got: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> bool:
    return all(float((ours - theirs).abs().max()) > 0.01 for ours, theirs in zip(got, other, strict=True))


def test_fresh_weights_are_the_image_model_in_every_frame() -> None:
    model, images = small(trained=False), clip()
    maps, _ = model.forward_clip(images)
    assert_close(maps, per_frame(model, images))
    assert maps[0].shape == (2, 4, 18, 16, 24)
    assert maps[1].shape == (2, 4, 34, 16, 24)


@pytest.mark.parametrize("trained", [False, True])
def test_heads_of_movenets_form_have_a_memory_too(trained: bool) -> None:
    config = replace(OWN, temporal=TemporalConfig())
    model, images = small(config, trained=trained), clip()
    plain, _ = model.forward_clip(images)
    alone = per_frame(model, images)
    if trained:
        assert differ((plain[0][:, 1:], plain[1][:, 1:]), (alone[0][:, 1:], alone[1][:, 1:]))
    else:
        assert_close(plain, alone)
    model.fast_path = FastPath()
    with torch.inference_mode():
        fast, _ = model.forward_clip(images)
    assert_close(fast, plain)


def test_the_first_frame_is_the_image_model_to_the_last_bit() -> None:
    model, images = small(trained=True), clip(frames=1)
    maps, state = model.step(images[:, 0])
    expected = model(images[:, 0])
    assert torch.equal(maps[0], expected[0])
    assert torch.equal(maps[1], expected[1])
    assert state is not None
    assert state.size == (16, 24)


def test_earlier_frames_count() -> None:
    model, images = small(trained=True), clip()
    (heatmaps, offsets), _ = model.forward_clip(images)
    alone = per_frame(model, images)
    assert differ((heatmaps[:, 1:], offsets[:, 1:]), (alone[0][:, 1:], alone[1][:, 1:]))


def test_a_reset_at_every_frame_is_the_image_model() -> None:
    model, images = small(trained=True), clip()
    maps, _ = model.forward_clip(images, reset=torch.ones(2, 4, dtype=torch.bool))
    assert_close(maps, per_frame(model, images))


def test_a_reset_forgets_for_one_stream_of_the_batch_only() -> None:
    model, images = small(trained=True), clip()
    reset = torch.zeros(2, 4, dtype=torch.bool)
    reset[0, 2] = True
    (heatmaps, offsets), state = model.forward_clip(images, reset=reset)
    whole, _ = model.forward_clip(images)
    assert_close((heatmaps[1], offsets[1]), (whole[0][1], whole[1][1]))
    assert_close((heatmaps[0, :2], offsets[0, :2]), (whole[0][0, :2], whole[1][0, :2]))
    anew, state_anew = model.forward_clip(images[:1, 2:])
    assert_close((heatmaps[0, 2:], offsets[0, 2:]), (anew[0][0], anew[1][0]))
    assert state is not None
    assert state_anew is not None
    torch.testing.assert_close(state.offset[:1], state_anew.offset)


def test_the_order_of_frames_counts() -> None:
    model, images = small(trained=True), clip()
    last, _ = model.forward_clip(images)
    shuffled, _ = model.forward_clip(images[:, [2, 0, 1, 3]])
    assert differ((last[0][:, 3], last[1][:, 3]), (shuffled[0][:, 3], shuffled[1][:, 3]))


def test_a_clip_is_its_frames_one_by_one() -> None:
    model, images = small(trained=True), clip()
    maps, after = model.forward_clip(images)
    state = None
    for index in range(images.shape[1]):
        step, state = model.step(images[:, index], state)
        assert_close(step, (maps[0][:, index], maps[1][:, index]))
    assert after is not None
    assert state is not None
    torch.testing.assert_close(state.heatmap, after.heatmap)


def test_a_clip_goes_on_from_a_state() -> None:
    model, images = small(trained=True), clip()
    whole, _ = model.forward_clip(images)
    _, state = model.forward_clip(images[:, :2])
    rest, _ = model.forward_clip(images[:, 2:], state=state)
    assert_close(rest, (whole[0][:, 2:], whole[1][:, 2:]))


def test_a_batch_of_clips_is_its_clips() -> None:
    model, images = small(trained=True), clip()
    together, _ = model.forward_clip(images)
    for index in range(2):
        alone, _ = model.forward_clip(images[index : index + 1])
        assert_close((alone[0][0], alone[1][0]), (together[0][index], together[1][index]))


@pytest.mark.parametrize("branches", ["per_keypoint", "grouped_13", "grouped_5", "shared"])
def test_every_head_remembers(branches: Branches) -> None:
    model, images = small(with_head(CONV, "small", branches=branches, shared_channels=16), trained=True), clip(1, 3)
    assert model.offset_memory is not None
    counts = {"per_keypoint": [17], "grouped_13": [1, 12], "grouped_5": [1, 4], "shared": [1]}
    assert [gru.groups for gru in model.offset_memory.grus] == counts[branches]
    (heatmaps, offsets), _ = model.forward_clip(images)
    alone = per_frame(model, images)
    assert_close((heatmaps[:, 0], offsets[:, 0]), (alone[0][:, 0], alone[1][:, 0]))
    assert differ((heatmaps[:, 1:], offsets[:, 1:]), (alone[0][:, 1:], alone[1][:, 1:]))


def test_keypoints_stay_apart_in_the_memory() -> None:
    model, images = small(trained=True), clip(1, 2)
    (_, before), state = model.forward_clip(images)
    assert state is not None
    changed = state.offset.clone()
    changed[:, : SMALL.head.keypoint_channels] += 1  # the memory of the first keypoint
    (_, offsets), _ = model.forward_clip(images, state=replace(state, offset=changed))
    (_, same), _ = model.forward_clip(images, state=state)
    moved = (offsets - same).abs().amax(dim=(0, 1, 3, 4)).reshape(-1, 2).amax(1) > 1e-3
    assert moved.tolist() == [True] + [False] * 16
    assert before.shape == offsets.shape


def test_a_state_of_another_size_is_resampled() -> None:
    model = small(trained=True)
    _, state = model.step(clip(size=(64, 96))[:, 0])
    assert state is not None
    maps, after = model.step(clip(size=(128, 192))[:, 1], state)
    assert after is not None
    assert after.size == (32, 48)
    by_hand, _ = model.step(clip(size=(128, 192))[:, 1], state.resized((32, 48)))
    assert torch.equal(maps[0], by_hand[0])
    threes = TemporalState(torch.full((1, 1, 4, 6), 3.0), torch.zeros(1, 1, 4, 6))
    assert torch.equal(threes.resized((8, 12)).heatmap, torch.full((1, 1, 8, 12), 3.0))
    bordered = threes.resized((8, 16)).heatmap
    assert bordered.sum() == 3 * 8 * 12
    assert torch.equal(bordered, bordered.flip(-1))
    assert torch.equal(threes.resized((4, 4)).heatmap, torch.full((1, 1, 4, 4), 3.0))


def memory_parameters(model: TemporalDEKR) -> list[nn.Parameter]:
    """Those that the image model does not have."""
    return [value for name, value in model.named_parameters() if "_memory." in name or "_gru." in name]


def test_gradients_reach_the_memory_through_time() -> None:
    model = small(trained=True).requires_grad_(True)
    (heatmaps, offsets), state = model.forward_clip(clip())
    (heatmaps[:, 3].sum() + offsets[:, 3].sum()).backward()
    assert len(memory_parameters(model)) == 10
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in memory_parameters(model))
    assert state is not None
    assert state.offset.requires_grad


def test_a_silent_memory_learns_from_its_first_step() -> None:
    model = small(trained=False).requires_grad_(True)
    (heatmaps, offsets), _ = model.forward_clip(clip())
    (heatmaps[:, 3].sum() + offsets[:, 3].sum()).backward()
    assert model.offset_memory is not None
    assert model.offset_memory.grus[0].out.weight.grad.abs().sum() > 0


def test_half_precision_leaves_the_offset_stream_alone() -> None:
    model, images = small(trained=True), clip()
    seen: dict[str, torch.dtype] = {}
    for name, module in model.named_modules():
        if "memory.grus.0." in name:
            module.register_forward_hook(lambda _m, _i, out, name=name: seen.__setitem__(name, out.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (_, offsets), state = model.forward_clip(images)
    assert {dtype for name, dtype in seen.items() if name.startswith("offset")} == {torch.float32}
    assert {dtype for name, dtype in seen.items() if name.startswith("heatmap")} == {torch.bfloat16}
    assert offsets.dtype == torch.float32
    assert state is not None
    assert state.heatmap.dtype == state.offset.dtype == torch.float32


@pytest.mark.parametrize("branches", ["per_keypoint", "grouped_13"])
def test_the_fast_network_remembers_as_well(branches: Branches) -> None:
    model, images = small(with_head(CONV, "small", branches=branches, blocks=2), trained=True), clip()
    with torch.inference_mode():
        plain, state = model.forward_clip(images)
        alone = model(images[:, 0])
        model.fast_path = FastPath()
        assert model.running(images[:, 0]) != model.plain
        fast, fast_state = model.forward_clip(images)
        assert_close(model(images[:, 0]), alone)
        first, _ = model.step(images[:, 0])
        assert torch.equal(first[1], model(images[:, 0])[1])
    for ours, theirs in zip(fast, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))
    assert state is not None
    assert fast_state is not None
    torch.testing.assert_close(fast_state.offset, state.offset, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("numbers", [1, 3 * 2 * 4 * 5 * 7, 10**9])
def test_large_maps_are_remembered_in_pieces(numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    gru = ConvGRU(12, groups=3).requires_grad_(False)
    torch.nn.init.normal_(gru.out.weight)
    maps, hidden = torch.randn(2, 2, 12, 5, 7, generator=torch.Generator().manual_seed(0))
    expected = gru.step(maps, hidden)  # with gradients, so at once
    monkeypatch.setattr("dekrpose.architectures.dekr.temporal_memory._PIECE", numbers)
    with torch.inference_mode():
        found = gru.step(maps, hidden)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(gru.read(found), gru.out(found))


def test_an_image_model_gets_a_memory() -> None:
    torch.manual_seed(3)
    image_model = DEKR(SMALL).eval()
    model = with_memory(SMALL, image_model.state_dict()).eval()
    assert model.config.temporal == TemporalConfig()
    images = clip(1, 2)
    with torch.no_grad():
        assert_close(model.forward_clip(images)[0], per_frame(image_model, images))
    with pytest.raises(RuntimeError, match="Missing"):
        with_memory(SMALL, {})


def test_the_configuration_says_what_is_built() -> None:
    assert type(build_model(SMALL)) is DEKR
    assert type(build_model(CONV)) is TemporalDEKR
    with pytest.raises(ValueError, match=r"ModelConfig\.temporal"):
        TemporalDEKR(SMALL)
    with pytest.raises(ValueError, match="kind must be one of"):
        TemporalConfig(kind="lstm")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "kind", "parameters"),
    [
        ("dekr-w32-coco", "convgru", 267_556),
        ("tiny-lite", "convgru", 296_592),
        ("dekr-w32-coco", "gru_offset_flat", 140_556_288),
    ],
)
def test_memories_are_as_large_as_designed(name: str, kind: str, parameters: int) -> None:
    config = replace(ARCHITECTURES[name], temporal=TemporalConfig(kind=kind))  # type: ignore[arg-type]
    with torch.device("meta"):
        model = TemporalDEKR(config)
    assert sum(value.numel() for value in memory_parameters(model)) == parameters


FLAT = replace(
    with_head(SMALL, "flat"), input_size=512, temporal=TemporalConfig(kind="gru_offset_flat", hidden=4, chunk=2)
)


@pytest.mark.slow
def test_the_flat_network_sees_chunks() -> None:
    model, images = small(FLAT, trained=True), clip(1, 3, (512, 512))
    (heatmaps, offsets), state = model.forward_clip(images)
    assert state is None
    alone = per_frame(model, images)
    torch.testing.assert_close(heatmaps, alone[0], rtol=1e-4, atol=1e-4)
    assert float((offsets - alone[1]).abs().max()) > 0.001
    (_, first), _ = model.forward_clip(images[:, :2])
    torch.testing.assert_close(first, offsets[:, :2], rtol=1e-4, atol=1e-4)
    (_, rest), _ = model.forward_clip(images[:, 2:])
    torch.testing.assert_close(rest, offsets[:, 2:], rtol=1e-4, atol=1e-4)
    reset = torch.tensor([[False, True, False]])
    (_, cut), _ = model.forward_clip(images, reset=reset)
    torch.testing.assert_close(cut[:, 1:], model.forward_clip(images[:, 1:])[0][1], rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="behind the heads"):
        model.transitions(images)


def test_the_flat_network_reads_the_size_that_it_is_told_alone() -> None:
    with pytest.raises(ValueError, match="512 x 512 input, got 16 x 24"):
        small(FLAT, trained=True).forward_clip(clip())
    told = replace(FLAT, temporal=TemporalConfig(kind="gru_offset_flat", hidden=4, input_size=64))
    (_, offsets), _ = small(told, trained=True).forward_clip(clip(1, 3, (64, 64)))
    assert offsets.shape[-2:] == (16, 16)
    with pytest.raises(ValueError, match="input_size must be a multiple of 4, got 510"):
        TemporalConfig(input_size=510)


@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (1, 0, 3, 64, 64)])
def test_clips_have_five_axes_and_frames(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a clip is"):
        small(trained=True).forward_clip(torch.zeros(shape))


def test_resets_are_checked() -> None:
    with pytest.raises(ValueError, match="reset must be bool"):
        small(trained=True).forward_clip(clip(), reset=torch.zeros(2, 3, dtype=torch.bool))
