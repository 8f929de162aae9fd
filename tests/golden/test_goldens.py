"""The official code's recorded outputs, reproduced within the tolerances of their README."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import pytest

from tests import golden
from tests.golden.support import BUNDLED, whole_set

AREAS = sorted(module.name for module in pkgutil.iter_modules(golden.__path__) if module.name.startswith("area_"))


def check(area: str, folder: Path) -> None:
    module = importlib.import_module(f"tests.golden.{area}")
    rows = list(module.rows(folder))
    if not rows and hasattr(module, "NEEDS"):
        pytest.skip(module.NEEDS)
    failed = [row for row in rows if not row.passed]
    assert not failed, "\n".join(f"{row.case} {row.quantity}: {row.error:.3g} > {row.tolerance:.3g}" for row in failed)
    assert rows, f"{folder} has no recording for {area}"


# a whole step of W32 in double precision takes a minute; .ci/run prints the table of all areas
@pytest.mark.parametrize("area", [pytest.param(a, marks=[pytest.mark.slow] * (a == "area_train_step")) for a in AREAS])
def test_bundled_subset(area: str) -> None:
    check(area, BUNDLED)


@pytest.mark.slow
@pytest.mark.skipif(whole_set() is None, reason="the whole set of goldens is not beside the project")
@pytest.mark.parametrize("area", AREAS)
def test_whole_set(area: str) -> None:
    folder = whole_set()
    assert folder is not None
    check(area, folder)
