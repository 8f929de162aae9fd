"""Live sources: the newest frame, counted losses, and threads that end."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dekrpose import DekrPoseError, PoseEstimator
from dekrpose.video.frames import Frame, Source, StreamInfo, newest
from dekrpose.video.opencv import _MISSES
from tests import video_clips as clips
from tests.small_model import write_small_model

PATIENCE = 10.0  # seconds; a test that needs them fails


@pytest.fixture(scope="module")
def estimator(tmp_path_factory: pytest.TempPathFactory) -> PoseEstimator:
    return PoseEstimator.from_pretrained(write_small_model(tmp_path_factory.mktemp("model") / "small.safetensors"))


def live_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "dekrpose live source"]


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Camera:
    """Stands in for cv2.VideoCapture: gives a picture whenever it is told to."""

    def __init__(self, pictures: int) -> None:
        self.pictures = pictures
        self.given = 0
        self.allowed = 0
        self.released = False
        self.changed = threading.Condition()

    def __call__(self, number: int) -> Camera:
        return self

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def get(self, _: int) -> float:
        return 0.0

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]:
        with self.changed:
            self.changed.wait_for(lambda: self.given < self.allowed or self.released, 0.2)
            if self.given >= min(self.allowed, self.pictures):
                return False, None
            self.given += 1
            return True, clips.picture(self.given - 1)

    def release(self) -> None:
        self.released = True

    def allow(self, total: int) -> None:
        """Let the camera give pictures up to this many; wait until it has."""
        with self.changed:
            self.allowed = total
            self.changed.notify_all()
        wait_for(lambda: self.given == min(total, self.pictures))
        time.sleep(0.05)  # the last one has yet to reach the slot


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> Camera:
    made = Camera(100)
    monkeypatch.setattr(cv2, "VideoCapture", made)
    monkeypatch.setattr("dekrpose.video.opencv._PAUSE", 0.0)
    monkeypatch.setattr("dekrpose.video.opencv._MISSES", 1000)
    return made


def test_the_newest_frame_is_taken_and_the_others_are_counted(estimator: PoseEstimator, camera: Camera) -> None:
    with estimator.estimate_video(0, score_threshold=0) as stream:
        assert stream.info.live
        camera.allow(1)
        assert next(stream).index == 0
        camera.allow(6)
        poses = next(stream)
        assert (poses.index, stream.dropped) == (5, 4)
        assert poses.timestamp is not None
        assert poses.timestamp > 0
        expected = estimator.estimate(clips.picture(5), color="bgr", score_threshold=0)
        np.testing.assert_allclose(poses.keypoints, expected.keypoints, atol=1e-3)
        camera.allow(7)
        assert (next(stream).index, stream.dropped) == (6, 4)


def test_closing_ends_the_thread_and_frees_the_camera(estimator: PoseEstimator, camera: Camera) -> None:
    stream = estimator.estimate_video(0)
    camera.allow(3)
    next(stream)
    assert len(live_threads()) == 1
    stream.close()
    wait_for(lambda: not live_threads() and camera.released)
    assert list(stream) == []


@pytest.mark.parametrize("begun", [True, False])
def test_forgetting_ends_the_thread(estimator: PoseEstimator, camera: Camera, begun: bool) -> None:
    gc.disable()  # without waiting for the collector
    try:
        stream = estimator.estimate_video(0)
        camera.allow(2)
        if begun:
            next(stream)
        del stream
        wait_for(lambda: not live_threads() and camera.released)
    finally:
        gc.enable()


def test_an_interrupted_loop_ends_the_thread(estimator: PoseEstimator, camera: Camera) -> None:
    camera.allowed = 50

    def loop() -> None:
        for _ in estimator.estimate_video(0):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop()
    wait_for(lambda: not live_threads() and camera.released)


def test_a_camera_that_is_pulled_out_ends_the_stream(
    estimator: PoseEstimator, camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dekrpose.video.opencv._MISSES", 3)
    camera.pictures = camera.allowed = 2
    stream = estimator.estimate_video(0)
    assert 1 <= len(list(stream)) <= 2
    assert stream.troubles == ["the camera gives no pictures any more"]
    assert not live_threads()
    assert _MISSES > 3


def test_an_error_of_the_reader_reaches_the_caller() -> None:
    def frames() -> Iterator[Frame]:
        yield Frame(0, 0.0, lambda: clips.picture(0))
        raise DekrPoseError("the line is dead")

    source = newest(Source(StreamInfo(live=True), frames(), lambda: None))
    with pytest.raises(DekrPoseError, match="the line is dead"):
        list(source.frames)


@contextmanager
def endless_pictures() -> Iterator[str]:
    """The address of a camera that sends JPEGs for as long as somebody listens."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
            self.end_headers()
            number = 0
            try:
                while True:
                    jpeg = cv2.imencode(".jpg", clips.picture(number % 28))[1].tobytes()
                    head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    self.wfile.write(head.encode() + jpeg + b"\r\n")
                    number += 1
                    time.sleep(0.01)
            except OSError:
                pass

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/camera"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.slow
def test_an_address_without_an_end_is_live(estimator: PoseEstimator, tmp_path: Path) -> None:
    pytest.importorskip("av")
    with endless_pictures() as address, estimator.estimate_video(address) as stream:
        assert stream.info.live
        found = []
        for poses in stream:
            found.append(poses)
            time.sleep(0.1)
            if len(found) == 5:
                break
        assert stream.dropped > 0
        indices = [poses.index or 0 for poses in found]
        assert indices == sorted(set(indices))
        assert all(poses.image_size == clips.SIZE for poses in found)
    wait_for(lambda: not live_threads())
