"""Photos from URLs, which may come from strangers: bounded in time and size, and from public addresses alone."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import ipaddress
import re
import socket
import ssl
import threading
import time
import urllib.parse
import urllib.request
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from dekrpose.errors import ImageError, without_password

MOST_REDIRECTS = 5
_LONGEST_URL = 2**15
_PORTS = {"http": 80, "https": 443}
_MOVED = (301, 302, 303, 307, 308)
_BLOCK = 1 << 18
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_UNICAST = ipaddress.ip_network("2000::/3")
_6TO4 = ipaddress.ip_network("2002::/16")
_KEPT_BACK = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "3fff::/20")))
"""Networks that are no stranger's server, whatever this Python's list says; one is the host of Azure's machines."""
_LIKE_A_NUMBER = re.compile(r"(?:.*\.)?\d[0-9a-fx]*\.?")
"""How a host looks that some programs read as an IPv4 address: no name of a domain ends in such a part."""
_SAFE = "%/:=&?~+!$,;'@()*[]"
_STREAM = socket.SOCK_STREAM
_Address = tuple[int, Any]
"""Family, and what connects to it; a number comes first, not a name."""


def fetch(url: str, *, seconds: float, most_bytes: int, allow_private: bool) -> bytes:
    """What an http(s) URL gives, redirects followed.

    A name is looked up once, and the address that was checked is the one that is connected to. Proxies that the system
    configures are used and trusted, wherever they are; names that only they can look up are theirs to check.

    Args:
        url: http or https; a name and a password in it are sent as Basic authorization, to its own host alone.
        seconds: for everything together, however many redirects and however slow.
        most_bytes: of the content.
        allow_private: take addresses that are not public: of this machine, of its network, and reserved ones.

    Raises:
        ImageError: it is no such URL, leads to an address that is not allowed, or cannot be fetched within the bounds.
    """
    clock, place, shown = _Clock(seconds), url, without_password(url)
    if len(url) > _LONGEST_URL:
        raise ImageError(f"image must be a path or an http(s) URL, got {shown}; pass the photo's bytes as they are")
    if not url.lower().startswith(("http://", "https://")):
        raise ImageError(f"image must be a path or an http(s) URL, got {shown!r}; fetch the file and pass its path")
    try:
        for _ in range(MOST_REDIRECTS + 1):
            connection, asked = _open(_Request.of(place), clock, allow_private)
            with closing(connection):
                response = _answer(connection, clock, asked)
                if response.status not in _MOVED:
                    return _content(response, most_bytes)
            place = urllib.parse.urljoin(place, response.headers.get("Location") or "")
        raise _RefusedError(f"it leads on more than {MOST_REDIRECTS} times")
    except _RefusedError as error:
        raise ImageError(f"cannot fetch {shown}: {error}; check the address, or pass a local file") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = _reason(error) if clock.left() > 0 else f"it takes longer than {seconds:g} s"
        raise ImageError(f"cannot fetch {shown}: {reason}; check the address, or pass a local file") from error


class _RefusedError(Exception):
    """Why an address is not fetched, in words of our own."""


class _Clock:
    """Seconds that are left of a time."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """0 or less when the time is over."""
        return self._end - time.monotonic()

    def limit(self, connection: socket.socket) -> socket.socket:
        """Let the connection's next step take no longer than what is left; TimeoutError if nothing is."""
        left = self.left()
        if left <= 0:
            raise TimeoutError("timed out")
        connection.settimeout(left)
        return connection


@dataclass(frozen=True)
class _Request:
    """Where to connect and what to ask for; text that is safe in a header."""

    scheme: str
    host: str
    port: int
    target: str
    headers: dict[str, str]

    @classmethod
    def of(cls, url: str) -> _Request:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in _PORTS:
            raise _RefusedError(f"only http and https are, not {parts.scheme or 'an address without a scheme'}")
        try:
            host, port = (parts.hostname or "").encode("idna").decode("ascii").lower(), parts.port
        except ValueError as error:  # which quotes what may be a password
            raise _RefusedError("its host or its port is none") from error
        if not re.fullmatch(r"[\w.-]+|[0-9a-f:.]+(?:%[\w.-]+)?", host):
            raise _RefusedError("its host is none")
        bracketed = f"[{host}]" if ":" in host else host
        from dekrpose import __version__

        headers = {
            "Host": bracketed if port is None else f"{bracketed}:{port}",
            "User-Agent": f"dekrpose/{__version__}",
            "Accept-Encoding": "identity",
            "Connection": "close",
        }
        wanted = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        target = urllib.parse.quote(wanted, safe=_SAFE, errors="surrogateescape")
        return cls(parts.scheme, host, port or _PORTS[parts.scheme], target, headers | _login(parts, "Authorization"))


def _login(parts: urllib.parse.SplitResult, header: str) -> dict[str, str]:
    """The header that a name and a password in an address ask for."""
    if parts.username is None:
        return {}
    words = b":".join(urllib.parse.unquote_to_bytes(text or "") for text in (parts.username, parts.password))
    return {header: "Basic " + base64.b64encode(words).decode("ascii")}


class _Timed(io.RawIOBase):
    """What a connection answers, for http.client, which reads it; every step has what is left of the time."""

    def __init__(self, connection: socket.socket, clock: _Clock) -> None:
        self._connection, self._clock = connection, clock

    def makefile(self, *_: object) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._clock.limit(self._connection).recv_into(buffer)


def _answer(connection: socket.socket, clock: _Clock, asked: _Request, method: str = "GET") -> http.client.HTTPResponse:
    lines = [f"{method} {asked.target} HTTP/1.1", *(f"{name}: {value}" for name, value in asked.headers.items())]
    text = "\r\n".join([*lines, "", ""]).encode("ascii")
    while text:  # not sendall, which has the time anew for every piece of an encrypted one
        text = text[clock.limit(connection).send(text) :]
    response = http.client.HTTPResponse(_Timed(connection, clock), method=method)  # type: ignore[arg-type]
    response.begin()
    return response


def _content(response: http.client.HTTPResponse, most_bytes: int) -> bytes:
    if response.status != 200:
        raise _RefusedError(f"HTTP {response.status} {http.client.responses.get(response.status, '')}".strip())
    length = response.length
    if length is None and not response.chunked and "Content-Length" in response.headers:
        raise _RefusedError("its server announces a length that is none")
    too_large = f"it is larger than {most_bytes / 2**20:g} MiB"
    if length is not None and length > most_bytes:
        raise _RefusedError(too_large)
    content = bytearray()
    while block := response.read(_BLOCK):
        content += block
        if len(content) > most_bytes:
            raise _RefusedError(too_large)
    if length is not None and len(content) < length:
        raise _RefusedError(f"it ends after {len(content):,} of {length:,} bytes")
    return bytes(content)


def _open(asked: _Request, clock: _Clock, allow_private: bool) -> tuple[socket.socket, _Request]:
    """A connection, and what to ask through it."""
    is_direct = any(map(urllib.request.proxy_bypass, (asked.host, f"{asked.host}:{asked.port}")))
    proxy = None if is_direct else urllib.request.getproxies().get(asked.scheme)
    addresses = _look_up(asked.host, asked.port, clock)
    if not addresses and (proxy is None or _LIKE_A_NUMBER.fullmatch(asked.host)):
        raise _RefusedError("its host is not known")
    if not allow_private and not all(map(_is_public, addresses)):
        raise _RefusedError("it leads to a private address, and only allow_private=True takes these")
    if proxy is not None:
        return _through(proxy, asked, clock)
    return _secured(_connect(addresses, clock), asked, clock), asked


def _through(proxy: str, asked: _Request, clock: _Clock) -> tuple[socket.socket, _Request]:
    """The same by way of a proxy."""
    parts = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    connection = _connect(_look_up(parts.hostname or "", parts.port or _PORTS["http"], clock), clock)
    login = _login(parts, "Proxy-Authorization")
    place = f"[{asked.host}]:{asked.port}" if ":" in asked.host else f"{asked.host}:{asked.port}"
    if asked.scheme == "http":
        return connection, replace(asked, target=f"http://{place}{asked.target}", headers={**asked.headers, **login})
    try:
        response = _answer(connection, clock, _Request("", "", 0, place, {"Host": place, **login}), method="CONNECT")
        if response.status != 200:
            raise _RefusedError(f"the proxy answers HTTP {response.status}")
    except Exception:
        connection.close()
        raise
    return _secured(connection, asked, clock), asked


def _look_up(host: str, port: int, clock: _Clock) -> list[_Address]:
    """The addresses of a host, none if it is not known. Systems look up in their own time, so a thread waits."""
    found: list[_Address] = []

    def ask() -> None:
        with contextlib.suppress(OSError, UnicodeError):
            found.extend((family, address) for family, *_, address in socket.getaddrinfo(host, port, type=_STREAM))

    thread = threading.Thread(target=ask, name="dekrpose look-up", daemon=True)
    thread.start()
    thread.join(max(clock.left(), 0))
    if thread.is_alive():
        raise TimeoutError("its host could not be looked up in time")
    return found


def _is_public(address: _Address) -> bool:
    """Whether an address is one that anybody's server may have; those with an IPv4 address inside go by that."""
    own = ipaddress.ip_address(address[1][0].split("%")[0])
    if any(own in network for network in _KEPT_BACK):
        return False
    if isinstance(own, ipaddress.IPv6Address):
        if own not in _NAT64 and own.ipv4_mapped is None:
            return own in _UNICAST and own not in _6TO4 and own.is_global
        return _is_public((socket.AF_INET, (str(ipaddress.IPv4Address(int(own) & 0xFFFFFFFF)),)))
    return own.is_global and not own.is_multicast and not own.is_reserved


def _connect(addresses: list[_Address], clock: _Clock) -> socket.socket:
    """A connection to the first address that takes one; nothing is looked up again."""
    failure: OSError = ConnectionError("its host is not known")
    for family, address in addresses:
        connection = socket.socket(family, _STREAM)
        try:
            clock.limit(connection).connect(address)
            return connection
        except OSError as error:
            connection.close()
            failure = error
    raise failure


def _secured(connection: socket.socket, asked: _Request, clock: _Clock) -> socket.socket:
    if asked.scheme != "https":
        return connection
    try:
        return ssl.create_default_context().wrap_socket(clock.limit(connection), server_hostname=asked.host)
    except Exception:
        connection.close()
        raise


def _reason(error: Exception) -> str:
    """A system's error in words; an http library's may hold what the server said, which nobody needs."""
    if isinstance(error, (http.client.HTTPException, ValueError)) and not isinstance(error, OSError):
        return "its server does not answer as one should"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
