"""AP and AR computed a second time, from COCO's definition and without any of the package's code, and by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dekrpose.data.dataset import KeypointDataset
from dekrpose.evaluation.coco_ap import coco_average_precision, is_crowdpose, precision_curves
from dekrpose.skeletons import COCO_17, CROWDPOSE_14
from tests.evaluation_people import hide, human, standing, unlabelled

pytest.importorskip("faster_coco_eval")

Entry = dict[str, Any]
SIZES = {"": (0.0, 1e10), "_S": (0.0, 32.0**2), "_M": (32.0**2, 96.0**2), "_L": (96.0**2, 1e10)}
LEFT, RIGHT, FAR = standing(60, 50), standing(200, 60), standing(600, 50)


def similarity(result: Entry, person: Entry, sigmas: tuple[float, ...]) -> float:
    """OKS; for somebody without labels, of a detection's distance to three times the box."""
    xy = np.array(result["keypoints"]).reshape(-1, 3)[:, :2]
    truth = np.array(person["keypoints"], float).reshape(-1, 3)
    seen = truth[:, 2] > 0
    if seen.any():
        offsets = xy - truth[:, :2]
    else:
        x, y, width, height = person["bbox"]
        low, high = np.array([x - width, y - height]), np.array([x + 2 * width, y + 2 * height])
        offsets, seen = xy - xy.clip(low, high), np.ones(len(xy), bool)
    squared = (offsets**2).sum(axis=1)
    return float(np.exp(-squared / (2 * person["area"] * (2 * np.array(sigmas)) ** 2))[seen].mean())


def extent(result: Entry) -> float:
    xy = np.array(result["keypoints"]).reshape(-1, 3)[:, :2]
    return float(np.ptp(xy, axis=0).prod())


def verdicts(
    people: list[Entry], results: list[Entry], least: float, area: tuple[float, float], sigmas: tuple[float, ...]
) -> tuple[list[tuple[float, bool]], int]:
    """Of one photo: (score, right or false) of every detection that counts, and how many people there are to find."""
    low, high = area
    wanted, others = [], []
    for person in people:
        labelled = any(np.array(person["keypoints"]).reshape(-1, 3)[:, 2] > 0)
        counts = labelled and not person["iscrowd"] and low <= person["area"] <= high
        (wanted if counts else others).append(person)
    count, decided = len(wanted), []
    for result in sorted(results, key=lambda entry: -entry["score"])[:20]:
        for pool, kept in ((wanted, True), (others, False)):
            fits = [similarity(result, person, sigmas) for person in pool]
            if fits and max(fits) >= least:
                found = fits.index(max(fits))
                if not pool[found]["iscrowd"]:
                    del pool[found]
                if kept:
                    decided.append((result["score"], True))
                break
        else:
            if low <= extent(result) <= high:
                decided.append((result["score"], False))
    return decided, count


def areas_under(
    images: list[int], people: list[Entry], results: list[Entry], sigmas: tuple[float, ...], area: tuple[float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision (10, 101) and recall (10,)."""
    levels = np.linspace(0, 1, 101)
    precisions, recalls = np.zeros((10, 101)), np.zeros(10)
    for row, least in enumerate(np.linspace(0.5, 0.95, 10)):
        decided: list[tuple[float, bool]] = []
        total = 0
        for image in images:
            here = [[entry for entry in entries if entry["image_id"] == image] for entries in (people, results)]
            some, count = verdicts(*here, least, area, sigmas)
            decided += some
            total += count
        decided.sort(key=lambda pair: -pair[0])
        right = np.cumsum([correct for _, correct in decided])
        for column, level in enumerate(levels):
            reached = [hits / (rank + 1) for rank, hits in enumerate(right) if hits / total >= level]
            precisions[row, column] = max(reached, default=0.0)
        recalls[row] = right[-1] / total if decided else 0.0
    return precisions, recalls


def second_opinion(content: Entry, results: list[Entry], sigmas: tuple[float, ...]) -> dict[str, float]:
    images = [image["id"] for image in content["images"]]
    measures = {}
    for size, area in SIZES.items():
        precision, recall = areas_under(images, content["annotations"], results, sigmas, area)
        measures |= {f"AP{size}": precision.mean(), f"AR{size}": recall.mean()}
        if not size:
            measures |= {"AP50": precision[0].mean(), "AP75": precision[5].mean()}
            measures |= {"AR50": recall[0], "AR75": recall[5]}
    return measures


def made_up(seed: int, photos: int = 5) -> tuple[Entry, list[Entry]]:
    """People of all sizes, a crowd and unlabelled people; predictions of every quality, some twice, some of nobody."""
    rng = np.random.default_rng(seed)
    annotations: list[Entry] = []
    results = []
    for image in range(1, photos + 1):
        poses = [standing(*rng.uniform(20, 400, 2), height) for height in (50.0, 100.0, 180.0, 400.0)]
        annotations += [hide(human(image, pose), *rng.integers(0, 17, 4).tolist()) for pose in poses]
        annotations.append(unlabelled(image, (500.0, 100.0, 60.0, 150.0)))
        annotations.append(unlabelled(image, (900.0, 100.0, 300.0, 200.0), iscrowd=1))
        nobody = [standing(x, y, 130) for x, y in ((520, 110), (530, 130), (950, 150), (1000, 140), (1800, 50))]
        for pose in (*poses, *poses, *nobody):
            noise = float(pose[:, 1].max() - pose[:, 1].min()) * rng.choice([0.0, 0.01, 0.02, 0.03, 0.05])
            moved = pose + rng.normal(0, noise + 1e-3, pose.shape)
            triples = np.concatenate([moved, np.ones((len(pose), 1))], axis=1)
            keypoints = triples.reshape(-1).tolist()
            results.append({"image_id": image, "category_id": 1, "keypoints": keypoints, "score": rng.uniform()})
    images = [
        {"id": image, "file_name": f"{image}.jpg", "width": 1400, "height": 900} for image in range(1, photos + 1)
    ]
    return {"images": images, "annotations": annotations}, results


def written(folder: Path, content: Entry, skeleton: Any = COCO_17) -> KeypointDataset:
    path = folder / "people.json"
    path.write_text(json.dumps(content))
    return KeypointDataset(path, skeleton=skeleton)


@pytest.mark.parametrize("seed", [0, 1])
def test_all_numbers_of_coco_equal_a_second_computation(tmp_path: Path, seed: int) -> None:
    content, results = made_up(seed)
    measures = coco_average_precision(written(tmp_path, content), results)
    expected = second_opinion(content, results, COCO_17.sigmas)
    assert list(measures)[:5] == ["AP", "AP50", "AP75", "AP_M", "AP_L"]
    assert list(measures)[5:10] == ["AR", "AR50", "AR75", "AR_M", "AR_L"]
    assert measures == pytest.approx(expected, abs=1e-9)
    assert len({round(value, 6) for value in measures.values()}) >= 10, "the case tells the measures apart"


def test_average_precision_is_the_area_under_the_curves(tmp_path: Path) -> None:
    content, results = made_up(2, photos=2)
    data = written(tmp_path, content)
    curves = precision_curves(data, results)
    assert curves.shape == (10, 101)
    assert curves.mean() == pytest.approx(coco_average_precision(data, results)["AP"])
    assert (np.diff(curves, axis=1) <= 0).all()
    assert np.isnan(precision_curves(written(tmp_path, {"images": [], "annotations": []}), [])).all()


def crowdpose(crowding: list[float], people: list[tuple[int, NDArray[np.float32]]], **fields: Any) -> Entry:
    """As published: 14 keypoints, a crowdIndex, no areas."""
    annotations = []
    for image, pose in people:
        entry = human(image, pose[:14])
        del entry["area"], entry["source"]
        annotations.append({**entry, **fields})
    images = [
        {"id": number, "file_name": f"{number}.jpg", "width": 640, "height": 480, "crowdIndex": index}
        for number, index in enumerate(crowding, 1)
    ]
    return {"images": images, "annotations": annotations, "categories": []}


def detection(image: int, pose: NDArray[np.float32], score: float) -> Entry:
    triples = np.concatenate([pose[:14], np.ones((14, 1))], axis=1)
    return {"image_id": image, "category_id": 1, "keypoints": triples.reshape(-1).tolist(), "score": score}


def interpolated(steps: list[tuple[float, float]]) -> float:
    return float(np.mean([max((p for recall, p in steps if recall >= level / 100), default=0) for level in range(101)]))


PLANTED = crowdpose(
    [0.0, 0.1, 0.11, 0.8, 0.81, 1.0],
    [(1, LEFT), (2, LEFT), (3, LEFT), (4, RIGHT), (5, LEFT), (5, RIGHT), (6, LEFT), (6, RIGHT)],
)
"""Easy: two people, both found. Medium: two, with a false one between. Hard: three of four are found."""
FOUND = [
    *(detection(1, LEFT, 0.95), detection(2, LEFT, 0.1)),
    *(detection(3, LEFT, 0.9), detection(3, FAR, 0.8), detection(4, RIGHT, 0.7)),
    *(detection(5, LEFT, 0.6), detection(5, RIGHT, 0.5), detection(6, RIGHT, 0.4)),
]


def test_planted_precision_and_recall_of_each_class_of_crowdpose(tmp_path: Path) -> None:
    measures = coco_average_precision(written(tmp_path, PLANTED, CROWDPOSE_14), FOUND)
    assert list(measures) == ["AP", "AP50", "AP75", "AP_easy", "AP_medium", "AP_hard", "AR", "AR50", "AR75"]
    assert measures["AP_easy"] == pytest.approx(1)
    assert measures["AP_medium"] == pytest.approx(interpolated([(1 / 2, 1), (1, 2 / 3)]))
    assert measures["AP_hard"] == pytest.approx(76 / 101)
    together = [(1 / 8, 1), (2 / 8, 1), (3 / 8, 3 / 4), (4 / 8, 4 / 5), (5 / 8, 5 / 6), (6 / 8, 6 / 7), (7 / 8, 7 / 8)]
    for name in ("AP", "AP50", "AP75"):
        assert measures[name] == pytest.approx(interpolated(together))
    assert (measures["AR"], measures["AR50"], measures["AR75"]) == pytest.approx((7 / 8,) * 3)


def test_crowdpose_classes_as_its_evaluation_code_cuts_them(tmp_path: Path) -> None:
    data = written(tmp_path, PLANTED, CROWDPOSE_14)
    measures = coco_average_precision(data, FOUND, crowd_limits=(0.2, 0.8))
    assert measures["AP_easy"] == pytest.approx(interpolated([(2 / 3, 1), (1, 3 / 4)]))
    assert measures["AP_medium"] == pytest.approx(1)


@pytest.mark.parametrize("fields", [{}, {"area": 1e6}])
def test_crowdpose_areas_are_a_share_of_the_box_and_sigmas_its_own(tmp_path: Path, fields: dict[str, float]) -> None:
    content = crowdpose([0.5], [(1, LEFT)], **fields)
    width, height = content["annotations"][0]["bbox"][2:]
    shift = 4.0
    falloff = 2 * 0.53 * width * height * (2 * np.array(CROWDPOSE_14.sigmas)) ** 2
    oks = float(np.exp(-(shift**2) / falloff).mean())
    reached = sum(threshold <= oks for threshold in np.linspace(0.5, 0.95, 10))
    assert 0 < reached < 10
    moved = [detection(1, LEFT + np.float32([shift, 0]), 0.9)]
    measures = coco_average_precision(written(tmp_path, content, CROWDPOSE_14), moved)
    assert measures["AP"] == measures["AP_medium"] == pytest.approx(reached / 10)
    assert np.isnan(measures["AP_easy"])
    assert np.isnan(measures["AP_hard"])


def test_crowdpose_equals_a_second_computation(tmp_path: Path) -> None:
    content, results = made_up(3)
    for index, image in enumerate(content["images"]):
        image["crowdIndex"] = [0.05, 0.1, 0.5, 0.7, 0.95][index]
    for entry in (*content["annotations"], *results):
        entry["keypoints"] = entry["keypoints"][: 3 * 14]
    measures = coco_average_precision(written(tmp_path, content, CROWDPOSE_14), results)
    for entry in content["annotations"]:
        entry["area"] = 0.53 * entry["bbox"][2] * entry["bbox"][3]
    expected = second_opinion(content, results, CROWDPOSE_14.sigmas)
    for name in ("AP", "AP50", "AP75", "AR", "AR50", "AR75"):
        assert measures[name] == pytest.approx(expected[name], abs=1e-9)
    for name, images in (("easy", [1, 2]), ("medium", [3, 4]), ("hard", [5])):
        people = [entry for entry in content["annotations"] if entry["image_id"] in images]
        precision, _ = areas_under(images, people, results, CROWDPOSE_14.sigmas, SIZES[""])
        assert measures[f"AP_{name}"] == pytest.approx(precision.mean(), abs=1e-9)


def test_crowdpose_is_known_by_its_keypoints_and_crowding(tmp_path: Path) -> None:
    assert is_crowdpose(written(tmp_path, PLANTED, CROWDPOSE_14))
    plain = {**PLANTED, "images": [{**image} for image in PLANTED["images"]]}
    for image in plain["images"]:
        del image["crowdIndex"]
    assert not is_crowdpose(written(tmp_path, plain, CROWDPOSE_14))
    people, _ = made_up(0, photos=1)
    people["images"][0]["crowdIndex"] = 0.5
    assert not is_crowdpose(written(tmp_path, people))
