"""A picture of what the network is given: augmented crops with the targets that are really taught."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dekrpose.architectures.learning import AugmentConfig, Batch, Shown, Targets
from dekrpose.draw.marks import letters
from dekrpose.errors import DekrPoseError, counted
from dekrpose.formats import write_whole
from dekrpose.skeletons import Side, Skeleton
from dekrpose.training.crops import PhotoSource
from dekrpose.training.loader import Samples
from dekrpose.training.order import EpochOrder

Canvas = NDArray[np.uint8]
Floats = NDArray[np.float32]
Color = tuple[int, int, int]
Cell = tuple[int, int, int, int]

_PANEL = 288  # side of one crop, sheet pixels
_DRAWN = 2 * _PANEL  # it is drawn larger first: OpenCV's small circles look like diamonds
_GAP, _CAPTION, _LINE = 10, 20, 22
_BACKGROUND, _TEXT = (22, 22, 26), (225, 225, 220)
_SIDES: dict[Side, Color] = {"left": (48, 168, 255), "right": (255, 176, 32), "middle": (240, 240, 236)}
_CENTER = (90, 230, 120)
_PEOPLE: tuple[Color, ...] = (
    (232, 110, 170), (244, 228, 66), (150, 130, 255), (110, 220, 235), (232, 96, 52), (36, 196, 140), (190, 190, 190),
)  # fmt: skip
_HATCH = (255, 70, 70)
_BORDER = 255
_LETTERS = 9  # height, sheet pixels
_SHIFT = 4  # OpenCV's sub-pixel bits


def contact_sheet(
    photos: PhotoSource, augmentation: AugmentConfig, targets: Targets, path: Path, count: int = 16, seed: int = 0
) -> Path:
    """Draw the first ``count`` crops of a training with this seed; see ``draw_samples`` for what is shown.

    The file, ``.jpg`` or ``.png``, appears when it is whole. When there are fewer photos, later epochs follow.

    Raises:
        DekrPoseError: there are no photos, one cannot be read, or ``path`` has another ending.
    """
    if path.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        raise DekrPoseError(f"a contact sheet is a .jpg or .png file, got {path.name!r}")
    if not photos.photos:
        raise DekrPoseError("there are no photos to draw a contact sheet of")
    samples = Samples(photos, augmentation, targets, seed)
    indices = _first_indices(len(photos.photos), count, seed)
    names = [photos.photos[photo].file_name for _, _, photo in indices]
    cells = [samples.draw(index)[0].cells for index in indices]
    sheet = draw_samples([samples[index] for index in indices], names, photos.skeleton, cells)
    _, data = cv2.imencode(path.suffix.lower(), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, data.tobytes())
    return path


def draw_samples(
    samples: Sequence[Batch], names: Sequence[str], skeleton: Skeleton, cells: Sequence[Sequence[Cell]] = ()
) -> Canvas:
    """Samples side by side, each in two panels, drawn from nothing but what the network gets: (H, W, 3) uint8 RGB.

    Left: the crop; the places where a pose is learned, a color per person; what is learned there, as rays and as the
    skeleton. Right: the heatmaps over the crop in grey, lighter where their weight is 1 instead of the background's.
    Both: hatched where that weight is 0. Samples have no batch dimension; each has a name for a
    caption and the left, top, right, bottom of its mosaic cells, input pixels: white lines where they meet.
    """
    columns = math.ceil(math.sqrt(len(samples)))
    rows = math.ceil(len(samples) / columns)
    step_x, step_y = 2 * _PANEL + 2 + 2 * _GAP, _PANEL + _CAPTION + _GAP
    legend = _LINE * (1 if columns > 1 else 3)
    sheet = np.full((rows * step_y + _GAP + legend, columns * step_x + _GAP, 3), _BACKGROUND, np.uint8)
    for position, (sample, name) in enumerate(zip(samples, names, strict=True)):
        x, y = _GAP + position % columns * step_x, _GAP + position // columns * step_y
        shown = sample.shown()
        panels = (_people_panel(sample, shown, skeleton), _heat_panel(sample, shown, skeleton))
        for left, panel in zip((x, x + _PANEL + 2), panels, strict=True):
            small = np.asarray(cv2.resize(panel, (_PANEL, _PANEL), interpolation=cv2.INTER_AREA), np.uint8)
            if cells:
                _draw_borders(small, cells[position], sample.images.shape[2])
            sheet[y : y + _PANEL, left : left + _PANEL] = small
        people = counted(len(shown.poses), "person", "people")
        _write_text(sheet, f"{name if len(name) <= 48 else '...' + name[-45:]}: {people}", x, y + _PANEL + 14)
    _draw_legend(sheet, rows * step_y + _GAP + _LINE // 2)
    return sheet


def _first_indices(photos: int, count: int, seed: int) -> list[tuple[int, int, int]]:
    order = EpochOrder(photos, photos, seed)
    indices: list[tuple[int, int, int]] = []
    while len(indices) < count:
        indices += next(iter(order))
        order.epoch += 1
    return indices[:count]


def _people_panel(sample: Batch, shown: Shown, skeleton: Skeleton) -> Canvas:
    panel = _panel_image(sample)
    zoom = _DRAWN / sample.images.shape[2]
    for index, pose in enumerate(shown.poses):
        color = _PEOPLE[index % len(_PEOPLE)]
        layer = panel.copy()
        corners = [_on_panel(pose.places + share * pose.sides[:, None], zoom) for share in (-0.42, 0.42)]
        for low, high in zip(*(_fixed(corner) for corner in corners), strict=True):
            cv2.rectangle(layer, low, high, color, -1, cv2.LINE_AA, _SHIFT)
        (center,) = _fixed(_on_panel(pose.center[None], zoom))
        points = _fixed(_on_panel(pose.keypoints, zoom))
        for point, taught in zip(points, pose.taught, strict=True):
            if taught:
                cv2.line(layer, center, point, color, 2, cv2.LINE_AA, _SHIFT)
        cv2.addWeighted(layer, 0.6, panel, 0.4, 0, dst=panel)
        _draw_skeleton(panel, points, pose.taught, skeleton)
        cv2.circle(panel, center, 9 << _SHIFT, (0, 0, 0), -1, cv2.LINE_AA, _SHIFT)
        cv2.circle(panel, center, 7 << _SHIFT, _CENTER, -1, cv2.LINE_AA, _SHIFT)
    return _hatched(panel, shown)


def _draw_skeleton(
    panel: Canvas, points: Sequence[tuple[int, int]], taught: NDArray[np.bool_], skeleton: Skeleton
) -> None:
    sides = skeleton.sides
    for start, end in skeleton.edges:
        if taught[start] and taught[end]:
            side = sides[start] if sides[start] == sides[end] else "middle"
            cv2.line(panel, points[start], points[end], (0, 0, 0), 5, cv2.LINE_AA, _SHIFT)
            cv2.line(panel, points[start], points[end], _SIDES[side], 3, cv2.LINE_AA, _SHIFT)
    for point, side, drawn in zip(points, sides, taught, strict=True):
        if drawn:
            cv2.circle(panel, point, 6 << _SHIFT, (0, 0, 0), -1, cv2.LINE_AA, _SHIFT)
            cv2.circle(panel, point, 5 << _SHIFT, _SIDES[side], -1, cv2.LINE_AA, _SHIFT)


def _heat_panel(sample: Batch, shown: Shown, skeleton: Skeleton) -> Canvas:
    image = _panel_image(sample)
    zoom = _DRAWN / sample.images.shape[2]
    weight = _resized(shown.weights, shown, zoom)
    grey = image.mean(axis=2, dtype=np.float32) * (0.25 + 0.35 * weight)
    panel = np.repeat(grey[..., None], 3, axis=2)
    layers = [(_CENTER, shown.heat[-1:])]
    layers += [(color, shown.heat[:-1][[own == side for own in skeleton.sides]]) for side, color in _SIDES.items()]
    for color, maps in layers:
        if len(maps):
            alpha = _resized(maps.max(axis=0), shown, zoom)[..., None] * 0.85
            panel = panel * (1 - alpha) + np.array(color, np.float32) * alpha
    return _hatched(panel.round().astype(np.uint8), shown)


def _draw_borders(panel: Canvas, cells: Sequence[Cell], size: int) -> None:
    for left, top, right, bottom in (np.array(cell) * _PANEL // size for cell in cells):
        if left:
            panel[top:bottom, left] = _BORDER
        if top:
            panel[top, left:right] = _BORDER


def _panel_image(sample: Batch) -> Canvas:
    image = np.ascontiguousarray(sample.images.permute(1, 2, 0).numpy())
    shrinks = image.shape[1] > _DRAWN
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (_DRAWN, _DRAWN), interpolation=method), np.uint8)


def _hatched(panel: Canvas, shown: Shown) -> Canvas:
    ignored = (shown.weights == 0).astype(np.uint8)
    mask = cv2.resize(ignored, (_DRAWN, _DRAWN), interpolation=cv2.INTER_NEAREST) > 0
    ys, xs = np.indices((_DRAWN, _DRAWN))
    stripes = mask & ((xs + ys) % 24 < 5)
    panel[stripes] = (panel[stripes] * 0.4 + np.array(_HATCH) * 0.6).astype(np.uint8)
    return panel


def _resized(values: Floats, shown: Shown, zoom: float) -> Floats:
    """A map on the panel, its cells where their positions are."""
    scale, shift = shown.stride * zoom, shown.first * zoom + (zoom - 1) / 2
    matrix = np.array([[scale, 0, shift], [0, scale, shift]])
    mapped = cv2.warpAffine(values, matrix, (_DRAWN, _DRAWN), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(mapped, np.float32)


def _on_panel(points: Floats, zoom: float) -> NDArray[np.float64]:
    """(N, 2) input pixels as panel pixels; pixel centers are integers in both."""
    return np.asarray((points + 0.5) * zoom - 0.5, np.float64)


def _fixed(points: NDArray[np.float64]) -> list[tuple[int, int]]:
    """In OpenCV's sub-pixel units, within what it can count."""
    limit = 20 * _DRAWN
    return [(int(x), int(y)) for x, y in np.rint(points.clip(-limit, limit) * 2**_SHIFT)]


def _draw_legend(sheet: Canvas, y: int) -> None:
    x = _GAP
    entries = (
        ("left", _SIDES["left"]),
        ("right", _SIDES["right"]),
        ("middle", _SIDES["middle"]),
        ("center", _CENTER),
        ("not annotated, not learned", _HATCH),
        ("squares: where a pose is learned, a color per person", _PEOPLE[0]),
        ("right panels: heatmaps, lighter where they weigh in full", _CENTER),
    )
    for text, color in entries:
        if x + 18 + _text_width(text) > sheet.shape[1]:
            x, y = _GAP, y + _LINE
        if color == _HATCH:
            for offset in (0, 4, 8):
                cv2.line(sheet, (x + offset, y + 5), (x + offset + 4, y - 5), color, 1, cv2.LINE_AA)
        else:
            cv2.circle(sheet, (x + 6, y), 5, color, -1, cv2.LINE_AA)
        _write_text(sheet, text, x + 18, y + 4)
        x += 18 + _text_width(text) + 18


def _write_text(sheet: Canvas, text: str, x: int, y: int) -> None:
    """Around the base line y, as far as there is room."""
    ink = letters(text, _LETTERS)
    region = sheet[y - _LETTERS - 2 :, x:][: ink.shape[0], : ink.shape[1]]
    share = ink[: region.shape[0], : region.shape[1], None] / 255
    region[:] = np.rint(region + (_TEXT - region) * share)


def _text_width(text: str) -> int:
    return int(letters(text, _LETTERS).shape[1])
