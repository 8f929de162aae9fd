"""People of other photos pasted into a crop, so that crowds occur where the photos show one person each."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from dekrpose.architectures.learning import Crop
from dekrpose.data.dataset import Person, Photo
from dekrpose.skeletons import Skeleton
from dekrpose.training.crops import PhotoSource, moved_keypoints
from dekrpose.training.person_mask import cut_out, head_keypoints, hidden_keypoints, long_bone

MOST_PEOPLE = 3
"""That are pasted into one crop."""
COVERED = 0.6
"""Somebody with a larger share of its labels behind a pasted person is no longer taught."""
_ATTEMPTS = 4
_OWN_PHOTO = 0.2  # how often a person of the crop's own photo is pasted
_WHOLE = 0.7  # share of labels that a person needs, or parts of its body would be missing
_LEAST_DETAIL = 40.0  # image pixels between the corners of a person's keypoints
_LARGEST_ZOOM = 1.5
_INSIDE = 0.5  # share of a pasted person's labels that must be in the crop
_OTHERS = 2  # labels of somebody else that may come along with a person
_TILT = 15.0  # degrees
_RELATIVE_SIZE = (0.6, 1.4)  # of a pasted person to somebody in the crop
_SIZE_ALONE = (0.3, 0.8)  # the same to the crop, when nobody is in it
_SMALLEST = 0.15  # also when those in the crop are smaller
_REACH = 0.6  # how far a body goes beyond its keypoints, in long bones


def paste_people(
    crop: Crop, source: PhotoSource, index: int, rng: np.random.Generator, *, flip: float = 0.5, rotation: float = 30.0
) -> Crop:
    """Paste one to three people into a crop, half of them partly over somebody who is there.

    A person is cut out along its segmentation where that is a polygon, else along its limbs. Whoever lies behind a
    pasted person keeps its labels, as hidden ones; with more than 60 % of them hidden it becomes an ignored region.
    ``index`` is the crop's photo, ``flip`` the probability of mirroring a person, ``rotation`` the largest turn,
    degrees, of which at most 15 are used. The crop is not changed; it comes back when nobody fits.
    """
    for _ in range(int(rng.integers(1, MOST_PEOPLE + 1))):
        for _ in range(_ATTEMPTS):
            photo = index if rng.random() < _OWN_PHOTO else int(rng.integers(len(source.photos)))
            people = [p for p in source.photos[photo].people if _is_whole(p, source.skeleton)]
            if not people:
                continue
            person = people[rng.integers(len(people))]
            target, matrix = _placed(person, crop, rng, flip=flip, tilt=min(rotation, _TILT))
            if not _shows_photo(crop, source.photos[index], target):
                continue
            pasted = _paste(crop, source, photo, person, matrix)
            if pasted is not None:
                crop = pasted
                break
    return crop


def _extent(keypoints: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Middle and size of the box of a person's labelled keypoints."""
    xy = keypoints[keypoints[:, 2] > 0, :2].astype(np.float64)
    low, high = xy.min(axis=0), xy.max(axis=0)
    return (low + high) / 2, high - low


def _is_whole(person: Person, skeleton: Skeleton) -> bool:
    labelled = person.keypoints[:, 2] > 0
    head = head_keypoints(skeleton)
    if person.ignored or labelled.sum() < _WHOLE * len(skeleton) or (head and not labelled[head].any()):
        return False
    return bool(np.linalg.norm(_extent(person.keypoints)[1]) >= _LEAST_DETAIL)


def _shows_photo(crop: Crop, photo: Photo, point: NDArray[np.float64]) -> bool:
    """Whether the crop's photo covers a point; beyond its border nobody stands."""
    if crop.placement is None:
        return True
    x = crop.ignored.shape[1] - 1 - point[0] if crop.placement.mirrored else point[0]
    matrix = crop.placement.matrix
    in_photo = np.linalg.solve(matrix[:, :2], np.array([x, point[1]]) - matrix[:, 2])
    return bool((in_photo >= 0).all() and (in_photo < (photo.width, photo.height)).all())


def _placed(
    person: Person, crop: Crop, rng: np.random.Generator, *, flip: float, tilt: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where a person's middle shall be, input pixels, and (2, 3) image pixels of its photo to input pixels."""
    middle, extent = _extent(person.keypoints)
    height, width = crop.ignored.shape
    near = _extent(crop.keypoints[rng.integers(len(crop.keypoints))]) if len(crop.keypoints) else None
    limits = _RELATIVE_SIZE if near else _SIZE_ALONE
    reference = float(np.linalg.norm(near[1])) if near else float(min(height, width))
    wanted = reference * float(np.exp(rng.uniform(*np.log(limits))))
    zoom = min(max(wanted, _SMALLEST * min(height, width)) / float(np.linalg.norm(extent)), _LARGEST_ZOOM)
    target = rng.uniform(0, 1, 2) * (width, height)
    if near and rng.random() < 0.5:
        apart = (near[1] + zoom * extent) / 2
        shift = rng.uniform(0.3, 0.9) * rng.choice((-1.0, 1.0)), rng.uniform(-0.3, 0.3)
        target = near[0] + apart * shift
    angle = np.deg2rad(rng.uniform(-tilt, tilt))
    mirror = -1.0 if rng.random() < flip else 1.0
    linear = zoom * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) * (mirror, 1.0)
    return target, np.column_stack([linear, target - linear @ middle])


def _paste(crop: Crop, source: PhotoSource, index: int, person: Person, matrix: NDArray[np.float64]) -> Crop | None:
    """The crop with one more person, or None when too little of it is inside, or others come along with it."""
    skeleton, photo, size = source.skeleton, source.photos[index], crop.ignored.shape
    mirrored = np.linalg.det(matrix[:, :2]) < 0
    order = list(skeleton.flip_indices) if mirrored else list(range(len(skeleton)))
    moved = moved_keypoints(person.keypoints[None, order], matrix, size)
    if (moved[0, :, 2] > 0).sum() < _INSIDE * (person.keypoints[:, 2] > 0).sum():
        return None
    ahead = person.keypoints.astype(np.float64)
    ahead[:, :2] = ahead[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    left, top, right, bottom = _region(ahead, skeleton, size)
    matrix = matrix - [[0, 0, left], [0, 0, top]]
    mask, alpha = cut_out(person, (photo.height, photo.width), matrix, skeleton, (bottom - top, right - left))
    if mask.max() < 128:  # a skeleton without edges
        return None
    others = [other.keypoints for other in photo.labelled if other is not person]
    if others:
        along = moved_keypoints(np.stack(others), matrix, mask.shape)
        if hidden_keypoints(along, mask > 127).sum() > _OTHERS:
            return None
    image, ignored = crop.image.copy(), crop.ignored.copy()
    place = slice(top, bottom), slice(left, right)
    extent = (right - left, bottom - top)
    part = cv2.warpAffine(source.read(index), matrix, extent, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    image[place] = np.rint(image[place] + alpha * (part.astype(np.float32) - image[place]))
    unknown = cv2.warpAffine(source.ignored_mask(index).view(np.uint8), matrix, extent, flags=cv2.INTER_NEAREST)
    inside = np.zeros(size, bool)
    inside[place] = mask > 127
    keypoints = _without_covered(crop.keypoints, inside, ignored)
    ignored[place] = np.where(inside[place], unknown > 0, ignored[place])
    return replace(crop, image=image, keypoints=np.concatenate([keypoints, moved]), ignored=ignored)


def _region(keypoints: NDArray[np.float64], skeleton: Skeleton, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the crop's part that a person can touch."""
    reach = 1 + _REACH * long_bone(keypoints, skeleton)
    xy = keypoints[keypoints[:, 2] > 0, :2]
    left, top = (int(value) for value in np.maximum(np.floor(xy.min(axis=0) - reach), 0))
    right, bottom = (int(value) for value in np.minimum(np.ceil(xy.max(axis=0) + reach), size[::-1]))
    return left, top, right, bottom


def _without_covered(
    keypoints: NDArray[np.float32], inside: NDArray[np.bool_], ignored: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """People who are still to be seen, hidden keypoints marked; the boxes of the others are set in ``ignored``."""
    keypoints = keypoints.copy()
    hidden = hidden_keypoints(keypoints, inside)
    keypoints[hidden, 2] = 1
    covered = hidden.sum(axis=1) > COVERED * (keypoints[..., 2] > 0).sum(axis=1)
    for person in keypoints[covered]:
        middle, extent = _extent(person)
        half = extent / 2 + 0.1 * float(np.linalg.norm(extent))
        left, top = (int(value) for value in np.maximum(middle - half, 0))
        right, bottom = (int(np.ceil(value)) for value in middle + half)
        ignored[top:bottom, left:right] = True
    return np.asarray(keypoints[~covered], np.float32)
