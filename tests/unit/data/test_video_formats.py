"""Video data sets in their published formats, made up here: keypoints land at COCO's names, the rest has no weight."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.io import savemat

from dekrpose.data.clips.clip import ClipShape
from dekrpose.data.clips.sequences import SequenceClips, read_sequences
from dekrpose.errors import DekrPoseError
from dekrpose.skeletons import COCO_17

POSETRACK = [
    "nose", "head_bottom", "head_top", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
]  # fmt: skip
INDEX = {name: index for index, name in enumerate(COCO_17.keypoints)}


def write_frames(folder: Path, count: int, name: str) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        cv2.imwrite(str(folder / name.format(index + 1)), np.full((80, 120, 3), 40 * index, np.uint8))


def write_posetrack(root: Path, split: str = "val") -> None:
    """As PoseTrack 2018 has it: one file a video, 17 keypoints of which the ears are never annotated."""
    write_frames(root / "images" / split / "000342_mpii_test", 4, "{:06d}.jpg")
    images = [
        {
            "has_no_densepose": True, "is_labeled": index > 0, "nframes": 4, "frame_id": 10003420000 + index,
            "id": 10003420000 + index, "vid_id": "000342",
            "file_name": f"images/{split}/000342_mpii_test/{index + 1:06d}.jpg",
            **({"ignore_regions_x": [[0, 10, 10, 0]], "ignore_regions_y": [[0, 0, 20, 20]]} if index == 1 else {}),
        }
        for index in range(4)
    ]  # fmt: skip
    annotations = []
    for index in range(1, 4):
        for track in (0, 7) if index < 3 else (7,):
            keypoints = [[10 * track + 2 * j + index, 5 + 3 * j, 1] for j in range(17)]
            keypoints[3] = keypoints[4] = [0, 0, 0]
            annotations.append(
                {
                    "bbox_head": [1, 2, 3, 4], "keypoints": [value for triple in keypoints for value in triple],
                    "track_id": track, "image_id": 10003420000 + index, "bbox": [0, 0, 9, 9], "scores": [],
                    "category_id": 1, "id": 1000342000000 + 10 * index + track,
                }
            )  # fmt: skip
    categories = [{"supercategory": "person", "id": 1, "name": "person", "keypoints": POSETRACK, "skeleton": [[1, 2]]}]
    path = root / "annotations" / split / "000342_mpii_test.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def test_posetrack(tmp_path: Path) -> None:
    write_posetrack(tmp_path)
    (video,) = read_sequences("posetrack", tmp_path, "test")
    assert video.name == "000342"
    assert video.keypoints.shape == (4, 2, 17, 3)
    assert video.labelled.tolist() == [False, True, True, True]
    assert video.keypoints[2, 1, INDEX["nose"]].tolist() == [72, 5, 2]
    assert video.keypoints[2, 1, INDEX["left_shoulder"]].tolist() == [70 + 10 + 2, 20, 2]
    for absent in ("left_eye", "right_eye", "left_ear", "right_ear"):
        assert not video.keypoints[:, :, INDEX[absent]].any()
    assert not video.keypoints[3, 0].any()  # the first person has left
    assert video.ignored[1][0].tolist() == [[0, 0], [10, 0], [10, 20], [0, 20]]
    with pytest.raises(DekrPoseError, match="holds no train videos"):
        read_sequences("posetrack", tmp_path, "train")


def test_posetrack_21_files_with_several_fields_renamed(tmp_path: Path) -> None:
    write_posetrack(tmp_path, "train")
    path = tmp_path / "annotations" / "train" / "000342_mpii_test.json"
    content = json.loads(path.read_text())
    for image in content["images"]:
        image["image_id"] = image.pop("id")
    for entry in content["annotations"]:
        entry["person_id"] = 100 + entry["track_id"]
    del content["categories"][0]["keypoints"]
    path.write_text(json.dumps(content))
    (video,) = read_sequences("posetrack", tmp_path, "train")
    assert video.keypoints[2, 1, INDEX["right_ankle"]].tolist() == [70 + 32 + 2, 53, 2]


def test_jhmdb(tmp_path: Path) -> None:
    for number, name in enumerate(("one", "two"), 1):
        write_frames(tmp_path / "Rename_Images" / "wave" / name, 3, "{:05d}.png")
        folder = tmp_path / "joint_positions" / "wave" / name
        folder.mkdir(parents=True)
        positions = np.arange(2 * 15 * 3, dtype=float).reshape(2, 15, 3) + number
        savemat(
            folder / "joint_positions.mat", {"pos_img": positions, "pos_world": positions, "scale": np.ones((1, 3))}
        )
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "wave_test_split1.txt").write_text("one.avi 1 \ntwo.avi 2 \n")
    (train,) = read_sequences("jhmdb", tmp_path, "train")
    (test,) = read_sequences("jhmdb", tmp_path, "test")
    assert (train.name, test.name) == ("wave/one", "wave/two")
    # the fourth joint is the right shoulder; MATLAB counts pixels from 1
    assert train.keypoints[2, 0, INDEX["right_shoulder"]].tolist() == [3 * 3 + 2, 45 + 3 * 3 + 2, 2]
    assert train.keypoints[0, 0, INDEX["left_ankle"]].tolist() == [42, 87, 2]
    assert (train.keypoints[0, 0, :, 2] > 0).sum() == 12
    assert not train.keypoints[:, :, :5].any()  # neck, belly and face are nobody's nose


def test_penn_action(tmp_path: Path) -> None:
    for number, train in ((1, 1), (2, -1)):
        write_frames(tmp_path / "frames" / f"{number:04d}", 3, "{:06d}.jpg")
        x = np.arange(39, dtype=float).reshape(3, 13) + 10
        visible = np.ones((3, 13))
        visible[0, 2], x[1, 4] = 0, 1.0
        y = x + 5
        y[1, 4] = 1.0
        content = {
            "action": "wave", "pose": "front", "x": x, "y": y, "visibility": visible, "train": train,
            "bbox": np.ones((3, 4)), "dimensions": np.array([80.0, 120, 3]), "nframes": 3,
        }  # fmt: skip
        (tmp_path / "labels").mkdir(exist_ok=True)
        savemat(tmp_path / "labels" / f"{number:04d}.mat", content)
    (video,) = read_sequences("penn", tmp_path, "train")
    assert video.name == "0001"
    assert video.keypoints[2, 0, INDEX["left_shoulder"]].tolist() == [26 + 1 + 9, 26 + 1 + 14, 2]
    assert video.keypoints[0, 0, INDEX["right_shoulder"], 2] == 1  # annotated though not visible
    assert not video.keypoints[1, 0, INDEX["right_elbow"]].any()  # never placed
    assert not video.keypoints[:, :, :5].any()
    assert [sequence.name for sequence in read_sequences("penn", tmp_path, "test")] == ["0002"]


def test_clips_are_cut_out_of_videos(tmp_path: Path) -> None:
    write_posetrack(tmp_path)
    source = SequenceClips(read_sequences("posetrack", tmp_path, "test"))
    clip = source.draw(0, np.random.default_rng(0), ClipShape(frames=6, size=64, strides=(1, 1)))
    assert clip.frames.shape == (6, 64, 64, 3)
    assert clip.labelled.tolist() == [False, True, True, True, True, True]  # the last frame is shown again
    assert clip.keypoints.shape == (6, 2, 17, 3)
    assert np.diff(clip.times) == pytest.approx(1 / 25)


def test_unlabelled_frames_and_ignored_regions_reach_the_clip(tmp_path: Path) -> None:
    write_posetrack(tmp_path)
    still = ClipShape(frames=4, size=64, strides=(1, 1), rotation=0, scale=(3.0, 3.0), flip=0, drift=0)
    clip = SequenceClips(read_sequences("posetrack", tmp_path, "test")).draw(0, np.random.default_rng(0), still)
    assert clip.ignored[1].any()
    assert not clip.ignored[2].any()


@pytest.mark.parametrize(
    ("kind", "words"), [("posetrack", "no test videos"), ("jhmdb", "no test videos"), ("penn", "no test videos")]
)
def test_an_empty_folder_says_what_is_expected(kind: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(DekrPoseError, match=words):
        read_sequences(kind, tmp_path, "test")


def test_broken_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "0001.mat").write_bytes(b"no such thing")
    with pytest.raises(DekrPoseError, match=r"0001\.mat cannot be read"):
        read_sequences("penn", tmp_path, "train")
    savemat(tmp_path / "labels" / "0001.mat", {"x": np.zeros((3, 13)), "y": np.zeros((3, 13))})
    with pytest.raises(DekrPoseError, match="lacks visibility"):
        read_sequences("penn", tmp_path, "train")
    (tmp_path / "train").mkdir()
    for text in ('{"annotations": []}', "[" * 100_000):
        (tmp_path / "train" / "a.json").write_text(text)
        with pytest.raises(DekrPoseError, match="no PoseTrack annotation"):
            read_sequences("posetrack", tmp_path, "train")
    with pytest.raises(ValueError, match="a video data set is one of"):
        read_sequences("ucf", tmp_path, "train")
    with pytest.raises(DekrPoseError, match="is no folder"):
        read_sequences("penn", tmp_path / "nowhere", "train")
