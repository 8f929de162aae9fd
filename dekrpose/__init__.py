"""Keypoints of everyone in a photo in one bottom-up pass, with DEKR in plain PyTorch."""

from __future__ import annotations

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
