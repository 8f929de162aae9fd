"""Cameras, and files and addresses where PyAV is missing, through OpenCV."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dekrpose.errors import DekrPoseError, without_password
from dekrpose.images import Pixels
from dekrpose.video.frames import TICKS, Frame, Source, StreamInfo, check_frame, is_address, location, sensible_rate

_MISSES = 10  # pictures that a camera may miss in a row before it counts as gone
_PAUSE = 0.05  # seconds between them
_PTS = getattr(cv2, "CAP_PROP_PTS", -1)  # in frames of the average rate; older versions do not know it, and say 0
_SOUND = 0.1  # of a file's duration, for which its sound may go on after its pictures
_HEAD = 1 << 16  # bytes at the beginning of a file that say what it is
_CLOCK_RATE = 1000  # frames per second from which on OpenCV more likely says how fast a clock ticks


def open_camera(number: int) -> Source:
    """Open a camera by its number; DekrPoseError if there is no such camera, or another program holds it."""
    capture = cv2.VideoCapture(number)
    if not capture.isOpened():
        raise DekrPoseError(
            f"no camera {number}; check that it is plugged in, that no other program uses it, and that this user may "
            "(on Linux: ls -l /dev/video*), or pass another number"
        )
    troubles: list[str] = []
    cancelled = threading.Event()
    fps = capture.get(cv2.CAP_PROP_FPS)
    info = StreamInfo(name=f"camera {number}", live=True, fps=fps if sensible_rate(fps) else None)
    frames = _camera_frames(capture, cancelled, troubles)
    return Source(info, frames, capture.release, troubles, cancel=cancelled.set)


def _camera_frames(capture: cv2.VideoCapture, cancelled: threading.Event, troubles: list[str]) -> Iterator[Frame]:
    began, index, misses = time.monotonic(), 0, 0
    while misses < _MISSES:
        if cancelled.is_set():
            return
        there, picture = capture.read()
        if there:
            yield Frame(index, time.monotonic() - began, _already(_rgb(picture)))
            index, misses = index + 1, 0
        else:
            misses += 1
            time.sleep(_PAUSE)
    troubles.append("the camera gives no pictures any more")


def open_with_opencv(address: str) -> Source:
    """Open a file or an address; OpenCV turns pictures upright by itself; DekrPoseError if OpenCV cannot open it."""
    capture = cv2.VideoCapture(name_for_opencv(location(address)))
    if not capture.isOpened():
        raise DekrPoseError(
            f"OpenCV cannot open {without_password(address)} as a video; check that it is one and that it is whole. "
            "PyAV reads more formats: pip install 'dekrpose[video]'"
        )
    try:
        size = capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
        check_frame(*size, without_password(address))
    except DekrPoseError:
        capture.release()
        raise
    said = capture.get(cv2.CAP_PROP_FPS)
    fps = said if sensible_rate(said) and said < _CLOCK_RATE else 25.0
    count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    frames = int(count) if math.isfinite(count) and count > 0 else None
    info = StreamInfo(
        name=address,
        live=frames is None and is_address(address),
        frames=frames,
        duration=frames / fps if frames else None,
        fps=fps,
        tick=min(TICKS, 1 / Fraction(fps).limit_denominator(1001)),
    )
    troubles: list[str] = []
    ends = frames / said if frames and sensible_rate(said) else None
    counted = frames if _states_a_count(address) else None
    pictures = _file_frames(capture, info, troubles, sensible_rate(said), counted, ends)
    return Source(info, pictures, capture.release, troubles)


def name_for_opencv(place: str) -> Any:
    """A file name that OpenCV takes: one that is no UTF-8 ends the process when it comes as text."""
    try:
        place.encode("utf-8")
    except UnicodeEncodeError:
        return os.fsencode(place)
    return place


def _states_a_count(address: str) -> bool:
    """Whether the number of frames is the file's own; where it says none, OpenCV takes duration times rate for one."""
    if is_address(address) or not Path(address).is_file():  # but a device or a pipe
        return False
    with Path(address).open("rb") as file:
        head = file.read(_HEAD)
    is_mp4 = head[4:8] in (b"ftyp", b"moov", b"mdat") and b"mvex" not in head  # with that, it comes in fragments
    return is_mp4 or (head[:4] == b"RIFF" and head[8:11] == b"AVI")


def _file_frames(
    capture: cv2.VideoCapture,
    info: StreamInfo,
    troubles: list[str],
    has_clock: bool,
    counted: int | None,
    ends: float | None,
) -> Iterator[Frame]:
    """The pictures of a file; what is missing is among the troubles.

    ``has_clock``: OpenCV knows when pictures are shown. ``counted``: how many pictures the file says that it has; None
    where it says nothing. ``ends``: seconds from the start of its clock, or of its pictures, at which it says that it
    ends.
    """
    assert info.fps is not None
    index, last, origin, before, clock = 0, -1.0, None, 0.0, 0.0
    try:
        while True:
            there, picture = capture.read()
            if not there:
                break
            timestamp = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 if has_clock else index / info.fps
            clock = max(clock, timestamp) if math.isfinite(timestamp) else clock
            origin = timestamp if origin is None and math.isfinite(timestamp) else origin
            if origin:  # AVI begins late by what its decoder holds; 0.28 - 0.08 is a little less than 0.2
                timestamp = round(timestamp - origin, 9)
            if not last < timestamp < math.inf:
                timestamp = index / info.fps if index / info.fps > last else last + 1 / info.fps
            last = timestamp
            before = before if index else max(capture.get(_PTS), 0.0)
            yield Frame(index, timestamp, _already(_rgb(picture)))
            index += 1
    finally:
        capture.release()
    # a file that starts late may count what would be before
    if counted is not None and index + before < counted:
        troubles.append(f"it says that it has {counted} frames, only {index} could be read")
    elif counted is None and ends is not None and clock + before / info.fps + 1 + _SOUND * ends < ends:
        troubles.append(f"it says that it lasts {ends:.1f} s, pictures end after {max(last, 0.0):.1f} s")


def _rgb(picture: Any) -> Pixels:
    if picture.ndim == 2:
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB), np.uint8)
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def _already(pixels: Pixels) -> Any:
    return lambda: pixels
