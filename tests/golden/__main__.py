"""Print a table with the largest error of every golden: ``python -m tests.golden [--goldens FOLDER]``."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from tests.golden.support import AREAS, BUNDLED, whole_set


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__)
    parser.add_argument("--goldens", type=Path, default=whole_set() or BUNDLED, help="folder with index.json")
    parser.add_argument("--only", help="only areas whose name contains this")
    options = parser.parse_args()
    failures = 0
    print(f"{'recording':40} {'quantity':34} {'largest error':>13} {'tolerance':>10}")
    for area in AREAS:
        if options.only and options.only not in area:
            continue
        for row in importlib.import_module(f"tests.golden.{area}").rows(options.goldens):
            failures += not row.passed
            verdict = "" if row.passed else "  FAILED"
            print(f"{row.case:40} {row.quantity:34} {row.error:13.3g} {row.tolerance:10.3g}{verdict}", flush=True)
    print(f"{failures} failed")
    return failures > 0


if __name__ == "__main__":
    sys.exit(main())
