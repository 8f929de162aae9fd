"""How a result is shown: drawn, saved, plotted, in notebooks."""

from __future__ import annotations

import base64
import html
import io
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dekrpose.draw import DrawOptions, draw_poses
from dekrpose.errors import counted
from dekrpose.formats import write_whole
from dekrpose.images import load

if TYPE_CHECKING:
    from dekrpose.results import Poses

_PHOTO_OPTIONS: dict[str, dict[str, Any]] = {
    # Thin coloured limbs lose their colour under chroma subsampling.
    ".jpg": {"format": "JPEG", "quality": 93, "subsampling": 0},
    ".jpeg": {"format": "JPEG", "quality": 93, "subsampling": 0},
    ".png": {"format": "PNG"},
    ".webp": {"format": "WEBP", "quality": 93},
}
_PREVIEW_SIDE = 640


class Pictures:
    """The part of ``Poses`` that draws."""

    def draw(
        self,
        image: NDArray[np.uint8] | Image.Image | str | os.PathLike[str] | None = None,
        *,
        color: Literal["rgb", "bgr"] = "rgb",
        **options: Unpack[DrawOptions],
    ) -> NDArray[np.uint8]:
        """Draw the poses onto a copy of the image.

        Args:
            image: (H, W, 3) uint8 in the order that ``color`` names, a Pillow image or a path; None takes the kept RGB
                image.
            color: channel order of an array, and of the result.
            options: keypoint_threshold, thickness, color_by, colors, boxes, labels, names, blur_faces, background
                (which needs no image); see ``draw_poses``.

        Returns:
            (H, W, 3) uint8 in the order that ``color`` names.

        Raises:
            ValueError: no image was given or kept, or its shape is not that of the estimated one.
            FileNotFoundError: there is no such file.
        """
        if isinstance(image, (Image.Image, str, os.PathLike)):
            image, _ = load(image)
            image = image[..., ::-1] if color == "bgr" else image
        elif image is None and options.get("background") is None:
            image = _kept_image(self)
            image = image[..., ::-1] if color == "bgr" else image
        return draw_poses(image, _poses(self), color=color, **options)

    def plot(self, ax: Any = None, **options: Unpack[DrawOptions]) -> Any:
        """Show the drawn image in a matplotlib ``Axes`` (None: a new one) and return that; ``options`` as in ``draw``.

        Raises:
            ImportError: matplotlib is missing.
            ValueError: no image was kept.
        """
        drawn = self.draw(**options)
        if ax is None:
            try:
                from matplotlib import pyplot  # type: ignore[import-not-found,unused-ignore]
            except ImportError:
                raise ImportError("Matplotlib is missing; run: pip install 'dekrpose[notebook]'") from None
            _, ax = pyplot.subplots()
        ax.imshow(drawn)
        ax.set_axis_off()
        return ax

    def show(self, **options: Unpack[DrawOptions]) -> None:
        """Open the drawn image in the system's viewer; ``options`` as in ``draw``."""
        Image.fromarray(self.draw(**options)).show(title=_poses(self).source or "poses")

    def save(
        self,
        path: str | os.PathLike[str],
        image: NDArray[np.uint8] | Image.Image | str | os.PathLike[str] | None = None,
        *,
        color: Literal["rgb", "bgr"] = "rgb",
        **options: Unpack[DrawOptions],
    ) -> None:
        """Write the drawn photo (.jpg, .jpeg, .png, .webp) or the numbers (.json, .csv).

        The file appears in whole or not at all: it is written under a temporary name beside ``path``. Folders that are
        missing are made.

        Args:
            path: where to, and by its suffix what.
            image, color: to draw on, as in ``draw``; for results that keep no image.
            options: of a photo, as in ``draw``.

        Raises:
            ValueError: another suffix, a photo is wanted and no image was kept, or options for a file of numbers.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix in (".json", ".csv"):
            given = [*options, *(["image"] if image is not None else [])]
            if given:
                raise ValueError(f"{path} holds numbers; options of pictures have no effect: {', '.join(given)}")
            poses = _poses(self)
            text = poses.to_json(indent=2) if suffix == ".json" else poses.to_csv()
            content = text.encode("utf-8", "backslashreplace")  # names may be no text
        elif suffix in _PHOTO_OPTIONS:
            drawn = self.draw(image, color=color, **options)
            content = _encoded(drawn if color == "rgb" else drawn[..., ::-1], _PHOTO_OPTIONS[suffix])
        else:
            raise ValueError(f"poses are saved as {', '.join((*_PHOTO_OPTIONS, '.json'))} or .csv, got {str(path)!r}")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)

    def _repr_html_(self) -> str:
        """For notebooks: the photo with its poses (at most 640 pixels wide or high), or a table without it."""
        poses = _poses(self)
        height, width = poses.image_size
        people = people_words(len(poses))
        parts = [people, f"{width} by {height} pixels", poses.source, poses.error]
        caption = f"<div>{html.escape(' · '.join(part for part in parts if part))}</div>"
        if poses.image is None:
            return _html_table(poses) + caption
        content = _encoded(_preview(poses).draw(), {**_PHOTO_OPTIONS[".jpg"], "quality": 85})
        data = base64.b64encode(content).decode("ascii")
        return f'<img src="data:image/jpeg;base64,{data}" alt="{people}">{caption}'


def _poses(pictures: Pictures) -> Poses:
    return cast("Poses", pictures)


def people_words(count: int) -> str:
    """A number of people for people."""
    return counted(count, "person", "people") if count else "nobody"


def _kept_image(pictures: Pictures) -> NDArray[np.uint8]:
    """The image that ``estimate`` kept; ValueError if there is none."""
    image = _poses(pictures).image
    if image is None:
        raise ValueError(
            "this result holds no image (only estimate keeps it); hand it over: poses.draw(image) and "
            "poses.save(path, image) take (H, W, 3) uint8 RGB; poses.draw(background='white') and poses.save('x.json') "
            "need none"
        )
    return image


def _encoded(picture: NDArray[np.uint8], options: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, **options)
    return buffer.getvalue()


def _preview(poses: Poses) -> Poses:
    """Image and keypoints, reduced to the preview's size, so that limbs are drawn as wide as it needs."""

    image = _kept_image(poses)
    height, width = poses.image_size
    scale = _PREVIEW_SIDE / max(height, width)
    if scale >= 1:
        return poses
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
    factors = np.array([size[0] / width, size[1] / height], np.float32)
    return replace(poses, keypoints=poses.keypoints * factors, image=small, image_size=small.shape[:2])


def _html_table(poses: Poses) -> str:
    rows = "".join(
        f"<tr><td>{number}</td><td>{person.score:.2f}</td><td>{', '.join(f'{v:.0f}' for v in person.box)}</td></tr>"
        for number, person in enumerate(poses)
    )
    return f"<table><tr><th>person</th><th>score</th><th>box (x0, y0, x1, y1)</th></tr>{rows}</table>" if rows else ""
