"""Video data sets as they are published: PoseTrack, JHMDB, Penn Action; their keypoints as COCO's 17."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dekrpose import images
from dekrpose.data.clips.clip import RATE, Clip, ClipShape, Floats, Split, camera_path, through_camera
from dekrpose.data.clips.photos import filmed, framing
from dekrpose.errors import DekrPoseError
from dekrpose.skeletons import COCO_17

_LIMBS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
_PENN = ("head", *(f"{side}_{limb}" for limb in _LIMBS for side in ("left", "right")))
_JHMDB = (
    "neck", "belly", "face", "right_shoulder", "left_shoulder", "right_hip", "left_hip", "right_elbow", "left_elbow",
    "right_knee", "left_knee", "right_wrist", "left_wrist", "right_ankle", "left_ankle",
)  # fmt: skip
_POSETRACK = (
    "nose", "head_bottom", "head_top", "left_ear", "right_ear",
    *(f"{side}_{limb}" for limb in _LIMBS for side in ("left", "right")),
)  # fmt: skip
_PICTURES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True, eq=False)
class VideoSequence:
    """One annotated video.

    Attributes:
        files: its frames in order.
        keypoints: (F, P, 17, 3) float32 x, y, visibility, image pixels from 0; one person keeps its place.
        labelled: (F,) whether a frame's people are annotated.
        ignored: polygons (N, 2) of regions without annotations, by frame.
        rate: frames per second.
    """

    name: str
    files: tuple[Path, ...]
    keypoints: NDArray[np.float32]
    labelled: NDArray[np.bool_]
    ignored: Mapping[int, Sequence[Floats]] = field(default_factory=dict)
    rate: float = RATE

    def read(self, frame: int) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""
        return images.load(self.files[frame], exif=False)[0]


def read_sequences(kind: str, folder: str | Path, split: Split) -> list[VideoSequence]:
    """The annotated videos of an unpacked data set that belong to a split; PoseTrack's validation part counts as test.

    The kind is "posetrack" (2018 and 21), "jhmdb" or "penn", else ValueError. DekrPoseError if the folder does not hold
    such a data set, or a file of it is broken.
    """
    if kind not in FORMATS:
        raise ValueError(f"a video data set is one of {', '.join(FORMATS)}, got {kind!r}")
    folder = Path(folder)
    if not folder.is_dir():
        raise DekrPoseError(f"{folder} is no folder; name the one that {kind} was unpacked into")
    sequences = FORMATS[kind](folder, split)
    if not sequences:
        raise DekrPoseError(f"{folder} holds no {split} videos in the format of {kind}; {_LAYOUTS[kind]}")
    return sequences


def to_coco(names: Sequence[str], points: Floats) -> NDArray[np.float32]:
    """(..., 17, 3) from (..., J, 3) of other keypoints; those that they lack have visibility 0."""
    result = np.zeros((*points.shape[:-2], len(COCO_17), 3), np.float32)
    for position, name in enumerate(COCO_17.keypoints):
        if name in names:
            result[..., position, :] = points[..., list(names).index(name), :]
    result[result[..., 2] <= 0] = 0
    return result


def _posetrack(folder: Path, split: Split) -> list[VideoSequence]:
    parts = ("train",) if split == "train" else ("val", "validation", "test")
    found = [path for part in parts for path in sorted(folder.glob(f"**/{part}/*.json"))]
    return [sequence for path in found for sequence in _posetrack_file(path, folder)]


def _posetrack_file(path: Path, folder: Path) -> list[VideoSequence]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = next(
            (entry["keypoints"] for entry in content.get("categories", []) if entry.get("keypoints")), _POSETRACK
        )
        videos: dict[str, list[dict[str, Any]]] = {}
        for image in content["images"]:
            videos.setdefault(str(image.get("vid_id", path.stem)), []).append(image)
        people: dict[Any, list[dict[str, Any]]] = {}
        for entry in content.get("annotations", []):
            if entry.get("keypoints"):
                people.setdefault(entry["image_id"], []).append(entry)
        return [_posetrack_video(name, frames, people, names, folder) for name, frames in videos.items()]
    except (OSError, KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError) as error:
        raise DekrPoseError(f"{path} is no PoseTrack annotation: {error!r}") from error


def _posetrack_video(
    name: str,
    frames: list[dict[str, Any]],
    people: Mapping[Any, list[dict[str, Any]]],
    names: Sequence[str],
    folder: Path,
) -> VideoSequence:
    frames = sorted(frames, key=lambda image: str(image["file_name"]))
    of_frame = [people.get(image.get("id", image.get("image_id")), []) for image in frames]
    tracks = sorted({entry["track_id"] for entries in of_frame for entry in entries})
    keypoints = np.zeros((len(frames), len(tracks), len(COCO_17), 3), np.float32)
    for index, entries in enumerate(of_frame):
        for entry in entries:
            points = np.reshape(np.asarray(entry["keypoints"], np.float64), (len(names), 3))
            points[:, 2] = np.where(points[:, 2] > 0, 2, 0)
            keypoints[index, tracks.index(entry["track_id"])] = to_coco(names, points)
    ignored = {
        index: [
            np.stack([xs, ys], axis=1).astype(np.float64)
            for xs, ys in zip(image["ignore_regions_x"], image["ignore_regions_y"], strict=True)
            if len(xs) > 2
        ]
        for index, image in enumerate(frames)
        if image.get("ignore_regions_x")
    }
    labelled = np.array([bool(image.get("is_labeled", image.get("is_labelled", True))) for image in frames])
    return VideoSequence(name, tuple(folder / image["file_name"] for image in frames), keypoints, labelled, ignored)


def _jhmdb(folder: Path, split: Split) -> list[VideoSequence]:
    wanted = "1" if split == "train" else "2"
    listed: dict[str, str] = {}
    for path in sorted(folder.glob("splits/*_test_split1.txt")):
        pairs = (line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
        listed.update((pair[0], pair[-1]) for pair in pairs)
    sequences = []
    for path in sorted(folder.glob("joint_positions/*/*/joint_positions.mat")):
        video = path.parent
        if listed.get(f"{video.name}.avi", "1") != wanted:
            continue
        positions = np.asarray(_mat(path, "pos_img")["pos_img"], np.float64)
        if positions.ndim != 3 or positions.shape[:2] != (2, len(_JHMDB)):
            raise DekrPoseError(f"pos_img of {path} must be (2, 15, frames), got {positions.shape}")
        files = _pictures(folder / "Rename_Images" / video.parent.name / video.name, positions.shape[2])
        points = np.concatenate([positions.transpose(2, 1, 0) - 1, np.full((positions.shape[2], 15, 1), 2.0)], axis=2)
        keypoints = to_coco(_JHMDB, points)[:, None]
        sequences.append(
            VideoSequence(f"{video.parent.name}/{video.name}", files, keypoints, np.ones(len(files), bool))
        )
    return sequences


def _penn(folder: Path, split: Split) -> list[VideoSequence]:
    sequences = []
    for path in sorted(folder.glob("labels/*.mat")):
        content = _mat(path, "x", "y", "visibility")
        if (np.asarray(content.get("train", 1)).item() == 1) != (split == "train"):
            continue
        x, y, visible = (np.asarray(content[name], np.float64) for name in ("x", "y", "visibility"))
        if x.ndim != 2 or x.shape[1] != len(_PENN) or x.shape != y.shape or x.shape != visible.shape:
            raise DekrPoseError(
                f"x, y and visibility of {path} must be (frames, 13), got {x.shape}, {y.shape}, {visible.shape}"
            )
        # A keypoint that is not visible was placed by the annotator all the same, unless it lies at the origin.
        placed = (x > 1) | (y > 1)
        points = np.stack([x - 1, y - 1, np.where(placed, 1 + visible, 0)], axis=-1)
        files = _pictures(folder / "frames" / path.stem, len(x))
        sequences.append(VideoSequence(path.stem, files, to_coco(_PENN, points)[:, None], np.ones(len(x), bool)))
    return sequences


FORMATS: Mapping[str, Callable[[Path, Split], list[VideoSequence]]] = {
    "posetrack": _posetrack,
    "jhmdb": _jhmdb,
    "penn": _penn,
}
_LAYOUTS = {
    "posetrack": "it has .../train/*.json, .../val/*.json, and the pictures where these say",
    "jhmdb": "it has joint_positions/CLASS/VIDEO/joint_positions.mat, Rename_Images/CLASS/VIDEO/00001.png and splits/",
    "penn": "it has labels/0001.mat and frames/0001/000001.jpg",
}


class SequenceClips:
    """Clips cut out of annotated videos, seen by a camera that moves a little more than theirs did."""

    def __init__(self, sequences: Sequence[VideoSequence]) -> None:
        self.sequences = [sequence for sequence in sequences if (sequence.keypoints[..., 2] > 0).any()]
        if not self.sequences:
            raise DekrPoseError("nobody in these videos has keypoints")

    def __len__(self) -> int:
        return len(self.sequences)

    def draw(self, index: int, rng: np.random.Generator, shape: ClipShape) -> Clip:
        """A clip of the video with this index; the last frame is shown again where the video is too short."""
        sequence = self.sequences[index]
        stride = int(rng.integers(shape.strides[0], shape.strides[1] + 1))
        spare = len(sequence.files) - (shape.frames - 1) * stride
        start = int(rng.integers(max(spare, 1)))
        chosen = np.minimum(start + stride * np.arange(shape.frames), len(sequence.files) - 1)
        times = np.arange(shape.frames) * (stride / sequence.rate)
        people = sequence.keypoints[chosen]
        present = people[(people[..., 2] > 0).any(axis=2)]
        center, side = framing(present, rng) if len(present) else _whole(sequence.read(int(chosen[0])))
        matrices, mirrored = camera_path(rng, shape, times, center, side)
        size = (shape.size, shape.size)
        frames, ignored = [], []
        for frame, matrix in zip(chosen.tolist(), matrices, strict=True):
            image = sequence.read(frame)
            frames.append(filmed(image, matrix, shape.size))
            mask = np.zeros(image.shape[:2], np.uint8)
            for polygon in sequence.ignored.get(frame, []):
                cv2.fillPoly(mask, [np.rint(polygon).astype(np.int32)], 1)
            ignored.append(cv2.warpAffine(mask, matrix, size, flags=cv2.INTER_NEAREST) > 0)
        return Clip(
            frames=np.stack(frames),
            keypoints=through_camera(people, matrices, shape.size, mirrored),
            labelled=sequence.labelled[chosen],
            ignored=np.stack(ignored),
            times=times,
            name=f"{sequence.name} from frame {start}",
        )


def _whole(image: NDArray[np.uint8]) -> tuple[Floats, float]:
    height, width = image.shape[:2]
    return np.array([width / 2, height / 2]), float(max(height, width))


def _pictures(folder: Path, count: int) -> tuple[Path, ...]:
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in _PICTURES and path.name[0] != ".")
    if len(files) < count:
        raise DekrPoseError(f"{folder} holds {len(files)} pictures, its annotations are of {count} frames")
    return tuple(files[:count])


def _mat(path: Path, *names: str) -> dict[str, Any]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        content: dict[str, Any] = loadmat(path)
    except (OSError, ValueError, NotImplementedError, MatReadError) as error:
        raise DekrPoseError(f"{path} cannot be read: {error}") from error
    missing = [name for name in names if name not in content]
    if missing:
        raise DekrPoseError(f"{path} lacks {', '.join(missing)}")
    return content
