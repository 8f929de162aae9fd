"""Label Studio's JSON and JSON-MIN: tasks with results in percent of the photo; ``parentID`` says who is who."""

from __future__ import annotations

import urllib.parse
from collections import Counter
from pathlib import PurePosixPath
from typing import Any

from dekrpose.data.importers.base import Box, Files, Labelled, Labels, Point, Wishes, by_names, group
from dekrpose.errors import UNREADABLE, DekrPoseError, counted
from dekrpose.images import SUFFIXES

TITLE = "a Label Studio JSON export"
_KINDS = ("keypointlabels", "rectanglelabels", "rectangle")


def recognises(files: Files) -> bool:
    """By a JSON list of tasks with ``annotations`` and ``data``, or with the results themselves, as JSON-MIN has."""
    return any(_tasks(files, name) for name in files.ending(".json"))


def read(files: Files, wishes: Wishes) -> Labels:
    """See ``Importer``."""
    found, problems, kinds, undone = [], [], Counter[str](), 0
    for name in files.ending(".json"):
        for task in _tasks(files, name):
            done = [each for each in task["annotations"] if isinstance(each, dict) and not each.get("was_cancelled")]
            if not done:
                undone += 1
                continue
            try:
                wanted = _photo_name(task)
                photo = files.find(wanted, name)
                if photo is None:
                    raise DekrPoseError(f"there is no photo {wanted}")
                results = [each for each in done[-1].get("result", []) if "value" in each]  # relations have none
                kinds.update(str(each.get("type")) for each in results)
                found.append((Labelled(photo, [], relative=True), _people(results)))
            except UNREADABLE as error:
                problems.append(f"{name}: task {task.get('id')}: {error}")
    remarks = (
        [f"left out: {counted(undone, 'task')} that nobody annotated, or with a cancelled annotation alone"]
        if undone
        else []
    )
    return by_names(found, wishes, problems=problems, remarks=remarks, shapes=kinds)


def _tasks(files: Files, name: str) -> list[dict[str, Any]]:
    content = files.json(name)
    tasks = [task for task in content if isinstance(task, dict)] if isinstance(content, list) else []
    return [whole for task in tasks if (whole := _whole(task)) is not None]


def _whole(task: dict[str, Any]) -> dict[str, Any] | None:
    """A task as JSON has it, also of JSON-MIN, which keeps the values of results alone; None if it is neither."""
    if isinstance(task.get("annotations"), list):
        return task
    values = [each for listed in task.values() if isinstance(listed, list) for each in listed if isinstance(each, dict)]
    results = [{"type": kind, "value": value} for value in values for kind in _KINDS[:2] if kind in value]
    if not (results or "annotation_id" in task):
        return None
    return {"id": task.get("id"), "data": task, "annotations": [{"result": results}]}


def _photo_name(task: dict[str, Any]) -> str:
    """The file that the task shows: of an upload, of local storage, of a server."""
    data = task.get("data")
    values = [*data.values(), task.get("file_upload")] if isinstance(data, dict) else [task.get("file_upload")]
    names = [_path(value) for value in values if isinstance(value, str)]
    return next((name for name in names if PurePosixPath(name).suffix.lower() in SUFFIXES), names[0] if names else "")


def _path(address: str) -> str:
    """Of an address; local storage has it in its query, as ?d=."""
    parts = urllib.parse.urlsplit(address)
    query = urllib.parse.parse_qs(parts.query)
    return (query["d"][0] if "d" in query else urllib.parse.unquote(parts.path)).lstrip("/")


def _people(results: list[dict[str, Any]]) -> list[tuple[list[Point], Box | None]]:
    """Of one annotation; shares of the photo."""
    points: list[tuple[Any, Point]] = []
    boxes: list[tuple[Any, Box]] = []
    for result in results:
        value = result["value"]
        if result.get("type") == "keypointlabels":
            place = (float(value["x"]) / 100, float(value["y"]) / 100)
            if not value["keypointlabels"]:
                raise DekrPoseError(f"keypoint {result.get('id')} has no label")
            points.append((result.get("parentID"), (str(value["keypointlabels"][0]), *place, 2)))
        elif result.get("type") in _KINDS[1:]:
            x, y, width, height = (float(value[key]) / 100 for key in ("x", "y", "width", "height"))
            boxes.append((result.get("id"), (x, y, width, height)))
    parents = {key for key, _ in boxes}
    return group([(key if key in parents else None, point) for key, point in points], boxes)
