"""Tables: CSV with a row per person, pandas with a row per keypoint."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dekrpose.formats.own_json import shortest
from dekrpose.skeletons import Skeleton

Floats = NDArray[np.float32]
_COLUMNS = ("person", "keypoint", "x", "y", "score", "person_score")


def csv_rows(poses: Any, header: bool) -> str:
    """See ``Poses.to_csv``."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        columns = [f"{name}_{what}" for name in poses.skeleton.keypoints for what in ("x", "y", "score")]
        place = ("source", "index", "timestamp")
        writer.writerow([*place, "person", "track_id", "score", "x0", "y0", "x1", "y1", *columns])
    for number, person in enumerate(poses):
        triples = np.concatenate([person.keypoints, person.keypoint_scores[:, None]], axis=1).ravel()
        numbers = [shortest(value) for value in (person.score, *person.box, *triples)]  # None is an empty cell
        writer.writerow([poses.source, poses.index, poses.timestamp, number, person.track_id, *numbers])
    return text.getvalue()


def pandas_table(
    keypoints: Floats, keypoint_scores: Floats, scores: Floats, track_ids: NDArray[np.int64] | None, skeleton: Skeleton
) -> Any:
    """A ``pandas.DataFrame`` with one row per keypoint: person, keypoint, x, y, score, person_score (and track_id).

    ImportError if pandas is missing.
    """
    try:
        import pandas
    except ImportError:
        raise ImportError("Pandas is missing; run: pip install 'dekrpose[pandas]'") from None
    count, channels = keypoint_scores.shape
    columns: dict[str, Any] = {
        "person": np.repeat(np.arange(count), channels),
        "keypoint": list(skeleton.keypoints) * count,
        "x": keypoints[..., 0].ravel(),
        "y": keypoints[..., 1].ravel(),
        "score": keypoint_scores.ravel(),
        "person_score": np.repeat(scores, channels),
    }
    if track_ids is not None:
        columns["track_id"] = np.repeat(track_ids, channels)
    table = pandas.DataFrame(columns)
    return table.astype({"keypoint": object}) if count == 0 else table


def fields_of_table(table: Any, skeleton: Skeleton) -> dict[str, Any]:
    """The constructor's arrays from a table as ``pandas_table`` makes it; see ``Poses.from_pandas``.

    Raises:
        ValueError: a column is missing, a keypoint is unknown or comes twice, or a person has two scores or identities.
    """
    missing = [name for name in _COLUMNS if name not in table]
    if missing:
        raise ValueError(f"the table lacks the columns {missing}; expected those of to_pandas: {list(_COLUMNS)}")
    unknown = sorted(set(table["keypoint"]) - set(skeleton.keypoints), key=str)
    if unknown:
        raise ValueError(f"{skeleton.name} has no keypoints {unknown}; it has {', '.join(skeleton.keypoints)}")
    if table.duplicated(["person", "keypoint"]).any():
        raise ValueError("a keypoint of a person comes twice; tables of several images become poses one by one")
    people = list(table["person"].drop_duplicates())
    for name in {"person_score", "track_id"} & set(table.columns):
        if (table.groupby("person")[name].nunique(dropna=False) > 1).any():
            raise ValueError(f"{name} differs between the rows of one person")
    rows = table["person"].map({person: row for row, person in enumerate(people)}).to_numpy(int)
    channels = table["keypoint"].map({name: channel for channel, name in enumerate(skeleton.keypoints)}).to_numpy(int)
    keypoints = np.full((len(people), len(skeleton), 2), np.nan, np.float32)
    keypoint_scores = np.zeros((len(people), len(skeleton)), np.float32)
    keypoints[rows, channels] = table[["x", "y"]].to_numpy(np.float32)
    keypoint_scores[rows, channels] = table["score"].to_numpy(np.float32)
    firsts = table.drop_duplicates("person")
    return {
        "keypoints": keypoints,
        "keypoint_scores": keypoint_scores,
        "scores": firsts["person_score"].to_numpy(np.float32),
        "track_ids": firsts["track_id"].to_numpy(np.int64) if "track_id" in table else None,
    }
