"""Batches made on the device: the targets of the loader, the same kinds of crops."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from dekrpose.architectures.dekr.batches import TargetConfig
from dekrpose.architectures.dekr.targets import heatmap_targets, offset_targets, person_centers
from dekrpose.architectures.learning import AugmentConfig
from dekrpose.errors import DekrPoseError
from dekrpose.training.device_batches import DeviceBatches
from dekrpose.training.loader import CachedPhotos
from dekrpose.training.order import EpochOrder
from dekrpose.training.packed_photos import PackedPhotos, people_of, render
from tests.nothing_waits import NothingWaits
from tests.training_photos import made_up_dataset

STILL = AugmentConfig(size=96, rotation=0, scale=(1.0, 1.0), translation=0, flip=0)
WILD = AugmentConfig(
    size=64, rotation=40, scale=(0.5, 1.6), flip=0.5, color=0.3, grey=0.2, mosaic=0.6, on_person=0.5
)  # fmt: skip
TARGETS = TargetConfig(sigma=1.5, center_sigma=2.0, radius=3)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> CachedPhotos:
    return CachedPhotos(made_up_dataset(tmp_path_factory.mktemp("data")), progress=False)


def batches(photos: CachedPhotos, augmentation: AugmentConfig, targets: TargetConfig = TARGETS) -> DeviceBatches:
    return DeviceBatches(photos, EpochOrder(6, 3, seed=0), augmentation, targets, seed=0, device=CPU)


def test_an_unchanged_photo_stays_as_it_is(photos: CachedPhotos) -> None:
    batch = batches(photos, STILL).make(np.array([2, 0]))
    assert batch.images.dtype == torch.uint8
    for image, index in zip(batch.images, (2, 0), strict=True):
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), photos.read(index))
    people = torch.from_numpy(np.stack([p.keypoints for p in photos.photos[2].people]))
    people[..., :2] /= 4
    heatmaps, weights = heatmap_targets(people, person_centers(people), (24, 24), sigma=1.5, center_sigma=2.0)
    torch.testing.assert_close(batch.heatmaps[0], heatmaps)
    torch.testing.assert_close(batch.heatmap_weights[0], weights)


@pytest.mark.parametrize("seed", range(4))
def test_targets_of_a_batch_of_crowds_equal_those_of_its_crops(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    people = torch.rand(3, 7, 5, 3, generator=generator) * torch.tensor([44.0, 44.0, 1.0]) - torch.tensor([2.0, 2.0, 0])
    people[..., 2] = (people[..., 2] > 0.3).float()
    people[0, 4:, :, 2] = 0  # nobody
    people[1, 0, 1:, 2] = 0  # one label only
    ignored = torch.rand(3, 40, 40, generator=generator) > 0.9
    centers = person_centers(people, minimum_keypoints=2)
    heatmaps, weights = heatmap_targets(people, centers, (40, 40), sigma=1.5, center_sigma=2.0, ignored=ignored)
    offsets, offset_weights = offset_targets(people, centers, (40, 40), radius=3)
    assert (offset_weights > 0).any()
    for index in range(3):
        own = people[index][(people[index, ..., 2] > 0).any(-1)]
        own_centers = person_centers(own, minimum_keypoints=2)
        expected = [
            *heatmap_targets(own, own_centers, (40, 40), sigma=1.5, center_sigma=2.0, ignored=ignored[index]),
            *offset_targets(own, own_centers, (40, 40), radius=3),
        ]
        found = [heatmaps[index], weights[index], offsets[index], offset_weights[index]]
        for name, ours, theirs in zip(("heat", "weight", "offset", "offset weight"), found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, msg=lambda text, name=name: f"{name}: {text}")


def test_pixels_and_keypoints_move_together_as_opencv_moves_them(photos: CachedPhotos) -> None:
    made = batches(photos, replace(WILD, mosaic=0.0, color=0.0, grey=0.0))
    made.seed_with([3])
    cells = made._draw(np.arange(6))
    images, _ = render(made.packed, cells, 64)
    people = people_of(made.packed, cells)
    for index in range(6):
        matrix = cells.matrices[index, 0].numpy().astype(np.float64)
        if cells.mirrored[index, 0]:
            matrix = np.array([[-1.0, 0.0, 63.0], [0.0, 1.0, 0.0]]) @ np.vstack([matrix, [0, 0, 1]])
        expected = cv2.warpAffine(photos.read(index), matrix, (64, 64), flags=cv2.INTER_LINEAR)
        difference = np.abs(images[index].permute(1, 2, 0).numpy().astype(int) - expected)
        assert np.percentile(difference, 99) <= 6  # OpenCV rounds positions to 1/32 pixel
        own = photos.photos[index].people[0].keypoints
        order = photos.skeleton.flip_indices if cells.mirrored[index, 0] else range(17)
        moved = own[list(order), :2] @ matrix[:, :2].T + matrix[:, 2]
        seen = people[index, 0, :, 2] > 0
        np.testing.assert_allclose(people[index, 0, seen, :2], moved[seen.numpy()], atol=1e-3)
        assert seen.tolist() == ((moved >= 0) & (moved < 64)).all(1).tolist()


def test_mosaics_join_photos_and_keep_people_in_their_cells(photos: CachedPhotos) -> None:
    made = batches(photos, replace(WILD, mosaic=1.0))
    cells = made._draw(np.arange(6))
    extent = cells.boxes[..., 2:] - cells.boxes[..., :2]
    assert torch.equal((extent[..., 0] * extent[..., 1]).sum(1), torch.full((6,), 64.0 * 64.0))
    assert ((extent > 0).all(-1).sum(1) >= 2).all()
    people = people_of(made.packed, cells)
    seen = people[..., 2] > 0
    assert ((people[..., :2] >= 0) & (people[..., :2] < 64)).all(-1)[seen].all()
    assert (seen.any(-1).sum(1) >= 1).all()


def test_ignored_regions_have_no_weight(photos: CachedPhotos) -> None:
    made = batches(photos, STILL)
    start = int(made.packed.starts[1])
    made.packed.pixels[start : start + 96 * 48, 3] = 255  # the upper half
    batch = made.make(np.array([1, 2]))
    assert (batch.heatmap_weights[0, :, :12] == 0).all()
    assert (batch.heatmap_weights[0, :, 12:] > 0).all()
    assert (batch.heatmap_weights[1] > 0).all()


def test_chosen_pixels_hold_every_weighted_one(photos: CachedPhotos) -> None:
    dense = next(iter(batches(photos, WILD)))
    sparse = next(iter(batches(photos, WILD, replace(TARGETS, offset_pixels=200))))
    assert torch.equal(dense.images, sparse.images)
    assert sparse.pixels is not None
    assert (dense.offset_weights > 0).sum() == (sparse.offset_weights > 0).sum() > 0
    for index in range(3):
        x, y = sparse.pixels[index].T
        assert torch.equal(dense.offsets[index][:, y, x], sparse.offsets[index])


def test_making_a_batch_waits_for_nothing(photos: CachedPhotos) -> None:
    made = batches(photos, WILD, replace(TARGETS, offset_pixels=100))
    with NothingWaits():
        made.make(np.arange(6))


def test_a_crop_with_all_people_of_its_photos_keeps_them(photos: CachedPhotos) -> None:
    made = batches(photos, replace(STILL, mosaic=1.0, scale=(2.0, 2.0)))
    cells = made._draw(np.arange(6))
    people = people_of(made.packed, cells)
    extent = cells.boxes[..., 2:] - cells.boxes[..., :2]
    assert ((people[..., 2] > 0).any(-1).sum(1) == (extent > 0).all(-1).sum(1)).all()  # one person in each photo


def test_epoch_and_batch_decide_the_crops(photos: CachedPhotos) -> None:
    first, second = batches(photos, WILD), batches(photos, WILD)
    whole = [batch.images for batch in first]
    second.order.first_batch = 1
    (resumed,) = [batch.images for batch in second]
    assert torch.equal(resumed, whole[1])
    first.order.epoch = 1
    assert not torch.equal(next(iter(first)).images, whole[0])


def test_photos_are_packed_with_four_bytes_per_pixel(photos: CachedPhotos) -> None:
    packed = PackedPhotos.pack(photos, CPU)
    assert packed.pixels.shape == (6 * 96 * 96, 4)
    assert packed.counts.tolist() == [1] * 6


def test_what_only_the_loader_does_is_refused(photos: CachedPhotos) -> None:
    with pytest.raises(DekrPoseError, match=r"copy_paste 0\.5; leave out --on-device, or these"):
        batches(photos, replace(STILL, copy_paste=0.5))
    with pytest.raises(DekrPoseError, match="official targets"):
        batches(photos, STILL, replace(TARGETS, mode="official"))
