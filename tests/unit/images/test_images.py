"""Reading images, the network input's geometry and pixels, listing files."""

from __future__ import annotations

import io
import os
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.GifImagePlugin
import PIL.Image
import PIL.ImageCms
import PIL.ImageOps
import pytest
import torch

from dekrpose import images
from dekrpose.errors import DekrPoseError, ImageError
from dekrpose.images import Geometry, find_images, load, resize, to_tensor

Array = np.ndarray[Any, Any]


def photo(height: int = 48, width: int = 64, seed: int = 0) -> Array:
    """Smooth noise: survives JPEG, and every side and channel differs."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 3)) * 3


def encoded(pixels: Array, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def oriented(orientation: int) -> PIL.Image.Exif:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    return exif


class TestSources:
    @pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
    def test_every_way_to_pass_a_lossless_file_gives_its_pixels(self, kind: str, tmp_path: Path) -> None:
        pixels = photo()
        path = tmp_path / f"photo.{kind.lower()}"
        data = encoded(pixels, kind)
        path.write_bytes(data)
        for source in (path, str(path), data, bytearray(data), memoryview(data), PIL.Image.open(path)):
            result, _ = load(source)
            np.testing.assert_array_equal(result, pixels)
            assert result.dtype == np.uint8
            assert result.flags.c_contiguous
            assert result.flags.writeable

    def test_the_source_is_the_text_of_a_path_and_none_for_memory(self, tmp_path: Path) -> None:
        path = tmp_path / "photo.png"
        path.write_bytes(encoded(photo(), "PNG"))
        assert load(path)[1] == str(path)
        assert load(str(path))[1] == str(path)
        assert load(path.read_bytes())[1] is None
        assert load(PIL.Image.open(path))[1] is None
        assert load(photo())[1] is None

    def test_jpeg_has_the_pixels_of_opencvs_decoder(self, tmp_path: Path) -> None:
        path = tmp_path / "photo.jpg"
        path.write_bytes(encoded(photo(), "JPEG"))
        np.testing.assert_array_equal(load(path)[0], np.asarray(cv2.imread(str(path)))[..., ::-1])

    def test_formats_beyond_opencv_are_read_by_pillow(self) -> None:
        pixels = np.repeat(photo()[..., :1] // 16 * 16, 3, axis=2)
        np.testing.assert_array_equal(load(encoded(pixels, "GIF"))[0], pixels)

    def test_pillow_reads_what_an_opencv_build_cannot(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cv2, "imdecode", lambda *_: None)
        pixels = photo()
        result, _ = load(encoded(pixels, "PNG", exif=oriented(6)))
        np.testing.assert_array_equal(result, np.rot90(pixels, -1))

    def test_unicode_paths_work(self, tmp_path: Path) -> None:
        path = tmp_path / "Ünïcode 写真 🙂.png"
        path.write_bytes(encoded(photo(), "PNG"))
        np.testing.assert_array_equal(load(str(path))[0], photo())

    def test_a_missing_file_is_named(self) -> None:
        with pytest.raises(FileNotFoundError, match=r"nowhere\.jpg.*relative paths start at"):
            load("nowhere.jpg")

    def test_a_folder_is_refused_with_the_way_to_list_it(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match=r"is a folder.*estimate_many"):
            load(tmp_path)

    @pytest.mark.parametrize("image", [None, 3, [[1, 2], [3, 4]], {"a": 1}])
    def test_other_types_are_refused_by_name(self, image: Any) -> None:
        with pytest.raises(ImageError, match=type(image).__name__):
            load(image)

    def test_image_error_is_ours_and_a_value_error(self) -> None:
        assert issubclass(ImageError, DekrPoseError)
        assert issubclass(ImageError, ValueError)


class TestDamage:
    @pytest.mark.parametrize(
        ("kind", "options"),
        [
            ("JPEG", {}),
            ("JPEG", {"progressive": True}),
            ("PNG", {}),
            ("WEBP", {}),
            ("BMP", {}),
            ("TIFF", {}),
            ("GIF", {}),
        ],
    )
    @pytest.mark.parametrize("share", [0.3, 0.9])
    def test_a_file_that_was_cut_off_is_reported_by_name(
        self, kind: str, options: dict[str, Any], share: float, tmp_path: Path
    ) -> None:
        data = encoded(photo(300, 400), kind, **options)
        path = tmp_path / "cut.image"
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(ImageError, match=r"cut\.image"):
            load(path)
        with pytest.raises(ImageError, match="bytes"):
            load(path.read_bytes())

    def test_a_cut_jpeg_is_reported_even_where_opencv_fills_in_grey(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cv2, "imdecode", lambda *_: np.full((300, 400, 3), 128, np.uint8))
        data = encoded(photo(300, 400), "JPEG")
        with pytest.raises(ImageError, match="cut off"):
            load(data[: len(data) // 2])

    def test_a_jpeg_with_bytes_after_its_end_is_read(self) -> None:
        data = encoded(photo(), "JPEG")
        np.testing.assert_array_equal(load(data + bytes(500))[0], load(data)[0])

    def test_text_and_nothing_are_no_images(self, tmp_path: Path) -> None:
        path = tmp_path / "notes.jpg"
        path.write_text("not a photo")
        with pytest.raises(ImageError, match=r"notes\.jpg is not an image"):
            load(path)
        with pytest.raises(ImageError, match="0 bytes is not an image"):
            load(b"")

    @pytest.mark.parametrize("start", [b"\0\0\0\x1cftypisom", b"RIFF\0\0\0\0AVI LIST", b"\x1aE\xdf\xa3"])
    def test_films_name_what_takes_them(self, start: bytes) -> None:
        with pytest.raises(ImageError, match="films go through estimate_video and dekrpose video"):
            load(start + bytes(100))

    def test_several_images_name_what_takes_them(self) -> None:
        with pytest.raises(ImageError, match="got list; estimate_many takes several images"):
            load([photo()])

    @pytest.mark.parametrize("kind", sorted({"DDS", "ICO", "PCX", "SGI", "TGA", "IM"}))
    def test_kinds_that_are_not_on_the_list_are_never_decoded(self, kind: str) -> None:
        with pytest.raises(ImageError, match="is not an image of a kind that is read; pass a JPEG"):
            load(encoded(photo(), kind))

    @pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP"])
    def test_kinds_on_the_list_are_read(self, kind: str) -> None:
        assert load(encoded(photo(), kind))[0].shape == photo().shape

    @pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1"])
    def test_an_iphones_photo_names_the_package_that_reads_it(
        self, brand: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "pillow_heif", None)
        monkeypatch.delitem(PIL.Image.OPEN, "HEIF", raising=False)
        with pytest.raises(ImageError, match=r"HEIC photo.*pip install pillow-heif"):
            load(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic" + bytes(100))

    @pytest.mark.parametrize("error", [RuntimeError, NotImplementedError, ZeroDivisionError, MemoryError])
    def test_whatever_a_decoder_raises_is_an_image_error(
        self, error: type[Exception], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise error("decoder's own")

        data = encoded(photo(), "GIF")
        monkeypatch.setattr(PIL.GifImagePlugin.GifImageFile, "load", fail)
        with pytest.raises(ImageError, match=r"broken or cut off \(decoder's own\)"):
            load(data)
        monkeypatch.setitem(PIL.Image.OPEN, "GIF", (fail, PIL.Image.OPEN["GIF"][1]))
        with pytest.raises(ImageError, match="header cannot be read"):
            load(data)

    def test_a_claim_of_more_bytes_than_there_are_is_refused_before_memory_is_taken(self) -> None:
        data = encoded(photo(), "PNG")
        chunk = (2**32 - 256).to_bytes(4, "big") + b"tEXt"
        with pytest.raises(ImageError, match="ends within a chunk"):
            load(data[:33] + chunk + data[33:])

    @pytest.mark.parametrize("kind", ["PNG", "GIF", "TIFF"])
    def test_a_small_file_of_too_many_pixels_is_refused(self, kind: str) -> None:
        data = encoded(
            np.zeros((8001, 8000), np.uint8), kind, **({"compression": "tiff_lzw"} if kind == "TIFF" else {})
        )
        assert len(data) < 2**20
        with pytest.raises(ImageError, match=r"8000 x 8001 pixels in .* more than the 64 million"):
            load(data)

    def test_a_cut_off_pillow_image_is_reported(self) -> None:
        data = encoded(photo(300, 400), "PNG")
        with pytest.raises(ImageError, match="Pillow image is broken or cut off"):
            load(PIL.Image.open(io.BytesIO(data[: len(data) // 2])))

    @pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
    def test_damaged_exif_does_not_matter(self) -> None:
        data = encoded(photo(), "JPEG", exif=b"Exif\x00\x00MM\x00*garbage")
        np.testing.assert_array_equal(load(data)[0], load(encoded(photo(), "JPEG"))[0])

    @pytest.mark.parametrize("suffix", [".png", ".tiff"])
    @pytest.mark.parametrize("exif", [True, False])
    def test_sixteen_bits_are_refused(self, suffix: str, exif: bool) -> None:
        for pixels in (photo().astype(np.uint16) * 257, photo()[..., 0].astype(np.uint16) * 257):
            data = cv2.imencode(suffix, pixels)[1].tobytes()
            with pytest.raises(ImageError, match=r"8 bits per channel.* 16"):
                load(data, exif=exif)


class TestOrientation:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("kind", ["PNG", "TIFF"])
    def test_files_bytes_and_pillow_images_are_turned_upright(
        self, orientation: int, kind: str, tmp_path: Path
    ) -> None:
        pixels = photo()
        data = encoded(pixels, kind, exif=oriented(orientation))
        stored = PIL.Image.fromarray(pixels)
        stored.getexif()[0x0112] = orientation
        expected = np.asarray(PIL.ImageOps.exif_transpose(stored))
        path = tmp_path / "photo"
        path.write_bytes(data)
        for source in (path, data, PIL.Image.open(path), stored):
            result, _ = load(source)
            np.testing.assert_array_equal(result, expected)
            assert result.flags.c_contiguous

    def test_without_exif_the_stored_pixels_are_read_as_the_official_code_does(self, tmp_path: Path) -> None:
        path = tmp_path / "photo.jpg"
        path.write_bytes(encoded(photo(), "JPEG", exif=oriented(6)))
        official = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        expected = np.asarray(official)[..., ::-1]
        np.testing.assert_array_equal(load(path, exif=False)[0], expected)
        np.testing.assert_array_equal(load(path)[0], np.rot90(expected, -1))
        assert load(PIL.Image.open(path), exif=False)[0].shape == expected.shape

    def test_a_pillow_image_stays_as_it_was(self) -> None:
        image = PIL.Image.open(io.BytesIO(encoded(photo(), "PNG", exif=oriented(6))))
        load(image)
        assert image.size == (64, 48)
        assert image.getexif()[0x0112] == 6


class TestPillowModes:
    @pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "RGBX", "YCbCr", "HSV"])
    def test_usual_modes_become_rgb(self, mode: str) -> None:
        image = PIL.Image.fromarray(photo()).convert(mode)
        np.testing.assert_array_equal(load(image)[0], np.asarray(image.convert("RGB")))

    @pytest.mark.parametrize("mode", ["La", "RGBa", "PA"])
    def test_rare_modes_are_read(self, mode: str) -> None:
        assert load(PIL.Image.new(mode, (7, 5)))[0].shape == (5, 7, 3)

    @pytest.mark.filterwarnings("error")
    def test_a_palette_with_transparency_keeps_its_colours(self) -> None:
        image = PIL.Image.fromarray(photo()).quantize(16)
        expected = np.asarray(image.convert("RGB"))
        image.info["transparency"] = bytes(range(0, 160, 10))
        np.testing.assert_array_equal(load(image)[0], expected)

    def test_colour_spaces_are_converted(self) -> None:
        image = PIL.Image.fromarray(photo())
        np.testing.assert_array_equal(load(image.convert("CMYK"))[0], photo())
        profiles = PIL.ImageCms.createProfile("sRGB"), PIL.ImageCms.createProfile("LAB")
        lab = PIL.ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
        assert np.abs(load(lab)[0].astype(int) - photo()).mean() < 2

    @pytest.mark.parametrize("mode", ["I", "F", "I;16"])
    def test_wide_modes_are_taken_when_their_values_fit_into_8_bits(self, mode: str) -> None:
        grey = PIL.Image.fromarray(photo()).convert("L")
        wide = grey.convert("I").convert(mode)
        np.testing.assert_array_equal(load(wide)[0], load(grey)[0])

    @pytest.mark.parametrize(("dtype", "value"), [(np.uint16, 40000), (np.int32, -1), (np.float32, 0.5)])
    def test_wide_modes_beyond_8_bits_are_refused(self, dtype: type, value: float) -> None:
        with pytest.raises(ImageError, match="scale it to"):
            load(PIL.Image.fromarray(np.full((5, 7), value, dtype)))

    def test_alpha_is_dropped_in_the_same_way_from_files_pillow_images_and_arrays(self) -> None:
        pixels = np.dstack([photo(), photo(seed=1)[..., 0]])
        data = encoded(pixels, "PNG")
        for source in (data, PIL.Image.open(io.BytesIO(data)), pixels):
            np.testing.assert_array_equal(load(source)[0], pixels[..., :3])


class TestArrays:
    def test_channel_orders(self) -> None:
        rgb = photo()
        alpha = np.dstack([rgb, np.zeros((48, 64), np.uint8)])
        np.testing.assert_array_equal(load(rgb)[0], rgb)
        np.testing.assert_array_equal(load(rgb, color="bgr")[0], rgb[..., ::-1])
        np.testing.assert_array_equal(load(alpha)[0], rgb)
        np.testing.assert_array_equal(load(alpha, color="bgr")[0], rgb[..., ::-1])

    @pytest.mark.parametrize("color", ["rgb", "bgr"])
    def test_grey_gets_three_channels(self, color: Any) -> None:
        grey = photo()[..., 0]
        expected = np.repeat(grey[..., None], 3, axis=2)
        np.testing.assert_array_equal(load(grey, color=color)[0], expected)
        np.testing.assert_array_equal(load(grey[..., None], color=color)[0], expected)
        np.testing.assert_array_equal(load(torch.from_numpy(grey)[None], color=color)[0], expected)

    @pytest.mark.parametrize("color", ["rgb", "bgr"])
    def test_views_and_read_only_arrays_work_and_stay_as_they_were(self, color: Any) -> None:
        base = photo()
        for view in (base.transpose(1, 0, 2), base[::-1, ::-2], base[..., ::-1], base[3:20:2, 5:]):
            kept = view.copy()
            view.flags.writeable = False
            result, _ = load(view, color=color)
            np.testing.assert_array_equal(result, kept if color == "rgb" else kept[..., ::-1])
            assert result.flags.c_contiguous
            result[:] = 0
            np.testing.assert_array_equal(view, kept)

    def test_the_result_is_never_the_callers_memory(self) -> None:
        for source in (photo(), torch.from_numpy(photo()).permute(2, 0, 1)):
            kept = load(source)[0].copy()
            load(source)[0][:] = 0
            np.testing.assert_array_equal(load(source)[0], kept)

    def test_tensors_are_channels_first(self) -> None:
        rgb = photo()
        tensor = torch.from_numpy(rgb).permute(2, 0, 1)
        np.testing.assert_array_equal(load(tensor)[0], rgb)
        np.testing.assert_array_equal(load(tensor.contiguous())[0], rgb)
        np.testing.assert_array_equal(load(tensor, color="bgr")[0], rgb[..., ::-1])

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
    def test_tensors_on_an_accelerator_work(self) -> None:
        rgb = photo()
        np.testing.assert_array_equal(load(torch.from_numpy(rgb).permute(2, 0, 1).cuda())[0], rgb)

    @pytest.mark.parametrize(
        ("image", "hint"),
        [
            (np.zeros((4, 5, 3), np.float32), "image \\* 255"),
            (np.zeros((4, 5, 3), bool), "bool"),
            (np.zeros((4, 5), np.uint16), "257"),
            (np.zeros((4, 5, 3), np.int64), "int64"),
            (np.zeros((0, 5, 3), np.uint8), "empty"),
            (np.zeros((4, 5, 2), np.uint8), r"\(4, 5, 2\)"),
            (np.zeros((4, 5, 0), np.uint8), "empty"),
            (np.zeros((3, 40, 50), np.uint8), "transpose"),
            (np.zeros((2, 4, 5, 3), np.uint8), "one by one"),
            (np.zeros(5, np.uint8), r"\(5,\)"),
            (torch.zeros(3, 4, 5), "float32"),
            (torch.zeros(4, 5, 3, dtype=torch.uint8), "permute"),
            (torch.zeros(1, 3, 4, 5, dtype=torch.uint8), "one by one"),
            (torch.zeros(3, 0, 5, dtype=torch.uint8), r"\(3, 0, 5\)"),
        ],
    )
    def test_other_shapes_and_types_are_refused_with_a_hint(self, image: Any, hint: str) -> None:
        with pytest.raises(ImageError, match=hint):
            load(image)

    def test_other_colours_are_refused(self) -> None:
        with pytest.raises(ImageError, match='"rgb" or "bgr", got \'gray\''):
            load(photo(), color="gray")  # type: ignore[arg-type]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = self.path in ("/photo.png", "/gr%C3%BCn%20tee.png")
        self.send_response(200 if found else 404)
        self.end_headers()
        if found:
            self.wfile.write(encoded(photo(), "PNG"))

    def log_message(self, *_: Any) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "*")
    with HTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


class TestUrls:
    @pytest.mark.parametrize("name", ["photo.png", "grün tee.png"])
    def test_an_image_is_fetched_and_its_address_kept(self, server: str, name: str) -> None:
        result, source = load(f"{server}/{name}", allow_private=True)
        np.testing.assert_array_equal(result, photo())
        assert source == f"{server}/{name}"

    def test_an_error_page_names_address_and_status(self, server: str) -> None:
        with pytest.raises(ImageError, match=r"cannot fetch http://.*/missing\.jpg: .*404"):
            load(f"{server}/missing.jpg", allow_private=True)

    def test_a_file_above_the_limit_is_refused(self, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(images, "URL_LIMIT", 100)
        with pytest.raises(ImageError, match="larger than"):
            load(f"{server}/photo.png", allow_private=True)

    def test_a_silent_server_is_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("no_proxy", "*")
        monkeypatch.setattr(images, "URL_TIMEOUT", 0.05)
        with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(ImageError, match="cannot fetch"):
            load(f"http://127.0.0.1:{silent.getsockname()[1]}/photo.png", allow_private=True)

    @pytest.mark.parametrize("url", ["ftp://host/a.jpg", "s3://bucket/a.jpg", "file:///etc/passwd"])
    def test_other_protocols_are_refused(self, url: str) -> None:
        with pytest.raises(ImageError, match="path or an http"):
            load(url)


class TestGeometry:
    @pytest.mark.parametrize(
        ("size", "input_size", "scale", "expected"),
        [
            ((480, 640), 512, 1, (512, 704)),
            ((640, 480), 512, 1, (704, 512)),
            ((425, 640), 256, 0.5, (128, 224)),
            ((511, 1023), 500, 2, (1024, 2176)),
            ((512, 512), 512, 1, (512, 512)),
            ((1, 1), 64, 1, (64, 64)),
        ],
    )
    def test_short_side_is_kept_and_the_long_side_rounded_up(
        self, size: tuple[int, int], input_size: int, scale: float, expected: tuple[int, int]
    ) -> None:
        assert Geometry.fit(*size, input_size, scale).input_size == expected

    @pytest.mark.parametrize("size", [(333, 500), (500, 333), (37, 91), (64, 64), (1, 9)])
    @pytest.mark.parametrize("scale", [0.5, 1, 2])
    def test_matrix_and_inverse_undo_each_other(self, size: tuple[int, int], scale: float) -> None:
        geometry = Geometry.fit(size[0], size[1], 512, scale)
        both = np.vstack([geometry.matrix, [0, 0, 1]]) @ np.vstack([geometry.inverse, [0, 0, 1]])
        np.testing.assert_allclose(both, np.eye(3), atol=1e-9)

    def test_the_center_of_the_photo_is_the_center_of_the_input(self) -> None:
        geometry = Geometry.fit(480, 640, 512)
        np.testing.assert_allclose(geometry.to_input([geometry.center]), [[704 / 2, 512 / 2]])

    def test_points_go_there_and_back(self) -> None:
        geometry = Geometry.fit(333, 500, 256)
        points = np.random.default_rng(0).uniform(-100, 600, (4, 17, 2))
        result = geometry.to_image(geometry.to_input(points))
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, points, atol=1e-3)

    def test_nobody_is_mapped_to_nobody(self) -> None:
        assert Geometry.fit(333, 500, 256).to_image(np.zeros((0, 17, 2), np.float32)).shape == (0, 17, 2)

    def test_poses_are_in_pixels_of_scale_1_whatever_the_scale(self) -> None:
        points = [[10.0, 20.0]]
        expected = Geometry.fit(333, 500, 256).to_image(points)
        np.testing.assert_array_equal(Geometry.fit(333, 500, 256, 2).to_image(points), expected)

    def test_equal_fits_are_equal_and_hashable(self) -> None:
        assert {Geometry.fit(333, 500, 256), Geometry.fit(333, 500, 256)} == {Geometry.fit(333, 500, 256)}

    @pytest.mark.parametrize("arguments", [(0, 5, 512, 1), (5, 5, 0, 1), (5, 5, 64, 0), (5, 5, 64, float("nan"))])
    def test_sizes_must_be_positive(self, arguments: tuple[int, int, int, float]) -> None:
        with pytest.raises(ValueError, match="must be positive"):
            Geometry.fit(*arguments)

    def test_a_strip_that_would_fill_the_memory_is_refused(self) -> None:
        assert Geometry.fit(10, 320, 64).input_size == (64, 2048)
        for size in ((1, 100_000), (100_000, 1), (10, 321)):
            with pytest.raises(ImageError, match=f"{size[0]} x {size[1]} pixels is too narrow"):
                Geometry.fit(*size, 64)
        with pytest.raises(ImageError, match="would need an input of"):
            Geometry.fit(1000, 30_000, 2048)

    def test_points_must_be_pairs(self) -> None:
        with pytest.raises(ValueError, match=r"\(\.\.\., 2\) xy, got \(4, 3\)"):
            Geometry.fit(5, 5, 64).to_image(np.zeros((4, 3)))


def warp_of_opencv_4(image: Array, matrix: Array, height: int, width: int) -> Array:
    """The bilinear warpAffine of OpenCV 4, pixel by pixel: positions in 1/32 pixel, weights out of 1024."""
    (a, b, tx), (c, d, ty) = matrix
    determinant = 1.0 / (a * d - b * c)
    a, b, c, d = d * determinant, -b * determinant, -c * determinant, a * determinant
    xs, ys = np.arange(width), np.arange(height)[:, None]
    x = np.rint((b * ys - a * tx - b * ty) * 1024) + 16 + np.rint(a * xs * 1024)
    y = np.rint((d * ys - c * tx - d * ty) * 1024) + 16 + np.rint(c * xs * 1024)
    x, y = x.astype(np.int64) >> 5, y.astype(np.int64) >> 5
    padded = np.pad(image.astype(np.int64), ((1, 2), (1, 2), (0, 0)))
    total = np.zeros((height, width, 3), np.int64)
    for down in (0, 1):
        for right in (0, 1):
            row = np.clip((y >> 5) + down + 1, 0, image.shape[0] + 1)
            column = np.clip((x >> 5) + right + 1, 0, image.shape[1] + 1)
            weight = np.where(down, y & 31, 32 - (y & 31)) * np.where(right, x & 31, 32 - (x & 31))
            total += padded[row, column] * weight[..., None]
    return ((total + 512) >> 10).astype(np.uint8)


class TestResize:
    @pytest.mark.parametrize("seed", range(60))
    def test_has_the_bytes_of_opencv_4(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        height, width = (int(side) for side in np.exp(random.uniform(0, np.log(300), 2)))
        if max(height, width) > 6 * min(height, width):
            height = width
        image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        geometry = Geometry.fit(
            height, width, int(random.choice([64, 100, 128, 192])), float(random.choice([0.3, 0.5, 1, 2]))
        )
        expected = warp_of_opencv_4(image, geometry.matrix, *geometry.input_size)
        np.testing.assert_array_equal(resize(image, geometry), expected)

    def test_a_photo_of_the_inputs_size_stays_the_same(self) -> None:
        image = photo(128, 192)
        np.testing.assert_array_equal(resize(image, Geometry.fit(128, 192, 128)), image)

    def test_the_border_is_black(self) -> None:
        white = np.full((64, 70, 3), 255, np.uint8)
        result = resize(white, Geometry.fit(64, 70, 64))
        assert result.shape == (64, 128, 3)
        assert (result[:, :29] == 0).all()
        assert (result[:, 29:99] == 255).all()
        assert (result[:, 99:] == 0).all()

    def test_views_and_read_only_arrays_work(self) -> None:
        image = photo(40, 60)
        geometry = Geometry.fit(60, 40, 64)
        view = image.transpose(1, 0, 2)
        view.flags.writeable = False
        np.testing.assert_array_equal(resize(view, geometry), resize(view.copy(), geometry))

    @pytest.mark.parametrize("image", [photo(40, 61), photo(40, 60).astype(np.float32), photo(40, 60)[..., 0]])
    def test_an_image_of_another_size_or_type_is_refused(self, image: Array) -> None:
        with pytest.raises(ImageError, match=r"must be uint8 \(40, 60, 3\)"):
            resize(image, Geometry.fit(40, 60, 64))


class TestToTensor:
    def test_normalises_as_torchvision_does(self) -> None:
        image = photo()
        expected = torch.from_numpy(image.transpose(2, 0, 1).copy()).to(torch.float32).div(255)
        for channel, (mean, std) in enumerate(zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)):
            expected[channel] = (expected[channel] - torch.tensor(mean)) / torch.tensor(std)
        result = to_tensor(image)
        assert result.is_contiguous()
        assert torch.equal(result, expected)

    def test_a_batch_equals_its_images(self) -> None:
        batch = [photo(seed=1), photo(seed=2)]
        for images_ in (batch, np.stack(batch)):
            result = to_tensor(images_)
            assert torch.equal(result, torch.stack([to_tensor(image) for image in batch]))
        assert to_tensor(batch[:1]).shape == (1, 3, 48, 64)

    @pytest.mark.parametrize(
        "batch", [[], [photo(), photo(40, 60)], photo().astype(np.float32), photo()[..., :2], photo()[..., 0]]
    )
    def test_other_batches_are_refused(self, batch: Any) -> None:
        with pytest.raises(ImageError, match="of one size"):
            to_tensor(batch)


class TestFindImages:
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        for name in ("b.jpg", "a.PNG", "notes.txt", ".hidden.jpg", "odd[1].jpg", "inner/c.webp", "inner/deep/d.jpg"):
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_bytes(b"")
        Path("empty").mkdir()
        Path("folder.jpg").mkdir()

    @pytest.mark.parametrize(
        ("patterns", "expected"),
        [
            (".", ["a.PNG", "b.jpg", "odd[1].jpg"]),
            ("b.jpg", ["b.jpg"]),
            (Path("inner"), ["inner/c.webp"]),
            ("*.jpg", ["b.jpg", "odd[1].jpg"]),
            ("*", ["a.PNG", "b.jpg", "odd[1].jpg"]),
            ("inner/**", ["inner/c.webp", "inner/deep/d.jpg"]),
            ("**/*.jpg", ["b.jpg", "inner/deep/d.jpg", "odd[1].jpg"]),
            ("odd[1].jpg", ["odd[1].jpg"]),
            ("notes.txt", ["notes.txt"]),
            (["inner", "b.jpg", "*.jpg"], ["inner/c.webp", "b.jpg", "odd[1].jpg"]),
            ([], []),
        ],
    )
    def test_files_folders_and_globs(self, patterns: Any, expected: list[str]) -> None:
        assert find_images(patterns) == [Path(name) for name in expected]

    def test_pictures_that_predict_drew_beside_their_photos_are_none(self) -> None:
        for name in ("b.poses.jpg", "inner/c.poses.jpg", "inner/alone.poses.jpg"):
            Path(name).write_bytes(b"")
        assert find_images("*.jpg") == [Path("b.jpg"), Path("odd[1].jpg")]
        assert find_images("inner") == [Path("inner/alone.poses.jpg"), Path("inner/c.webp")]
        assert find_images("*.poses.jpg") == find_images("b.poses.jpg") == [Path("b.poses.jpg")]

    def test_absolute_globs(self, tmp_path: Path) -> None:
        assert find_images(os.fspath(tmp_path / "inner" / "*.webp")) == [tmp_path / "inner" / "c.webp"]

    @pytest.mark.parametrize("pattern", ["missing.jpg", "*.bmp", "empty", "missing/**"])
    def test_a_pattern_without_a_match_is_named(self, pattern: str) -> None:
        with pytest.raises(FileNotFoundError, match=pattern.replace("*", r"\*")):
            find_images(["b.jpg", pattern])


@pytest.mark.parametrize("largest", [63, 100, 255])
def test_pnm_counts_to_its_own_largest_value(largest: int) -> None:
    data = b"P6 2 1 %d\n" % largest + bytes([largest, 0, 0, 0, largest, 0])
    assert load(data)[0].tolist() == [[[255, 0, 0], [0, 255, 0]]]


@pytest.mark.parametrize("path", ["\ud800.jpg", "http://\ud800/x.jpg"])
def test_names_that_no_file_can_have_are_image_errors(path: str) -> None:
    with pytest.raises(ImageError):
        load(path)
