"""A local file server with faults: what can go wrong between a user and a download."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class FileServer:
    """Files by name, and the faults that a test switches on.

    Attributes:
        address: http://host:port
        files: name to content.
        requests: (method, path, Range header or None) of every request.
        statuses: answered, one each, before anything else.
        cut_after: bytes per connection after which it is closed.
        cuts: how many connections are cut; -1 is all.
        stall_after: bytes after which one connection says nothing more.
        ranges: whether Range is understood.
        redirects: path to address.
    """

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    cut_after: int | None = None
    cuts: int = -1
    stall_after: int | None = None
    delay: float = 0.0
    ranges: bool = True
    redirects: dict[str, str] = field(default_factory=dict)
    stop_stalling: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serve() -> Iterator[FileServer]:
    """Run a server on a free port."""
    state = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            state.requests.append(("GET", self.path, asked))
            time.sleep(state.delay)
            if state.statuses:
                return self.refuse(state.statuses.pop(0))
            if self.path in state.redirects:
                self.send_response(302)
                self.send_header("Location", state.redirects[self.path])
                self.end_headers()
                return None
            content = state.files.get(self.path.rsplit("/", 1)[-1])
            if content is None:
                return self.refuse(404)
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and state.ranges else 0
            if start and start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.end_headers()
                return None
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            return self.send_body(content[start:])

        def refuse(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def send_body(self, body: bytes) -> None:
            if state.stall_after is not None:
                amount, state.stall_after = state.stall_after, None
                self.wfile.write(body[:amount])
                self.wfile.flush()
                state.stop_stalling.wait(30)
                return
            if state.cut_after is not None and state.cuts != 0:
                state.cuts -= 1
                body = body[: state.cut_after]
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.stop_stalling.set()
        server.shutdown()
        server.server_close()
