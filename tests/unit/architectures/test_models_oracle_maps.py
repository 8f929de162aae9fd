"""Maps drawn from known people, as a perfect network would answer, decode to exactly those people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dekrpose.architectures.dekr.candidates import Choice
from dekrpose.architectures.dekr.decode import decode, pose_map
from dekrpose.architectures.dekr.flip import merge_flipped
from dekrpose.architectures.dekr.targets import TargetMode, heatmap_targets, offset_targets, person_centers
from dekrpose.evaluation.coco_ap import coco_average_precision
from dekrpose.evaluation.predictions import Prediction, results_json
from dekrpose.skeletons import COCO_17
from tests.evaluation_people import dataset, human, standing  # type: ignore[import-not-found]

STRIDE = 4
SIZE = (64, 96)
"""Height and width of the maps."""
PEOPLE = [standing(60, 30, 180), standing(140.3, 52.7, 120.5), standing(250, 12, 220), standing(310, 100, 90)]
"""Input pixels; three of the four centers lie between pixels."""


def maps(people: list[np.ndarray], scale: float = 1.0, mode: TargetMode = "paper") -> tuple[Tensor, Tensor]:
    """Heatmaps (K+1, h, w) and positions (2K, h, w) of one scale, from people in input pixels of scale 1."""
    height, width = (round(side * scale) for side in SIZE)
    points = torch.tensor(np.array(people)).reshape(-1, 17, 2) * scale / STRIDE
    keypoints = torch.cat([points, torch.full_like(points[..., :1], 2.0)], dim=2)
    centers = person_centers(keypoints)
    areas = 16 * (points.amax(1) - points.amin(1)).square().sum(1) if mode == "official" else None
    heatmaps, _ = heatmap_targets(keypoints, centers, (height, width))
    offsets, _ = offset_targets(keypoints, centers, (height, width), mode=mode, areas=areas)
    return heatmaps, pose_map(offsets)


def mirrored(people: list[np.ndarray]) -> list[np.ndarray]:
    """People as the flip test's second input shows them: left and right swapped, aligned to the stride-4 grid."""
    last = np.array([STRIDE * (SIZE[1] - 1), 0], np.float32)
    turned = [last + person * np.array([-1, 1], np.float32) for person in people]
    return [person[list(COCO_17.flip_indices)] for person in turned]


def assert_found(found: Tensor, people: list[np.ndarray], tolerance: float = 1e-3) -> None:
    """Each person once, nobody else."""
    assert len(found) == len(people)
    distances = (found[:, None].numpy() - np.array(people)[None]).__abs__().max((2, 3))
    assert sorted(distances.argmin(1)) == list(range(len(people)))
    assert distances.min(1).max() < tolerance


@pytest.mark.parametrize("mode", ["paper", "official"])
def test_drawn_people_are_found_exactly(mode: TargetMode) -> None:
    poses, keypoint_scores, scores = decode([maps(PEOPLE, mode=mode)])
    assert_found(poses, PEOPLE)
    assert bool((keypoint_scores > 0.7).all())
    assert bool((scores > 0.8).all())


def test_an_empty_scene_gives_nobody() -> None:
    poses, keypoint_scores, scores = decode([maps([])])
    assert poses.shape == (0, 17, 2)
    assert keypoint_scores.shape == (0, 17)
    assert scores.shape == (0,)


def test_a_center_between_two_pixels_is_one_person() -> None:
    """Two neighbouring pixels are equally hot: two candidates, one pose after NMS."""
    person = standing(100, 20, 200)
    person += 4 * (np.floor(person.mean(0) / 4) + 0.5) - person.mean(0)
    assert_found(decode([maps([person])])[0], [person])


def test_two_people_side_by_side_stay_two() -> None:
    """Their boxes overlap by half; their centers are a few heatmap pixels apart."""
    pair = [standing(120, 30, 200), standing(150, 34, 200)]
    assert_found(decode([maps(pair)])[0], pair)


def test_keypoints_outside_the_map_are_not_clipped() -> None:
    """A keypoint beyond the border has no target; the position that the network regresses still counts."""
    person = standing(200, -20, 200)
    heatmaps, positions = maps([person])
    x, y = (person.mean(0) / STRIDE).astype(int)
    outside = (person[:, 1] < 0).nonzero()[0]
    assert len(outside)
    for keypoint in outside:
        positions[2 * keypoint : 2 * keypoint + 2, y - 4 : y + 4, x - 4 : x + 4] = (
            torch.from_numpy(person[keypoint])[:, None, None] / STRIDE
        )
    assert_found(decode([(heatmaps, positions)])[0], [person])


def test_several_scales_agree_about_each_person() -> None:
    scales = (0.5, 1.0, 2.0)
    poses, _, _ = decode([maps(PEOPLE, scale) for scale in scales], scales)
    assert_found(poses, PEOPLE)


def test_the_mirrored_scene_changes_nothing() -> None:
    heatmaps, positions = maps(PEOPLE)
    flipped_heatmaps, flipped_positions = maps(mirrored(PEOPLE))
    merged, both = merge_flipped(heatmaps, flipped_heatmaps, positions, flipped_positions, COCO_17.flip_indices)
    torch.testing.assert_close(merged, heatmaps, rtol=0, atol=1e-4)
    assert_found(decode([(merged, both)])[0], PEOPLE)


def test_matching_to_drawn_heatmaps_keeps_the_keypoints() -> None:
    """The Gaussian fit finds the sub-pixel maximum of a Gaussian within the error of bilinear enlarging."""
    poses, _, _ = decode([maps(PEOPLE[:1])], choice=Choice(match="paper"))
    assert_found(poses, PEOPLE[:1], tolerance=0.5)


def test_drawn_people_have_an_average_precision_of_one(tmp_path: Path) -> None:
    pytest.importorskip("faster_coco_eval")
    scenes = [PEOPLE, PEOPLE[:1], []]
    data = dataset(
        tmp_path,
        ["four.jpg", "one.jpg", "nobody.jpg"],
        [human(number, person) for number, scene in enumerate(scenes, 1) for person in scene],
        width=[SIZE[1] * STRIDE] * 3,
        height=[SIZE[0] * STRIDE] * 3,
    )
    decoded = [decode([maps(scene)]) for scene in scenes]
    found = [Prediction.of(poses, heat, scores, 17) for poses, heat, scores in decoded]
    measures = coco_average_precision(data, results_json(data.photos, found))
    assert measures["AP"] == pytest.approx(1.0)
    assert measures["AR"] == pytest.approx(1.0)
