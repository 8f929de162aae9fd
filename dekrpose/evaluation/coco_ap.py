"""COCO's average precision and recall of keypoints, by the evaluator of faster-coco-eval."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dekrpose.evaluation.dataset import KeypointDataset, Photo

DETECTIONS_PER_IMAGE = 20
_AREAS = {"": (0.0, 1e10), "_S": (0.0, 32.0**2), "_M": (32.0**2, 96.0**2), "_L": (96.0**2, 1e10)}
_CROWDING = {"easy": (-1.0, 0.1), "medium": (0.1, 0.8), "hard": (0.8, 1.0)}
"""CrowdPose's classes of photos by their ``crowdIndex`` from 0 to 1; upper bounds are inclusive."""


def coco_average_precision(
    dataset: KeypointDataset, results: Sequence[Mapping[str, Any]], *, photos: Sequence[Photo] | None = None
) -> dict[str, float]:
    """AP and AR over OKS 0.50 to 0.95, 20 detections per photo.

    Crowds and people without labelled keypoints count neither as found nor as missed. As in COCO's own evaluation, a
    detection that fits nobody else is matched to such a person, and left out, when it lies in or around the box
    (out to one box size on each side, with OKS falling off beyond): one detection per unlabelled person, any number per
    crowd. Detections that match nobody are left out of the measures of the sizes that are not theirs.

    Args:
        dataset: the people; their skeleton's sigmas are used.
        results: COCO keypoint results, see ``results_json``.
        photos: only these; None takes all.

    Returns:
        ``AP``, ``AP50``, ``AP75``, ``AR``, ``AR50``, ``AR75``; ``AP_S``, ``AP_M``, ``AP_L``, ``AR_S``, ... by area
        (below 32^2, below 96^2, above; COCO itself labels nobody below); where photos have a ``crowdIndex`` (CrowdPose)
        also ``AP_easy``, ``AP_medium``, ``AP_hard``. In [0, 1]; NaN where there is nobody to find.

    Raises:
        ImportError: faster-coco-eval is missing.
        ValueError: a result belongs to none of the photos.
    """
    photos = dataset.photos if photos is None else photos
    known = {photo.id for photo in photos}
    strangers = {result["image_id"] for result in results} - known
    if strangers:
        raise ValueError(f"results for images that are not evaluated: {sorted(strangers)[:5]}")
    measures = _measures(*_evaluate(dataset, results, photos))
    crowding = {record["id"]: record["crowdIndex"] for record in dataset.content["images"] if "crowdIndex" in record}
    for name, (low, high) in _CROWDING.items() if crowding else ():
        subset = [photo for photo in photos if low < crowding.get(photo.id, -1.0) <= high]
        ids = {photo.id for photo in subset}
        part = _evaluate(dataset, [result for result in results if result["image_id"] in ids], subset)
        measures[f"AP_{name}"] = _measures(*part)["AP"]
    return measures


def load_evaluator() -> Any:
    """The module faster_coco_eval; ImportError with the command that installs it."""
    try:
        import faster_coco_eval
    except ImportError:
        raise ImportError("faster-coco-eval is missing; run: pip install 'dekrpose[eval]'") from None
    return faster_coco_eval


def _evaluate(
    dataset: KeypointDataset, results: Iterable[Mapping[str, Any]], photos: Sequence[Photo]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision (10 thresholds, 101 recalls, sizes) and recall (10 thresholds, sizes); -1 where nobody is."""
    module = load_evaluator()
    truth = module.COCO(_ground_truth(dataset, photos))
    if not truth.dataset["annotations"]:
        return np.full((10, 101, len(_AREAS)), -1.0), np.full((10, len(_AREAS)), -1.0)
    detections = truth.loadRes([dict(result) for result in results])
    evaluator = module.COCOeval_faster(truth, detections, "keypoints", kpt_oks_sigmas=list(dataset.skeleton.sigmas))
    evaluator.params.areaRng = [list(bounds) for bounds in _AREAS.values()]
    evaluator.params.areaRngLbl = list(_AREAS)
    evaluator.params.maxDets = [DETECTIONS_PER_IMAGE]
    evaluator.evaluate()
    evaluator.accumulate()
    return np.asarray(evaluator.eval["precision"])[:, :, 0, :, 0], np.asarray(evaluator.eval["recall"])[:, 0, :, 0]


def _ground_truth(dataset: KeypointDataset, photos: Sequence[Photo]) -> dict[str, Any]:
    """A copy in COCO's format, with the fields that the evaluator decides by filled in."""
    wanted = {photo.id for photo in photos}
    people = {photo.id: iter(photo.people) for photo in dataset.photos}
    annotations = []
    for number, entry in enumerate(dataset.content["annotations"], 1):
        if entry["image_id"] not in wanted:
            continue
        person = next(people[entry["image_id"]])
        annotations.append(
            {
                "id": number,
                "image_id": entry["image_id"],
                "category_id": 1,
                "iscrowd": int(entry.get("iscrowd", 0)),
                "num_keypoints": int((person.keypoints[:, 2] > 0).sum()),
                "keypoints": entry.get("keypoints") or [0] * person.keypoints.size,
                "bbox": entry.get("bbox") or [0, 0, 0, 0],
                "area": person.area,
            }
        )
    images = [{"id": photo.id, "width": photo.width, "height": photo.height} for photo in photos]
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}


def _measures(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> dict[str, float]:
    measures = {}
    for name, values in (("AP", precision), ("AR", recall)):
        measures[name] = _mean(values[..., 0])
        measures[f"{name}50"] = _mean(values[0, ..., 0])
        measures[f"{name}75"] = _mean(values[5, ..., 0])
        for index, size in enumerate(_AREAS):
            measures[f"{name}{size}"] = _mean(values[..., index])
    return measures


def _mean(values: NDArray[np.float64]) -> float:
    """The mean of what is defined; the evaluator marks the rest by -1."""
    values = values[values > -1]
    return float(values.mean()) if values.size else float("nan")
