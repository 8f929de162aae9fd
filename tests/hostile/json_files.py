"""Hostile JSON: poses, data in COCO's format, configurations; sound ones with something else in their places."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from dekrpose.errors import DekrPoseError
from tests.hostile.kind import TESTS, Kind, damaged, planted


@cache
def _sound() -> list[tuple[str, Any]]:
    from tests.small_model import SMALL
    from tests.unit.data.test_data_fuzz import sound

    poses = json.loads((TESTS / "cases" / "json" / "poses_2.json").read_text(encoding="utf-8"))
    return [("poses", poses), ("data", sound()), ("config", SMALL.to_dict())]


def make_json(dice: random.Random) -> bytes:
    """The kind in the first line, the file after it."""
    kind, content = dice.choice(_sound())
    for _ in range(dice.choice((1, 1, 2, 4))):
        content = planted(content, dice)
    data = json.dumps(content).encode()
    if dice.random() < 0.3:
        data = damaged(data, dice)
    if dice.random() < 0.02:
        data = dice.choice((b"[", b'{"a":')) * dice.choice((10**3, 10**5))
    return kind.encode() + b"\n" + data


def use_json() -> Callable[[bytes], Any]:
    from dekrpose import Poses
    from dekrpose.data.dataset import KeypointDataset
    from dekrpose.hub.models import resolve
    from dekrpose.skeletons import COCO_17
    from dekrpose.training.check import check_dataset
    from dekrpose.training.check_report import report
    from tests.small_model import write_small_model

    folder = tempfile.TemporaryDirectory()
    write_small_model(Path(folder.name) / "model" / "model.safetensors")

    def use(data: bytes) -> None:
        place = Path(folder.name)
        kind, _, content = data.partition(b"\n")
        if kind == b"poses":
            Poses.from_json(content)
        elif kind == b"config":
            (place / "model" / "config.json").write_bytes(content)
            resolve(place / "model")
        else:
            path = place / "people.json"
            path.write_bytes(content)
            report(check_dataset(path, None, COCO_17)).encode()
            KeypointDataset(path).missing()

    return use


def harmless_json() -> bytes:
    return b"config\n" + json.dumps(_sound()[-1][1]).encode()


JSON_FILES = Kind(
    make_json, use_json, harmless_json, (DekrPoseError, ValueError), count=3_000, seconds=5, mebibytes=512
)
