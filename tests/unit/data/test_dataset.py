from __future__ import annotations

import gzip
import json
import pickle
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from dekrpose.data.dataset import KeypointDataset, PhotoFiles
from dekrpose.errors import DekrPoseError, ImageError
from dekrpose.skeletons import CROWDPOSE_14

RED = (200, 30, 10)


def photo(path: Path, color: tuple[int, int, int] = RED, size: tuple[int, int] = (12, 8), exif: Any = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {} if exif is None else {"exif": exif}
    Image.new("RGB", size, color).save(path, **options)
    return path


def content(*annotations: dict[str, Any], names: tuple[str, ...] = ("a.png",)) -> dict[str, Any]:
    images = [{"id": number, "file_name": name, "width": 12, "height": 8} for number, name in enumerate(names, 1)]
    return {"images": images, "annotations": list(annotations)}


def annotation(labelled: int = 17, **fields: Any) -> dict[str, Any]:
    keypoints = [3.5, 4.5, 2] * labelled + [0, 0, 0] * (17 - labelled)
    return {"id": 1, "image_id": 1, "keypoints": keypoints, "bbox": [2, 1, 4, 5], "area": 12.0, **fields}


def written(folder: Path, values: Any) -> Path:
    path = folder / "people.json"
    path.write_text(json.dumps(values))
    return path


def packed(folder: Path, kind: str, name: str = "a.png") -> Path:
    source = photo(folder / "unpacked" / name)
    if kind == "folder":
        return source.parent
    place = folder / f"photos.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(source, name)
    else:
        with tarfile.open(place, "w:gz" if kind == "tar.gz" else "w") as archive:
            archive.add(source, f"./{name}")
    return place


@pytest.mark.parametrize("kind", ["folder", "tar", "zip"])
def test_reads_rgb_from_folders_and_archives(tmp_path: Path, kind: str) -> None:
    dataset = KeypointDataset(written(tmp_path, content()), [packed(tmp_path, kind)])
    image = dataset.read(0)
    assert image.shape == (8, 12, 3)
    assert image.dtype == np.uint8
    assert tuple(image[0, 0]) == RED
    assert dataset.missing() == []


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_archives_can_be_sent_to_loader_processes(tmp_path: Path, kind: str) -> None:
    dataset = KeypointDataset(written(tmp_path, content()), [packed(tmp_path, kind)])
    dataset.read(0)
    assert tuple(pickle.loads(pickle.dumps(dataset)).read(0)[0, 0]) == RED


def test_photos_lie_beside_the_annotations_by_default(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    assert KeypointDataset(written(tmp_path, content())).read(0).shape == (8, 12, 3)


def test_exif_rotation_is_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(tmp_path / "a.jpg", exif=exif)
    assert cv2.imread(str(tmp_path / "a.jpg")).shape == (12, 8, 3)
    assert KeypointDataset(written(tmp_path, content(names=("a.jpg",)))).read(0).shape == (8, 12, 3)


def test_compressed_annotations(tmp_path: Path) -> None:
    path = tmp_path / "people.json.gz"
    path.write_bytes(gzip.compress(json.dumps(content(annotation())).encode()))
    dataset = KeypointDataset(path)
    assert len(dataset) == 1
    person = dataset.photos[0].people[0]
    np.testing.assert_array_equal(person.keypoints, np.tile(np.float32([3.5, 4.5, 2]), (17, 1)))
    assert (person.area, person.ignored) == (12.0, False)


def test_people_belong_to_their_photos_and_photos_may_have_nobody(tmp_path: Path) -> None:
    values = content(annotation(image_id=2), annotation(image_id=2, id=2), names=("a.png", "b.png"))
    assert [len(photo.people) for photo in KeypointDataset(written(tmp_path, values)).photos] == [0, 2]


def test_area_falls_back_to_the_box_as_for_crowdpose(tmp_path: Path) -> None:
    entry = {"image_id": 1, "keypoints": [1, 1, 1] * 14, "bbox": [0, 0, 10, 20]}
    dataset = KeypointDataset(written(tmp_path, content(entry)), skeleton=CROWDPOSE_14)
    assert dataset.photos[0].people[0].area == pytest.approx(0.53 * 200)


def test_unlabelled_people_and_crowds_are_masked_by_polygon_run_lengths_or_box(tmp_path: Path) -> None:
    column = [0] * 8 * 9 + [1] * 8 + [0] * 8 * 2  # column 9 of 12, eight pixels high
    runs = {"size": [8, 12], "counts": [8 * 9, 8, 8 * 2]}
    values = content(
        annotation(),
        annotation(0, bbox=[0, 0, 0, 0], segmentation=[[1, 1, 3, 1, 3, 2, 1, 2]], source="unlabelled"),
        annotation(iscrowd=1, segmentation=runs),
        annotation(0, bbox=[4.5, 5.0, 2.0, 9.0], segmentation=[]),
    )
    dataset = KeypointDataset(written(tmp_path, values))
    assert [person.ignored for person in dataset.photos[0].people] == [False, True, True, True]
    expected = np.array(column).reshape(12, 8).T.astype(bool)
    expected[1:3, 1:4] = True
    expected[5:8, 4:7] = True
    np.testing.assert_array_equal(dataset.ignored_mask(0), expected)


def test_nobody_to_ignore_gives_an_empty_mask(tmp_path: Path) -> None:
    assert not KeypointDataset(written(tmp_path, content(annotation()))).ignored_mask(0).any()


def test_missing_photos_are_named(tmp_path: Path) -> None:
    place = packed(tmp_path, "tar", "a.png")
    dataset = KeypointDataset(written(tmp_path, content(names=("a.png", "b.png"))), [place, tmp_path])
    assert dataset.missing() == ["b.png"]
    with pytest.raises(DekrPoseError, match=r"'b.png' .* names such as 'a.png'"):
        dataset.read(1)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_photos_in_subfolders_are_found_by_their_names(tmp_path: Path, kind: str) -> None:
    for number, name in enumerate(("a/x.png", "b/x.png", "b/y.png", "z.png")):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "photos" / name), np.full((4, 4, 3), number, np.uint8))
    place = tmp_path / "photos"
    if kind == "zip":
        place = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", place))
    files = PhotoFiles([place])
    for name, number in (("a/x.png", 0), ("y.png", 2), ("b\\y.png", 2)):
        assert name in files
        assert files.read(name)[0, 0, 0] == number
    assert "x.png" not in files
    with pytest.raises(DekrPoseError, match=r"several are called so in subfolders: .*a/x\.png, .*b/x\.png; name one"):
        files.read("x.png")
    assert "c/y.png" not in files  # another's namesake
    assert ("photos/z.png" in files) == (kind == "folder")  # as COCO's train2017/1.jpg where --images is train2017


def test_broken_photo_is_an_image_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    (tmp_path / "b.png").write_bytes(b"")
    dataset = KeypointDataset(written(tmp_path, content(names=("a.png", "b.png"))))
    for index in (0, 1):
        with pytest.raises(ImageError, match="not an image of a kind"):
            dataset.read(index)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("people.json", b"\x89PNG\xff\xfe"),
        ("people.json", b"{"),
        ("people.json", b"[1, 2]"),
        ("people.json", b'{"images": []}'),
        ("people.json", b'{"images": [{"id": 1}], "annotations": []}'),
        ("people.json", b'{"images": [], "annotations": [{"id": 1}]}'),
        ("people.json.gz", gzip.compress(b"{}" * 100)[:-9]),
        ("people.json.gz", b"\x1f\x8b not gzip"),
        ("people.json.gz", gzip.compress(bytes(2**25))),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DekrPoseError, match="is not a COCO keypoints file"):
        KeypointDataset(tmp_path / name)


def test_another_skeleton_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DekrPoseError, match="51 keypoint numbers, expected 3 for each of 14"):
        KeypointDataset(written(tmp_path, content(annotation())), skeleton=CROWDPOSE_14)


def test_places_without_photos_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DekrPoseError, match="does not exist"):
        PhotoFiles([tmp_path / "nowhere.tar"])
    with pytest.raises(DekrPoseError, match="none of these"):
        PhotoFiles([written(tmp_path, {})])
    with pytest.raises(DekrPoseError, match="uncompressed tar"):
        PhotoFiles([packed(tmp_path, "tar.gz")])


def test_photos_of_another_size_than_stated_are_refused(tmp_path: Path) -> None:
    photo(tmp_path / "a.png", size=(8, 12))
    dataset = KeypointDataset(written(tmp_path, content(annotation())))
    with pytest.raises(DekrPoseError, match=r"a\.png has 8 x 12 pixels, but .* says 12 x 8"):
        dataset.read(0)


def test_what_estimate_refuses_is_no_photo_of_a_data_set_either(tmp_path: Path) -> None:
    photos = PhotoFiles([tmp_path])
    header = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + (60000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    (tmp_path / "huge.png").write_bytes(header + zlib.crc32(header[12:]).to_bytes(4, "big"))
    (tmp_path / "sun.jpg").write_bytes(b"\x59\xa6\x6a\x95" + b"\0" * 60)
    for name in ("huge.png", "sun.jpg"):
        with pytest.raises(ImageError, match=name):
            photos.read(name)


@pytest.mark.parametrize("damage", ["checksum", "header", "password", "method", "size"])
def test_photos_in_damaged_archives_are_named(tmp_path: Path, damage: str) -> None:
    path = packed(tmp_path, "zip")
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02")  # of the central directory
    if damage == "checksum":
        data[entry + 16] ^= 1
    elif damage == "header":
        data[0] ^= 1
    elif damage == "size":
        data[entry + 24 : entry + 28] = (2**30 + 1).to_bytes(4, "little")
    else:
        at = 8 if damage == "password" else 10
        data[entry + at] |= 1 if damage == "password" else 99
    path.write_bytes(bytes(data))
    with pytest.raises(DekrPoseError, match=r"'a\.png' in .* cannot be read"):
        PhotoFiles([path]).read("a.png")


def test_a_tar_that_ends_within_a_photo_says_so(tmp_path: Path) -> None:
    path = packed(tmp_path, "tar")
    files = PhotoFiles([path])
    path.write_bytes(path.read_bytes()[:530])
    with pytest.raises(DekrPoseError, match="ends within it"):
        files.read("a.png")


def test_fewer_photos_are_taken_from_all_over_the_file(tmp_path: Path) -> None:
    data = KeypointDataset(written(tmp_path, content(annotation(), names=tuple("abcdefghij"))))
    assert [photo.file_name for photo in data.thinned(4).photos] == ["a", "c", "f", "h"]
    assert data.thinned(99).photos == data.thinned(None).photos == data.photos
    with pytest.raises(ValueError, match="at least 1 photo"):
        data.thinned(0)
