"""File objects as images; folders, globs and lists as several."""

from __future__ import annotations

import io
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dekrpose.errors import ImageError
from dekrpose.estimator import PoseEstimator
from dekrpose.images import load, several_images
from tests.small_model import write_small_model

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def estimator(tmp_path_factory: pytest.TempPathFactory) -> PoseEstimator:
    return PoseEstimator.from_pretrained(write_small_model(tmp_path_factory.mktemp("model") / "small.safetensors"))


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG")
    return buffer.getvalue()


class Upload:
    """As web frameworks hand them over."""

    filename = "me.png"

    def __init__(self, content: Any) -> None:
        self._content = content

    def read(self) -> Any:
        return self._content


class AsyncUpload(Upload):
    async def read(self) -> Any:
        return self._content


def test_file_objects_are_images(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    with (tmp_path / "a.png").open("rb") as file, tempfile.SpooledTemporaryFile() as spooled:
        spooled.write(png())
        spooled.seek(0)
        named = [(io.BytesIO(png()), None), (file, str(tmp_path / "a.png")), (spooled, None), (Upload(png()), "me.png")]
        for image, name in named:
            pixels, source = load(image)
            np.testing.assert_array_equal(pixels, PIXELS)
            assert source == name


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (io.TextIOWrapper(io.BytesIO(b"\xff\xd8"), "utf-8"), "it is open as text; open it with 'rb'"),
        (io.StringIO("text"), "must be a file of bytes, it gave str; open it with 'rb'"),
        (io.BytesIO(), "the file is empty or was read to its end; image.seek(0)"),
        (Upload(b""), "me.png is empty"),
        (AsyncUpload(b""), "pass await image.read()"),
        (Upload(b"no image"), "me.png is not an image"),
    ],
)
def test_file_objects_that_are_no_images_are_said(image: Any, words: str) -> None:
    with pytest.raises(ImageError, match=re.escape(words)):
        load(image)


def test_calling_the_estimator_estimates(estimator: PoseEstimator) -> None:
    poses = estimator(io.BytesIO(png()), score_threshold=0)
    assert poses.allclose(estimator.estimate(PIXELS, score_threshold=0), pixels=0, scores=0)


def test_a_folder_and_a_glob_are_several_images(estimator: PoseEstimator, tmp_path: Path) -> None:
    for name in ("b.png", "a.png", "c.jpg"):
        Image.fromarray(PIXELS).save(tmp_path / name)
    for pattern in (tmp_path, str(tmp_path), str(tmp_path / "*")):
        names = [Path(poses.source or "").name for poses in estimator.estimate_many(pattern)]
        assert names == ["a.png", "b.png", "c.jpg"]
    assert len(list(estimator.estimate_many(str(tmp_path / "*.png")))) == 2
    assert len(list(estimator.estimate_many(str(tmp_path / "a.png")))) == 1
    with pytest.raises(FileNotFoundError, match="no image found"):
        estimator.estimate_many(str(tmp_path / "missing"))
    frames, _ = estimator.estimate_frames(str(tmp_path / "*.png"))  # type: ignore[arg-type]
    assert len(frames) == 2


@pytest.mark.parametrize(
    "image", [png(), io.BytesIO(png()), Image.fromarray(PIXELS), PIXELS, PIXELS[..., 0], 7, None], ids=lambda v: type(v)
)
def test_a_single_image_is_not_taken_for_several(estimator: PoseEstimator, image: Any) -> None:
    with pytest.raises(TypeError, match=re.escape("pass [image], or use estimate")):
        estimator.estimate_many(image)


def test_arrays_of_names_and_batches_are_several() -> None:
    names = np.array(["a.jpg", "b.jpg"])
    assert several_images(names) is names
    batch = np.zeros((2, 4, 4, 3), np.uint8)
    assert several_images(batch) is batch
    assert several_images("https://example.org/a.jpg") == ["https://example.org/a.jpg"]


def test_no_message_asks_for_a_folder_to_be_listed(tmp_path: Path) -> None:
    with pytest.raises(ImageError) as caught:
        load("/")
    assert "find_images" not in str(caught.value)
    with pytest.raises(ImageError, match="estimate_many takes the images of a folder"):
        load(tmp_path)


@pytest.mark.parametrize("address", ["ftp://name:secret@host/a.jpg", "http:/name:secret@host/" + "a" * 5000])
def test_a_mistyped_address_of_several_images_shows_no_password(address: str) -> None:
    with pytest.raises(OSError) as caught:
        several_images(address)
    assert "secret" not in str(caught.value)


@pytest.mark.skipif(not Path("/proc/kmsg").exists(), reason="a file of Linux")
@pytest.mark.parametrize("name", ["kmsg", "self/environ", "kpagecount"])
def test_files_of_no_size_are_not_read_on_and_on(name: str) -> None:
    with pytest.raises((ImageError, PermissionError, FileNotFoundError)):
        load(f"/proc/{name}")
