"""Where a person is: along its segmentation, or by its keypoints, for data that has none."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from dekrpose.data.dataset import Person
from dekrpose.skeletons import Skeleton

Floats = NDArray[np.floating]

_THICKNESS = {"shoulder": 0.15, "elbow": 0.12, "wrist": 0.1, "hip": 0.21, "knee": 0.15, "ankle": 0.12, "neck": 0.12}
"""Half the thickness of a clothed body around a keypoint, in long bones (thigh or torso)."""
_OTHER_THICKNESS = 0.12
_BEYOND = {("elbow", "wrist"): 0.3, ("knee", "ankle"): 0.2}
"""How far hands and feet reach beyond the last keypoint, in long bones."""
_TORSO = ("left_shoulder", "right_shoulder", "right_hip", "left_hip")
_FACE = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
_TOP_OF_HEAD = ("top_head", "head_top")
_HEAD = (0.31, 0.23)
"""Half height and half width of a head with hair, in long bones."""
_ANGLES = np.linspace(0, 2 * np.pi, 16, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
_SHIFT = 4  # OpenCV's sub-pixel bits


def long_bone(keypoints: Floats, skeleton: Skeleton) -> float:
    """The second longest edge between labelled keypoints, which stays when others are foreshortened; 0 if none.

    Keypoints (K, 3) x, y, visibility may be in any frame; the length is in its pixels.
    """
    edges = [edge for edge in skeleton.edges if (keypoints[list(edge), 2] > 0).all()]
    lengths = sorted(float(np.linalg.norm(keypoints[a, :2] - keypoints[b, :2])) for a, b in edges)
    return lengths[-2:][0] if lengths else 0.0


def head_keypoints(skeleton: Skeleton) -> list[int]:
    """Indices of the keypoints that show where the head is."""
    return [index for index, name in enumerate(skeleton.keypoints) if name in (*_FACE, *_TOP_OF_HEAD)]


def person_mask(
    keypoints: Floats, skeleton: Skeleton, size: tuple[int, int], outline: Sequence[Floats] = ()
) -> NDArray[np.uint8]:
    """Where a person is: tapered limbs along the edges, the torso between shoulders and hips, and the head.

    Keypoints (K, 3) x, y, visibility are pixels of the mask and may lie outside; thickness goes by the names that COCO
    and CrowdPose use. ``outline``: polygons (N, 2) that are drawn instead, when an annotator has drawn the person.
    (height, width) from 0 outside to 255 inside, without soft edges other than anti-aliasing.
    """
    mask = np.zeros(size, np.uint8)
    if len(outline):
        cv2.fillPoly(mask, [_fixed(polygon) for polygon in outline], 255, cv2.LINE_AA, _SHIFT)
        return mask
    for cloud in _parts(keypoints, skeleton):
        hull = np.asarray(cv2.convexHull(cloud.astype(np.float32))[:, 0], np.float32)
        cv2.fillConvexPoly(mask, _fixed(hull), 255, cv2.LINE_AA, _SHIFT)
    return mask


def cut_out(
    person: Person, photo: tuple[int, int], matrix: Floats, skeleton: Skeleton, size: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A person of a photo: along its segmentation where that is a polygon, else along its limbs; see ``person_mask``.

    Beyond the photo's (height, width) there is nothing; ``matrix`` (2, 3) leads from image pixels to those of the mask.
    (height, width) from 0 to 255 with a hard edge, and (height, width, 1) from 0 to 1 with a soft one.
    """
    placed = person.keypoints.astype(np.float64)
    placed[:, :2] = placed[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    height, width = photo
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]]) - 0.5
    outlines = person.segmentation if isinstance(person.segmentation, list) else []
    polygons = [np.reshape(outline, (-1, 2)) for outline in outlines]
    if not any(len(polygon) > 4 for polygon in polygons):
        polygons = []  # nothing, or a box
    corners, *outline = (points @ matrix[:, :2].T + matrix[:, 2] for points in (corners, *polygons))
    mask = person_mask(placed, skeleton, size, outline) & person_mask(placed, skeleton, size, [corners])
    soft = cv2.GaussianBlur(mask, (0, 0), 0.6 + 0.03 * long_bone(placed, skeleton))
    return mask, np.asarray(soft[..., None] / np.float32(255), np.float32)


def hidden_keypoints(keypoints: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(P, K) which labelled keypoints of (P, K, 3), all of them within the mask's frame, are on the mask."""
    x, y = np.rint(keypoints[..., :2]).astype(int).transpose(2, 0, 1)
    height, width = inside.shape
    return np.asarray((keypoints[..., 2] > 0) & inside[y.clip(0, height - 1), x.clip(0, width - 1)], bool)


def _fixed(points: Floats) -> NDArray[np.int32]:
    return np.asarray(np.rint(points * 2**_SHIFT), np.int32)


def _parts(keypoints: Floats, skeleton: Skeleton) -> list[Floats]:
    """Points whose convex hulls are the parts of the body."""
    bone = long_bone(keypoints, skeleton)
    if bone == 0:
        return []
    labelled, xy = keypoints[:, 2] > 0, keypoints[:, :2]
    parts = [_part(name) for name in skeleton.keypoints]
    radii = bone * np.array([_THICKNESS.get(part, _OTHER_THICKNESS) for part in parts])
    clouds = []
    for edge in skeleton.edges:
        if not labelled[list(edge)].all():
            continue
        start, end = edge if (parts[edge[0]], parts[edge[1]]) in _BEYOND else edge[::-1]
        direction = (xy[end] - xy[start]) / max(float(np.linalg.norm(xy[end] - xy[start])), 1e-6)
        tip = xy[end] + direction * bone * _BEYOND.get((parts[start], parts[end]), 0.0)
        clouds.append(np.concatenate([xy[start] + radii[start] * _CIRCLE, tip + radii[end] * _CIRCLE]))
    place = {name: index for index, name in enumerate(skeleton.keypoints) if labelled[index]}
    torso = [place[name] for name in _TORSO if name in place]
    if len(torso) == len(_TORSO):
        clouds.append((xy[torso][:, None] + bone * _OTHER_THICKNESS * _CIRCLE).reshape(-1, 2))
    return clouds + _head(xy, place, bone)


def _part(name: str) -> str:
    return next((part for part in _THICKNESS if part in name.lower()), "")


def _head(xy: Floats, place: dict[str, int], bone: float) -> list[Floats]:
    """An upright oval about the face, or between neck and top; nothing when neither is labelled."""
    shoulders = [place[name] for name in _TORSO[:2] if name in place]
    face = [place[name] for name in _FACE if name in place]
    top = [place[name] for name in _TOP_OF_HEAD if name in place]
    if not shoulders or not (face or top):
        return []
    neck = xy[[place["neck"]] if "neck" in place else shoulders].mean(axis=0)
    center = xy[face].mean(axis=0) if face else (xy[top[0]] + neck) / 2
    axis = (center - neck) / max(float(np.linalg.norm(center - neck)), 1e-6)
    across = np.array([-axis[1], axis[0]])
    height, width = (half * bone for half in _HEAD)
    oval = center + height * _CIRCLE[:, :1] * axis + width * _CIRCLE[:, 1:] * across
    collar = neck + 0.6 * _THICKNESS["neck"] * bone * _CIRCLE
    return [oval, np.concatenate([center + 0.6 * width * _CIRCLE, collar])]
