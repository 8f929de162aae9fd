"""Published file formats at full size: the same weights give the same poses, hostile files give none."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dekrpose import CheckpointError, PoseEstimator
from tests import checkpoint_fixtures as fixtures
from tests.golden.mmpose_names import official_to_mmpose
from tests.golden.seeded_weights import seeded_state_dict, synthetic_image
from tests.golden.support import BUNDLED

pytestmark = pytest.mark.slow


def seeded(arch: str) -> dict[str, Tensor]:
    shapes = {name: shape for name, shape, _ in json.loads((BUNDLED / "shapes" / f"{arch}.json").read_text())}
    arrays = seeded_state_dict(shapes, 2)  # type: ignore[no-untyped-call]
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


@pytest.mark.parametrize(("arch", "keypoints"), [("coco_w32", 17), ("crowdpose_w32", 14)])
def test_official_and_mmpose_files_give_the_same_poses(tmp_path: Path, arch: str, keypoints: int) -> None:
    weights = seeded(arch)
    arrays = official_to_mmpose({name: tensor.numpy() for name, tensor in weights.items()}, keypoints)  # type: ignore[no-untyped-call]
    mmpose = OrderedDict((name, torch.from_numpy(array)) for name, array in arrays.items())
    files = [
        fixtures.save_official(tmp_path / "official.pth", weights),
        fixtures.save_mmpose_1(tmp_path / "mmpose.pth", mmpose),
    ]
    image = np.asarray(synthetic_image(300, 400, 1))  # type: ignore[no-untyped-call]
    estimators = [PoseEstimator.from_pretrained(file, device="cpu") for file in files]
    official, other = (one.estimate(image, input_size=256, score_threshold=0) for one in estimators)
    assert len(official) >= 10
    assert estimators[0].config == estimators[1].config
    np.testing.assert_allclose(other.keypoints, official.keypoints, rtol=0, atol=0.01)
    np.testing.assert_allclose(other.scores, official.scores, rtol=0, atol=1e-4)

    estimators[1].save_pretrained(tmp_path / "converted")
    converted = PoseEstimator.from_pretrained(tmp_path / "converted", device="cpu")
    again = converted.estimate(image, input_size=256, score_threshold=0)
    np.testing.assert_array_equal(again.keypoints, other.keypoints)
    np.testing.assert_array_equal(again.scores, other.scores)


class Hostile:
    """Unpickling it would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False])
def test_files_that_would_run_code_are_refused(tmp_path: Path, zipped: bool) -> None:
    proof, file = tmp_path / "proof", tmp_path / "hostile.pth"
    content = {"state_dict": seeded("coco_w32"), "meta": Hostile(proof)}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="mkdir"):
        PoseEstimator.from_pretrained(file)
    model = fixtures.save_official(tmp_path / "official.pth", seeded("coco_w32"))
    with pytest.raises(CheckpointError, match="mkdir"):
        PoseEstimator.from_pretrained(model, rescoring_net=file)
    assert not proof.exists()
