"""How pictures are drawn: the arguments that ``predict``, ``video`` and ``webcam`` share."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dekrpose.draw import DrawOptions


def add_draw_arguments(parser: argparse.ArgumentParser, *, stream: bool) -> None:
    """Add them; colours by identity are for streams alone."""
    group = parser.add_argument_group("drawing")
    ways = ["side", "person", *(["identity"] if stream else []), "score"]
    group.add_argument(
        "--color-by", choices=ways, help="what colours tell apart; default: sides, or people with --track"
    )
    group.add_argument(
        "--colors",
        metavar="C,...",
        help="your own, such as orange,#3080ff: of people, from score 0 to 1, or of left,right",
    )
    group.add_argument("--boxes", action="store_true", help="draw boxes")
    group.add_argument("--scores", action="store_true", help="write scores beside people")
    group.add_argument("--names", action="store_true", help="write the names of keypoints")
    group.add_argument("--blur-faces", action="store_true", help="blur the faces of everyone who is found")
    group.add_argument("--background", metavar="COLOR", help="a colour in place of the picture, such as white")
    group.add_argument("--thickness", type=float, metavar="N", help="of the limbs, in pixels; default: by size")
    group.add_argument("--keypoint-threshold", type=float, metavar="T", help="score from which keypoints are drawn")


def draw_options(options: argparse.Namespace) -> DrawOptions:
    """What they ask of ``draw_poses``.

    Raises:
        ValueError: a value cannot be used, or colours by identity are asked for without identities.
    """
    from dekrpose.draw import check_options
    from dekrpose.draw.colors import rgb

    colors: Any = [rgb(name.strip()) for name in options.colors.split(",")] if options.colors is not None else None
    tracked = getattr(options, "track", False) or getattr(options, "smooth", False)
    if options.color_by == "identity" and not tracked:
        raise ValueError("--color-by identity needs identities; add --track")
    if colors and options.color_by == "side":
        if len(colors) != 2:
            raise ValueError(f"--colors with --color-by side takes two, of left and right, got {len(colors)}")
        colors = dict(zip(("left", "right"), colors, strict=True))
    look: DrawOptions = {
        "color_by": options.color_by,
        "colors": colors,
        "boxes": options.boxes,
        "labels": ("identity", "score") if options.scores else None,
        "names": options.names,
        "blur_faces": options.blur_faces,
        "background": rgb(options.background) if options.background else None,
        "thickness": options.thickness,
        "keypoint_threshold": options.keypoint_threshold,
    }
    check_options(look)
    return look
