"""COCO's average precision and recall of keypoints, by the evaluator of faster-coco-eval."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dekrpose.data.coco_fields import Id
from dekrpose.data.coco_file import AREA_OF_BOX
from dekrpose.data.dataset import KeypointDataset, Photo
from dekrpose.skeletons import CROWDPOSE_14

DETECTIONS_PER_IMAGE = 20
CROWD_LIMITS = (0.1, 0.8)
"""The highest ``crowdIndex`` of CrowdPose's easy and of its medium photos, as its paper has them.

Its evaluation code, and with it most published numbers of the three classes, takes 0.2 and 0.8.
"""
_AREAS = {"": (0.0, 1e10), "_M": (32.0**2, 96.0**2), "_L": (96.0**2, 1e10), "_S": (0.0, 32.0**2)}


def coco_average_precision(
    dataset: KeypointDataset,
    results: Sequence[Mapping[str, Any]],
    *,
    photos: Sequence[Photo] | None = None,
    crowd_limits: tuple[float, float] = CROWD_LIMITS,
) -> dict[str, float]:
    """AP and AR over OKS 0.50 to 0.95, 20 detections per photo; of CrowdPose by how crowded the photos are.

    Crowds and people without labelled keypoints count neither as found nor as missed. As in COCO's own evaluation, a
    detection that fits nobody else is matched to such a person, and left out, when it lies in or around the box
    (out to one box size on each side, with OKS falling off beyond): one detection per unlabelled person, any number per
    crowd. Detections that match nobody are left out of the measures of the sizes that are not theirs.

    Args:
        dataset: the people; their skeleton's sigmas are used. CrowdPose's files are known by their 14 keypoints and
            ``crowdIndex``, and evaluated with CrowdPose's sigmas and with areas of 0.53 of the boxes.
        results: COCO keypoint results, see ``results_json``.
        photos: only these; None takes all.
        crowd_limits: the highest ``crowdIndex`` of easy and of medium photos.

    Returns:
        In [0, 1]; NaN where there is nobody to find. COCO's ten: ``AP``, ``AP50``, ``AP75``, ``AP_M``, ``AP_L``,
        ``AR``, ``AR50``, ``AR75``, ``AR_M``, ``AR_L`` (areas from 32^2, from 96^2), then ``AP_S`` and ``AR_S`` of the
        smaller, whom COCO itself does not label. CrowdPose's nine: ``AP``, ``AP50``, ``AP75``, ``AP_easy``,
        ``AP_medium``, ``AP_hard``, ``AR``, ``AR50``, ``AR75``.

    Raises:
        ImportError: faster-coco-eval is missing.
        ValueError: a result belongs to none of the photos.
    """
    photos = dataset.photos if photos is None else photos
    known = {photo.id for photo in photos}
    strangers = {result["image_id"] for result in results} - known
    if strangers:
        raise ValueError(f"results for images that are not evaluated: {sorted(strangers, key=_in_order)[:5]}")
    precision, recall = _evaluate(dataset, results, photos)
    if not is_crowdpose(dataset):
        small = {"AP_S": _mean(precision[..., 3]), "AR_S": _mean(recall[..., 3])}
        return {**_of_sizes("AP", precision), **_of_sizes("AR", recall), **small}
    by_crowding = _by_crowding(dataset, results, photos, crowd_limits)
    return {**_overall("AP", precision), **by_crowding, **_overall("AR", recall)}


def precision_curves(
    dataset: KeypointDataset, results: Sequence[Mapping[str, Any]], *, photos: Sequence[Photo] | None = None
) -> NDArray[np.float64]:
    """The curves under which AP is the area: the best precision at or above each recall; NaN where nobody is to find.

    (10, 101) for OKS 0.50, 0.55, ..., 0.95 and recall 0, 0.01, ..., 1.
    """
    precision, _ = _evaluate(dataset, results, dataset.photos if photos is None else photos)
    return np.where(precision[..., 0] > -1, precision[..., 0], np.nan)


def is_crowdpose(dataset: KeypointDataset) -> bool:
    """Whether a file is CrowdPose's: 14 keypoints, and photos that say how crowded they are."""
    known = any(not np.isnan(photo.crowd_index) for photo in dataset.photos)
    return known and len(dataset.skeleton) == len(CROWDPOSE_14)


def load_evaluator() -> Any:
    """The module faster_coco_eval; ImportError with the command that installs it."""
    try:
        import faster_coco_eval
    except ImportError:
        raise ImportError("faster-coco-eval is missing; run: pip install 'dekrpose[eval]'") from None
    return faster_coco_eval


@np.errstate(all="ignore")  # its far pairs underflow, whatever the program has told NumPy
def _evaluate(
    dataset: KeypointDataset, results: Iterable[Mapping[str, Any]], photos: Sequence[Photo]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision (10 thresholds, 101 recalls, sizes) and recall (10 thresholds, sizes); -1 where nobody is."""
    module = load_evaluator()
    # the evaluator knows whole numbers only; they keep the order of the ids, which decides between equal scores
    numbers = {own: number for number, own in enumerate(sorted((photo.id for photo in photos), key=_in_order), 1)}
    truth = module.COCO(_ground_truth(photos, numbers, is_crowdpose(dataset)))
    if not truth.dataset["annotations"]:
        return np.full((10, 101, len(_AREAS)), -1.0), np.full((10, len(_AREAS)), -1.0)
    detections = truth.loadRes([{**result, "image_id": numbers[result["image_id"]]} for result in results])
    sigmas = CROWDPOSE_14.sigmas if is_crowdpose(dataset) else dataset.skeleton.sigmas
    evaluator = module.COCOeval_faster(truth, detections, "keypoints", kpt_oks_sigmas=list(sigmas))
    evaluator.params.areaRng = [list(bounds) for bounds in _AREAS.values()]
    evaluator.params.areaRngLbl = list(_AREAS)
    evaluator.params.maxDets = [DETECTIONS_PER_IMAGE]
    evaluator.evaluate()
    evaluator.accumulate()
    return np.asarray(evaluator.eval["precision"])[:, :, 0, :, 0], np.asarray(evaluator.eval["recall"])[:, 0, :, 0]


def _in_order(photo_id: Id) -> tuple[bool, Id]:
    """Sorts numbers before texts."""
    return isinstance(photo_id, str), photo_id


def _ground_truth(photos: Sequence[Photo], numbers: Mapping[Id, int], crowdpose: bool) -> dict[str, Any]:
    """The people in COCO's format, with the fields that the evaluator decides by filled in."""
    people = [(photo.id, person) for photo in photos for person in photo.people]
    annotations = [
        {
            "id": number,
            "image_id": numbers[photo_id],
            "category_id": 1,
            "iscrowd": int(person.crowd),
            "num_keypoints": int((person.keypoints[:, 2] > 0).sum()),
            "keypoints": person.keypoints.reshape(-1).tolist(),
            "bbox": person.box.tolist(),
            "area": AREA_OF_BOX * float(person.box[2] * person.box[3]) if crowdpose else person.area,
        }
        for number, (photo_id, person) in enumerate(people, 1)
    ]
    images = [{"id": numbers[photo.id], "width": photo.width, "height": photo.height} for photo in photos]
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}


def _by_crowding(
    dataset: KeypointDataset,
    results: Sequence[Mapping[str, Any]],
    photos: Sequence[Photo],
    crowd_limits: tuple[float, float],
) -> dict[str, float]:
    """AP of easy, medium and hard photos.

    The evaluator's own ``keypoints_crowd`` is not used: it splits at 0.2, reads the file again, rounds, and lets a
    class without people count as -1.
    """
    easy, medium = crowd_limits
    measures = {}
    for name, low, high in (("easy", -np.inf, easy), ("medium", easy, medium), ("hard", medium, np.inf)):
        subset = [photo for photo in photos if low < photo.crowd_index <= high]
        ids = {photo.id for photo in subset}
        precision, _ = _evaluate(dataset, [result for result in results if result["image_id"] in ids], subset)
        measures[f"AP_{name}"] = _mean(precision[..., 0])
    return measures


def _overall(name: str, values: NDArray[np.float64]) -> dict[str, float]:
    return {name: _mean(values[..., 0]), f"{name}50": _mean(values[0, ..., 0]), f"{name}75": _mean(values[5, ..., 0])}


def _of_sizes(name: str, values: NDArray[np.float64]) -> dict[str, float]:
    return {**_overall(name, values), f"{name}_M": _mean(values[..., 1]), f"{name}_L": _mean(values[..., 2])}


def _mean(values: NDArray[np.float64]) -> float:
    """The mean of what is defined; the evaluator marks the rest by -1."""
    values = values[values > -1]
    return float(values.mean()) if values.size else float("nan")
