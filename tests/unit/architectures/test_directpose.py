"""DirectPose: targets and decoding are inverses, features are read where they should be, networks have their size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dekrpose import COCO_17, CROWDPOSE_14, Skeleton
from dekrpose.architectures.complexity import complexity
from dekrpose.architectures.contract import build
from dekrpose.architectures.directpose import losses, targets
from dekrpose.architectures.directpose.decode import candidates, decode, unmirrored
from dekrpose.architectures.directpose.groups import keypoint_groups
from dekrpose.architectures.directpose.kpalign import GroupedLinear, sample_aligned
from dekrpose.architectures.directpose.learning import LOSSES, forward, recipe
from dekrpose.architectures.directpose.learning import losses as network_losses
from dekrpose.architectures.directpose.locations import locations, map_sizes, strides
from dekrpose.architectures.learning import AugmentConfig, Crop
from dekrpose.config import ARCHITECTURES, DirectPoseHeadConfig, ModelConfig
from dekrpose.evaluation.coco_ap import coco_average_precision
from dekrpose.evaluation.predictions import Prediction, results_json
from dekrpose.images import Geometry
from tests.evaluation_people import dataset, human, standing  # type: ignore[import-not-found]
from tests.unit.training.test_training_initial import FIVE

LEVELS = 3
SIZE = (128, 160)  # height, width
TINY = replace(
    ARCHITECTURES["directpose-tiny"],
    head=DirectPoseHeadConfig(channels=8, levels=LEVELS, class_depth=1, group_channels=4, heatmap_channels=8),
)


def people(*boxes: tuple[float, float, float, float], count: int = 17) -> Tensor:
    """(P, K, 3): keypoints that fill these boxes, all labelled."""
    generator = torch.Generator().manual_seed(0)
    shares = torch.rand(len(boxes), count, 2, generator=generator)
    shares[:, 0], shares[:, 1] = 0.0, 1.0
    low, high = torch.tensor(boxes).reshape(-1, 1, 4).split(2, dim=2)
    return torch.cat([low + shares * (high - low), torch.full((len(boxes), count, 1), 2.0)], dim=2)


def oracle(scene: Tensor, size: tuple[int, int] = SIZE, levels: int = LEVELS) -> list[Tensor]:
    """The maps of a network that has learned a scene's targets exactly."""
    ignored = torch.zeros(size, dtype=torch.bool)
    positive, _, center, _, keypoints, *_ = targets.location_targets(scene, ignored, levels)
    logits = torch.stack([positive.float(), center]).mul(0.98).add(0.01).logit()
    flat = torch.cat([logits, keypoints.flatten(1).T])[None]
    sizes = map_sizes(*size, levels)
    parts = torch.split(flat, [rows * columns for rows, columns in sizes], dim=2)
    return [part.reshape(1, -1, *own) for part, own in zip(parts, sizes, strict=True)]


def whole_cells(height: int, width: int) -> tuple[int, int]:
    """The size that targets are made for, of an input that ends within a cell."""
    return -(-height // 32) * 32, -(-width // 32) * 32


def found(maps: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    look = tuple(part[0] for part in candidates(maps))
    return decode([look], nms_threshold=0.6, max_people=30)


@pytest.mark.parametrize(
    "boxes",
    [
        [(20, 20, 60, 90)],
        [(10, 10, 60, 100), (80, 30, 150, 120)],
        [(20, 20, 90, 110), (40, 30, 110, 120)],  # they overlap
        [(10, 10, 150, 120), (60, 40, 90, 80)],  # one stands in front of the other
        [],
    ],
)
def test_scenes_are_read_from_the_targets_that_they_make(boxes: list[tuple[float, float, float, float]]) -> None:
    scene = people(*boxes)
    poses, keypoint_scores, scores = found(oracle(scene))
    assert poses.shape == (len(boxes), 17, 2)
    assert keypoint_scores.shape == (len(boxes), 17)
    assert bool((scores.diff() <= 0).all())
    if boxes:
        apart = (poses[:, None] - scene[None, ..., :2]).abs().amax((2, 3))
        assert sorted(apart.argmin(1).tolist()) == list(range(len(boxes)))
        assert float(apart.amin(1).max()) < 1e-3


def test_drawn_people_have_an_average_precision_of_one(tmp_path: Path) -> None:
    pytest.importorskip("faster_coco_eval")
    scenes = [[standing(60, 30, 90), standing(75, 40, 80)], [standing(100, 20, 100)], []]
    data = dataset(
        tmp_path,
        ["two.jpg", "one.jpg", "nobody.jpg"],
        [human(number, person) for number, scene in enumerate(scenes, 1) for person in scene],
        width=[SIZE[1]] * 3,
        height=[SIZE[0]] * 3,
    )
    labelled = [
        np.concatenate([np.array(scene).reshape(-1, 17, 2), np.full((len(scene), 17, 1), 2.0)], axis=2)
        for scene in scenes
    ]
    decoded = [found(oracle(torch.from_numpy(scene).float())) for scene in labelled]
    people_found = [Prediction.of(*(part.numpy() for part in own), channels=17) for own in decoded]
    measures = coco_average_precision(data, results_json(data.photos, people_found))
    assert measures["AP"] == pytest.approx(1.0)


def test_a_mirrored_scene_is_found_where_it_was() -> None:
    scene = people((20, 20, 60, 90), (90, 30, 140, 120))
    flip = list(COCO_17.flip_indices)
    mirrored = scene[:, flip].clone()
    mirrored[..., 0] = SIZE[1] - 1 - mirrored[..., 0]
    look = tuple(part[0] for part in unmirrored(candidates(oracle(mirrored)), flip))
    poses = decode([look], nms_threshold=0.6, max_people=30)[0]
    assert float((poses[:, None] - scene[None, ..., :2]).abs().amax((2, 3)).amin(1).max()) < 1e-3


@pytest.mark.parametrize("scale", [0.5, 0.7, 1.3, 2.0])
@pytest.mark.parametrize("sides", [(384, 512), (500, 333)])
def test_several_scales_speak_in_pixels_of_the_first(scale: float, sides: tuple[int, int]) -> None:
    first, other = (Geometry.fit(*sides, 128, each, multiple=32) for each in (1.0, scale))
    scene = people((20, 20, 90, 110))
    points = np.asarray(first.to_image(scene[..., :2].numpy()) @ other.matrix[:, :2].T + other.matrix[:, 2])
    there = torch.cat([torch.from_numpy(points).float(), scene[..., 2:]], dim=2)
    seen, nobody = oracle(there, whole_cells(*other.input_size)), oracle(people(), first.input_size)
    look = tuple(part[0] for part in candidates(seen, other.input_size))
    for own in (nobody, oracle(scene, first.input_size)):
        base = tuple(part[0] for part in candidates(own, first.input_size))
        poses, _, scores = decode([base, look], nms_threshold=0.6, max_people=30)
        assert len(scores) == 1  # both scales see the same person
        torch.testing.assert_close(poses[0], scene[0, :, :2], atol=0.02, rtol=0)


def test_a_mirrored_input_that_is_no_whole_number_of_cells() -> None:
    scene, flip = people((20, 20, 60, 90)), list(COCO_17.flip_indices)
    mirrored = scene[:, flip].clone()
    mirrored[..., 0] = 245 - mirrored[..., 0]
    look = tuple(part[0] for part in unmirrored(candidates(oracle(mirrored, whole_cells(179, 246)), (179, 246)), flip))
    torch.testing.assert_close(decode([look], nms_threshold=0.6, max_people=30)[0], scene[..., :2], atol=1e-3, rtol=0)


def test_people_on_one_point_or_line_are_found_once() -> None:
    for spread in ((0.0, 0.0), (0.0, 40.0)):
        point, length = torch.tensor([60.0, 50.0]), torch.tensor(spread)
        poses = point + length * torch.linspace(0, 1, 3)[:, None] + torch.tensor([[[0.0]], [[0.5]], [[1.0]]])
        look = torch.full((3,), 0.9), torch.tensor([0.9, 0.8, 0.7]), poses, torch.tensor([160.0, 128.0])
        assert len(decode([look], nms_threshold=0.6, max_people=30)[2]) == 1


def test_levels_go_by_the_farthest_side_and_ties_by_the_smallest_box() -> None:
    def levels_of(*boxes: tuple[float, float, float, float]) -> dict[int, set[int]]:
        own = targets.assigned_people(torch.tensor(boxes), 256, 256, 5)
        parts = torch.split(own, [rows * columns for rows, columns in map_sizes(256, 256, 5)])
        return {level: set(part.tolist()) - {-1} for level, part in enumerate(parts)}

    only = levels_of((100, 100, 140, 150))  # no side is farther than 64 from any place in it
    assert only == {0: {0}, 1: set(), 2: set(), 3: set(), 4: set()}
    assert levels_of((20, 20, 200, 210))[1] == {0}  # from its middle the sides are 90 and 95 away
    assert levels_of((0, 0, 255, 255)) == {0: set(), 1: set(), 2: {0}, 3: set(), 4: set()}
    both = targets.assigned_people(torch.tensor([(80.0, 80.0, 130.0, 130.0), (90.0, 90.0, 120.0, 120.0)]), 256, 256, 5)
    shared = torch.cat([locations(32, 32, 8)])
    middle = int((shared - 105).abs().sum(1).argmin())
    assert both[middle] == 1  # the smaller of two boxes around the same middle


def test_positive_places_are_near_the_middle_and_inside_the_box() -> None:
    box = torch.tensor([(40.0, 40.0, 52.0, 90.0)])
    person = targets.assigned_people(box, 128, 128, LEVELS)
    points = torch.cat([locations(*size, s) for size, s in zip(map_sizes(128, 128, 3), strides(3), strict=True)])
    for stride, (first, last) in zip(strides(3), ((0, 256), (256, 320), (320, 336)), strict=True):
        for point in points[first:last][person[first:last] == 0]:
            assert bool(((point - torch.tensor([46.0, 65.0])).abs() < 1.5 * stride).all())
            assert 40 < point[0] < 52
    assert int((person == 0).sum()) > 0


def test_unlabelled_keypoints_and_people_are_not_taught() -> None:
    scene = people((20, 20, 90, 100)).numpy().astype(np.float32)
    scene[0, 5:, 2] = 0
    crop = Crop(np.zeros((128, 128, 3), np.uint8), scene, np.zeros((128, 128), bool))
    drawn = targets.LocationTargets(levels=LEVELS)
    sample = drawn.sample(crop, None, COCO_17, 3, np.random.default_rng(0))
    assert sample.labelled[sample.positive].sum(1).tolist() == [5] * int(sample.positive.sum())
    assert sample.heat.sum((1, 2)).tolist() == [1] * 5 + [0] * 12
    few = drawn.sample(crop, None, COCO_17, 6, np.random.default_rng(0))
    assert not few.positive.any()
    assert not few.counted.all()  # where somebody with too few labels is, nothing is said
    with_mosaic = AugmentConfig(mosaic=0.5)
    drawn.check(with_mosaic)


def test_features_are_read_at_the_base_offset() -> None:
    width, height = 12, 10
    ys, xs = torch.meshgrid(torch.arange(2.0 * height), torch.arange(2.0 * width), indexing="ij")
    ramp = torch.stack([xs, ys]).repeat(2, 1, 1)[None]  # two groups, each with its coordinates
    bases = torch.zeros(1, 4, height, width)
    bases[:, :2] = torch.tensor([0.25, -0.5]).reshape(2, 1, 1)
    for exact, half in ((False, 1.0), (True, 0.5)):
        read = sample_aligned(ramp, bases, 2, exact=exact)
        assert read.shape == (1, 4, height, width)
        row, column = 4, 5
        expected = torch.tensor([2 * (column + 0.25), 2 * (row - 0.5), 2 * column, 2 * row]) + half
        torch.testing.assert_close(read[0, :, row, column], expected)
    same = sample_aligned(ramp, torch.zeros(1, 4, 2 * height, 2 * width), 1)
    torch.testing.assert_close(same, ramp)  # without a finer level a place reads itself
    outside = sample_aligned(ramp, torch.full((1, 4, height, width), 100.0), 2)
    assert not outside.any()


def test_a_predictor_of_zeros_leaves_keypoints_at_the_base_offset() -> None:
    torch.manual_seed(0)
    model = build(TINY).eval()
    head = model.head.keypoints  # type: ignore[union-attr]
    torch.nn.init.zeros_(head.predictor.weight)  # type: ignore[union-attr, arg-type]
    bases: list[Tensor] = []
    head.locator.register_forward_hook(lambda _, __, out: bases.append(out))  # type: ignore[union-attr]
    with torch.inference_mode():
        maps = model(torch.randn(1, 3, 64, 96))
    for level, base in zip(maps, bases, strict=True):
        for group, own in enumerate(keypoint_groups(COCO_17)):
            for keypoint in own:
                first = 2 + 2 * keypoint
                torch.testing.assert_close(level[:, first : first + 2], base[:, 2 * group : 2 * group + 2])


def test_groups_predict_their_own_keypoints_alone() -> None:
    groups = ((0, 3), (1,), (2, 4, 5))
    linear = GroupedLinear(groups, 4)
    x = torch.randn(2, 12, 3, 5)
    out = linear(x)
    assert out.shape == (2, 12, 3, 5)
    for group, own in enumerate(groups):
        for keypoint in own:
            rows = slice(2 * keypoint, 2 * keypoint + 2)
            features = x[:, 4 * group : 4 * group + 4]
            expected = torch.einsum("oc,bchw->bohw", linear.weight[rows], features)
            torch.testing.assert_close(out[:, rows], expected + linear.bias[rows, None, None])


def test_the_nine_groups_of_coco_and_groups_of_any_skeleton() -> None:
    named = [{COCO_17.keypoints[index] for index in group} for group in keypoint_groups(COCO_17)]
    assert len(named) == 9
    assert {"nose", "left_eye", "right_eye", "left_ear", "right_ear"} in named
    assert {"left_elbow", "left_wrist"} in named
    assert {"right_hip"} in named
    assert {"right_knee", "right_ankle"} in named
    animal = Skeleton(
        "animal", ("a", "b", "c", "d", "e"), edges=((0, 1), (1, 2), (2, 3)), flip_pairs=(), sigmas=(0.1,) * 5
    )
    assert keypoint_groups(animal) == ((0, 1, 2), (3,), (4,))
    for names in ("l knee,r knee", "lKnee,rKnee", "LKnee,RKnee", "leftKnee,rightKnee", "leftknee,rightknee"):
        knees = Skeleton("knees", tuple(names.split(",")), edges=(), flip_pairs=(), sigmas=(0.1,) * 2)
        assert keypoint_groups(knees) == ((0,), (1,)), names
    paired = Skeleton("paired", ("knee 1", "knee 2"), edges=(), flip_pairs=((0, 1),), sigmas=(0.1,) * 2)
    assert keypoint_groups(paired) == ((0,), (1,))
    paws = Skeleton("paws", ("left_rear_paw", "ears"), edges=((0, 1),), flip_pairs=(), sigmas=(0.1,) * 2)
    assert keypoint_groups(paws) == ((0,), (1,))
    for skeleton in (COCO_17, CROWDPOSE_14, FIVE, animal):
        every = sorted(index for group in keypoint_groups(skeleton) for index in group)
        assert every == list(range(len(skeleton)))
        maps = build(replace(TINY, skeleton=skeleton)).eval()(torch.zeros(1, 3, 64, 64))
        assert [tuple(level.shape) for level in maps] == [(1, 2 + 2 * len(skeleton), side, side) for side in (8, 4, 2)]


def test_photos_without_people_teach_that_nobody_is_there() -> None:
    config = replace(TINY, head=replace(TINY.head, boxes=True))
    model, run = build(config).train(), recipe(config, False)
    assert run is not None
    crop = Crop(np.full((128, 160, 3), 90, np.uint8), np.zeros((0, 17, 3), np.float32), np.zeros((128, 160), bool))
    sample = run.targets.sample(crop, None, COCO_17, 1, np.random.default_rng(0))
    batch = type(sample).joined([sample, sample], torch.stack)
    own = network_losses(forward(model, False)(batch), batch, run, config, lambda value: value)
    sum(own.values()).backward()  # type: ignore[union-attr]
    assert all(bool(value.isfinite()) for value in own.values())
    assert float(own["keypoint"].detach()) == 0


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [("channels", 4, "multiple of 8"), ("group_channels", 6, "multiple of 4"), ("levels", 20, "from 3 to 8")],
)
def test_head_sizes_that_no_network_has_are_refused(name: str, value: int, words: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be .*{words}"):
        DirectPoseHeadConfig(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [{}, {"aligned": False}, {"boxes": True}, {"heatmaps": False}], ids=str)
def test_every_parameter_learns_and_the_locator_has_no_loss_of_its_own(changes: dict[str, bool]) -> None:
    torch.manual_seed(0)
    config = replace(TINY, head=replace(TINY.head, **changes))
    model = build(config).train()
    scene = people((20, 20, 70, 100), (80, 30, 140, 120)).numpy().astype(np.float32)
    crop = Crop(np.full((128, 160, 3), 90, np.uint8), scene, np.zeros((128, 160), bool))
    run = recipe(config, False)
    assert run is not None
    sample = run.targets.sample(crop, None, COCO_17, 1, np.random.default_rng(0))
    batch = type(sample).joined([sample, sample], torch.stack)
    parts = network_losses(forward(model, False)(batch), batch, run, config, lambda value: value)
    assert parts.keys() <= LOSSES.keys()
    assert ("box" in parts, "heat" in parts) == (config.head.boxes, config.head.heatmaps)
    keypoint = torch.autograd.grad(parts["keypoint"], model.head.parameters(), retain_graph=True, allow_unused=True)
    by_name = dict(zip([name for name, _ in model.head.named_parameters()], keypoint, strict=True))
    if config.head.aligned:
        assert by_name["keypoints.locator.weight"] is not None
        assert float(by_name["keypoints.locator.weight"].abs().sum()) > 0
    sum(parts.values()).backward()  # type: ignore[union-attr]
    untaught = [name for name, value in model.named_parameters() if value.grad is None]
    assert not untaught


def test_losses_of_the_oracle_are_small_and_nobody_costs_nothing() -> None:
    scene = people((20, 20, 90, 100))
    positive, _, center, sides, keypoints, labelled, *_ = targets.location_targets(
        scene, torch.zeros(128, 128, dtype=torch.bool), LEVELS
    )
    own = center[positive]
    assert float(losses.keypoint_loss(keypoints[positive], keypoints[positive], labelled[positive], own)) == 0
    assert float(losses.box_loss(sides[positive], sides[positive], own)) == pytest.approx(0, abs=1e-5)
    half = losses.box_loss(sides[positive] / 2**0.5, sides[positive], own)
    assert float(half) == pytest.approx(np.log(2), abs=1e-4)
    sure = torch.where(positive, 20.0, -20.0)
    assert float(losses.focal_loss(sure, positive, torch.ones_like(positive))) < 1e-6
    nobody = torch.zeros(0, 17, 2)
    assert float(losses.keypoint_loss(nobody, nobody, torch.zeros(0, 17, dtype=torch.bool), torch.zeros(0))) == 0


@pytest.mark.parametrize(
    ("name", "backbone", "maps"),
    [("directpose-r50", 23_508_032, (100, 50, 25, 13, 7)), ("directpose-r101", 42_500_160, (100, 50, 25, 13, 7))],
)
def test_the_published_networks_have_torchvisions_backbones(name: str, backbone: int, maps: tuple[int, ...]) -> None:
    config = ARCHITECTURES[name]
    with torch.device("meta"):
        model = build(config).eval()
        levels = model.pyramid(model.backbone(torch.empty(1, 3, 800, 800)))  # type: ignore[operator]
    assert sum(value.numel() for value in model.backbone.parameters()) == backbone
    assert [tuple(level.shape) for level in levels] == [(1, 256, side, side) for side in maps]
    names = [key for key, _ in model.backbone.named_parameters()]
    assert {"conv1.weight", "layer1.0.downsample.0.weight", "layer4.2.bn3.bias"} <= set(names)
    assert complexity(config).parameters == sum(value.numel() for value in model.parameters())


def test_configurations_survive_json_and_heads_belong_to_architectures() -> None:
    for name in ("directpose-r50", "directpose-tiny"):
        assert ModelConfig.from_dict(ARCHITECTURES[name].to_dict()) == ARCHITECTURES[name]
    assert ModelConfig.from_dict({"architecture": "directpose"}).head == DirectPoseHeadConfig()
    with pytest.raises(ValueError, match="the head of dekr is no DirectPoseHeadConfig"):
        ModelConfig(head=DirectPoseHeadConfig())
    with pytest.raises(ValueError, match="levels must be a whole number from 3 to 8, got 2"):
        build(replace(TINY, head=replace(TINY.head, levels=2)))
