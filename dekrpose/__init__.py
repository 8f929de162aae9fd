"""Keypoints of everyone in a photo in one bottom-up pass, with DEKR in plain PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dekrpose.draw import draw_poses
    from dekrpose.errors import CheckpointError, DekrPoseError
    from dekrpose.estimator import PoseEstimator
    from dekrpose.hub.models import list_models
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

_HOME = {
    "COCO_17": "skeletons",
    "CROWDPOSE_14": "skeletons",
    "CheckpointError": "errors",
    "DekrPoseError": "errors",
    "PoseEstimator": "estimator",
    "Poses": "results",
    "Skeleton": "skeletons",
    "draw_poses": "draw",
    "list_models": "hub.models",
}


def __getattr__(name: str) -> Any:
    """Import a public name's module at its first use: `dekrpose doctor` must run where torch or OpenCV do not load."""
    from importlib import import_module

    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    except ImportError as error:
        if "cv2" not in str(error) and "libGL" not in str(error) and getattr(error, "name", None) != "cv2":
            raise
        hint = "Install OpenCV's libraries with: apt-get install libgl1 libglib2.0-0"
        other = "or take OpenCV without windows: pip uninstall -y opencv-python && pip install opencv-python-headless"
        raise ImportError(f"OpenCV does not load: {error}. {hint}, {other}") from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
