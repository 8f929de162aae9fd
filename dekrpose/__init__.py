"""Keypoints of everyone in a photo in one bottom-up pass, with DEKR in plain PyTorch."""

from __future__ import annotations

try:
    import cv2 as _cv2  # noqa: F401
except ImportError as error:
    hint = "Install OpenCV's libraries with: apt-get install libgl1 libglib2.0-0"
    other = "or take OpenCV without windows: pip uninstall -y opencv-python && pip install opencv-python-headless"
    raise ImportError(f"OpenCV does not load: {error}. {hint}, {other}") from error

from dekrpose.draw import draw_poses
from dekrpose.errors import CheckpointError, DekrPoseError
from dekrpose.estimator import PoseEstimator
from dekrpose.hub import list_models
from dekrpose.results import Poses
from dekrpose.skeletons import COCO_17, CROWDPOSE_14, Skeleton

__version__ = "0.1.0"

__all__ = [
    "COCO_17",
    "CROWDPOSE_14",
    "CheckpointError",
    "DekrPoseError",
    "PoseEstimator",
    "Poses",
    "Skeleton",
    "__version__",
    "draw_poses",
    "list_models",
]
