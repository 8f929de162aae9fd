"""``dekrpose doctor``: what on this machine keeps dekrpose from working, and the command that repairs it."""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from dekrpose.doctor import gpu, installation, network, storage
from dekrpose.doctor.findings import Finding, quote
from dekrpose.hub import cache

__all__ = ["Finding", "add_arguments", "examine", "report", "run"]

_COLOURS = {"ok": "\033[32m", "warning": "\033[33m", "fault": "\033[1;31m"}
_PACKAGE = Path(__file__).parents[1]
Check = Callable[[], list[Finding]]
Installed = Callable[[], installation.Distributions]


def examine(cache_dir: str | Path | None = None) -> list[Finding]:
    """Look at everything that is known to go wrong; nothing is changed, nothing is asked over the network but proxies.

    Args:
        cache_dir: the folder of downloaded weights; None: the usual one.

    Returns:
        Findings in a fixed order. A check that fails itself is a fault of its own.
    """
    environment = dict(os.environ)
    distributions = functools.cache(installation.installed)
    findings = _run(_installation(distributions))
    if ("torch", "fault") not in ((finding.check, finding.status) for finding in findings):
        findings += _run(_torch(distributions, environment))
    extras = ("extras", lambda: installation.check_extras(distributions()))
    return findings + _run([extras, *_storage(environment, cache_dir), *_network(environment)])


def _run(checks: Iterable[tuple[str, Check]]) -> list[Finding]:
    return [finding for name, check in checks for finding in guarded(name, check)]


def guarded(name: str, check: Check) -> list[Finding]:
    """Run one check; its own failure is a finding too."""
    try:
        return check()
    except Exception as error:
        return [Finding(name, "fault", f"this check failed itself: {type(error).__name__}: {error}")]


def _installation(distributions: Installed) -> list[tuple[str, Check]]:
    def versions() -> list[Finding]:
        import dekrpose

        return installation.check_dekrpose(distributions(), dekrpose.__version__, _PACKAGE)

    return [
        ("python", lambda: installation.check_python(sys.version_info[:3], installation.has_pip())),
        ("dekrpose", versions),
        ("packages", lambda: installation.check_requirements(distributions())),
        ("opencv", lambda: installation.check_opencv_wheels(distributions(), installation.has_libgl())),
        ("opencv", lambda: installation.check_opencv_import(distributions(), installation.load_opencv)),
        ("torch", lambda: installation.check_torch_import(installation.load_torch)),
    ]


def _torch(distributions: Installed, environment: Mapping[str, str]) -> list[tuple[str, Check]]:
    """Checks that need a torch which can be imported."""

    def torchvision() -> list[Finding]:
        return installation.check_torchvision(
            distributions(), lambda: installation.import_in_a_new_process("torchvision")
        )

    def bundled() -> list[Finding]:
        repair = installation.reinstall(distributions().get("dekrpose"), _PACKAGE)
        return storage.check_bundled(_PACKAGE / "weights" / "tiny.safetensors", repair)

    def look() -> list[Finding]:
        build = gpu.read_torch()
        system = platform.system()
        if system == "Darwin":
            return gpu.check_mps(build, system, platform.mac_ver()[0], platform.machine())
        nvidia = gpu.find_nvidia(environment.get("PATH"), Path("/proc/driver/nvidia"), Path("/dev"))
        return gpu.check_gpu(nvidia, build, environment)

    return [
        ("numpy", lambda: installation.check_numpy_bridge(installation.share_an_array)),
        ("torchvision", torchvision),
        ("gpu", look),
        ("tiny", bundled),
    ]


def _storage(environment: Mapping[str, str], cache_dir: str | Path | None) -> list[tuple[str, Check]]:
    ours, clean = cache.cache_folder(cache_dir), "dekrpose models --clean"
    hub, variable = storage.hub_cache(environment)
    if cache_dir is not None:  # which from_pretrained uses for repositories too
        clean, hub = f"{clean} --cache-dir {quote(str(ours))}", ours
    return [
        ("cache", lambda: storage.check_folder("cache", ours, "DEKRPOSE_CACHE")),
        ("weights", lambda: storage.check_cached_weights(ours, clean)),
        ("hub cache", lambda: storage.check_folder("hub cache", hub, variable)),
        ("hub cache", lambda: storage.check_hub_downloads(hub)),
    ]


def _network(environment: Mapping[str, str]) -> list[tuple[str, Check]]:
    return [
        ("proxy", lambda: network.check_proxies(environment, network.accepts_connections)),
        ("offline", lambda: network.check_offline(environment)),
        ("mirror", lambda: network.check_addresses(environment)),
    ]


def report(findings: Iterable[Finding], width: int, colours: bool = False) -> str:
    """Findings as text: one each, its repair on a line of its own that can be copied whole.

    Args:
        findings: from ``examine``.
        width: columns; repairs may be longer.
        colours: with the codes that terminals show as colours.
    """
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
    counts = []
    for status in ("fault", "warning"):
        number = sum(finding.status == status for finding in findings)
        if number:
            counts.append(f"{number} {status}{'s' if number > 1 else ''}")
    if not counts:
        return "Nothing is wrong."
    hint = "; the indented commands repair what they stand under" if any(finding.repair for finding in findings) else ""
    return f"{' and '.join(counts)}{hint}."


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
