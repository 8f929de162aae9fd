"""``dekrpose doctor``: what on this machine keeps dekrpose from working, and the command that repairs it."""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import os
import platform
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from dekrpose import __version__
from dekrpose.doctor import gpu, installation, network, storage
from dekrpose.doctor.findings import Finding, quote
from dekrpose.errors import counted
from dekrpose.hub import cache

__all__ = ["Finding", "add_arguments", "examine", "report", "run"]

EXAMPLES = ("dekrpose doctor", "dekrpose doctor --json")
_COLOURS = {"ok": "\033[32m", "warning": "\033[33m", "fault": "\033[1;31m"}
_PACKAGE = Path(__file__).parents[1]
Check = Callable[[], list[Finding]]


def examine(cache_dir: str | Path | None = None) -> list[Finding]:
    """Look at everything that is known to go wrong; nothing is changed, nothing is asked over the network but proxies.

    Findings come in a fixed order. A check that fails itself is a fault of its own.
    """
    environment, packages = dict(os.environ), functools.cache(installation.installed)
    findings = _run(
        (
            "python",
            lambda: installation.check_python(sys.version_info[:3], importlib.util.find_spec("pip") is not None),
        ),
        ("dekrpose", lambda: installation.check_dekrpose(packages(), __version__, _PACKAGE)),
        ("packages", lambda: installation.check_requirements(packages())),
        ("opencv", lambda: installation.check_opencv_wheels(packages(), installation.has_libgl())),
        ("opencv", lambda: installation.check_opencv_import(packages(), lambda: installation.imported("cv2"))),
        ("torch", lambda: installation.check_torch_import(lambda: installation.imported("torch"))),
    )
    if ("torch", "fault") not in ((finding.check, finding.status) for finding in findings):
        import_torchvision = functools.partial(installation.import_in_a_new_process, "torchvision")
        findings += _run(
            ("numpy", lambda: installation.check_numpy_bridge(installation.share_an_array)),
            ("torchvision", lambda: installation.check_torchvision(packages(), import_torchvision)),
            ("gpu", lambda: _check_gpu(environment)),
            ("engine", gpu.check_cuda_engine),
            ("tiny", lambda: _check_bundled(packages())),
        )
    ours, clean = cache.cache_folder(cache_dir), "dekrpose models --clean"
    hub, variable = storage.hub_cache(environment)
    if cache_dir is not None:  # which from_pretrained uses for repositories too
        clean, hub = f"{clean} --cache-dir {quote(str(ours))}", ours
    return findings + _run(
        ("extras", lambda: installation.check_extras(packages())),
        ("cache", lambda: storage.check_folder("cache", ours, "DEKRPOSE_CACHE")),
        ("weights", lambda: storage.check_cached_weights(ours, clean)),
        ("hub cache", lambda: storage.check_folder("hub cache", hub, variable)),
        ("hub cache", lambda: storage.check_hub_downloads(hub)),
        ("proxy", lambda: network.check_proxies(environment, network.accepts_connections)),
        ("offline", lambda: network.check_offline(environment)),
        ("mirror", lambda: network.check_addresses(environment)),
    )


def _run(*checks: tuple[str, Check]) -> list[Finding]:
    return [finding for name, check in checks for finding in guarded(name, check)]


def guarded(name: str, check: Check) -> list[Finding]:
    """Run one check; its own failure is a finding too."""
    try:
        return check()
    except Exception as error:
        return [Finding(name, "fault", f"this check failed itself: {type(error).__name__}: {error}")]


def _check_bundled(packages: installation.Distributions) -> list[Finding]:
    repair = installation.reinstall(packages.get("dekrpose"), _PACKAGE)
    return storage.check_bundled(_PACKAGE / "weights" / "tiny.safetensors", repair)


def _check_gpu(environment: Mapping[str, str]) -> list[Finding]:
    build, system = gpu.read_torch(), platform.system()
    if system == "Darwin":
        return gpu.check_mps(build, system, platform.mac_ver()[0], platform.machine())
    nvidia = gpu.find_nvidia(environment.get("PATH"), Path("/proc/driver/nvidia"), Path("/dev"))
    return gpu.check_gpu(nvidia, build, environment)


def report(findings: Iterable[Finding], width: int, colours: bool = False) -> str:
    """Findings as text: one each, its repair on a line of its own that can be copied whole."""
    findings = list(findings)
    column = max((len(finding.check) for finding in findings), default=0) + 2
    lines = []
    for finding in findings:
        status = f"{finding.status:9}"
        if colours:
            status = f"{_COLOURS[finding.status]}{status}\033[0m"
        first, *others = textwrap.wrap(
            finding.message, max(width - 9 - column, 30), break_long_words=False, break_on_hyphens=False
        ) or [""]
        lines.append(f"{status}{finding.check:{column}}{first}")
        lines += [f"{'':{9 + column}}{line}" for line in others]
        if finding.repair:
            lines.append(f"    {finding.repair}")
    return "\n".join([*lines, "", _summary(findings)])


def _summary(findings: list[Finding]) -> str:
    counts = Counter(finding.status for finding in findings)
    words = [counted(counts[kind], kind) for kind in ("fault", "warning") if counts[kind]]
    if not words:
        return "Nothing is wrong."
    hint = "; the indented commands repair what they stand under" if any(finding.repair for finding in findings) else ""
    return f"{' and '.join(words)}{hint}."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``dekrpose doctor``."""
    parser.add_argument("--cache-dir", type=Path, metavar="FOLDER", help="default: DEKRPOSE_CACHE, or the user's cache")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Print what was found; 1 when there is a fault, else 0."""
    findings = examine(options.cache_dir)
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        terminal = sys.stdout.isatty()
        colours = terminal and os.name != "nt" and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        print(report(findings, min(shutil.get_terminal_size().columns, 100), colours))
    return int(any(finding.status == "fault" for finding in findings))
