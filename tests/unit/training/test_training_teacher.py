"""A teacher beside the labels, several data sets, rates of pretrained layers, precision: what a recipe can ask for."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dekrpose.architectures.dekr.batches import MapBatch as Batch
from dekrpose.architectures.dekr.batches import TargetConfig
from dekrpose.architectures.dekr.initial import fit_to_skeleton
from dekrpose.architectures.dekr.losses import probability_loss
from dekrpose.architectures.dekr.network import DEKR
from dekrpose.architectures.dekr.teacher import PIXELS, Teacher
from dekrpose.cli import main
from dekrpose.commands.train import _dataset
from dekrpose.errors import DekrPoseError
from dekrpose.training import forward, memory
from dekrpose.training.loader import CachedPhotos, Samples, collate
from dekrpose.training.loop import Trainer
from dekrpose.training.memory import keep_freed_memory
from tests.movenet_files import OWN
from tests.training_photos import SMALL, made_up_dataset
from tests.unit.training.test_training import CONFIG

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> CachedPhotos:
    return CachedPhotos(made_up_dataset(tmp_path_factory.mktemp("data")), progress=False)


def batch_of(photos: CachedPhotos, targets: TargetConfig = CONFIG.targets) -> Batch:
    samples = Samples(photos, CONFIG.augment, targets, 0)
    return collate([samples[0, index, index] for index in range(3)])


class Says(DEKR):
    """A teacher that sees somebody at one place, with all keypoints 3 heatmap pixels to the right of it."""

    def __init__(self) -> None:
        super().__init__(SMALL)
        self.place = (5, 4)

    def forward(self, images: Tensor, *, pick: object = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        x, y = self.place
        heatmaps = torch.zeros(len(images), 18, images.shape[2] // 4, images.shape[3] // 4)
        heatmaps[:, -1, y, x] = 0.8
        heatmaps[:, :-1, y, x + 3] = 1.5  # beyond what a heatmap can be
        pixels = pick(heatmaps)  # type: ignore[operator]
        offsets = torch.tensor([-3.0, 0.0]).repeat(17)[None, :, None].expand(len(images), -1, pixels.shape[1])
        spread = torch.arange(34.0)[None, :, None] / 10  # a pose has an extent
        return heatmaps, offsets + spread


def test_labels_and_the_teacher_are_mixed_and_masked_places_are_the_teachers(photos: CachedPhotos) -> None:
    batch = batch_of(photos)
    batch.heatmap_weights[:, :, :, :8] = 0  # masked
    taught = Teacher(Says(), 0.25, CPU).taught(batch)
    torch.testing.assert_close(taught.heatmaps[:, -1, 4, 5], torch.full((3,), 0.8))
    torch.testing.assert_close(taught.heatmap_weights[:, -1, 4, 5], torch.full((3,), 0.25 * 0.8))
    torch.testing.assert_close(taught.heatmap_weights[:, 0, 15, 0], torch.full((3,), 0.25 * 0.1))
    torch.testing.assert_close(taught.heatmaps[:, 0, 4, 8], 0.75 * batch.heatmaps[:, 0, 4, 8] + 0.25)
    torch.testing.assert_close(taught.heatmaps[:, 0, 12, 12], 0.75 * batch.heatmaps[:, 0, 12, 12])
    assert torch.equal(taught.heatmap_weights[:, 0, 12, 12], batch.heatmap_weights[:, 0, 12, 12])


def test_offsets_are_taught_where_the_teacher_sees_centers(photos: CachedPhotos) -> None:
    batch = batch_of(photos)
    taught = Teacher(Says(), 0.25, CPU).taught(batch)
    assert taught.pixels is not None
    assert taught.offsets.shape[2] == 40 + PIXELS == taught.pixels.shape[1]
    assert torch.equal(taught.offsets[..., :40], batch.offsets)
    own = taught.offset_weights[..., 40:]
    at_center = (taught.pixels[:, 40:] == torch.tensor([5, 4])).all(2)
    assert torch.equal(own[:, 0] > 0, at_center)
    diagonal = (3.2**2 + 3.2**2) ** 0.5  # of the made-up pose's box
    torch.testing.assert_close(own[:, 0][at_center], torch.full((3,), 0.25 * 0.8 / diagonal))
    torch.testing.assert_close(taught.offsets[0, 0, 40:][at_center[0]], torch.tensor([-3.0]))


def test_where_offsets_are_taught_everywhere_labels_come_first(photos: CachedPhotos) -> None:
    batch = batch_of(photos, replace(CONFIG.targets, offset_pixels=0))
    batch.offset_weights[:, :, 4, 5] = 0
    batch.offset_weights[1, :, 4, 5] = 0.7
    taught = Teacher(Says(), 0.25, CPU).taught(batch)
    assert taught.pixels is None
    assert float(taught.offsets[0, 0, 4, 5]) == -3
    assert float(taught.offset_weights[0, 0, 4, 5]) > 0
    assert torch.equal(taught.offsets[1, :, 4, 5], batch.offsets[1, :, 4, 5])
    assert torch.equal(taught.offset_weights[1, :, 4, 5], batch.offset_weights[1, :, 4, 5])


def test_a_run_with_a_teacher_learns_what_it_says(photos: CachedPhotos, tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=1, teacher_share=1.0)
    trainer = Trainer(OWN, config, photos, tmp_path, teacher=DEKR(OWN))
    trainer.run()
    assert trainer.progress.step == 3


def test_a_run_goes_on_with_its_own_teacher_alone(photos: CachedPhotos, tmp_path: Path) -> None:
    config, teacher, stranger = replace(CONFIG, epochs=1), DEKR(OWN), DEKR(OWN)
    Trainer(OWN, config, photos, tmp_path, teacher=teacher).run(until=1)
    for other in (None, stranger):
        with pytest.raises(DekrPoseError, match=r"other settings \(teacher\)"):
            Trainer(OWN, config, photos, tmp_path, teacher=other)
    assert Trainer(OWN, config, photos, tmp_path, teacher=teacher).progress.step == 1


def test_pretrained_layers_stay_or_move_less(photos: CachedPhotos, tmp_path: Path) -> None:
    start = DEKR(OWN).state_dict()
    moved = {}
    for rate in (0.0, 0.01, 1.0):
        config = replace(CONFIG, pretrained_rate=rate, weight_decay=0.0)
        trainer = Trainer(OWN, config, photos, tmp_path / f"{rate}", initial=start)
        trainer.run()
        after = trainer.model.state_dict()
        moved[rate] = {
            name: float((after[name] - start[name]).abs().max()) for name in start if name.endswith("weight")
        }
    for name in ("backbone.stem.weight", "heatmap_head.final.weight", "offset_head.groups.1.final.weight"):
        assert moved[0.0][name] == 0
        assert 0 < moved[0.01][name] < 0.1 * moved[1.0][name]
    assert min(moved[rate]["backbone.merges.0.project.0.weight"] for rate in moved) > 0


def test_fresh_heads_on_a_pretrained_backbone_learn_at_the_full_rate(photos: CachedPhotos, tmp_path: Path) -> None:
    brought = {name: value for name, value in DEKR(OWN).state_dict().items() if name.startswith("backbone.")}
    config = replace(CONFIG, pretrained_rate=0.0)
    trainer = Trainer(OWN, config, photos, tmp_path, initial=brought)
    fresh = {name: value.clone() for name, value in trainer.model.heatmap_head.state_dict().items()}
    assert (torch.sigmoid(fresh["final.bias"]) < 0.02).all()
    trainer.run()
    after = trainer.model.state_dict()
    assert torch.equal(after["backbone.stem.weight"], brought["backbone.stem.weight"])
    assert all(not torch.equal(after[f"heatmap_head.{name}"], value) for name, value in fresh.items())


def test_layers_of_keypoints_that_are_new_learn_at_the_full_rate(photos: CachedPhotos, tmp_path: Path) -> None:
    names = tuple(f"end_{number}" for number in range(len(OWN.skeleton)))
    start = fit_to_skeleton(DEKR(OWN).state_dict(), OWN, replace(OWN.skeleton, keypoints=names))
    assert start["heatmap_head.final.weight"].isnan().all()
    trainer = Trainer(OWN, replace(CONFIG, pretrained_rate=0.0), photos, tmp_path, initial=start)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.run()
    for name, value in trainer.model.state_dict().items():
        assert value.isfinite().all(), name
        fresh = name.startswith(("heatmap_head.final.", "offset_head.groups.1.final."))
        kept = name.startswith(("heatmap_head.keypoints.", "heatmap_head.final_center.", "backbone.blocks."))
        assert not fresh or not torch.equal(value, before[name]), name
        assert not kept or torch.equal(value, before[name]), name


def test_several_data_sets_make_one_and_may_be_shown_more_often(tmp_path: Path) -> None:
    one, other = made_up_dataset(tmp_path / "one", 2), made_up_dataset(tmp_path / "other", 3)
    joined = CachedPhotos([one, other], progress=False, times=[1, 3])
    assert len(joined.photos) == 2 + 3 * 3
    for place, (dataset, index) in {1: (one, 1), 2: (other, 0), 5: (other, 0), 10: (other, 2)}.items():
        assert joined.photos[place] == dataset.photos[index]
        assert (joined.read(place) == dataset.read(index)).all()
        assert (joined.ignored_mask(place) == dataset.ignored_mask(index)).all()
    assert joined.read(2) is joined.read(8)  # kept once


def test_a_data_file_with_a_number_of_times(tmp_path: Path) -> None:
    assert _dataset("people.json") == (Path("people.json"), 1)
    assert _dataset("people.json.gz=3") == (Path("people.json.gz"), 3)
    assert _dataset("set=a.json") == (Path("set=a.json"), 1)
    (tmp_path / "odd=2").touch()
    assert _dataset(str(tmp_path / "odd=2")) == (tmp_path / "odd=2", 1)
    with pytest.raises(argparse.ArgumentTypeError, match="'x' is no such number"):
        _dataset("people.json=x")


@pytest.mark.parametrize(
    ("option", "lacking"), [("--teacher-share", "give --teacher MODEL"), ("--pretrained-rate", "give them by --init")]
)
def test_shares_of_what_is_not_there_are_refused(
    option: str, lacking: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "people.json", "--out", str(tmp_path / "run"), option, "0.5"]) == 1
    assert lacking in capsys.readouterr().err


def test_files_of_other_keypoints_are_not_joined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_up_dataset(tmp_path / "one")
    (tmp_path / "two.json").write_text(
        '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "person", "keypoints": ["head", "tail"]}]}'
    )
    words = ["train", str(tmp_path / "one/people.json"), str(tmp_path / "two.json"), "--out", str(tmp_path / "run")]
    assert main(words) == 1
    assert "two.json has other keypoints than" in capsys.readouterr().err


def test_the_loss_of_probabilities_is_0_at_its_target_and_pushes_where_a_square_does_not() -> None:
    target = torch.tensor([[0.0, 0.3, 1.0]])
    assert float(probability_loss(target, target, torch.ones_like(target))) == pytest.approx(0, abs=1e-6)
    logits = torch.tensor([-9.0], requires_grad=True)
    probability_loss(logits.sigmoid(), torch.ones(1), torch.ones(1)).backward()
    assert logits.grad is not None
    assert float(logits.grad) == pytest.approx(-1, abs=1e-3)


@pytest.mark.parametrize(("half", "expected"), [(0.5, "bfloat16"), (0.95, "float32"), (8.0, "float32")])
def test_bfloat16_is_taken_where_it_is_faster(monkeypatch: pytest.MonkeyPatch, half: float, expected: str) -> None:
    monkeypatch.setattr(forward, "_seconds", lambda dtype: half if dtype == torch.bfloat16 else 1.0)
    chosen, reason = forward.choose_precision(CPU)
    assert chosen == expected
    assert "on this CPU" in reason
    assert forward._seconds(torch.float32) > 0


def test_the_chosen_precision_is_told_and_may_change_when_a_run_goes_on_elsewhere(
    photos: CachedPhotos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(forward, "_seconds", lambda dtype: 8.0 if dtype == torch.bfloat16 else 1.0)
    Trainer(SMALL, replace(CONFIG, precision="auto"), photos, tmp_path).run(until=2)
    assert "precision: float32, because a convolution in bfloat16 takes 8.0 times as long" in capsys.readouterr().err
    Trainer(SMALL, replace(CONFIG, precision="float32"), photos, tmp_path).run(until=3)


def test_freed_memory_is_kept_where_the_c_library_can(monkeypatch: pytest.MonkeyPatch) -> None:
    assert keep_freed_memory() in (True, False)
    monkeypatch.setattr("sys.platform", "darwin")
    assert keep_freed_memory() is False


def test_spawned_workers_make_the_same_batches_from_shared_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a system without fork does, such as Windows."""
    dataset = made_up_dataset(tmp_path / "data", 6)
    forked = next(
        iter(Trainer(SMALL, replace(CONFIG, workers=1), CachedPhotos(dataset, progress=False), tmp_path / "a").loader)
    )
    monkeypatch.setattr("multiprocessing.get_all_start_methods", lambda: ["spawn"])
    monkeypatch.setattr(memory, "_BLOCK_BYTES", 2 * 96 * 96 * 3)
    photos = CachedPhotos(dataset, progress=False)
    assert isinstance(photos._images, memory.SharedPictures)
    assert len(photos._images._blocks) == 3
    for index in range(6):
        assert (photos.read(index) == dataset.read(index)).all()
    spawned = next(iter(Trainer(SMALL, replace(CONFIG, workers=1), photos, tmp_path / "b").loader))
    assert torch.equal(spawned.images, forked.images)
    assert torch.equal(spawned.offsets, forked.offsets)


def test_processes_are_spawned_on_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert memory.start_method() == "spawn"
