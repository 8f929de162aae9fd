"""Curves have the points that were asked for; memory is measured in processes of their own."""

from __future__ import annotations

import json
import math
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dekrpose.benchmark.curves import Curve, Point, default_values
from dekrpose.benchmark.memory import CASES, Memory, memory_table, named_cases
from dekrpose.benchmark.settings import Setting
from dekrpose.benchmark.stages import Timing
from dekrpose.cli import main
from dekrpose.errors import DekrPoseError
from tests.small_model import write_small_model


@pytest.fixture
def small(tmp_path: Path) -> str:
    return str(write_small_model(tmp_path / "small.safetensors"))


def curve(kind: str, times: dict[int, float]) -> Curve:
    """A curve with these whole times, all of it in the network."""
    points = []
    for value, milliseconds in times.items():
        timing = Timing(milliseconds, milliseconds * 0.9, milliseconds * 1.2, 9)
        nothing = Timing(0.1, 0.1, 0.1, 9)
        points.append(Point(value, value, {"network": timing, "decode": nothing, "draw": nothing, "whole": timing}))
    return Curve(kind, Setting("tiny"), "640x480", tuple(points))


@pytest.mark.parametrize(
    ("kind", "values", "amounts"),
    [
        ("pixels", [64, 128], [64 * 128, 128 * 192]),
        ("people", [0, 2, 4], [0, 2, 4]),
        ("batch", [1, 3], [1, 3]),
    ],
)
def test_a_curve_has_the_points_that_were_asked_for(
    kind: str, values: list[int], amounts: list[int], small: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, picture = tmp_path / "new" / "out.json", tmp_path / "out.svg"
    words = ["benchmark", small, "--device", "cpu", "--curve", kind, "--runs", "1", "--photo", "96x80"]
    words += ["--at", *map(str, values), "--json", str(out), "--svg", str(picture)]
    assert main(words) == 0
    found = json.loads(out.read_text())
    assert found["curve"] == kind
    assert [point["value"] for point in found["points"]] == values
    assert [point["amount"] for point in found["points"]] == amounts
    assert all({"network", "decode", "draw", "whole"} <= point["stages"].keys() for point in found["points"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line and line.split()[0] in map(str, values)]
    assert len(rows) == len(values)
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")


def test_growth_is_told_as_a_power() -> None:
    assert curve("pixels", {100: 10.0, 400: 40.0}).exponent == pytest.approx(1)
    assert curve("batch", {1: 10.0, 4: 20.0}).exponent == pytest.approx(0.5)
    assert curve("people", {0: 10.0, 30: 11.0}).exponent is None
    assert "from 0 to 30 people: 1.10 times as long" in str(curve("people", {0: 10.0, 30: 11.0}))


def test_usual_points_of_curves() -> None:
    assert default_values("pixels", 192) == (128, 192, 256, 384, 576)
    assert default_values("pixels", 64) == (64, 128, 192)
    assert default_values("batch", 192)[0] == 1
    assert default_values("people", 192)[0] == 0


def test_the_picture_holds_every_point_within_its_frame() -> None:
    root = ElementTree.fromstring(curve("people", {0: 41.0, 10: 43.0, 30: 47.3}).svg())
    name = "{http://www.w3.org/2000/svg}"
    circles = root.findall(f".//{name}circle")
    assert len(circles) == 3 * 4
    for circle in circles:
        assert 0 < float(circle.attrib["cx"]) < 640
        assert 0 < float(circle.attrib["cy"]) < 400
    assert "people in the photo" in {text.text for text in root.findall(f".//{name}text")}


def test_memory_of_a_case_is_measured_in_a_process_of_its_own(
    small: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    assert main(["benchmark", small, "--device", "cpu", "--memory", "flip", "--json", str(out)]) == 0
    found = json.loads(out.read_text())["cases"]["flip"]
    assert found["peak_mib"] > found["loaded_mib"] > 0
    assert found["growth_mib"] == pytest.approx(found["peak_mib"] - found["loaded_mib"])
    assert "a 640x480 photo, flip test" in capsys.readouterr().out


@pytest.mark.slow
def test_memory_of_every_case(small: str) -> None:
    measured = named_cases(Setting(small, device="cpu"), list(CASES))
    assert [each.case for each in measured] == list(CASES)
    for each in measured:
        assert each.growth_mib is not None
        assert math.isfinite(each.growth_mib)


def test_a_system_that_does_not_tell_is_said_so() -> None:
    assert "unknown" in memory_table(Setting("tiny"), [Memory("flip", 100.0, None)])


def test_what_goes_wrong_in_the_process_is_told(tmp_path: Path) -> None:
    with pytest.raises(DekrPoseError, match=r"none\.safetensors"):
        named_cases(Setting(str(tmp_path / "none.safetensors"), device="cpu"), ["flip"])
