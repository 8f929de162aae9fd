"""Checks of Python, of what pip installed, and of what it imports."""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import Distribution
from pathlib import Path

from dekrpose.doctor.findings import Finding, numbers, pip, quote

MINIMUM_PYTHON = (3, 11)
OPENCV_WHEELS = (
    "opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless",
)  # fmt: skip
"""Wheels that hold the same module, cv2, and write over each other's files."""
_NO_EXTRAS = {"all", "dev", "docs", "test"}
"""Extras that add nothing that the package itself could use."""
_REQUIREMENT = re.compile(r"([\w.-]+)\s*(?:\[[^\]]*\])?\s*\(?([^;)]*)\)?\s*(?:;\s*(.*))?")

Distributions = Mapping[str, Distribution]
"""Normalised name -> what is installed under it."""


def installed(path: list[str] | None = None) -> dict[str, Distribution]:
    """What pip installed, in the folders of ``path`` or in those that Python imports from; the first one counts."""
    found: dict[str, Distribution] = {}
    everything = importlib.metadata.distributions() if path is None else importlib.metadata.distributions(path=path)
    for distribution in everything:
        name = _field(distribution, "Name")
        if name:
            found.setdefault(_normal(name), distribution)
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _field(distribution: Distribution, name: str) -> str:
    """A field of the metadata; "" where an install or removal that broke off left none."""
    try:
        metadata = distribution.metadata
    except FileNotFoundError:
        return ""
    return metadata[name] if metadata and name in metadata else ""


def _version(distribution: Distribution) -> str:
    return _field(distribution, "Version")


def _requirements(distribution: Distribution) -> list[tuple[str, str, str]]:
    """Name, versions and condition of everything that a package requires, such as ("torch", ">=2.2", "")."""
    matches = (_REQUIREMENT.fullmatch(line) for line in distribution.requires or ())
    return [(_normal(match[1]), match[2].strip(), match[3] or "") for match in matches if match]


def check_python(version: Sequence[int], has_pip: bool) -> list[Finding]:
    """Whether Python is new enough, and has the pip that every repair calls."""
    text, wanted = ".".join(map(str, version)), ".".join(map(str, MINIMUM_PYTHON))
    if tuple(version) < MINIMUM_PYTHON:
        return [Finding("python", "fault", f"{text}, expected {wanted} or later; make a new virtual environment")]
    if not has_pip:
        repair = f"{quote(sys.executable)} -m ensurepip"
        return [Finding("python", "warning", f"{text} has no pip, which the repairs below call", repair)]
    return [Finding("python", "ok", text)]


def check_dekrpose(distributions: Distributions, version: str, package: Path) -> list[Finding]:
    """Whether the code that runs is the one that pip installed."""
    distribution = distributions.get("dekrpose")
    if distribution is None:
        message = f"{version} runs from {package.parent} without being installed, so pip does not know what it requires"
        return [Finding("dekrpose", "warning", message, _install(package))]
    if _version(distribution) != version:
        message = f"{package} is {version}, but pip installed {_version(distribution) or 'an unknown version'}"
        return [Finding("dekrpose", "warning", message, _install(package))]
    return [Finding("dekrpose", "ok", f"{version} in {package}")]


def _install(package: Path) -> str:
    if (package.parent / "pyproject.toml").is_file():
        return pip(f"install -e {quote(str(package.parent))}")
    return pip("install --force-reinstall --no-deps dekrpose")


def reinstall(distribution: Distribution | None, package: Path) -> str:
    """The command that brings the package's own files back, from where they came."""
    origin = json.loads((distribution and distribution.read_text("direct_url.json")) or "{}")
    if (package.parent / ".git").exists():
        return f"git -C {quote(str(package.parent))} checkout -- {package.name}"
    return pip(f"install --force-reinstall --no-deps {quote(origin.get('url', 'dekrpose'))}")


def check_requirements(distributions: Distributions) -> list[Finding]:
    """Whether everything that dekrpose needs is installed and new enough."""
    if "dekrpose" not in distributions:
        return []
    findings, good = [], 0
    for name, versions, condition in _requirements(distributions["dekrpose"]):
        if condition:
            continue
        if name == "opencv-python":  # any of its wheels will do
            name = next((wheel for wheel in OPENCV_WHEELS if wheel in distributions), name)
        found = _version(distributions[name]) if name in distributions else ""
        minimum = next((part.strip()[2:] for part in versions.split(",") if part.strip().startswith(">=")), "0")
        is_good = found != "" and numbers(found) >= numbers(minimum)
        good += is_good
        if not is_good:
            wanted = f"{name}{versions}"
            message = f"{name} {found} is too old, expected {versions}" if found else f"{wanted} is missing"
            findings.append(Finding("packages", "fault", message, pip(f'install --upgrade "{wanted}"')))
    return findings or [Finding("packages", "ok", f"all {good} that dekrpose requires, new enough")]


def check_opencv_wheels(distributions: Distributions, has_libgl: bool) -> list[Finding]:
    """Whether exactly one wheel brings cv2."""
    found = [name for name in OPENCV_WHEELS if name in distributions and _brings_cv2(distributions[name])]
    if len(found) < 2:
        return []
    names = " and ".join(f"{name} {_version(distributions[name])}".strip() for name in found)
    message = f"{names} are installed, but each writes over the other's cv2: keep one"
    if any("contrib" in name for name in found):
        message += " (opencv-contrib-python, should other programs need its additions)"
    kept = "opencv-python" if has_libgl else "opencv-python-headless"
    return [Finding("opencv", "fault", message, _replace_opencv(found, kept))]


def _brings_cv2(distribution: Distribution) -> bool:
    """False for entries without files, which conda's own OpenCV makes to satisfy pip."""
    return distribution.files is None or any(file.parts[0] == "cv2" for file in distribution.files)


def _replace_opencv(found: Sequence[str], kept: str) -> str:
    remove = f"{pip('uninstall -y ' + ' '.join(found))} && " if found else ""
    return f"{remove}{pip(f'install {kept}')}"


def check_opencv_import(distributions: Distributions, load: Callable[[], str]) -> list[Finding]:
    """Whether cv2 can be imported; the wheel with windows wants system libraries that servers lack."""
    found = [name for name in OPENCV_WHEELS if name in distributions]
    try:
        return [Finding("opencv", "ok", f"cv2 {load()} imports")]
    except ImportError as error:
        message = f"cv2 cannot be imported: {error}"
        if re.search(r"lib(GL|gthread|SM|Xext|Xrender)\b", str(error)):
            message += "; the wheel without windows needs no such library"
            return [Finding("opencv", "fault", message, _replace_opencv(found, "opencv-python-headless"))]
        kept = found[0] if len(found) == 1 else "opencv-python"
        return [Finding("opencv", "fault", message, pip(f"install --force-reinstall --no-deps {kept}"))]


def check_torch_import(load: Callable[[], str]) -> list[Finding]:
    """Whether torch can be imported."""
    try:
        return [Finding("torch", "ok", f"{load()} imports")]
    except (ImportError, OSError) as error:  # OSError: a library of it that does not load
        message = f"torch cannot be imported: {error}"
        return [Finding("torch", "fault", message, f"{pip('uninstall -y torch')} && {pip('install torch')}")]


def check_numpy_bridge(share: Callable[[], object]) -> list[Finding]:
    """Whether torch takes NumPy's arrays; one built for NumPy 1 does not take those of NumPy 2."""
    try:
        share()
    except RuntimeError as error:
        message = f"torch cannot read arrays of the installed NumPy ({error}): torch before 2.3 was built for NumPy 1; "
        return [Finding("numpy", "fault", f"{message}go back to that, or upgrade torch", pip('install "numpy<2"'))]
    return [Finding("numpy", "ok", "its arrays and torch's tensors share memory")]


def check_torchvision(distributions: Distributions, load: Callable[[], str]) -> list[Finding]:
    """Whether torchvision fits torch; dekrpose does not use it, others may. ``load`` says why it cannot be imported."""
    torchvision, torch = distributions.get("torchvision"), distributions.get("torch")
    if torchvision is None or torch is None:
        return []
    name = f"torchvision {_version(torchvision)}"
    wanted = next((versions for need, versions, _ in _requirements(torchvision) if need == "torch"), "")
    if wanted.startswith("==") and numbers(wanted[2:]) != numbers(_version(torch)):
        message = f"{name} was built for torch {wanted[2:].strip()}, but torch {_version(torch)} is installed"
        message += "; dekrpose does not need it"
        return [Finding("torchvision", "warning", message, pip("install --upgrade torchvision"))]
    trouble = load()
    if trouble:
        message = f"{name} cannot be imported beside torch {_version(torch)}: {trouble}; dekrpose does not need it"
        return [Finding("torchvision", "warning", message, pip("uninstall -y torchvision"))]
    return [Finding("torchvision", "ok", f"{_version(torchvision)} fits torch {_version(torch)}")]


def check_extras(distributions: Distributions) -> list[Finding]:
    """Which optional parts are there; none of them has to be."""
    if "dekrpose" not in distributions:
        return []
    extras: dict[str, list[str]] = {}
    for name, _, condition in _requirements(distributions["dekrpose"]):
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", condition)
        if extra and extra[1] not in _NO_EXTRAS:
            extras.setdefault(extra[1], []).append(name)
    there = [extra for extra, names in extras.items() if all(name in distributions for name in names)]
    missing = [extra for extra in extras if extra not in there]
    message = ", ".join(there) or "none installed"
    if missing:
        message += f"; also offered: {', '.join(missing)}"
    return [Finding("extras", "ok", message)]


def import_in_a_new_process(module: str) -> str:
    """Import a package where its crash harms nobody; return the last line of what it complained about, or nothing."""
    words = [sys.executable, "-c", f"import {module}"]
    try:
        result = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return "it does not finish within a minute"
    if result.returncode == 0:
        return ""
    return (result.stderr.strip().splitlines() or [f"exit status {result.returncode}"])[-1]


def imported(module: str) -> str:
    """Import a package; its version."""
    return str(importlib.import_module(module).__version__)


def share_an_array() -> object:
    """Hand a NumPy array to torch."""
    import numpy as np
    import torch

    return torch.from_numpy(np.zeros(1))


def has_libgl() -> bool:
    """Whether the system library is there that OpenCV with windows needs; only Linux goes without."""
    if not sys.platform.startswith("linux"):
        return True
    try:
        ctypes.CDLL("libGL.so.1")
    except OSError:
        return False
    return True
