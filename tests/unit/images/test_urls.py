from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from dekrpose import PoseEstimator
from dekrpose.errors import ImageError, without_password
from dekrpose.images import load
from dekrpose.images import urls as module
from dekrpose.images.urls import fetch
from tests.file_server import FileServer, serve
from tests.small_model import write_small_model

PHOTO = Path(__file__).parents[3] / "examples" / "photographer.jpg"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serve() as state:
        state.files["photo.jpg"] = PHOTO.read_bytes()
        yield state


@contextmanager
def raw_server(answer: Callable[[socket.socket], None], asked: list[bytes] | None = None) -> Iterator[str]:
    """A server that says what it wants to each connection, and keeps what it was asked."""
    requests = [] if asked is None else asked
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    requests.append(connection.recv(65536))
                    with suppress(OSError):
                        answer(connection)

        threading.Thread(target=run, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/a.jpg"
        listener.shutdown(socket.SHUT_RDWR)


def get(url: str, seconds: float = 5.0, most_bytes: int = 2**20, allow_private: bool = True) -> bytes:
    return fetch(url, seconds=seconds, most_bytes=most_bytes, allow_private=allow_private)


def known_hosts(monkeypatch: pytest.MonkeyPatch, hosts: dict[str, list[str]]) -> list[str]:
    """Names lead to these addresses, one list after the other; returns what was connected to."""
    connected: list[str] = []

    def look_up(host: str, port: int, **_: Any) -> list[Any]:
        if host not in hosts:
            raise socket.gaierror(-2, "Name or service not known")
        answers = hosts[host]
        address = answers.pop(0) if len(answers) > 1 else answers[0]
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (address, port))]

    def connect(addresses: list[Any], clock: Any) -> socket.socket:
        connected.extend(address[0] for _, address in addresses)
        raise ConnectionRefusedError("refused")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(module, "_connect", connect)
    return connected


PRIVATE = [
    "127.0.0.1", "127.1", "0x7f.1", "0x7f000001", "2130706433", "0177.0.0.1", "127.0.0.1.", "0", "0.0.0.0", "10.1.2.3",
    "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1",
    "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[fe80::1]", "[fc00::1]", "[fec0::1]",
    "[ff02::1]", "[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2001::1]", "localhost",
    "192.0.0.192", "192.88.99.1", "168.63.129.16", "[3fff::1]", "[64:ff9b::a83f:8110]", "[::ffff:168.63.129.16]",
    "①②⑦.⓪.⓪.①", "127%2e0.0.1", "name:password@127.0.0.1",
]  # fmt: skip


@pytest.mark.parametrize("host", PRIVATE)
def test_private_addresses_are_refused_however_they_are_spelt(host: str) -> None:
    with pytest.raises(ImageError, match="cannot fetch") as caught:
        load(f"http://{host}:9/photo.jpg")
    assert "password" not in str(caught.value)


def test_estimate_and_estimate_many_refuse_what_allow_private_takes(server: FileServer, tmp_path: Path) -> None:
    estimator = PoseEstimator.from_pretrained(write_small_model(tmp_path / "small.safetensors"))
    url = f"{server.address}/photo.jpg"
    with pytest.raises(ImageError, match="private address"):
        estimator.estimate(url)
    (failed,) = estimator.estimate_many([url], on_error="skip")
    assert "private address" in str(failed.error)
    assert server.requests == []
    assert estimator.estimate(url, allow_private=True).source == url
    assert not next(estimator.estimate_many([url], allow_private=True)).error
    assert not next(estimator.estimate_video(iter([url]))).error
    with pytest.raises(ValueError, match="trusted sources"):
        estimator.estimate_video([url], allow_private=False)


def test_public_addresses_are_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = {"a.example": ["93.184.216.34"], "b.example": ["2606:2800:220:1::1"], "c.example": ["64:ff9b::5db8:d822"]}
    connected = known_hosts(monkeypatch, hosts)
    for host in hosts:
        with pytest.raises(ImageError, match="refused"):
            get(f"http://{host}/a.jpg", allow_private=False)
    assert connected == [address for (address,) in hosts.values()]


def test_the_address_that_was_checked_is_the_one_that_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    connected = known_hosts(monkeypatch, {"changing.example": ["93.184.216.34", "127.0.0.1"]})
    with pytest.raises(ImageError):
        get("http://changing.example/a.jpg", allow_private=False)
    assert connected == ["93.184.216.34"]


def test_a_redirect_is_checked_as_its_start(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.redirects = {"/a": "http://localhost:9/secret", "/b": "/photo.jpg"}
    own = server.address.rpartition(":")[2]
    monkeypatch.setattr(module, "_is_public", lambda address: address[1][1] == int(own))
    with pytest.raises(ImageError, match="private address"):
        get(f"{server.address}/a", allow_private=False)
    assert get(f"{server.address}/b", allow_private=False) == PHOTO.read_bytes()


@pytest.mark.parametrize("target", ["ftp://host/a.jpg", "file:///etc/passwd", "gopher://host/", "data:,x"])
def test_redirects_to_other_schemes_are_refused(server: FileServer, target: str) -> None:
    server.redirects = {"/a": target}
    with pytest.raises(ImageError, match="only http and https"):
        get(f"{server.address}/a")


def test_a_circle_of_redirects_ends(server: FileServer) -> None:
    server.redirects = {"/a": "/b", "/b": "/a"}
    with pytest.raises(ImageError, match="more than 5 times"):
        get(f"{server.address}/a")
    assert len(server.requests) == 6


def drip(start: bytes) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.sendall(start)
        for _ in range(100):
            connection.sendall(b"x")
            time.sleep(0.02)

    return answer


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"])
def test_a_server_that_gives_a_byte_now_and_then_is_given_up(start: bytes) -> None:
    with raw_server(drip(start)) as url, pytest.raises(ImageError, match=r"takes longer than 0\.2 s"):
        get(url, seconds=0.2)


def test_a_server_that_takes_the_request_a_byte_now_and_then_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(socket.socket):  # as an encrypted connection, which counts anew for each piece
        def send(self, data: Any, *_: Any) -> int:
            time.sleep(0.02)
            return super().send(data[:1])

    def connect(addresses: list[Any], clock: Any) -> socket.socket:
        connection = Slow(addresses[0][0], socket.SOCK_STREAM)
        connection.connect(addresses[0][1])
        return connection

    monkeypatch.setattr(module, "_connect", connect)
    with raw_server(drip(b"")) as url, pytest.raises(ImageError, match=r"takes longer than 0\.2 s"):
        get(f"{url}?{'a' * 1000}", seconds=0.2)


def test_an_address_of_any_length_is_not_asked_for() -> None:
    with pytest.raises(ImageError, match="a text of 40,014 characters"):
        get(f"http://host/{'a' * 40_000}.a")


def test_a_slow_look_up_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(1) or [])
    with pytest.raises(ImageError, match="takes longer than"):
        get("http://slow.example/", seconds=0.1)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n0123456789", "ends after 10 of 20 bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n0123456789", "a length that is none"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", "larger than 1 MiB"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(2**20 + 1), "larger than 1 MiB"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffff\r\nabc", "does not answer as one should"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 500, "does not answer as one should"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "HTTP 204"),
        (b"HTTP/1.1 302 Found\r\n\r\n", "more than 5 times"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://[\r\n\r\n", "does not answer as one should"),
        (b"secret words\r\n\r\n", "does not answer as one should"),
        (b"", "closed connection"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_odd_answers_are_image_errors(answer: bytes, reason: str) -> None:
    with raw_server(lambda connection: connection.sendall(answer)) as url, pytest.raises(ImageError, match=reason) as e:
        get(url)
    assert "secret" not in str(e.value)


def test_a_password_goes_to_its_own_host_and_into_no_message() -> None:
    answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"]
    asked: list[bytes] = []
    with raw_server(lambda connection: connection.sendall(answers[0]), asked) as url:
        address = url.replace("http://", "http://name:pass%20word@")
        assert get(address) == b"ok"
        assert b"Authorization: Basic bmFtZTpwYXNzIHdvcmQ=\r\n" in asked[0]
        with pytest.raises(ImageError) as caught:
            load(address, allow_private=True)
        assert "word" not in str(caught.value)
        with serve() as other:
            other.redirects = {"/a.jpg": url}
            get(f"{other.address}/a.jpg".replace("http://", "http://name:password@"))
    assert b"Authorization" not in asked[-1]


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://name:secret@host/a", "http://host/a"),
        ("http://name:sec/ret@host/a", "http://host/a"),
        ("rtsp://name:s@cret@10.0.0.5:554/live", "rtsp://10.0.0.5:554/live"),
        ("http://name:sec#ret@host/a", "http://host/a"),
        ("http://secret@host", "http://host"),
        ("http:/name:secret@host/a", "http:/host/a"),
        ("http:\\\\name:secret@host/a", "http:\\\\host/a"),
        ("http:///name:secret@host/a", "http:///host/a"),
        ("C:\\photos\\a@b.jpg", "C:\\photos\\a@b.jpg"),
        ("https://host:8080/@name/a.jpg", "https://host:8080/@name/a.jpg"),
        ("https://host/@name/a.jpg?b@c", "https://host/@name/a.jpg?b@c"),
        ("http://[::1]:80/a@b", "http://[::1]:80/a@b"),
        ("photos/a@b.jpg", "photos/a@b.jpg"),
    ],
)
def test_passwords_are_taken_out_of_addresses(address: str, shown: str) -> None:
    assert without_password(address) == shown


@pytest.mark.parametrize(
    "text", ["http://" + ":a" * 20_000, "a" * 10**6, "http://" + ":a" * 15_000 + "@host/", "ab:\\[" * 200_000]
)
def test_long_texts_are_looked_at_once(text: str) -> None:
    assert len(without_password(text)) <= 2**15


@pytest.mark.parametrize("start", ["http:/", "http:\\\\", "http:///", "HTTP:/"])
@pytest.mark.parametrize("end", ["host/a.jpg", "h/" + "a" * 5000])
def test_a_password_in_a_mistyped_address_is_in_no_message(start: str, end: str) -> None:
    with pytest.raises((ImageError, OSError)) as caught:
        load(f"{start}name:secret@{end}")
    assert "secret" not in str(caught.value)


class TestProxies:
    def test_a_host_with_its_port_may_do_without_the_proxy(
        self, server: FileServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        monkeypatch.setenv("no_proxy", server.address.removeprefix("http://"))
        assert get(f"{server.address}/photo.jpg") == PHOTO.read_bytes()

    def test_a_host_of_many_digits_is_no_work(self, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("http_proxy", server.address)
        assert get(f"http://{'1' * 60}x.invalid/photo.jpg", allow_private=False) == PHOTO.read_bytes()
        with pytest.raises(ImageError, match="its host is not known"):
            get(f"http://{'1' * 60}x/photo.jpg", allow_private=False)

    def test_a_configured_proxy_is_used_wherever_it_is(
        self, server: FileServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("http_proxy", server.address)
        assert get("http://photos.invalid/photo.jpg", allow_private=False) == PHOTO.read_bytes()
        assert server.requests[0][1] == "http://photos.invalid:80/photo.jpg"

    @pytest.mark.parametrize("host", ["127.0.0.1", "0x7f000001", "[::1]", "localhost"])
    def test_what_is_private_here_is_not_asked_of_a_proxy(
        self, server: FileServer, monkeypatch: pytest.MonkeyPatch, host: str
    ) -> None:
        monkeypatch.setenv("http_proxy", server.address)
        with pytest.raises(ImageError, match="private address"):
            get(f"http://{host}/photo.jpg", allow_private=False)
        assert server.requests == []

    def test_a_proxy_that_refuses_a_tunnel_is_said(self, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
        with raw_server(lambda connection: connection.sendall(b"HTTP/1.1 407 No\r\n\r\n")) as address:
            monkeypatch.setenv("https_proxy", address.replace("http://", "http://name:secret@"))
            with pytest.raises(ImageError, match="the proxy answers HTTP 407") as caught:
                get("https://photos.invalid/a.jpg", allow_private=False)
        assert "secret" not in str(caught.value)
