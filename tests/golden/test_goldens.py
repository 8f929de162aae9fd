"""The official code's recorded outputs, reproduced within the tolerances of their README."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.golden.support import AREAS, BUNDLED, whole_set


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


def test_the_table_needs_no_pytest() -> None:
    """README prints it before it installs the tests' packages."""
    program = "import sys; sys.modules['pytest'] = None; from tests.golden.__main__ import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "--goldens", str(BUNDLED), "--only", "flip_up"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True)
    assert done.stdout.endswith("0 failed\n")


@pytest.mark.slow
@pytest.mark.skipif(whole_set() is None, reason="the whole set of goldens is not beside the project")
@pytest.mark.parametrize("area", AREAS)
def test_whole_set(area: str) -> None:
    folder = whole_set()
    assert folder is not None
    check(area, folder)
