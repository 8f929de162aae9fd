"""The rescoring net's features and its use."""

from __future__ import annotations

import pytest
import torch

from dekrpose.architectures.parts.poses import OKSScoreNet, pose_features
from dekrpose.skeletons import COCO_17, CROWDPOSE_14


class Constant(OKSScoreNet):
    def __init__(self, value: float) -> None:
        super().__init__(74)
        self.value = value

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return torch.full((len(features),), self.value)


def test_the_net_has_the_published_layers() -> None:
    shapes = {name: tuple(value.shape) for name, value in OKSScoreNet(74).state_dict().items()}
    assert shapes == {
        "l1.weight": (256, 74), "l1.bias": (256,),
        "l2.weight": (256, 256), "l2.bias": (256,),
        "l3.weight": (1, 256), "l3.bias": (1,),
    }  # fmt: skip


@pytest.mark.parametrize(("skeleton", "width"), [(COCO_17, 74), (CROWDPOSE_14, 59)])
def test_features_fit_the_published_nets_and_nobody_is_normal(skeleton, width) -> None:  # type: ignore[no-untyped-def]
    for people in (0, 3):
        keypoints, scores = 100 * torch.rand(people, len(skeleton), 2), torch.rand(people, len(skeleton))
        features = pose_features(keypoints, scores, skeleton.edges)
        assert features.shape == (people, width)
        assert OKSScoreNet(width)(features).shape == (people,)


def test_features_do_not_depend_on_place_or_size() -> None:
    keypoints, scores = 100 * torch.rand(1, 17, 2), torch.rand(1, 17)
    features = pose_features(keypoints, scores, COCO_17.edges)
    moved = pose_features(3 * keypoints + 50, scores, COCO_17.edges)
    assert torch.allclose(features, moved, atol=1e-4)


def test_a_tiny_pose_is_measured_in_pixels() -> None:
    keypoints = torch.zeros(1, 17, 2)
    keypoints[0, 0] = torch.tensor([0.3, 0.4])
    features = pose_features(keypoints, torch.zeros(1, 17), COCO_17.edges)
    assert torch.allclose(features[0, :2], torch.tensor([0.3, 0.4]))
    assert features[0, 38].item() == pytest.approx(0.5)


def test_scores_are_multiplied_and_not_a_number_becomes_0() -> None:
    keypoints, keypoint_scores = torch.rand(2, 17, 2), torch.rand(2, 17)
    scores = torch.tensor([0.5, float("nan")])
    rescored, same = Constant(0.5).scored(
        pose_features(keypoints, keypoint_scores, COCO_17.edges), keypoint_scores, scores
    )
    assert rescored.tolist() == [0.25, 0.0]
    assert torch.equal(same, keypoint_scores)


def test_what_a_calibrated_net_says_is_the_scores() -> None:
    net = OKSScoreNet.of(
        {**OKSScoreNet(74).state_dict(), "l3.weight": torch.zeros(18, 256), "l3.bias": torch.zeros(18)}
    )
    assert net.calibrated
    features = pose_features(torch.rand(3, 17, 2), torch.rand(3, 17), COCO_17.edges)
    scores, keypoint_scores = net.scored(features, torch.rand(3, 17), torch.rand(3))
    assert scores.tolist() == [0.5] * 3
    assert torch.equal(keypoint_scores, torch.full((3, 17), 0.5))


def test_a_skeleton_with_too_few_edges_is_refused() -> None:
    with pytest.raises(ValueError, match="edges 9 and 11"):
        pose_features(torch.rand(1, 5, 2), torch.rand(1, 5), [(0, 1), (1, 2)])
