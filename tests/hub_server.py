"""A hub on this machine that speaks Hugging Face's protocol to the real client, and fails on demand.

Two servers on two ports: the hub itself, and the store that it redirects large files to, so that the client sees two
hosts as it does in the wild.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

import pytest

Files = dict[str, bytes]


@functools.cache
def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@functools.cache
def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def is_large(path: str) -> bool:
    """Whether a repository's .gitattributes would send the file to LFS."""
    return path.endswith((".safetensors", ".bin", ".pth"))


@dataclass
class Repository:
    """Branches and tags point to commits; commits hold all their files."""

    private: bool = False
    gated: bool = False
    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: Files) -> str:
        whole = {**self.commits.get(self.branches.get(branch, ""), {}), **files}
        content = repr([len(self.commits), sorted((path, git_oid(data)) for path, data in whole.items())])
        sha = hashlib.sha1(content.encode()).hexdigest()
        self.commits[sha] = whole
        self.branches[branch] = sha
        return sha

    def resolve(self, revision: str) -> str | None:
        if revision in self.commits:
            return revision
        return self.branches.get(revision) or self.tags.get(revision)


@dataclass(frozen=True)
class Account:
    """Who a token belongs to, and whether it may write."""

    name: str
    writes: bool = True


@dataclass
class Faults:
    """What goes wrong, until a test sets it back.

    Args:
        cut: how many bodies of large files end early.
        cut_at: after how many bytes.
        stall: whether such a connection stays open without a byte, instead of being closed.
        wrong_bytes: large files have the right size and other content.
        short: the store announces and sends that many bytes less than the hub announced.
        status: every answer of the hub's API.
        silent: the hub accepts connections and never answers.
        page: the hub answers everything with a login page.
    """

    cut: int = 0
    cut_at: int = 0
    stall: bool = False
    wrong_bytes: bool = False
    short: int = 0
    status: int | None = None
    silent: bool = False
    page: bool = False


@dataclass(frozen=True)
class Seen:
    """A request that arrived; names of headers are in lower case."""

    host: str
    method: str
    path: str
    headers: Mapping[str, str]


def set_client(patch: pytest.MonkeyPatch, **settings: object) -> None:
    """Change what the client read from the environment, also where its modules made it their own."""
    from huggingface_hub import HfApi, snapshot_download

    assert HfApi
    assert snapshot_download  # their modules are imported late
    for path, module in list(sys.modules.items()):
        if path.startswith("huggingface_hub."):
            for name, value in settings.items():
                if name in vars(module):
                    patch.setattr(module, name, value)
    for reset in ("close_session", "reset_sessions"):
        getattr(sys.modules["huggingface_hub.utils._http"], reset, lambda: None)()


class HubServer:
    """Start with ``with HubServer() as hub``; ``hub.stop()`` makes both hosts dead."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.moved: dict[str, str] = {}
        self.accounts: dict[str, Account] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[Seen] = []
        self.faults = Faults()
        self.gate: threading.Barrier | None = None
        self.stopped = threading.Event()
        self.lock = threading.Lock()
        self._servers = [self._listen(_Hub), self._listen(_Store)]

    def _listen(self, handler: type[_Handler]) -> ThreadingHTTPServer:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type(handler.__name__, (handler,), {"hub": self}))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._servers[0].server_port}"

    @property
    def store_url(self) -> str:
        return f"http://127.0.0.1:{self._servers[1].server_port}"

    def __enter__(self) -> HubServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self.stopped.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def add(
        self, repo_id: str, files: Files, *, branch: str = "main", private: bool = False, gated: bool = False
    ) -> str:
        """Commit files; returns the commit."""
        repository = self.repositories.setdefault(repo_id, Repository(private=private, gated=gated))
        for path, content in files.items():
            if is_large(path):
                self.objects[sha256(content)] = content
        return repository.commit(branch, files)

    def seen(self, method: str, pattern: str) -> list[Seen]:
        return [one for one in self.requests if one.method == method and re.search(pattern, one.path)]

    def use(self, patch: pytest.MonkeyPatch, home: Path) -> None:
        """Point this process's client here, with an empty home and short timeouts."""
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
            patch.delenv(name, raising=False)
        for name in ("NO_PROXY", "no_proxy"):
            patch.setenv(name, "*")
        set_client(
            patch,
            ENDPOINT=self.url,
            HUGGINGFACE_CO_URL_TEMPLATE=self.url + "/{repo_id}/resolve/{revision}/{filename}",
            HF_HOME=str(home),
            HF_HUB_CACHE=str(home / "hub"),
            HF_TOKEN_PATH=str(home / "token"),
            HF_HUB_OFFLINE=False,
            HF_HUB_ETAG_TIMEOUT=5,
            HF_HUB_DOWNLOAD_TIMEOUT=5,
            HF_HUB_DISABLE_TELEMETRY=True,
            HF_HUB_DISABLE_XET=True,
        )


class _RefusalError(Exception):
    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


class _Handler(BaseHTTPRequestHandler):
    hub: ClassVar[HubServer]
    protocol_version = "HTTP/1.1"
    routes: ClassVar[list[tuple[str, str, str]]]

    def handle_any(self) -> None:
        self.close_connection = True  # or a stopped server would go on answering
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        path = urlsplit(self.path).path
        headers = {name.lower(): value for name, value in self.headers.items()}
        with self.hub.lock:
            self.hub.requests.append(Seen(type(self).__name__.strip("_").lower(), self.command, self.path, headers))
        try:
            self.route(path)
        except _RefusalError as refused:
            extra = {"X-Error-Message": refused.message} | ({"X-Error-Code": refused.code} if refused.code else {})
            self.json({"error": refused.message}, refused.status, extra)
        except (BrokenPipeError, ConnectionResetError):
            pass

    do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815

    def route(self, path: str) -> None:
        for methods, pattern, name in self.routes:
            match = re.fullmatch(pattern, path)
            if match and self.command in methods.split():
                getattr(self, name)(*(unquote(part) for part in match.groups()))
                return
        raise _RefusalError(404, f"no such page: {self.command} {path}")

    def json(self, value: Any, status: int = 200, extra: Mapping[str, str] | None = None) -> None:
        self.answer(json.dumps(value).encode(), status, {"Content-Type": "application/json"} | dict(extra or {}))

    def answer(self, content: bytes, status: int, extra: Mapping[str, str]) -> None:
        self.head(status, {"Content-Length": str(len(content))} | dict(extra))
        if self.command != "HEAD":
            self.wfile.write(content)

    def head(self, status: int, extra: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**extra, "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are kept, not printed."""


class _Hub(_Handler):
    routes: ClassVar = [
        ("GET", "/api/whoami-v2", "whoami"),
        ("POST", "/api/repos/create", "create"),
        ("POST", "/api/validate-yaml", "validate"),
        ("GET", "/api/models/([^/]+/[^/]+)", "info"),
        ("GET", "/api/models/([^/]+/[^/]+)/revision/([^/]+)", "info"),
        ("GET", "/api/models/([^/]+/[^/]+)/tree/([^/]+)", "tree"),
        ("GET", "/api/models/([^/]+/[^/]+)/refs", "refs"),
        ("POST", "/api/models/([^/]+/[^/]+)/branch/([^/]+)", "branch"),
        ("POST", "/api/models/([^/]+/[^/]+)/preupload/([^/]+)", "preupload"),
        ("POST", "/api/models/([^/]+/[^/]+)/commit/([^/]+)", "commit"),
        ("POST", r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", "batch"),
        ("GET HEAD", "/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", "resolve"),
    ]

    def route(self, path: str) -> None:
        faults = self.hub.faults
        if faults.silent:
            self.hub.stopped.wait(20)
            return
        if faults.page:
            self.answer(b"<html>Log in to the hotel's network</html>", 200, {"Content-Type": "text/html"})
            return
        if faults.status is not None:
            raise _RefusalError(faults.status, "the hub is having a bad day")
        for old, new in self.hub.moved.items():
            if old in path:
                self.head(307, {"Location": self.path.replace(old, new), "Content-Length": "0"})
                return
        super().route(path)

    def account(self) -> Account | None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in self.hub.accounts:
            raise _RefusalError(401, "Invalid credentials in Authorization header")
        return self.hub.accounts.get(token)

    def readable(self, repo_id: str) -> Repository:
        account, repository = self.account(), self.hub.repositories.get(repo_id)
        mine = account is not None and repo_id.startswith(account.name + "/")
        if repository is None or (repository.private and not mine):
            raise _RefusalError(404 if account else 401, "Repository not found", "RepoNotFound")
        return repository

    def writable(self, repo_id: str) -> Repository:
        account = self.account()
        if account is None:
            raise _RefusalError(401, "Invalid username or password.")
        if not (account.writes and repo_id.startswith(account.name + "/")):
            raise _RefusalError(403, "Forbidden: you must use a write token of the owner")
        return self.readable(repo_id)

    def at(self, repo_id: str, revision: str) -> tuple[str, Files]:
        repository = self.readable(repo_id)
        sha = repository.resolve(revision)
        if sha is None:
            raise _RefusalError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return sha, repository.commits[sha]

    def whoami(self) -> None:
        account = self.account()
        if account is None:
            raise _RefusalError(401, "Invalid username or password.")
        self.json({"type": "user", "name": account.name, "orgs": []})

    def info(self, repo_id: str, revision: str = "main") -> None:
        sha, files = self.at(repo_id, revision)
        if self.hub.gate is not None:
            self.hub.gate.wait(20)
        blobs = "blobs" in self.path
        siblings = [
            {"rfilename": path, **({"size": len(data), "blobId": git_oid(data), **_lfs(path, data)} if blobs else {})}
            for path, data in files.items()
        ]
        repository = self.hub.repositories[repo_id]
        about = {
            "author": repo_id.split("/")[0],
            "private": repository.private,
            "gated": "manual" if repository.gated else False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": ["dekrpose"],
            "lastModified": "2025-01-01T00:00:00.000Z",
            "createdAt": "2025-01-01T00:00:00.000Z",
        }
        self.json({"id": repo_id, "modelId": repo_id, "sha": sha, "siblings": siblings, **about})

    def tree(self, repo_id: str, revision: str) -> None:
        _, files = self.at(repo_id, revision)
        self.json(
            [
                {"type": "file", "path": path, "size": len(data), "oid": git_oid(data), **_lfs(path, data)}
                for path, data in files.items()
            ]
        )

    def refs(self, repo_id: str) -> None:
        repository = self.readable(repo_id)
        named = {
            kind: [{"name": name, "ref": f"refs/{ref}/{name}", "targetCommit": sha} for name, sha in found.items()]
            for kind, ref, found in (("branches", "heads", repository.branches), ("tags", "tags", repository.tags))
        }
        self.json({**named, "converts": []})

    def resolve(self, repo_id: str, revision: str, path: str) -> None:
        sha, files = self.at(repo_id, revision)
        if self.hub.repositories[repo_id].gated:
            raise _RefusalError(
                403 if self.account() else 401, f"Access to model {repo_id} is restricted.", "GatedRepo"
            )
        if path not in files:
            raise _RefusalError(404, "Entry not found", "EntryNotFound")
        content = files[path]
        if not is_large(path):
            self.answer(content, 200, {"ETag": f'"{git_oid(content)}"', "X-Repo-Commit": sha})
            return
        oid = sha256(content)
        linked = {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(content)), "X-Repo-Commit": sha}
        location = f"{self.hub.store_url}/objects/{oid}"
        self.head(302, {"Location": location, "ETag": f'"{git_oid(content)}"', "Content-Length": "0", **linked})

    def create(self) -> None:
        wanted = json.loads(self.body)
        account = self.account()
        if account is None:
            raise _RefusalError(401, "Invalid username or password.")
        owner = wanted.get("organization") or account.name
        repo_id = f"{owner}/{wanted['name']}"
        if not account.writes or owner != account.name:
            raise _RefusalError(403, f"You don't have the rights to create a model under the namespace {owner!r}")
        if repo_id in self.hub.repositories:
            self.json({"error": "You already created this model repo", "url": f"{self.hub.url}/{repo_id}"}, 409)
            return
        private = bool(wanted.get("private")) or wanted.get("visibility") == "private"
        self.hub.add(repo_id, {".gitattributes": b"*.safetensors filter=lfs\n"}, private=private)
        self.json({"url": f"{self.hub.url}/{repo_id}", "name": repo_id})

    def validate(self) -> None:
        valid = json.loads(self.body)["content"].startswith("---\n")
        self.json({"errors": [], "warnings": [] if valid else [{"message": "empty or missing yaml metadata"}]})

    def branch(self, repo_id: str, name: str) -> None:
        repository = self.writable(repo_id)
        if name in repository.branches:
            raise _RefusalError(409, f"Reference already exists: {name}")
        repository.branches[name] = repository.branches["main"]
        self.json({})

    def preupload(self, repo_id: str, revision: str) -> None:
        self.writable(repo_id)
        _, files = self.at(repo_id, revision)
        self.json(
            {
                "files": [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if is_large(file["path"]) else "regular",
                        "shouldIgnore": False,
                        "oid": git_oid(files[file["path"]]) if file["path"] in files else None,
                    }
                    for file in json.loads(self.body)["files"]
                ]
            }
        )

    def batch(self, repo_id: str) -> None:
        self.writable(repo_id)
        objects = [
            {
                "oid": one["oid"],
                "size": one["size"],
                "actions": {"upload": {"href": f"{self.hub.store_url}/objects/{one['oid']}"}},
            }
            for one in json.loads(self.body)["objects"]
        ]
        self.json({"transfer": "basic", "objects": objects})

    def commit(self, repo_id: str, revision: str) -> None:
        repository = self.writable(repo_id)
        files: Files = {}
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        sha = repository.commit(revision, files)
        self.json({"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{repo_id}/commit/{sha}"})


class _Store(_Handler):
    routes: ClassVar = [("GET HEAD", "/objects/(.+)", "download"), ("PUT", "/objects/(.+)", "upload")]

    def upload(self, oid: str) -> None:
        if sha256(self.body) != oid:
            raise _RefusalError(400, "the content is not what its name says")
        self.hub.objects[oid] = self.body
        self.answer(b"", 200, {})

    def download(self, oid: str) -> None:
        content, faults = self.hub.objects[oid], self.hub.faults
        if faults.wrong_bytes:
            content = bytes(255 - byte for byte in content[:64]) + content[64:]
        content = content[: len(content) - faults.short]
        start, status, extra = 0, 200, {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if wanted:
            start, status = int(wanted[1]), 206
            extra["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        self.head(status, {"Content-Length": str(len(body)), **extra})
        if self.command == "HEAD":
            return
        if faults.cut > 0:
            faults.cut -= 1
            self.wfile.write(body[: faults.cut_at])
            if faults.stall:
                self.wfile.flush()
                self.hub.stopped.wait(20)
            return
        self.wfile.write(body)


def _lfs(path: str, content: bytes) -> dict[str, Any]:
    if not is_large(path):
        return {}
    oid = sha256(content)
    return {"lfs": {"oid": oid, "sha256": oid, "size": len(content), "pointerSize": 134}}
