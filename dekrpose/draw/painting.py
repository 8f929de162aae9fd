"""Limbs and keypoints as pixels: anti-aliased, with a dark rim, one person at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

_RIM_ALPHA = 0.55  # of the black rim around limbs and keypoints
_TILE = 128
_SHIFT = 4  # OpenCV's sub-pixel bits
_FIXED = 2**_SHIFT
# OpenCV's own small circles look like diamonds; a polygon has sub-pixel corners.
_TURN = np.linspace(0, 2 * np.pi, 16, endpoint=False)
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)
_GROWTH = 1.4  # pixels by which OpenCV's anti-aliasing widens a shape


class Limb(NamedTuple):
    """A straight piece of a person, from its clearer to its fainter end; image pixels."""

    start: tuple[float, float]
    end: tuple[float, float]
    alphas: tuple[float, float]
    width: float
    color: tuple[int, int, int]


class Disc(NamedTuple):
    """A keypoint; image pixels."""

    center: tuple[float, float]
    alpha: float
    radius: float
    color: tuple[int, int, int]


def paint(canvas: NDArray[np.uint8], limbs: list[Limb], discs: list[Disc]) -> None:
    """Blend one person into the canvas, within the person's region only.

    Colours and opacities go to one layer, the opacities of the limbs' rims to a mask below it, so that the
    rim of one limb never cuts another in two.
    """
    rim = max(0.2 * max(disc.radius for disc in discs), 0.8)
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
    layer: NDArray[np.uint8], under: NDArray[np.uint8], limbs: list[Limb], rim: float, frame: tuple[int, int, int]
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


def _paint_discs(layer: NDArray[np.uint8], discs: list[Disc], rim: float, frame: tuple[int, int, int]) -> None:
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


def _zoom(pixels: int, discs: list[Disc]) -> int:
    """Supersampling: thin limbs need it, large regions cannot afford it."""
    thinnest = min(disc.radius for disc in discs)
    zoom = 4 if thinnest < 1.2 else 2 if thinnest < 2 else 1
    while zoom > 1 and pixels * zoom**2 > 2_000_000:
        zoom //= 2
    return zoom


def _fade(limb: Limb, length: float) -> list[tuple[tuple[float, float], float]]:
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
