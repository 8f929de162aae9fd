"""Label Studio's own JSON: tasks with results in percent of the photo; ``parentID`` says who is who."""

from __future__ import annotations

import json
import re
import urllib.parse
from typing import Any

from dekrpose.data.importers.base import Box, Files, Human, Labelled, Labels, Point, Wishes, arranged, group, in_order
from dekrpose.errors import DekrPoseError

TITLE = "a Label Studio JSON export"


def recognises(files: Files) -> bool:
    """By a JSON list of tasks with ``annotations`` and ``data``."""
    return any(_tasks(files, name) for name in files.ending(".json"))


def read(files: Files, wishes: Wishes) -> Labels:
    """See ``Importer``."""
    found, problems = [], []
    for name in files.ending(".json"):
        for task in _tasks(files, name):
            wanted = _photo_name(task)
            try:
                photo = files.find(wanted, name) or files.find(re.sub(r"^[0-9a-f]{8}-", "", wanted), name)
                if photo is None:
                    raise DekrPoseError(f"there is no photo {wanted}")
                found.append((photo, _people(task)))
            except (DekrPoseError, KeyError, TypeError, ValueError, AttributeError) as error:
                problems.append(f"{name}: task {task.get('id')}: {error}")
    names = in_order([point[0] for _, people in found for points, _ in people for point in points], wishes)
    photos = [
        Labelled(photo, [Human(arranged(points, names), box) for points, box in people], relative=True)
        for photo, people in found
    ]
    return Labels(photos, len(names), names, problems=problems)


def _tasks(files: Files, name: str) -> list[dict[str, Any]]:
    try:
        content = json.loads(files.text(name))
    except (DekrPoseError, ValueError, RecursionError):
        return []
    tasks = content if isinstance(content, list) else []
    return [task for task in tasks if isinstance(task, dict) and isinstance(task.get("annotations"), list)]


def _photo_name(task: dict[str, Any]) -> str:
    """The last part of the address that the task shows: of an upload, of local storage, of a server."""
    data = task.get("data")
    values = list(data.values()) if isinstance(data, dict) else []
    address = str(next((value for value in values if isinstance(value, str)), task.get("file_upload") or ""))
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(address).query)
    path = query["d"][0] if "d" in query else urllib.parse.unquote(urllib.parse.urlsplit(address).path)
    return path.rsplit("/", 1)[-1]


def _people(task: dict[str, Any]) -> list[tuple[list[Point], Box | None]]:
    """Of the last annotation that was not cancelled; shares of the photo."""
    done = [each for each in task["annotations"] if not each.get("was_cancelled")]
    points: list[tuple[Any, Point]] = []
    boxes: list[tuple[Any, Box]] = []
    results = done[-1].get("result", []) if done else []
    for result in results:
        value = result["value"]
        if result.get("type") == "keypointlabels":
            place = (float(value["x"]) / 100, float(value["y"]) / 100)
            points.append((result.get("parentID"), (str(value["keypointlabels"][0]), *place, 2)))
        elif result.get("type") in ("rectanglelabels", "rectangle"):
            x, y, width, height = (float(value[key]) / 100 for key in ("x", "y", "width", "height"))
            boxes.append((result.get("id"), (x, y, width, height)))
    parents = {key for key, _ in boxes}
    return group([(key if key in parents else None, point) for key, point in points], boxes)
