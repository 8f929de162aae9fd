"""Online use of a network with a memory: what belongs to a stream, and when it is forgotten."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dekrpose import PoseEstimator, Poses
from dekrpose.architectures.dekr.network import DEKR
from dekrpose.architectures.dekr.temporal import TemporalDEKR, with_memory
from dekrpose.checkpoints import write_checkpoint
from dekrpose.config import TemporalConfig
from dekrpose.video.memory import ResetRules, StreamState, look
from tests.small_model import SMALL

Frames = list[NDArray[np.uint8]]


def temporal_model(kind: str = "convgru") -> TemporalDEKR:
    """Sees people everywhere, and remembers loudly."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        image_model = DEKR(SMALL)
        for name, value in image_model.named_parameters():
            if value.ndim > 1 and "transform" not in name:
                torch.nn.init.kaiming_normal_(value)
        image_model.heatmap_head.final.weight.data *= 0.01
        image_model.heatmap_head.final.bias.data.fill_(0.5)  # type: ignore[union-attr]
        model = with_memory(SMALL, image_model.state_dict(), TemporalConfig(kind=kind, hidden=2))  # type: ignore[arg-type]
        for name, value in model.named_parameters():
            if name.endswith("out.weight"):
                torch.nn.init.normal_(value)
    return model


@pytest.fixture(scope="module")
def estimator() -> PoseEstimator:
    return PoseEstimator(temporal_model())


def scene(frames: int, *, seed: int = 0, size: tuple[int, int] = (64, 96)) -> Frames:
    """A still picture with a bright box that moves."""
    picture = np.random.default_rng(seed).integers(0, 256, (2, 3, 3), dtype=np.uint8)
    background = picture.repeat(size[0] // 2, 0).repeat(size[1] // 3, 1)
    result = []
    for index in range(frames):
        frame = background.copy()
        frame[20:40, 5 * index : 5 * index + 15] = 255
        result.append(frame)
    return result


def times(frames: Frames, start: float = 0.0) -> list[float]:
    return [start + index / 25 for index in range(len(frames))]


def same(got: list[Poses], expected: list[Poses]) -> bool:
    return len(got) == len(expected) and all(
        len(a) == len(b) and np.allclose(a.keypoints, b.keypoints, atol=0.02)
        for a, b in zip(got, expected, strict=True)
    )


def alone(estimator: PoseEstimator, frames: Frames) -> list[Poses]:
    return [estimator.estimate(frame) for frame in frames]


def test_a_photo_has_no_history(estimator: PoseEstimator) -> None:
    model = estimator.model
    image_model = DEKR(SMALL)
    names = image_model.state_dict().keys()
    image_model.load_state_dict({name: value for name, value in model.state_dict().items() if name in names})
    frames = scene(2)
    photos = PoseEstimator(image_model)
    assert same(alone(estimator, frames), alone(photos, frames))
    assert len(photos.estimate(frames[0])) > 0
    poses, state = photos.estimate_frames(frames)
    assert state is None
    assert same(poses, alone(photos, frames))


def test_frames_one_by_one_or_together(estimator: PoseEstimator) -> None:
    frames = scene(4)
    together, _ = estimator.estimate_frames(frames, timestamps=times(frames))
    state, one_by_one = None, []
    for frame, time in zip(frames, times(frames), strict=True):
        poses, state = estimator.estimate_frames([frame], state, timestamps=[time])
        one_by_one += poses
    assert same(together, one_by_one)
    photos = alone(estimator, frames)
    assert same(together[:1], photos[:1])
    assert not same(together[1:], photos[1:])


def test_a_state_is_not_changed_by_what_follows(estimator: PoseEstimator) -> None:
    frames = scene(3)
    _, state = estimator.estimate_frames(frames[:1], timestamps=[0.0])
    assert state is not None
    before = {name: value.clone() for name, value in state.tensors().items()}
    once, _ = estimator.estimate_frames(frames[1:], state)
    again, _ = estimator.estimate_frames(frames[1:], state)
    assert same(once, again)
    assert all(torch.equal(value, before[name]) for name, value in state.tensors().items())
    assert not any(value.requires_grad for value in state.tensors().values())


def test_two_streams_do_not_share(estimator: PoseEstimator) -> None:
    first, second = scene(4), scene(4, seed=5)
    apart = [list(estimator.estimate_video(iter(frames))) for frames in (first, second)]
    pairs = zip(estimator.estimate_video(iter(first)), estimator.estimate_video(iter(second)), strict=True)
    mixed = list(zip(*pairs, strict=True))
    assert same(list(mixed[0]), apart[0])
    assert same(list(mixed[1]), apart[1])
    assert not same(apart[0][1:], alone(estimator, first)[1:])
    assert [poses.index for poses in apart[0]] == [0, 1, 2, 3]


def test_batches_of_a_stream_are_its_frames(estimator: PoseEstimator) -> None:
    frames = scene(5)
    assert same(
        list(estimator.estimate_video(iter(frames), batch_size=2)),
        list(estimator.estimate_video(iter(frames), batch_size=5)),
    )


def test_a_gap_begins_anew(estimator: PoseEstimator) -> None:
    frames = scene(2)
    photos = alone(estimator, frames)
    assert not same(estimator.estimate_frames(frames, timestamps=[0, 0.4])[0], photos)
    assert same(estimator.estimate_frames(frames, timestamps=[0, 0.6])[0], photos)
    assert same(estimator.estimate_frames(frames, timestamps=[1, 0.9])[0], photos)
    assert same(list(estimator.estimate_video(zip([0.0, 2.0], frames, strict=True))), photos)
    with pytest.raises(ValueError, match="timestamps must be one per frame, 2, got 1"):
        estimator.estimate_frames(frames, timestamps=[0])


def test_a_cut_begins_anew(estimator: PoseEstimator) -> None:
    frames = [*scene(2), *scene(2, seed=5)]
    poses, _ = estimator.estimate_frames(frames)
    expected = [*estimator.estimate_frames(frames[:2])[0], *estimator.estimate_frames(frames[2:])[0]]
    assert same(poses, expected)


def test_another_aspect_begins_anew_and_another_scale_does_not(estimator: PoseEstimator) -> None:
    wide, square = scene(1)[0], scene(1, size=(64, 64))[0]
    poses, _ = estimator.estimate_frames([wide, square])
    assert same(poses, alone(estimator, [wide, square]))

    larger = scene(2, size=(128, 192))[1]
    _, state = estimator.estimate_frames([wide])
    kept, after = estimator.estimate_frames([larger], state)  # another resolution, the same input
    assert not same(kept, alone(estimator, [larger]))
    resampled, after = estimator.estimate_frames([larger], after, input_size=128)
    assert not same(resampled, [estimator.estimate(larger, input_size=128)])
    assert after is not None
    assert after.hidden[1.0, 0].size == (32, 48), "without the border that the smaller input needed"


def test_the_mirrored_pass_has_its_own_memory(estimator: PoseEstimator) -> None:
    frames = scene(3)
    flipped, state = estimator.estimate_frames(frames, flip_test=True)
    assert state is not None
    assert set(state.hidden) == {(1.0, 0), (1.0, 1)}
    assert not torch.allclose(state.hidden[1.0, 0].offset, state.hidden[1.0, 1].offset)
    plain, only = estimator.estimate_frames(frames)
    assert only is not None
    torch.testing.assert_close(only.hidden[1.0, 0].offset, state.hidden[1.0, 0].offset, rtol=1e-3, atol=1e-3)
    assert not same(flipped, plain)
    # a mirrored pass that begins later has no history, while the image's has
    late, joined = estimator.estimate_frames(frames[2:], estimator.estimate_frames(frames[:2])[1], flip_test=True)
    assert joined is not None
    torch.testing.assert_close(joined.hidden[1.0, 0].offset, only.hidden[1.0, 0].offset, rtol=1e-3, atol=1e-3)
    first = estimator.estimate_frames(frames[2:], flip_test=True)[1]
    assert first is not None
    torch.testing.assert_close(joined.hidden[1.0, 1].offset, first.hidden[1.0, 1].offset, rtol=1e-3, atol=1e-3)
    assert not same(late, flipped[2:])


def test_every_scale_has_its_own_memory(estimator: PoseEstimator) -> None:
    _, state = estimator.estimate_frames(scene(2), scales=(1.0, 2.0))
    assert state is not None
    assert {key: hidden.size for key, hidden in state.hidden.items()} == {(1.0, 0): (16, 32), (2.0, 0): (32, 64)}
    _, state = estimator.estimate_frames(scene(1), state)
    assert state is not None
    assert set(state.hidden) == {(1.0, 0)}, "a pass that was left out would remember the wrong moment"


def test_a_state_survives_a_file(estimator: PoseEstimator, tmp_path: Path) -> None:
    frames = scene(4)
    _, state = estimator.estimate_frames(frames[:2], timestamps=[0, 0.04], flip_test=True)
    assert state is not None
    torch.save(state.tensors(), tmp_path / "state.pt")
    loaded = StreamState.from_tensors(torch.load(tmp_path / "state.pt", weights_only=True))
    options = {"timestamps": [0.08, 0.12], "flip_test": True}
    expected, _ = estimator.estimate_frames(frames[2:], state, **options)
    assert same(estimator.estimate_frames(frames[2:], loaded, **options)[0], expected)
    assert loaded.sight.timestamp == 0.04
    assert loaded.sight.image_size == (64, 96)
    with pytest.raises(ValueError, match="'sight' and 'luma', got nothing"):
        StreamState.from_tensors({})


def test_weights_survive_a_file(estimator: PoseEstimator, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "video.safetensors", estimator.model.config, estimator.model.state_dict())
    loaded = PoseEstimator.from_pretrained(tmp_path / "video.safetensors", device="cpu")
    assert isinstance(loaded.model, TemporalDEKR)
    assert loaded.config == estimator.config
    frames = scene(3)
    assert same(loaded.estimate_frames(frames)[0], estimator.estimate_frames(frames)[0])
    loaded.save_pretrained(tmp_path / "folder")
    again = PoseEstimator.from_pretrained(tmp_path / "folder", device="cpu")
    assert same(again.estimate_frames(frames)[0], estimator.estimate_frames(frames)[0])


def test_half_precision_keeps_the_memory_single() -> None:
    half = PoseEstimator(temporal_model(), dtype="bfloat16")
    _, state = half.estimate_frames(scene(3))
    assert state is not None
    assert state.hidden[1.0, 0].heatmap.dtype == state.hidden[1.0, 0].offset.dtype == torch.float32


def test_the_flat_network_has_no_state_but_chunks() -> None:
    model = temporal_model("gru_offset_flat")
    flat = PoseEstimator(model)
    with pytest.raises(ValueError, match="512 x 512 input"):
        flat.estimate_frames(scene(2))
    assert len(flat.estimate(scene(1)[0])) > 0
    assert model.config.temporal is not None


def grey(value: float) -> NDArray[np.uint8]:
    return np.full((64, 64, 3), round(255 * value), np.uint8)


def reasons(values: list[float], rules: ResetRules | None = None) -> list[str | None]:
    """Why a stream of grey frames begins anew at each of them."""
    sight, result = None, []
    for value in values:
        sight, reason = look(sight, grey(value), rules=rules)
        result.append(reason)
    return result


def test_large_differences_are_cuts() -> None:
    assert reasons([0.5, 0.6, 0.5]) == ["first frame", None, None]
    assert reasons([0.5, 0.9]) == ["first frame", "cut"]


def test_a_flash_is_one_cut() -> None:
    assert reasons([0.2, 0.9, 0.2, 0.9, 0.2, 0.2, 0.9]) == ["first frame", "cut", None, None, None, None, "cut"]


def test_between_the_thresholds_nothing_changes() -> None:
    values = [0.2, 0.6, 0.74, 0.6, 0.9]  # cut, then 0.14 twice: not yet calm, so 0.3 is none
    assert reasons(values) == ["first frame", "cut", None, None, None]
    assert reasons([0.2, 0.6, 0.61, 0.9]) == ["first frame", "cut", None, "cut"]
    assert reasons([0.2, 0.6], ResetRules(cut=0.5)) == ["first frame", None]


def test_why_a_stream_begins_anew() -> None:
    sight, _ = look(None, grey(0.5), 1.0)
    assert look(sight, grey(0.5), 1.5)[1] is None
    assert look(sight, grey(0.5), 1.51)[1] == "gap"
    assert look(sight, grey(0.5), 0.99)[1] == "gap"
    assert look(sight, grey(0.5), None)[1] is None
    assert look(sight, grey(0.5)[:60], 1.1)[1] == "aspect"
    assert look(sight, grey(0.5)[:32, :32], 1.1)[1] is None
    assert look(sight, np.full((64, 65, 3), 128, np.uint8), 1.1)[1] is None
    assert math.isnan(look(None, grey(0.5))[0].timestamp)


def test_rules_are_checked() -> None:
    with pytest.raises(ValueError, match="calm must lie between 0 and cut"):
        ResetRules(cut=0.1, calm=0.2)
    with pytest.raises(ValueError, match="gap must be positive"):
        replace(ResetRules(), gap=0)
