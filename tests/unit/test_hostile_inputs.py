"""A few hostile inputs of each kind; ``python -m tests.fuzz`` tries as many as SECURITY.md says."""

from __future__ import annotations

import random
import sys
from dataclasses import replace

import pytest

from tests.fuzz import KINDS, main


@pytest.mark.parametrize("name", KINDS)
def test_a_seed_gives_always_the_same_input(name: str) -> None:
    if name == "films":
        pytest.importorskip("av")
    first, again = (KINDS[name].make(random.Random(f"3 {name} 5")) for _ in range(2))
    assert first == again


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("name", KINDS)
def test_hostile_inputs_are_answered_or_refused_within_the_bounds(name: str) -> None:
    if name == "films":
        pytest.importorskip("av")
    assert main([name, "--seed", "0", "--count", "40"]) == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_what_is_over_the_bounds_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(KINDS, "json", replace(KINDS["json"], seconds=-1.0))
    assert main(["json", "--seed", "0", "--count", "2"]) == 1
    assert "FAILURE json --seed 0 --first 1: over the bounds" in capsys.readouterr().out
