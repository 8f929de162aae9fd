"""Checks of the environment variables that decide where downloads come from; only proxies are asked."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from dekrpose.doctor.findings import WINDOWS, Finding, unset

PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy")
HOSTS = ("huggingface.co", "download.openmmlab.com")
"""Where downloads come from when no variable says otherwise."""
PATIENCE = 2.0
"""Seconds that a proxy has to accept a connection."""
_PORTS = {"http": 80, "https": 443, "socks": 1080, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}
_TRUE = {"1", "ON", "YES", "TRUE"}


def check_proxies(environment: Mapping[str, str], answers: Callable[[str, int], bool]) -> list[Finding]:
    """Whether each proxy that is set answers at its host and port. User names and passwords are never shown."""
    names: dict[tuple[str, int] | None, list[str]] = {}
    for name in dict.fromkeys(name.upper() if WINDOWS else name for name in PROXIES):
        if environment.get(name, "").strip():
            names.setdefault(_address(environment[name].strip()), []).append(name)
    if not names:
        return [Finding("proxy", "ok", "no proxy is set")]
    bypassed = _bypassed(environment)
    addresses = [address for address in names if address is not None]
    with ThreadPoolExecutor() as pool:
        alive = dict(zip(addresses, pool.map(lambda address: answers(*address), addresses), strict=True))
    findings = []
    for address, variables in names.items():
        who = ", ".join(variables)
        if address is None:
            message = f"{who} holds no proxy's address, expected one like http://proxy.example.com:3128"
            findings.append(Finding("proxy", "fault", message, unset(variables)))
        elif bypassed:
            message = f"{who}: {_shown(address)}, which NO_PROXY leaves out for downloads"
            findings.append(Finding("proxy", "ok", message))
        elif alive[address]:
            findings.append(Finding("proxy", "ok", f"{who}: {_shown(address)} answers"))
        else:
            message = f"{who}: nothing answers at {_shown(address)}, so every download will fail"
            findings.append(Finding("proxy", "fault", message, unset(variables)))
    return findings


def _address(value: str) -> tuple[str, int] | None:
    """Host and port of a proxy; None when the value cannot be read."""
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        port = parts.port or _PORTS[parts.scheme]
    except (ValueError, KeyError):
        return None
    if not parts.hostname or "@" in parts.path + parts.query + parts.fragment:  # a password with an unquoted / or #
        return None
    return parts.hostname, port


def _shown(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _bypassed(environment: Mapping[str, str]) -> bool:
    value = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    exceptions = [item.strip().lstrip(".") for item in value.split(",") if item.strip()]
    return all(any(item in ("*", host) or host.endswith(f".{item}") for item in exceptions) for host in HOSTS)


def accepts_connections(host: str, port: int) -> bool:
    """Whether something listens there; looking up the name counts towards the patience."""
    found = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=PATIENCE).close()
        except (OSError, UnicodeError):  # the latter for names that no host can have
            return
        found.set()

    thread = threading.Thread(target=connect, daemon=True)  # a slow name server must not hold up the end
    thread.start()
    thread.join(PATIENCE + 0.5)
    return found.is_set()


def check_offline(environment: Mapping[str, str]) -> list[Finding]:
    """Whether a switch forbids downloads."""
    switches = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    found = [name for name in switches if environment.get(name, "").strip().upper() in _TRUE]
    if not found:
        return [Finding("offline", "ok", "no switch forbids downloads")]
    message = f"{' and '.join(found)} {'is' if len(found) == 1 else 'are'} set: only what is in the caches can be used"
    return [Finding("offline", "warning", message, unset(found))]


def check_addresses(environment: Mapping[str, str]) -> list[Finding]:
    """Whether variables that replace the usual hosts hold addresses."""
    findings = []
    for name, schemes in (("HF_ENDPOINT", ("http", "https")), ("DEKRPOSE_MIRROR", ("http", "https", "file"))):
        value = environment.get(name)
        if value is None or (name == "DEKRPOSE_MIRROR" and not value):  # an empty HF_ENDPOINT counts as one
            continue
        shown = re.sub(r"^(\w+://)?.*@", r"\1***@", value)
        if _is_url(value, schemes):
            findings.append(Finding("mirror", "ok", f"{name}: {shown}"))
        else:
            expected = " or ".join(f"{scheme}://" for scheme in schemes)
            message = f"{name} is {shown!r}, expected an address that begins with {expected}"
            findings.append(Finding("mirror", "fault", message, unset([name])))
    return findings


def _is_url(value: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    place = parts.path if parts.scheme == "file" else parts.hostname
    return parts.scheme in schemes and bool(place) and not re.search(r"\s", value)
