"""Augmentation: photos become square crops with moved, mirrored and mixed people."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from dekrpose.architectures.learning import AugmentConfig, Crop, Placement
from dekrpose.data.dataset import Photo
from dekrpose.training.copy_paste import paste_people
from dekrpose.training.crops import SCALE_UNIT, PhotoSource, moved_keypoints, training_affine


def augment(source: PhotoSource, index: int, config: AugmentConfig, rng: np.random.Generator) -> Crop:
    """Draw a crop whose (first) photo is ``index``; the same generator state gives the same crop."""
    size = config.size
    if rng.random() >= config.mosaic:
        crop = _crop(source, index, size, size, config, rng)
        if config.copy_paste and rng.random() < config.copy_paste:
            crop = paste_people(crop, source, index, rng, flip=config.flip, rotation=config.rotation)
        return _adjust_colors(crop, config, rng)
    columns, rows = ((2, 1), (1, 2), (2, 2))[rng.integers(3)]
    x_edges = _edges(size, columns, rng)
    y_edges = _edges(size, rows, rng)
    nobody = np.zeros((0, len(source.skeleton), 3), np.float32)
    crop = Crop(np.zeros((size, size, 3), np.uint8), nobody, np.zeros((size, size), bool))
    for cell, (column, row) in enumerate(np.ndindex(columns, rows)):
        left, right, top, bottom = x_edges[column], x_edges[column + 1], y_edges[row], y_edges[row + 1]
        photo = index if cell == 0 else int(rng.integers(len(source.photos)))
        part = _crop(source, photo, bottom - top, right - left, config, rng)
        crop = _join(crop, _adjust_colors(part, config, rng), left, top)
    return crop


def _edges(size: int, parts: int, rng: np.random.Generator) -> list[int]:
    return [0, size] if parts == 1 else [0, int(size * rng.uniform(0.35, 0.65)), size]


def _join(crop: Crop, part: Crop, left: int, top: int) -> Crop:
    height, width = part.image.shape[:2]
    crop.image[top : top + height, left : left + width] = part.image
    crop.ignored[top : top + height, left : left + width] = part.ignored
    moved = part.keypoints + np.array([left, top, 0], np.float32)
    cells = (*crop.cells, (left, top, left + width, top + height))
    return Crop(crop.image, np.concatenate([crop.keypoints, moved]), crop.ignored, cells=cells)


def _crop(
    source: PhotoSource, index: int, height: int, width: int, config: AugmentConfig, rng: np.random.Generator
) -> Crop:
    """A part of one photo, turned, scaled, shifted and maybe mirrored, of height x width input pixels."""
    photo = source.photos[index]
    people = [person.keypoints for person in photo.labelled]
    keypoints = np.stack(people) if people else np.zeros((0, len(source.skeleton), 3), np.float32)
    matrix, area_factor = _random_affine(photo, keypoints, (height, width), config, rng)
    placement = Placement(matrix, area_factor, mirrored=bool(rng.random() < config.flip))
    if placement.mirrored:
        matrix = np.array([[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0]]) @ np.vstack([matrix, [0, 0, 1]])
        keypoints = keypoints[:, source.skeleton.flip_indices]
    image = cv2.warpAffine(source.read(index), matrix, (width, height), flags=cv2.INTER_LINEAR)
    ignored = cv2.warpAffine(
        source.ignored_mask(index).view(np.uint8), matrix, (width, height), flags=cv2.INTER_NEAREST
    )
    moved = moved_keypoints(keypoints, matrix, (height, width))
    moved = moved[(moved[..., 2] > 0).any(-1)]
    return Crop(np.asarray(image, np.uint8), moved, ignored.astype(bool), placement)


def _random_affine(
    photo: Photo, keypoints: NDArray[np.float32], size: tuple[int, int], config: AugmentConfig, rng: np.random.Generator
) -> tuple[NDArray[np.float64], float]:
    side = min(photo.width, photo.height) * float(rng.uniform(*config.scale))
    center = np.array([photo.width / 2, photo.height / 2])
    if len(keypoints) and rng.random() < config.on_person:
        person = keypoints[rng.integers(len(keypoints))]
        center = person[person[:, 2] > 0, :2].mean(axis=0).astype(np.float64)
    center = center + rng.uniform(-config.translation, config.translation, 2) / SCALE_UNIT * side
    rotation = float(rng.uniform(-config.rotation, config.rotation))
    return training_affine((center[0], center[1]), side / SCALE_UNIT, size, rotation)


def _adjust_colors(crop: Crop, config: AugmentConfig, rng: np.random.Generator) -> Crop:
    """Change contrast, brightness and saturation by one 3x3 matrix and an offset."""
    if config.color == 0 and config.grey == 0:
        return crop
    contrast, brightness, saturation = 1 + rng.uniform(-config.color, config.color, 3)
    if rng.random() < config.grey:
        saturation = 0.0
    luma = np.array([0.299, 0.587, 0.114])
    matrix = contrast * (saturation * np.eye(3) + (1 - saturation) * np.tile(luma, (3, 1)))
    offset = 128 * (1 - contrast) + 128 * (brightness - 1)
    image = cv2.transform(crop.image, np.column_stack([matrix, np.full(3, offset)]))
    return replace(crop, image=np.asarray(image, np.uint8))
