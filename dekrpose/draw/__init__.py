"""Pictures: skeletons drawn onto a photo, and what may stand beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from typing import Any, Literal, Protocol, TypedDict, Unpack, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from dekrpose.draw.colors import ColorBy, ColorLike, Colors, Look, looks, rgb, set_apart
from dekrpose.draw.faces import blur_faces
from dekrpose.draw.figure import THIN, Brush, ground_of, inside, keypoint_alphas, limb_width, shapes, size_of
from dekrpose.draw.marks import Place, draw_box, legible, text_height, write_beside, write_name
from dekrpose.draw.painting import paint
from dekrpose.skeletons import Skeleton

__all__ = ["ColorBy", "DrawOptions", "Label", "check_options", "draw_poses", "keypoint_alphas"]

_NAMED = 100  # image pixels: the size of people from which on names of keypoints leave something of them to be seen
_FOREHEAD = 0.07  # of a person's size: what a head has above the eyes, which labels shall not cover
Label = Literal["identity", "score"]


class DrawOptions(TypedDict, total=False):
    """How poses are drawn; see ``draw_poses``."""

    keypoint_threshold: float | None
    thickness: float | None
    color_by: ColorBy | None
    colors: Colors | None
    boxes: bool
    labels: Label | Sequence[Label] | Callable[[Any], str] | None
    names: bool
    blur_faces: bool
    background: ColorLike | None


class _Poses(Protocol):
    """What drawing needs of ``Poses``."""

    @property
    def keypoints(self) -> NDArray[np.float32]: ...
    @property
    def keypoint_scores(self) -> NDArray[np.float32]: ...
    @property
    def scores(self) -> NDArray[np.float32]: ...
    @property
    def boxes(self) -> NDArray[np.float32]: ...
    @property
    def track_ids(self) -> NDArray[np.int64] | None: ...
    @property
    def skeleton(self) -> Skeleton: ...
    @property
    def image_size(self) -> tuple[int, int]: ...
    def __getitem__(self, which: int, /) -> Any: ...


def draw_poses(
    image: NDArray[np.uint8] | None,
    poses: _Poses,
    *,
    color: Literal["rgb", "bgr"] = "rgb",
    **options: Unpack[DrawOptions],
) -> NDArray[np.uint8]:
    """Draw skeletons onto a copy of an image; nearer (larger) people come on top.

    How clearly a keypoint is drawn follows its score. Scores of a bottom-up network are products (center
    times keypoint), so good ones may be as low as 0.1: what counts is the share of the person's best
    keypoint score. Below a tenth of it (or below 0.01) a keypoint is left out, then it grows from faint to
    full at half of it. A limb fades from one end to the other. Keypoints outside the image are never
    drawn; limbs towards them fade out before the border. A thin neck joins shoulders and nose.

    Args:
        image: (H, W, 3) uint8 in the order that ``color`` names; it is not changed. None needs a ``background``.
        poses: people in pixels of this image.
        color: channel order of ``image`` and of the result.
        keypoint_threshold: None for the rule above; a number draws every keypoint of at least this score.
        thickness: of the limbs in image pixels; None derives it from the sizes of person and image.
        color_by: "side" (blue is the person's left, amber the right); "person" (by track id if there is one, grey for
            people without an identity yet, else by order); "identity" (by track id, an error without); "score"
            (violet is 0, yellow 1). None is by person where the poses have track ids or ``colors`` is a palette.
        colors: your own, whatever ``color`` is, as a name, "#ff8800" or (red, green, blue): one for all, a palette,
            a ramp from score 0 to 1, {"left": ..., "right": ..., "middle": ...}, or {track id: ...}.
        boxes: draw ``Poses.boxes``.
        labels: what is written beside people: "identity", "score", both as a list, () for nothing, or a function that
            makes a text from a ``Person``. None is the identity, where there is one.
        names: write the names of the drawn keypoints, where there is room, of people of at least 100 pixels; numbers
            for names in letters that no font of this machine has.
        blur_faces: blur the heads of everyone in ``poses``; of nobody else, so leave no one out by a threshold.
        background: a colour in place of the photo.

    Returns:
        (H, W, 3) uint8 in the order that ``color`` names.

    Raises:
        ValueError: the image's shape or type is wrong or not the one of the poses, or an unknown option.
    """
    check_options(options)
    _check_image(image, poses, color, options)
    people = looks(poses, options.get("color_by"), options.get("colors"))
    canvas = _canvas(image, poses, color, options)
    finite = np.isfinite(poses.keypoints).all(axis=2)
    alphas = keypoint_alphas(poses.keypoint_scores, options.get("keypoint_threshold"))
    alphas = np.where(finite, alphas, 0.0)
    seen = (alphas > 0) & inside(poses.keypoints, poses.image_size)
    sizes = [size_of(points[visible]) for points, visible in zip(poses.keypoints, seen, strict=True)]
    order = sorted(range(len(sizes)), key=lambda index: (sizes[index], poses.scores[index]))
    order = [person for person in order if seen[person].any()]
    for person in order:
        thickness = options.get("thickness")
        width = limb_width(sizes[person], poses.image_size) if thickness is None else float(thickness)
        if options.get("boxes"):
            draw_box(canvas, poses.boxes[person], people[person].own, max(0.7 * width, 1.0))
        look = people[person]
        if options.get("colors") is None:  # one's own colours stay as they are
            look = set_apart(look, ground_of(canvas, poses.keypoints[person], seen[person], poses.skeleton))
        brush = Brush(width, 0.4 * sizes[person], look.sides, poses.image_size)
        points = [(x, y) for x, y in poses.keypoints[person].tolist()]
        opacity = np.sqrt(alphas[person]) if width < THIN else alphas[person]
        paint(canvas, *shapes(points, opacity.tolist(), seen[person].tolist(), brush, poses.skeleton))
    _write_all(canvas, poses, people, seen, sizes, order, options)
    return canvas if color == "rgb" else _swapped(canvas)


def _canvas(image: NDArray[np.uint8] | None, poses: _Poses, color: str, options: DrawOptions) -> NDArray[np.uint8]:
    """What is drawn on, RGB: a copy of the image, or the background."""
    background = options.get("background")
    if background is not None:
        return np.full((*poses.image_size, 3), rgb(background), np.uint8)
    assert image is not None
    canvas: NDArray[np.uint8] = np.array(image, order="C") if color == "rgb" else _swapped(image)
    if options.get("blur_faces"):
        blur_faces(canvas, poses.keypoints, poses.keypoint_scores, poses.skeleton)
    return canvas


def _swapped(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A copy with red and blue exchanged."""
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_BGR2RGB), np.uint8)


def _write_all(
    canvas: NDArray[np.uint8],
    poses: _Poses,
    people: list[Look],
    seen: NDArray[np.bool_],
    sizes: list[float],
    order: Iterable[int],
    options: DrawOptions,
) -> None:
    """Labels of people and names of keypoints, the nearest person's first: they get the best places."""
    taken: list[Place] = []
    for person in reversed(list(order)):
        text = _label(poses, person, options.get("labels"))
        if text:
            height = text_height(sizes[person], poses.image_size)
            x0, y0, x1, y1 = poses.boxes[person].tolist()
            if "nose" in poses.skeleton.keypoints and not options.get("boxes"):
                y0 -= _FOREHEAD * sizes[person]
            write_beside(canvas, text, (x0, y0, x1, y1), people[person].own, height, taken)
        if options.get("names") and sizes[person] >= _NAMED:
            colors = people[person].sides
            for channel in np.flatnonzero(seen[person]).tolist():
                name, side = legible(poses.skeleton.keypoints[channel], str(channel)), poses.skeleton.sides[channel]
                x, y = poses.keypoints[person, channel].tolist()
                write_name(canvas, name, (x, y), colors[side], taken)


def _label(poses: _Poses, person: int, labels: Any) -> str:
    """What is written beside one person."""
    if callable(labels):
        return str(labels(poses[person]))
    wanted = ("identity",) if labels is None else (labels,) if isinstance(labels, str) else labels
    identity = -1 if poses.track_ids is None else int(poses.track_ids[person])
    texts = {"identity": f"#{identity}" if identity >= 0 else "", "score": f"{poses.scores[person]:.2f}"}
    return "  ".join(texts[label] for label in wanted if texts[label])


def check_options(options: DrawOptions) -> None:
    """Say what is wrong with options, as far as that can be said without poses.

    Raises:
        TypeError: there is no such option.
        ValueError: a value cannot be used.
    """
    unknown = sorted(set(options) - set(DrawOptions.__annotations__))
    if unknown:
        raise TypeError(f"no such option: {', '.join(unknown)}; there are {', '.join(DrawOptions.__annotations__)}")
    labels: Any = options.get("labels")
    listed = (labels,) if isinstance(labels, str) else labels
    known = isinstance(listed, (list, tuple, set)) and set(listed) <= set(get_args(Label))
    if not (labels is None or callable(labels) or known):
        raise ValueError(f"labels must be among {get_args(Label)}, or a function of a Person, got {labels!r}")
    for name, low, high in (("keypoint_threshold", None, 1), ("thickness", 0, None)):
        value: Any = options.get(name)
        if value is None:
            continue
        right = isinstance(value, Real) and not isinstance(value, bool)
        if not right or not (high is None or value <= high) or not (low is None or value > low):
            raise ValueError(f"{name} must be {'above 0 pixels' if high is None else 'at most 1'}, got {value!r}")


def _check_image(image: Any, poses: _Poses, color: str, options: DrawOptions) -> None:
    if color not in ("rgb", "bgr"):
        raise ValueError(f"color must be 'rgb' or 'bgr', got {color!r}")
    if image is None:
        if options.get("background") is None:
            raise ValueError("image is None; hand over the photo, or a background such as background='white'")
        return
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        found = f"{image.shape} {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
        grey = np.ndim(image) == 2
        way = "make it coloured with np.dstack([image] * 3)" if grey else "drop alpha with image[..., :3]"
        raise ValueError(f"image must be a (H, W, 3) uint8 array, got {found}; {way}")
    if image.shape[:2] != tuple(poses.image_size):
        raise ValueError(
            f"these poses are in pixels of an image of {tuple(poses.image_size)} (height, width), "
            f"got an image of {image.shape[:2]}; draw on the image that was estimated"
        )
