"""Pictures: skeletons drawn onto a photo."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from dekrpose.skeletons import Skeleton

RELATIVE_FLOOR = 0.1
"""Keypoints below this share of the person's best keypoint score count as not seen."""

_ABSOLUTE_FLOOR = 0.01  # keypoint scores below this are noise, whatever the person's best is
_RELATIVE_FULL = 0.5  # from this share of the person's best on, keypoints are drawn in full
_CONFIDENT = 0.2  # people whose best score is below this are drawn fainter as a whole
_FAINTEST_PERSON = 0.6
_FAINTEST_KEYPOINT = 0.3

# Blue and amber stay apart for every kind of colour blindness; the middle is neutral.
_SIDES = {"left": (48, 168, 255), "right": (255, 176, 32), "middle": (240, 240, 236)}
_PEOPLE = (
    (255, 176, 32), (48, 168, 255), (36, 196, 140), (232, 110, 170),
    (244, 228, 66), (150, 130, 255), (232, 96, 52), (110, 220, 235),
)  # fmt: skip
_NOBODY = (170, 170, 170)  # people of a stream who have no identity yet
_RIM_ALPHA = 0.55  # of the black rim around limbs and keypoints
_TILE = 128
_SHIFT = 4  # OpenCV's sub-pixel bits
_FIXED = 2**_SHIFT
# OpenCV's own small circles look like diamonds; a polygon has sub-pixel corners.
_TURN = np.linspace(0, 2 * np.pi, 16, endpoint=False)
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)
_GROWTH = 1.4  # pixels by which OpenCV's anti-aliasing widens a shape


class _Poses(Protocol):
    """What drawing needs of ``Poses``."""

    @property
    def keypoints(self) -> NDArray[np.float32]: ...
    @property
    def keypoint_scores(self) -> NDArray[np.float32]: ...
    @property
    def scores(self) -> NDArray[np.float32]: ...
    @property
    def track_ids(self) -> NDArray[np.int64] | None: ...
    @property
    def skeleton(self) -> Skeleton: ...
    @property
    def image_size(self) -> tuple[int, int]: ...


class _Limb(NamedTuple):
    """A straight piece of a person, from its clearer to its fainter end; image pixels."""

    start: tuple[float, float]
    end: tuple[float, float]
    alphas: tuple[float, float]
    width: float
    color: tuple[int, int, int]


class _Disc(NamedTuple):
    """A keypoint; image pixels."""

    center: tuple[float, float]
    alpha: float
    radius: float
    color: tuple[int, int, int]


@dataclass(frozen=True)
class _Brush:
    """How one person is drawn; ``reach`` is how far limbs go towards keypoints outside the image."""

    width: float
    reach: float
    colors: dict[str, tuple[int, int, int]]
    image_size: tuple[int, int]


def draw_poses(
    image: NDArray[np.uint8],
    poses: _Poses,
    *,
    color: Literal["rgb", "bgr"] = "rgb",
    keypoint_threshold: float | None = None,
    thickness: float | None = None,
    color_by: Literal["side", "person"] | None = None,
) -> NDArray[np.uint8]:
    """Draw skeletons onto a copy of an image; nearer (larger) people come on top.

    How clearly a keypoint is drawn follows its score. Scores of a bottom-up network are products (center
    times keypoint), so good ones may be as low as 0.1: what counts is the share of the person's best
    keypoint score. Below a tenth of it (or below 0.01) a keypoint is left out, then it grows from faint to
    full at half of it. A limb fades from one end to the other. Keypoints outside the image are never
    drawn; limbs towards them fade out before the border. A thin neck joins shoulders and nose.

    Args:
        image: (H, W, 3) uint8 in the order that ``color`` names; it is not changed.
        poses: people in pixels of this image.
        color: channel order of ``image`` and of the result.
        keypoint_threshold: None for the rule above; a number draws every keypoint of at least this score.
        thickness: of the limbs in image pixels; None derives it from the sizes of person and image.
        color_by: "side" (blue is the person's left, amber the right) or "person" (by track id if there is
            one, grey for people without an identity yet, else by order); None is by person where the poses have
            track ids.

    Returns:
        (H, W, 3) uint8 in the order that ``color`` names.

    Raises:
        ValueError: the image's shape or type is wrong or not the one of the poses, or an unknown option.
    """
    _check(image, poses, color, thickness, color_by)
    by_person = color_by == "person" or (color_by is None and poses.track_ids is not None)
    canvas: NDArray[np.uint8] = np.array(image, order="C")
    finite = np.isfinite(poses.keypoints).all(axis=2)
    alphas = np.where(finite, keypoint_alphas(poses.keypoint_scores, keypoint_threshold), 0.0)
    seen = (alphas > 0) & _inside(poses.keypoints, poses.image_size)
    sizes = [_size(points[visible]) for points, visible in zip(poses.keypoints, seen, strict=True)]
    for person in sorted(range(len(sizes)), key=lambda index: (sizes[index], poses.scores[index])):
        if not seen[person].any():
            continue
        width = _limb_width(sizes[person], poses.image_size) if thickness is None else float(thickness)
        identity = person if poses.track_ids is None else int(poses.track_ids[person])
        one = _PEOPLE[identity % len(_PEOPLE)] if identity >= 0 else _NOBODY
        colors = dict.fromkeys(_SIDES, one) if by_person else _SIDES
        if color == "bgr":
            colors = {side: (blue, green, red) for side, (red, green, blue) in colors.items()}
        brush = _Brush(width, 0.4 * sizes[person], colors, poses.image_size)
        points = [(x, y) for x, y in poses.keypoints[person].tolist()]
        limbs, discs = _shapes(points, alphas[person].tolist(), seen[person].tolist(), brush, poses.skeleton)
        _paint(canvas, limbs, discs)
    return canvas


def keypoint_alphas(keypoint_scores: NDArray[np.float32], threshold: float | None = None) -> NDArray[np.float64]:
    """How clearly keypoints are drawn, by the rule in ``draw_poses``.

    Args:
        keypoint_scores: (N, K) in [0, 1].
        threshold: None, or the lowest score that is drawn.

    Returns:
        (N, K) in [0, 1]; 0 is not drawn.
    """
    scores = np.nan_to_num(keypoint_scores.astype(np.float64), nan=-1.0)
    best = np.maximum(scores.max(axis=1, keepdims=True, initial=0), 1e-9)
    rise = np.clip((scores / best - RELATIVE_FLOOR) / (_RELATIVE_FULL - RELATIVE_FLOOR), 0, 1)
    person = _FAINTEST_PERSON + (1 - _FAINTEST_PERSON) * np.clip(best / _CONFIDENT, 0, 1)
    alphas = person * (_FAINTEST_KEYPOINT + (1 - _FAINTEST_KEYPOINT) * rise)
    if threshold is None:
        drawn = (scores >= RELATIVE_FLOOR * best) & (scores >= _ABSOLUTE_FLOOR)
    else:
        drawn = (scores >= threshold) & (scores >= 0)
    return np.where(drawn, alphas, 0.0)


def _check(image: NDArray[np.uint8], poses: _Poses, color: str, thickness: float | None, color_by: str | None) -> None:
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        found = f"{image.shape} {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"image must be a (H, W, 3) uint8 array, got {found}; drop alpha with image[..., :3]")
    if image.shape[:2] != tuple(poses.image_size):
        raise ValueError(
            f"these poses are in pixels of an image of {tuple(poses.image_size)} (height, width), "
            f"got an image of {image.shape[:2]}; draw on the image that was estimated"
        )
    if color not in ("rgb", "bgr"):
        raise ValueError(f"color must be 'rgb' or 'bgr', got {color!r}")
    if color_by not in ("side", "person", None):
        raise ValueError(f"color_by must be 'side', 'person' or None, got {color_by!r}")
    if thickness is not None and not thickness > 0:
        raise ValueError(f"thickness must be above 0 pixels, got {thickness}")


def _inside(points: NDArray[np.float32], image_size: tuple[int, int]) -> NDArray[np.bool_]:
    """Which points (..., 2) the image shows; pixel centers have integer coordinates."""
    limits = np.array([image_size[1], image_size[0]]) - 0.5
    return np.asarray(((points >= -0.5) & (points <= limits)).all(axis=-1))


def _size(points: NDArray[np.float32]) -> float:
    """Diagonal of the box around a person's visible keypoints, image pixels; 0 for none."""
    return float(np.linalg.norm(np.ptp(points, axis=0))) if len(points) else 0.0


def _limb_width(size: float, image_size: tuple[int, int]) -> float:
    """Limb width: in proportion to the person, within bounds that grow with the image."""
    image = float(np.sqrt(image_size[0] * image_size[1]))
    wanted = min(max(0.017 * size, 0.0036 * image, 1.4), max(0.011 * image, 1.4))
    return max(min(wanted, 0.035 * size), 1.0)


@lru_cache(maxsize=16)
def _plan(skeleton: Skeleton) -> tuple[list[tuple[int, int, str, bool]], list[tuple[str, bool]]]:
    """What to draw of a skeleton: limbs (start, end, side, whether in the face) and keypoints (side, face).

    Two kinds of edges are left out, for looks: those between face and body (COCO's ear to shoulder), and
    those between a pair that a keypoint in the middle joins already (the eyes by the nose, CrowdPose's
    shoulders by the neck).
    """
    names = skeleton.keypoints
    face = [name.split("_")[-1] in ("nose", "eye", "ear") for name in names]
    sides = ["left" if "left" in name else "right" if "right" in name else "middle" for name in names]
    middles = [{a + b - channel for a, b in skeleton.edges if channel in (a, b)} for channel in range(len(names))]
    middles = [{other for other in near if sides[other] == "middle"} for near in middles]
    limbs = []
    for start, end in skeleton.edges:
        ends = {sides[start], sides[end]}
        side = "middle" if {"left", "right"} <= ends else next(iter(ends - {"middle"}), "middle")
        joined_already = {"left", "right"} == ends and middles[start] & middles[end]
        if face[start] == face[end] and not joined_already:
            limbs.append((start, end, side, face[start]))
    return limbs, list(zip(sides, face, strict=True))


def _shapes(
    points: list[tuple[float, float]], alphas: list[float], seen: list[bool], brush: _Brush, skeleton: Skeleton
) -> tuple[list[_Limb], list[_Disc]]:
    """The limbs and discs of one person, faint ones first, so that clear ones come on top."""
    limbs, discs = [], []
    edges, keypoints = _plan(skeleton)
    for start, end, side, face in edges:
        if (seen[end], alphas[end]) > (seen[start], alphas[start]):
            start, end = end, start
        if not seen[start] or alphas[end] == 0:
            continue
        tip, tip_alpha = points[end], alphas[end]
        if not seen[end]:
            tip, tip_alpha = _fade_point(points[start], tip, brush), 0.0
        width = brush.width * (0.6 if face else 1.0)
        limbs.append(_Limb(points[start], tip, (alphas[start], tip_alpha), width, brush.colors[side]))
    neck = _neck(points, alphas, seen, brush, skeleton)
    limbs += [neck] if neck else []
    for point, alpha, visible, (side, face) in zip(points, alphas, seen, keypoints, strict=True):
        if visible:
            discs.append(_Disc(point, alpha, brush.width * (0.62 if face else 0.95), brush.colors[side]))
    limbs.sort(key=lambda limb: limb.alphas)
    discs.sort(key=lambda disc: disc.alpha)
    return limbs, discs


def _neck(
    points: list[tuple[float, float]], alphas: list[float], seen: list[bool], brush: _Brush, skeleton: Skeleton
) -> _Limb | None:
    """A thin line from the middle of the shoulders to the nose, for skeletons without a neck: no head floats."""
    ends = ("nose", "left_shoulder", "right_shoulder")
    if not set(ends) <= set(skeleton.keypoints) or "neck" in skeleton.keypoints:
        return None
    nose, left, right = (skeleton.index(name) for name in ends)
    if not (seen[nose] and seen[left] and seen[right]):
        return None
    middle = ((points[left][0] + points[right][0]) / 2, (points[left][1] + points[right][1]) / 2)
    alpha = min(alphas[nose], alphas[left], alphas[right])
    return _Limb(middle, points[nose], (alpha, 0.25 * alpha), 0.6 * brush.width, brush.colors["middle"])


def _fade_point(start: tuple[float, float], end: tuple[float, float], brush: _Brush) -> tuple[float, float]:
    """Where a limb from inside the image to a keypoint outside of it has faded to nothing: at the border at most."""
    share = brush.reach / math.dist(start, end)
    for origin, target, size in zip(start, end, reversed(brush.image_size), strict=True):
        if not -0.5 <= target <= size - 0.5:
            border = size - 0.5 if target > origin else -0.5
            share = min(share, (border - origin) / (target - origin))
    return start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share


def _paint(canvas: NDArray[np.uint8], limbs: list[_Limb], discs: list[_Disc]) -> None:
    """Blend one person into the canvas, within the person's region only.

    Colours and opacities go to one layer, the opacities of the limbs' rims to a mask below it, so that the
    rim of one limb never cuts another in two.
    """
    rim = max(0.2 * max(disc.radius for disc in discs), 0.6)
    corners = np.array([disc.center for disc in discs] + [limb.end for limb in limbs])
    margin = max([disc.radius for disc in discs] + [limb.width for limb in limbs]) + rim + 2
    limits = np.array([canvas.shape[1], canvas.shape[0]])
    left, top = np.clip(np.floor(corners.min(axis=0) - margin), 0, limits).astype(int).tolist()
    right, bottom = np.clip(np.ceil(corners.max(axis=0) + margin) + 1, 0, limits).astype(int).tolist()
    zoom = _zoom((right - left) * (bottom - top), discs)
    frame = (left, top, zoom)
    under = np.zeros(((bottom - top) * zoom, (right - left) * zoom), np.uint8)
    layer = np.zeros((*under.shape, 4), np.uint8)  # black where only the rim shows
    _paint_limbs(layer, under, limbs, rim * zoom, frame)
    _paint_discs(layer, discs, rim * zoom, frame)
    _blend(canvas[top:bottom, left:right], layer, under, zoom)


def _paint_limbs(
    layer: NDArray[np.uint8], under: NDArray[np.uint8], limbs: list[_Limb], rim: float, frame: tuple[int, int, int]
) -> None:
    """Bars from each limb's clearer end; all corners of a person are computed at once."""
    if not limbs:
        return
    starts, ends = (_zoomed([getattr(limb, end) for limb in limbs], frame) for end in ("start", "end"))
    lengths = np.hypot(*(ends - starts).T).tolist()
    index, widths, spans = [], [], []
    fills: list[tuple[NDArray[np.uint8], tuple[float, ...]]] = []
    for number, (limb, length) in enumerate(zip(limbs, lengths, strict=True)):
        if length < 1:
            continue
        width, steps = limb.width * frame[2], _fade(limb, length / frame[2])
        index += [number] * (2 * len(steps))
        widths += [width + 2 * rim] * len(steps) + [width] * len(steps)
        spans += [span for span, _ in steps] * 2
        fills += [(under, (alpha * _RIM_ALPHA * 255,)) for _, alpha in steps]
        fills += [(layer, (*limb.color, alpha * 255)) for _, alpha in steps]
    bars = _bars(starts[index], ends[index], np.array(widths), np.array(spans).reshape(-1, 2))
    for (target, value), corners in zip(fills, bars, strict=True):
        cv2.fillConvexPoly(target, corners, value, cv2.LINE_AA, _SHIFT)


def _paint_discs(layer: NDArray[np.uint8], discs: list[_Disc], rim: float, frame: tuple[int, int, int]) -> None:
    centers = _zoomed([disc.center for disc in discs], frame)
    radii = np.array([disc.radius * frame[2] for disc in discs])
    outlines = (_circles(centers, radii + rim), _circles(centers, radii))
    for disc, outer, inner in zip(discs, *outlines, strict=True):
        dark = tuple(value // 3 for value in disc.color)
        cv2.fillConvexPoly(layer, outer, (*dark, disc.alpha * _RIM_ALPHA * 255), cv2.LINE_AA, _SHIFT)
        cv2.fillConvexPoly(layer, inner, (*disc.color, disc.alpha * 255), cv2.LINE_AA, _SHIFT)


def _zoomed(points: list[tuple[float, float]], frame: tuple[int, int, int]) -> NDArray[np.float64]:
    """Points in the pixels of a finer region (left, top, zoom); pixel centers are integers in both frames."""
    left, top, zoom = frame
    return (np.array(points) - (left, top) + 0.5) * zoom - 0.5


def _blend(region: NDArray[np.uint8], layer: NDArray[np.uint8], under: NDArray[np.uint8], zoom: int) -> None:
    """Put the layer over the region, tile by tile, because most of a large person's region is empty."""
    for top in range(0, region.shape[0], _TILE):
        for left in range(0, region.shape[1], _TILE):
            tile = region[top : top + _TILE, left : left + _TILE]
            height, width = tile.shape[:2]
            rows = slice(top * zoom, (top + height) * zoom)
            columns = slice(left * zoom, (left + width) * zoom)
            part: NDArray[Any] = layer[rows, columns]
            opacity = cv2.max(cv2.extractChannel(part, 3), under[rows, columns])
            if not opacity.any():
                continue
            colors = cv2.cvtColor(part, cv2.COLOR_BGRA2BGR)
            if zoom > 1:
                opacity = cv2.resize(opacity, (width, height), interpolation=cv2.INTER_AREA)
                colors = cv2.resize(colors, (width, height), interpolation=cv2.INTER_AREA)
            weight: NDArray[Any] = cv2.merge([opacity] * 3)
            over = cv2.multiply(colors, weight, scale=1 / 255)
            tile[:] = cv2.add(cv2.multiply(tile, cv2.bitwise_not(weight), scale=1 / 255), over)


def _zoom(pixels: int, discs: list[_Disc]) -> int:
    """Supersampling: thin limbs need it, large regions cannot afford it."""
    thinnest = min(disc.radius for disc in discs)
    zoom = 4 if thinnest < 1.2 else 2 if thinnest < 2 else 1
    while zoom > 1 and pixels * zoom**2 > 2_000_000:
        zoom //= 2
    return zoom


def _fade(limb: _Limb, length: float) -> list[tuple[tuple[float, float], float]]:
    """The limb's opacity as bars (from where to where, in shares of its length; opacity) in steps too small to see.

    The faint end comes first. Each bar reaches under the next one, and none is shorter than three image pixels.
    """
    strong, faint = limb.alphas
    count = 1 + int(min((strong - faint) * 16, length / 3))
    begins = [max(0.0, 1 - (step + 1) / count - 3 / length) for step in range(count - 1)] + [0.0]
    return [
        ((begin, 1 - step / count), faint + (strong - faint) * (step + 0.5) / count)
        for step, begin in enumerate(begins)
    ]


def _bars(
    starts: NDArray[np.float64], ends: NDArray[np.float64], widths: NDArray[np.float64], spans: NDArray[np.float64]
) -> NDArray[np.int32]:
    """(N, 4, 2) corners of bars over (N, 2) spans, shares of the way, between (N, 2) starts and ends, for OpenCV."""
    along = ends - starts
    half = np.maximum(widths - _GROWTH, 0.0) / 2 / np.hypot(*along.T)
    side = np.stack([-along[:, 1] * half, along[:, 0] * half], axis=1)
    near, far = starts + along * spans[:, :1], starts + along * spans[:, 1:]
    return _fixed(np.stack([near + side, far + side, far - side, near - side], axis=1))


def _circles(centers: NDArray[np.float64], radii: NDArray[np.float64]) -> NDArray[np.int32]:
    """(N, 16, 2) corners of circles, for OpenCV."""
    return _fixed(centers[:, None] + _CIRCLE * np.maximum(radii - _GROWTH / 2, 0.1)[:, None, None])


def _fixed(corners: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.asarray(np.rint(corners * _FIXED), np.int32)
