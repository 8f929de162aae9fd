"""Copy-paste: people come with their keypoints and limbs, and hide whom they cover."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dekrpose.architectures.learning import AugmentConfig, Crop
from dekrpose.data.dataset import Person, Photo
from dekrpose.skeletons import COCO_17, CROWDPOSE_14, Skeleton
from dekrpose.training import copy_paste
from dekrpose.training.augment import augment
from dekrpose.training.copy_paste import paste_people
from dekrpose.training.person_mask import person_mask

SIZE = 160
STANDING = np.array(
    [
        (60, 18), (62, 16), (58, 16), (65, 18), (55, 18), (72, 34), (48, 34), (76, 52), (44, 52), (78, 68), (42, 68),
        (67, 70), (53, 70), (68, 96), (52, 96), (69, 122), (51, 122),
    ],
    np.float32,
)  # fmt: skip
"""Somebody of 106 pixels from eyes to ankles, in a photo of 120 x 140."""
GREEN, BLUE = (0, 200, 0), (0, 0, 200)


def somebody(shift: tuple[float, float] = (0, 0), segmentation: object = ()) -> Person:
    keypoints = np.concatenate([STANDING + np.float32(shift), np.full((17, 1), 2, np.float32)], axis=1)
    return Person(keypoints, np.array([35, 5, 50, 130], np.float32), 3900.0, False, "", list(segmentation))  # type: ignore[call-overload]


@dataclass
class GreenPhotos:
    """One green photo of a standing person."""

    skeleton: Skeleton = COCO_17
    photos: list[Photo] = field(default_factory=lambda: [Photo(1, "green", 120, 140, "", (somebody(),))])

    def read(self, index: int) -> NDArray[np.uint8]:
        return np.full((140, 120, 3), GREEN, np.uint8)

    def ignored_mask(self, index: int) -> NDArray[np.bool_]:
        mask = np.zeros((140, 120), bool)
        mask[:25] = True
        return mask


def blue(*people: NDArray[np.float32]) -> Crop:
    keypoints = np.stack(people) if people else np.zeros((0, 17, 3), np.float32)
    return Crop(np.full((SIZE, SIZE, 3), BLUE, np.uint8), keypoints, np.zeros((SIZE, SIZE), bool))


def green(crop: Crop) -> NDArray[np.bool_]:
    return np.asarray(crop.image[..., 1] > 100)


def pasted(crop: Crop, seed: int, source: GreenPhotos | None = None) -> Crop:
    return paste_people(crop, source or GreenPhotos(), 0, np.random.default_rng(seed))


def test_pasted_keypoints_lie_on_pasted_pixels() -> None:
    counts = []
    for seed in range(20):
        crop = pasted(blue(), seed)
        counts.append(len(crop.keypoints))
        for x, y in np.rint(crop.keypoints[crop.keypoints[..., 2] > 0][:, :2]).astype(int).clip(0, SIZE - 1):
            assert green(crop)[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3].any()
    assert set(counts) <= {0, 1, 2, 3}
    assert len(set(counts)) >= 3


def test_a_person_is_cut_out_along_its_limbs_with_soft_edges() -> None:
    source = GreenPhotos()
    crop = copy_paste._paste(blue(), source, 0, source.photos[0].people[0], np.eye(2, 3))
    assert crop is not None
    assert 0.1 < green(crop)[10:130, 35:85].mean() < 0.75  # no box
    assert not green(crop)[100:125, 59:61].any()  # between the legs
    values = np.unique(crop.image[..., 1])
    assert len(values) > 10
    np.testing.assert_allclose(crop.keypoints[0], source.photos[0].people[0].keypoints)


def test_a_polygon_is_used_where_the_annotation_has_one() -> None:
    star = [60.0, 10.0, 80.0, 130.0, 60.0, 100.0, 50.0, 120.0, 40.0, 130.0]
    crop, boxed = (
        copy_paste._paste(blue(), GreenPhotos(photos=[Photo(1, "", 120, 140, "", (own,))]), 0, own, np.eye(2, 3))
        for own in (somebody(segmentation=[star]), somebody(segmentation=[[35, 5, 85, 5, 85, 135, 35, 135]]))
    )
    assert crop is not None
    assert boxed is not None
    expected = np.zeros((SIZE, SIZE), np.uint8)
    cv2.fillPoly(expected, [np.array(star).reshape(-1, 2).astype(np.int32)], 1)
    assert (green(crop) != expected.astype(bool)).mean() < 0.02
    assert not green(boxed)[100:125, 59:61].any()  # a box tells nothing: limbs again


def test_who_is_covered_becomes_an_ignored_region_and_who_is_half_covered_stays() -> None:
    source = GreenPhotos()
    behind = somebody((3, 2)).keypoints
    beside = somebody((22, 0)).keypoints
    crop = copy_paste._paste(blue(behind, beside), source, 0, source.photos[0].people[0], np.eye(2, 3))
    assert crop is not None
    assert len(crop.keypoints) == 2
    np.testing.assert_array_equal(crop.keypoints[0, :, :2], beside[:, :2])
    assert set(crop.keypoints[0, :, 2]) == {1.0, 2.0}
    assert (crop.keypoints[0, :, 2] > 0).all()
    assert crop.ignored[110, 60]  # between the legs: the box of the one behind
    assert not crop.ignored[95, 52]  # on the pasted person's knee
    assert crop.ignored[18, 60]  # what its own photo ignores stays ignored
    assert not crop.ignored[:, 110:].any()


def test_people_who_would_bring_others_along_are_left_out() -> None:
    source = GreenPhotos()
    crowd = replace(source.photos[0], people=(somebody(), somebody((4, 3))))
    assert pasted(blue(), 3, GreenPhotos(photos=[crowd])).keypoints.size == 0
    pair = replace(source.photos[0], people=(somebody(), somebody((60, 3))))
    assert any(pasted(blue(), seed, GreenPhotos(photos=[pair])).keypoints.size for seed in range(5))


@pytest.mark.parametrize("missing", [slice(9, 17), slice(0, 5)], ids=["limbs", "head"])
def test_people_with_missing_parts_are_not_pasted(missing: slice) -> None:
    part = somebody()
    part.keypoints[missing, 2] = 0
    source = GreenPhotos(photos=[Photo(1, "green", 120, 140, "", (part,))])
    crop = blue()
    assert all(pasted(crop, seed, source) is crop for seed in range(5))


def test_nobody_is_pasted_without_edges_to_cut_along() -> None:
    source = GreenPhotos(skeleton=replace(COCO_17, edges=()))
    crop = blue()
    assert all(pasted(crop, seed, source) is crop for seed in range(5))


def test_a_mirrored_person_changes_sides() -> None:
    source = GreenPhotos()
    mirror = np.array([[-1.0, 0.0, 119.0], [0.0, 1.0, 0.0]])
    crop = copy_paste._paste(blue(), source, 0, source.photos[0].people[0], mirror)
    assert crop is not None
    left, right = (crop.keypoints[0, COCO_17.index(f"{side}_shoulder"), 0] for side in ("left", "right"))
    assert left > right  # as before: it still faces the camera


def test_sizes_fit_those_who_are_there() -> None:
    small = somebody().keypoints * np.float32([0.4, 0.4, 1])
    seen = []
    for seed in range(30):
        for person in pasted(blue(small), seed).keypoints[1:]:
            if (person[:, 2] > 0).all():
                seen.append(np.ptp(person[:, 1]) / np.ptp(small[:, 1]))
    assert len(seen) > 10
    assert 0.5 < min(seen) < 0.9
    assert 1.2 < max(seen) < 2.1  # 1.4 times somebody who may have been pasted before, at 1.4 times


def test_half_of_the_people_overlap_somebody() -> None:
    near = 0
    for seed in range(40):
        crop = pasted(blue(somebody((20, 10)).keypoints), seed)
        near += bool((crop.keypoints[:1, :, 2] == 1).any() or len(crop.keypoints) == 0)
    assert 8 < near < 38


def test_the_crop_itself_is_not_changed_and_the_generator_decides() -> None:
    crop = blue(somebody().keypoints)
    before = crop.image.copy(), crop.keypoints.copy(), crop.ignored.copy()
    first, again, other = (pasted(crop, seed) for seed in (1, 1, 2))
    for value, old in zip((crop.image, crop.keypoints, crop.ignored), before, strict=True):
        np.testing.assert_array_equal(value, old)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.keypoints, again.keypoints)
    assert (first.image != other.image).any()


@pytest.mark.parametrize("mosaic", [0.0, 0.5])
def test_augment_pastes_with_its_probability_and_not_at_all_by_default(mosaic: float) -> None:
    source = GreenPhotos()
    config = AugmentConfig(size=SIZE, mosaic=mosaic)
    plain = [augment(source, 0, config, np.random.default_rng(seed)) for seed in range(12)]
    mixed = [augment(source, 0, replace(config, copy_paste=1.0), np.random.default_rng(seed)) for seed in range(12)]
    more = [len(b.keypoints) > len(a.keypoints) for a, b in zip(plain, mixed, strict=True)]
    single = [not crop.cells for crop in plain]
    assert not any(m for m, s in zip(more, single, strict=True) if not s)
    assert sum(more) >= sum(single) // 2


def test_masks_of_other_skeletons_follow_their_edges() -> None:
    keypoints = np.zeros((14, 3), np.float32)
    for name, index in ((name, COCO_17.index(name)) for name in CROWDPOSE_14.keypoints if name in COCO_17.keypoints):
        keypoints[CROWDPOSE_14.index(name)] = (*STANDING[index], 2)
    keypoints[CROWDPOSE_14.index("head_top")] = (60, 4, 2)
    keypoints[CROWDPOSE_14.index("neck")] = (60, 30, 2)
    mask = person_mask(keypoints, CROWDPOSE_14, (140, 120))
    coco = person_mask(somebody().keypoints, COCO_17, (140, 120))
    assert (mask[keypoints[:, 1].astype(int), keypoints[:, 0].astype(int)] > 127).all()
    assert ((mask > 127) & (coco > 127)).sum() > 0.85 * ((mask > 127) | (coco > 127)).sum()
    bird = Skeleton("bird", ("beak", "left_wing", "right_wing"), ((0, 1), (0, 2)), ((1, 2),), (0.1,) * 3)
    wings = person_mask(np.float32([[20, 20, 2], [50, 40, 2], [5, 40, 0]]), bird, (60, 60))
    assert wings[30, 35] == 255
    assert not wings[30, 8]
    assert not person_mask(np.zeros((3, 3), np.float32), bird, (60, 60)).any()
