"""Cameras, and files and addresses where PyAV is missing, through OpenCV."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import cv2
import numpy as np

from dekrpose.errors import DekrPoseError
from dekrpose.images import Pixels
from dekrpose.video.frames import TICKS, Frame, Source, StreamInfo

_MISSES = 10  # pictures that a camera may miss in a row before it counts as gone
_PAUSE = 0.05  # seconds between them


def open_camera(number: int) -> Source:
    """Open a camera by its number.

    Raises:
        DekrPoseError: there is no such camera, or another program holds it.
    """
    capture = cv2.VideoCapture(number)
    if not capture.isOpened():
        raise DekrPoseError(
            f"no camera {number}; check that it is plugged in, that no other program uses it, and that this user may "
            "(on Linux: ls -l /dev/video*), or pass another number"
        )
    troubles: list[str] = []
    cancelled = threading.Event()
    info = StreamInfo(name=f"camera {number}", live=True, fps=capture.get(cv2.CAP_PROP_FPS) or None)
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
    """Open a file or an address; OpenCV turns pictures upright by itself.

    Raises:
        DekrPoseError: OpenCV cannot open it.
    """
    capture = cv2.VideoCapture(address)
    if not capture.isOpened():
        raise DekrPoseError(
            f"OpenCV cannot open {address} as a video; check that it is one and that it is whole. "
            "PyAV reads more formats: pip install 'dekrpose[video]'"
        )
    fps = capture.get(cv2.CAP_PROP_FPS)
    fps = fps if 0 < fps < 1000 else 25.0
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    info = StreamInfo(
        name=address,
        live=count <= 0 and "://" in address,
        frames=count if count > 0 else None,
        duration=count / fps if count > 0 else None,
        fps=fps,
        tick=min(TICKS, 1 / Fraction(fps).limit_denominator(1001)),
    )
    troubles: list[str] = []
    return Source(info, _file_frames(capture, info, troubles), capture.release, troubles)


def _file_frames(capture: cv2.VideoCapture, info: StreamInfo, troubles: list[str]) -> Iterator[Frame]:
    assert info.fps is not None
    index, last = 0, -1.0
    try:
        while True:
            there, picture = capture.read()
            if not there:
                break
            timestamp = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if timestamp <= last:
                timestamp = index / info.fps if index / info.fps > last else last + 1 / info.fps
            last = timestamp
            yield Frame(index, timestamp, _already(_rgb(picture)))
            index += 1
    finally:
        capture.release()
    if info.frames is not None and index < info.frames:
        troubles.append(f"it says that it has {info.frames} frames, only {index} could be read")


def _rgb(picture: Any) -> Pixels:
    if picture.ndim == 2:
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB), np.uint8)
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def _already(pixels: Pixels) -> Any:
    return lambda: pixels
