"""Any value in any place of a data file: it is read, or refused by the error that is documented, and by no other."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from dekrpose import Poses
from dekrpose.data.dataset import KeypointDataset
from dekrpose.errors import DekrPoseError
from dekrpose.skeletons import COCO_17
from dekrpose.training.check import check_dataset
from dekrpose.training.check_report import report, to_json
from dekrpose.training.skeleton_file import skeleton_of
from tests.evaluation_people import human, standing, unlabelled

POSES = Path(__file__).parents[2] / "cases" / "json" / "poses_2.json"
MISSING = object()
VALUES: tuple[Any, ...] = (
    MISSING, None, True, False, 0, -1, 0.5, 2**63, 10**400, 1e39, 1e308, float("inf"), float("nan"), "", "1", "é\ud800",
    "\0", "x" * 300, [], [[]], [None], {}, {"counts": [1], "size": [1, 1]}, [1e308] * 6, [float("nan")] * 4, [[1, 2]],
)  # fmt: skip


def sound() -> dict[str, Any]:
    crowd = {"size": [60, 80], "counts": [4800 - 7, 7]}
    return {
        "images": [{"id": 1, "file_name": "a.png", "width": 80, "height": 60, "crowdIndex": 0.1, "source": "s"}],
        "annotations": [
            human(1, standing(30, 3, 50), id=1, segmentation=[[20, 3, 40, 3, 40, 50]]),
            unlabelled(1, (1, 1, 10, 20), id=2, segmentation=[[1, 1, 9, 1, 9, 9]]),
            unlabelled(1, (1, 1, 10, 20), id=3, iscrowd=1, segmentation=crowd),
        ],
        "categories": [
            {
                "id": 1, "name": "person", "keypoints": list(COCO_17.keypoints), "skeleton": [[1, 2]],
                "sigmas": [0.1] * 17,
            },
            {"id": 3, "name": "car"},
        ],
    }  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something can be planted: every field, every object of a list, and the first of other items."""
    yield path
    children = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    objects = isinstance(value, dict) or any(isinstance(child, dict) for _, child in children)
    for key, child in children if objects else children[:1]:
        yield from places(child, (*path, key))


def planted(content: Any) -> Iterator[str]:
    """The JSON with each of the values in each of the places."""
    for path in places(content):
        for value in VALUES:
            if not path:
                if value is not MISSING:
                    yield json.dumps(value)
                continue
            changed = copy.deepcopy(content)
            target = changed
            for key in path[:-1]:
                target = target[key]
            if value is MISSING:
                del target[path[-1]]
            else:
                target[path[-1]] = value
            yield json.dumps(changed)


def refusal(error: type[Exception], use: Callable[[], Any]) -> str:
    """What the documented error says; empty when there is none. Any other error fails the test."""
    try:
        use()
    except error as caught:
        return str(caught)
    return ""


def read_all(path: Path) -> None:
    data = KeypointDataset(path)
    for index, photo in enumerate(data.photos):
        assert data.ignored_mask(index).shape == (photo.height, photo.width)
        assert photo.file_name in data.missing()


@pytest.mark.parametrize("start", [0, *(pytest.param(start, marks=pytest.mark.slow) for start in (1, 2, 3, 4))])
def test_data_files(tmp_path: Path, start: int) -> None:
    path, refused = tmp_path / "people.json", 0
    for text in islice(planted(sound()), start, None, 5):
        path.write_text(text)
        errors = [problem for problem in check_dataset(path, None, COCO_17) if problem.severity == "error"]
        report(errors).encode("utf-8")
        to_json(errors)
        words = refusal(DekrPoseError, lambda: read_all(path))
        seen = {problem.kind for problem in errors} - {"photo-missing"}
        assert not words or (seen and "people.json" in words), f"the check does not see: {words}"
        refused += bool(words)
        words = refusal(DekrPoseError, lambda: skeleton_of(path))
        assert not words or "people.json" in words
    assert refused > 150


def test_skeleton_files(tmp_path: Path) -> None:
    path, given = tmp_path / "people.json", tmp_path / "skeleton.json"
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    content = {
        "name": "hand", "names": ["wrist", "left_tip", "right_tip"], "edges": [["wrist", "left_tip"]],
        "flip_pairs": [["left_tip", "right_tip"]], "sigmas": {"wrist": 0.05},
    }  # fmt: skip
    for text in planted(content):
        given.write_text(text)
        words = refusal(DekrPoseError, lambda: skeleton_of(path, given))
        assert not words or ".json" in words


def test_poses() -> None:
    content = json.loads(POSES.read_text(encoding="utf-8"))
    content["timing_ms"] = {"network": 12.5}
    content["people"][0]["track_id"] = 4
    refused = 0
    for text in planted(content):
        if refusal(ValueError, lambda text=text: Poses.from_json(text)):  # type: ignore[misc]
            refused += 1
            continue
        poses = Poses.from_json(text)
        assert Poses.from_json(poses.to_json()).to_json() == poses.to_json()
        json.dumps([poses.to_coco("a"), poses.to_openpose()], allow_nan=False)
        assert poses.boxes.shape == (len(poses), 4)
    assert refused > 500


@pytest.mark.parametrize("reader", [KeypointDataset, skeleton_of])
def test_files_that_end_early(tmp_path: Path, reader: Any) -> None:
    text = json.dumps(sound()).encode()
    path = tmp_path / "people.json"
    for end in range(0, len(text), 29):
        path.write_bytes(text[:end])
        with pytest.raises(DekrPoseError, match="is not a COCO keypoints file"):
            reader(path)
