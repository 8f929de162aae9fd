"""``dekrpose webcam``: a camera's pictures with skeletons, in a window."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from dataclasses import replace

import cv2
import numpy as np

from dekrpose.commands.drawing import draw_options
from dekrpose.commands.predict import estimate_options
from dekrpose.commands.video import add_stream_arguments, stream_of
from dekrpose.errors import DekrPoseError

EXAMPLES = ("dekrpose webcam --mirror", "dekrpose webcam --camera 1 --track")
_TITLE = "dekrpose"
_ESCAPE = 27
_ELSEWHERE = "poses of a camera without a window: estimator.estimate_video(0) in Python"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``dekrpose webcam``."""
    parser.description = "Show a camera's pictures with skeletons, always the newest one; q or Esc ends it."
    parser.add_argument("--camera", default="0", metavar="N", help="its number, or the URL of a camera (default: 0)")
    parser.add_argument("--mirror", action="store_true", help="show yourself as in a mirror")
    add_stream_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """``dekrpose webcam``: 0 when its user ended it."""
    chosen = estimate_options(options)
    check_screen()
    look = draw_options(options)
    source = int(options.camera) if re.fullmatch(r"\d+", options.camera) else options.camera
    shown, since = 0, time.monotonic()
    with stream_of(source, options, chosen) as stream:
        cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        try:
            for frame, poses in stream.pairs():
                if poses is None or poses.error:
                    continue
                pixels = frame.pixels
                if options.mirror:  # before drawing: text is to be read
                    pixels = np.ascontiguousarray(pixels[:, ::-1])
                    poses = replace(poses, keypoints=poses.keypoints * (-1, 1) + (pixels.shape[1] - 1, 0))
                picture = poses.draw(pixels, **look)
                cv2.imshow(_TITLE, np.ascontiguousarray(picture[..., ::-1]))
                shown += 1
                rate = shown / (time.monotonic() - since)
                cv2.setWindowTitle(_TITLE, f"{_TITLE}: {rate:.1f} frames/s, {stream.dropped} dropped; q ends")
                if (
                    cv2.waitKey(1) & 0xFF in (ord("q"), _ESCAPE)
                    or cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) < 1
                ):
                    return 0
        finally:
            cv2.destroyAllWindows()
    raise DekrPoseError(f"{stream.info.title} ended: {'; '.join(stream.troubles) or 'no more pictures'}")


def check_screen() -> None:
    """Say so where no window can be opened; some builds of OpenCV end the whole process there.

    Raises:
        DekrPoseError: there is no screen, or OpenCV was built without windows.
    """
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise DekrPoseError(f"there is no screen here (neither DISPLAY nor WAYLAND_DISPLAY is set); {_ELSEWHERE}")
    if re.search(r"GUI:\s+NONE", cv2.getBuildInformation()):
        raise DekrPoseError(
            "this OpenCV was built without windows; run: pip uninstall -y opencv-python-headless && "
            f"pip install opencv-python; or take the {_ELSEWHERE}"
        )
