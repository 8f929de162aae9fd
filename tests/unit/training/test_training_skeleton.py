"""Skeletons of data files: published ones exactly, any others with as little said as possible."""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dekrpose.errors import DekrPoseError
from dekrpose.skeletons import COCO_17, CROWDPOSE_14, Skeleton
from dekrpose.training.check import check_dataset
from dekrpose.training.skeleton_file import DEFAULT_SIGMA, guess_flip_pairs, likely_flip_pair, side_of, skeleton_of

COCO_EDGES = [
    [16, 14], [14, 12], [17, 15], [15, 13], [12, 13], [6, 12], [7, 13], [6, 7], [6, 8], [7, 9],
    [8, 10], [9, 11], [2, 3], [1, 2], [1, 3], [2, 4], [3, 5], [4, 6], [5, 7],
]  # fmt: skip
"""In the order in which COCO was published."""
HAND = ["wrist", "thumb", "left_finger", "right_finger"]


def data_file(folder: Path, names: Any = None, edges: Any = None, **fields: Any) -> Path:
    category = {"id": 1, "name": "person", **fields}
    category |= {key: value for key, value in (("keypoints", names), ("skeleton", edges)) if value is not None}
    path = folder / "people.json"
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": [category]}))
    return path


def skeleton_file(folder: Path, **fields: Any) -> Path:
    path = folder / "skeleton.json"
    path.write_text(json.dumps(fields))
    return path


def test_coco_as_published_is_coco_17(tmp_path: Path) -> None:
    assert skeleton_of(data_file(tmp_path, list(COCO_17.keypoints), COCO_EDGES)) == COCO_17
    assert skeleton_of(data_file(tmp_path, list(COCO_17.keypoints))) == COCO_17


@pytest.mark.parametrize("edges", [COCO_EDGES[:12], COCO_EDGES])
@pytest.mark.parametrize("head", ["head", "head_top"])
def test_crowdpose_as_published_is_crowdpose_14(tmp_path: Path, head: str, edges: list[list[int]]) -> None:
    names = [*CROWDPOSE_14.keypoints[:12], head, "neck"]
    assert skeleton_of(data_file(tmp_path, names, edges)) == CROWDPOSE_14  # published with COCO's edges


def test_compressed_files_and_categories_without_keypoints(tmp_path: Path) -> None:
    categories = [{"name": "dog"}, {"name": "person", "keypoints": HAND}]
    path = tmp_path / "people.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"images": [], "annotations": [], "categories": categories}).encode()))
    assert skeleton_of(path).keypoints == tuple(HAND)


def test_a_file_without_names_is_coco_if_it_has_17_keypoints(tmp_path: Path) -> None:
    path = data_file(tmp_path)
    assert skeleton_of(path) == COCO_17
    path.write_text(json.dumps({"images": [], "annotations": [{"keypoints": [0] * 42}]}))
    with pytest.raises(DekrPoseError, match="does not name its keypoints"):
        skeleton_of(path)
    assert len(skeleton_of(path, skeleton_file(tmp_path, names=list(CROWDPOSE_14.keypoints)))) == 14


def test_names_and_edges_are_enough(tmp_path: Path) -> None:
    names = ["nose", "tail", "left_shoulder", "right_shoulder"]
    assert skeleton_of(data_file(tmp_path, names, [[2, 1], [1, 3], [1, 4], [1, 3]], name="dog")) == Skeleton(
        name="dog-4",
        keypoints=tuple(names),
        edges=((1, 0), (0, 2), (0, 3)),
        flip_pairs=((2, 3),),
        sigmas=(0.026, DEFAULT_SIGMA, 0.079, 0.079),
    )


def test_sides_are_known_in_chinese_and_japanese() -> None:
    assert guess_flip_pairs(["鼻", "左手", "右手", "足(右)", "足(左)", "左"]) == ((1, 2), (4, 3))


@pytest.mark.parametrize(
    ("names", "pair"),
    [
        (["nariz", "izq_ojo", "der_ojo"], ("izq_ojo", "der_ojo")),
        (["OjoIzq", "nariz", "OjoDer"], ("OjoIzq", "OjoDer")),
        (["base", "joint", "head"], None),
        (["finger_1", "finger_2"], None),
        (["thumb_tip", "index_tip", "ring_tip"], None),
    ],
)
def test_names_with_other_words_for_sides_are_noticed(names: list[str], pair: tuple[str, str] | None) -> None:
    assert likely_flip_pair(names) == pair


def test_the_skeleton_file_comes_first(tmp_path: Path) -> None:
    given = skeleton_file(
        tmp_path, name="hand", edges=[["thumb", "wrist"]], flip_pairs=[["thumb", "wrist"]], sigmas={"thumb": 0.01}
    )
    skeleton = skeleton_of(data_file(tmp_path, HAND, [[1, 3]], sigmas=[0.5] * 4), given)
    assert skeleton == Skeleton("hand", tuple(HAND), ((1, 0),), ((1, 0),), (0.5, 0.01, 0.5, 0.5))


def test_no_flip_pairs_can_be_said(tmp_path: Path) -> None:
    assert skeleton_of(data_file(tmp_path, HAND), skeleton_file(tmp_path, flip_pairs=[])).flip_pairs == ()


def test_sigmas_of_the_data_file(tmp_path: Path) -> None:
    path = data_file(tmp_path, list(COCO_17.keypoints), COCO_EDGES, sigmas=[0.05] * 17)
    assert skeleton_of(path) == replace(COCO_17, name="person-17", sigmas=(0.05,) * 17)
    assert skeleton_of(path, skeleton_file(tmp_path, sigmas=list(COCO_17.sigmas))) == COCO_17


@pytest.mark.parametrize(
    "pair",
    [
        ("left_eye", "right_eye"), ("eye_left", "eye_right"), ("l_eye", "r_eye"), ("eye_l", "eye_r"),
        ("left eye", "right eye"), ("Left-Eye", "Right-Eye"), ("LeftEye", "RightEye"), ("leftEye", "rightEye"),
        ("LEye", "REye"), ("lEye", "rEye"), ("eyeL", "eyeR"), ("lefteye", "righteye"), ("LEFT_EYE", "RIGHT_EYE"),
        ("front_left_paw", "front_right_paw"), ("L_F_Paw", "R_F_Paw"), ("left2", "right2"), ("目_l", "目_r"),
        ("左目", "右目"),
    ],
)  # fmt: skip
def test_pairs_are_guessed_from_many_spellings(pair: tuple[str, str]) -> None:
    left, right = pair
    assert (side_of(left), side_of(right)) == ("left", "right")
    assert guess_flip_pairs([right, "nose", left]) == ((2, 0),)


def test_what_is_no_pair() -> None:
    names = ["left_eye", "right_ear", "r_eye", "tail", "upright", "left_paw_2", "right_paw_1", "nasal", "lip"]
    assert guess_flip_pairs(names) == ()
    assert [name for name in names if side_of(name)] == ["left_eye", "right_ear", "r_eye", "left_paw_2", "right_paw_1"]


def test_sigmas_of_other_spellings_are_cocos(tmp_path: Path) -> None:
    names = ["LWrist", "hip right", "Nose", "wrist", "head"]
    assert skeleton_of(data_file(tmp_path, names)).sigmas == (0.062, 0.107, 0.026, 0.062, DEFAULT_SIGMA)


@pytest.mark.parametrize(
    ("names", "edges", "given", "message"),
    [
        (HAND, [[0, 1]], {}, r"keypoints 1 to 4, counted from 1, got \[0, 1\]"),
        (HAND, [[1, 5]], {}, r"counted from 1, got \[1, 5\]"),
        (HAND, [[2, 2]], {}, r"got \[2, 2\]"),
        (HAND, [["a", "b"]], {}, "pairs of keypoint numbers"),
        (HAND, {"1": 2}, {}, "must be a list of pairs"),
        (["a", "a"], None, {}, "twice: a"),
        ([1, 2], None, {}, "by a list of texts"),
        (HAND, None, {"names": HAND[::-1]}, "must be the same, in the same order"),
        (HAND, None, {"joints": HAND}, "unknown fields joints"),
        (HAND, None, {"edges": [["wrist", "toe"]]}, "'toe', which is no keypoint"),
        (HAND, None, {"edges": [[1, 2]]}, "1, which is no keypoint"),
        (HAND, None, {"flip_pairs": [["thumb", "thumb"]]}, "pairs of two keypoint names"),
        (HAND, None, {"flip_pairs": [["thumb"]]}, "pairs of two keypoint names"),
        (HAND, None, {"flip_pairs": [["thumb", "wrist"], ["wrist", "left_finger"]]}, "'wrist' twice"),
        (HAND, None, {"flip_pairs": "thumb"}, "must be a list"),
        (HAND, None, {"sigmas": [0.1] * 3}, "must be 4 numbers, one per keypoint, got 3"),
        (HAND, None, {"sigmas": [0.1, 0.1, 0.1, 0]}, "between 0 and 1"),
        (HAND, None, {"sigmas": {"toe": 0.1}}, "names toe"),
    ],
)
def test_contradictions_are_named(tmp_path: Path, names: Any, edges: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(DekrPoseError, match=message):
        skeleton_of(data_file(tmp_path, names, edges), skeleton_file(tmp_path, **given))


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "skeleton.json"
    for text, message in (("{", "is not JSON"), ("[]", "must be a JSON object")):
        path.write_text(text)
        with pytest.raises(DekrPoseError, match=message):
            skeleton_of(data_file(tmp_path, HAND), path)


def test_the_files_of_the_documentation(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
    data, given = re.findall(r"^    \{\n.*?^    \}$", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "people.json").write_text(data)
    (tmp_path / "skeleton.json").write_text(given)
    skeleton = skeleton_of(tmp_path / "people.json")
    names = ("beak", "left_wing", "right_wing")
    assert skeleton == Skeleton("bird-3", names, ((0, 1), (0, 2)), ((1, 2),), (DEFAULT_SIGMA,) * 3)
    changed = replace(skeleton, name="bird", sigmas=(0.03, DEFAULT_SIGMA, DEFAULT_SIGMA))
    assert skeleton_of(tmp_path / "people.json", tmp_path / "skeleton.json") == changed
    assert [problem.kind for problem in check_dataset(tmp_path / "people.json", None, skeleton)] == ["photo-missing"]


def test_two_skeletons_in_one_file_are_refused(tmp_path: Path) -> None:
    categories = [{"name": "person", "keypoints": ["nose"]}, {"name": "hand", "keypoints": HAND}]
    path = tmp_path / "people.json"
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": categories}))
    with pytest.raises(DekrPoseError, match=r"'person' and 'hand' .* different keypoints"):
        skeleton_of(path)
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": "person"}))
    with pytest.raises(DekrPoseError, match="must be a list of objects"):
        skeleton_of(path)
