"""The way of a photo: which files of the package ``estimate`` enters, and how much code runs there.

``python -m tests.photo_way`` prints it; ``tests/unit/test_structure.py`` holds its limits.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import dekrpose

PACKAGE = Path(dekrpose.__file__).parent
PHOTO = PACKAGE.parent / "examples" / "astronaut.jpg"


@dataclass(frozen=True)
class Way:
    """What was entered.

    Args:
        lines: of each file, the lines of code in the functions entered; docstrings and blank lines do not count.
        climbs: calls from a file to one that imports it, directly or not: (from, to).
    """

    lines: dict[str, int]
    climbs: set[tuple[str, str]]

    @property
    def code(self) -> int:
        """Lines of all files."""
        return sum(self.lines.values())


def trace(call: Callable[[], Any]) -> Way:
    """Watch one call in this thread."""
    entered: set[CodeType] = set()
    pairs: set[tuple[str, str]] = set()

    def watch(frame: FrameType, event: str, _: object) -> None:
        if event != "call" or not _is_ours(frame.f_code):
            return
        entered.add(frame.f_code)
        caller = frame.f_back
        while caller is not None and not _is_ours(caller.f_code):
            caller = caller.f_back
        if caller is not None:
            pairs.add((caller.f_code.co_filename, frame.f_code.co_filename))

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        call()
    finally:
        sys.setprofile(before)
    by_file: dict[str, set[int]] = defaultdict(set)
    for code in entered:
        by_file[code.co_filename] |= _code_lines(code.co_filename, code.co_firstlineno)
    lines = {_name(file): len(numbers) for file, numbers in sorted(by_file.items())}
    climbs = {(_name(start), _name(end)) for start, end in pairs if start != end and start in _imported(end)}
    return Way(lines, climbs)


def _is_ours(code: CodeType) -> bool:
    return (
        code.co_filename.startswith(str(PACKAGE))
        and code.co_name != "<module>"
        and bool(code.co_flags & inspect.CO_NEWLOCALS)
        and bool(code.co_flags & inspect.CO_OPTIMIZED)
    )


def _name(file: str) -> str:
    return str(Path(file).relative_to(PACKAGE))


@cache
def _tree(file: str) -> ast.Module:
    return ast.parse(Path(file).read_text(encoding="utf-8"))


def _code_lines(file: str, first: int) -> set[int]:
    """Numbers of a function's lines, its decorators included, without docstring and blank lines."""
    text = Path(file).read_text(encoding="utf-8").splitlines()
    for node in ast.walk(_tree(file)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            start = min([node.lineno, *(item.lineno for item in node.decorator_list)])
            if start != first and node.lineno != first:
                continue
            numbers = set(range(start, (node.end_lineno or start) + 1))
            for inner in ast.walk(node):
                if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef)) and ast.get_docstring(inner) is not None:
                    words = inner.body[0]
                    numbers -= set(range(words.lineno, (words.end_lineno or words.lineno) + 1))
            return {number for number in numbers if text[number - 1].strip()}
    return set()  # a lambda or a comprehension: part of the function around it


@cache
def _imported(file: str) -> frozenset[str]:
    """The package's files that a file imports when it is loaded, directly or not."""
    found: set[str] = set()
    waiting = [file]
    while waiting:
        for node in _tree(waiting.pop()).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "dekrpose":
                base = PACKAGE.joinpath(*(node.module or "").split(".")[1:])
                for path in (base, *(base / alias.name for alias in node.names)):
                    for own in (path.with_suffix(".py"), path / "__init__.py"):
                        if own.is_file() and str(own) not in found:
                            found.add(str(own))
                            waiting.append(str(own))
    return frozenset(found)


def photo_way() -> Way:
    """That of the bundled model on a CPU, once it is loaded and warm."""
    estimator = dekrpose.PoseEstimator.from_pretrained(device="cpu")
    estimator.warmup()
    return trace(lambda: estimator.estimate(PHOTO))


if __name__ == "__main__":
    way = photo_way()
    for file, number in way.lines.items():
        print(f"{number:5}  {file}")
    print(f"{way.code:5}  lines of code in the functions of {len(way.lines)} files; {len(way.climbs)} climbs back")
    for start, end in sorted(way.climbs):
        print(f"       {start} calls {end}")
