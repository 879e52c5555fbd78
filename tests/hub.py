"""A small Hugging Face hub on the loopback interface: as much of its API as makes, fills and reads a dataset repo.

Written from the requests that huggingface_hub sends and the answers that it reads. It keeps files in memory, wants the
right token, and checks what it is sent: the SHA-256 of large files, and that a commit names only what was uploaded.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

import yaml

TOKEN = "hf_secret_of_the_test"
ABSENT = {"X-Error-Code": "RepoNotFound"}


@dataclass
class Repo:
    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)
    commits: list[list[str]] = field(default_factory=list)
    """Paths of each commit."""


@dataclass
class Hub:
    """What the server holds; `fail_after` commits it stops answering."""

    address: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    uploads: int = 0
    fail_after: int | None = None


@dataclass(frozen=True)
class Asked:
    """What a request says beside its path."""

    body: bytes
    query: dict[str, list[str]]
    range: str | None


@contextmanager
def hub() -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            """Nothing is printed."""

        def do_GET(self) -> None:
            self._answer("GET")

        def do_HEAD(self) -> None:
            self._answer("HEAD")

        def do_POST(self) -> None:
            self._answer("POST")

        def do_PUT(self) -> None:
            self._answer("PUT")

        def _answer(self, method: str) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            url = urlparse(self.path)
            path = unquote(url.path)
            asked = Asked(body, parse_qs(url.query), self.headers.get("Range"))
            if method != "PUT" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._send(401, {"error": "Invalid credentials"})
                return
            for verb, pattern, action in _ROUTES:
                if verb == method and (match := re.fullmatch(pattern, path)):
                    self._send(*action(state, asked, *match.groups()))
                    return
            self._send(404, {"error": f"no such place: {method} {path}"})

        def _send(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
            data = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _create(state: Hub, asked: Asked) -> tuple[Any, ...]:
    repo = json.loads(asked.body)
    name = f"{repo['organization']}/{repo['name']}" if repo.get("organization") else repo["name"]
    assert repo["type"] == "dataset"
    private = repo.get("visibility") == "private" or bool(repo.get("private"))
    state.repos[name] = Repo(private)
    return 200, {"url": f"{state.address}/datasets/{name}", "name": name}


def _validate(state: Hub, asked: Asked) -> tuple[Any, ...]:
    header = json.loads(asked.body)["content"].split("---\n")[1]
    errors = [] if isinstance(yaml.safe_load(header), dict) else [{"message": "no front matter"}]
    return 200, {"errors": errors, "warnings": []}


def _info(state: Hub, asked: Asked, name: str) -> tuple[Any, ...]:
    repo = state.repos.get(name)
    if repo is None:
        return 404, {"error": "Repository not found"}, ABSENT
    return 200, {"id": name, "private": repo.private, "sha": "0" * 40, "siblings": []}


def _tree(state: Hub, asked: Asked, name: str, revision: str, folder: str = "") -> tuple[Any, ...]:
    repo = state.repos[name]
    below = {path: data for path, data in repo.files.items() if path.startswith(folder and f"{folder}/")}
    if folder and not below:
        return 404, {"error": "no such entry"}, {"X-Error-Code": "EntryNotFound"}
    entries: dict[str, dict[str, Any]] = {}
    for path, data in below.items():
        inner = path[len(folder) + 1 if folder else 0 :].partition("/")
        if inner[1] and asked.query.get("recursive") == ["false"]:
            child = "/".join(filter(None, (folder, inner[0])))
            entries[child] = {"type": "directory", "path": child, "oid": "d" * 40, "size": 0}
            continue
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": _blob(data)}
        if path in repo.large:
            digest = hashlib.sha256(data).hexdigest()
            entry |= {"oid": "f" * 40, "lfs": {"oid": digest, "size": len(data), "pointerSize": 134}}
        entries[path] = entry
    return 200, list(entries.values())


def _resolve(state: Hub, asked: Asked, name: str, revision: str, path: str) -> tuple[Any, ...]:
    data = state.repos[name].files.get(path)
    if data is None:
        return 404, {"error": "no such entry"}, {"X-Error-Code": "EntryNotFound"}
    headers = {"ETag": f'"{_blob(data)}"', "X-Repo-Commit": "1" * 40, "Accept-Ranges": "bytes"}
    if asked.range is None:
        return 200, data, headers
    first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.range).groups()  # type: ignore[union-attr]
    start, stop = int(first), min(len(data), int(last) + 1 if last else len(data))
    return 206, data[start:stop], headers | {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}


def _blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _preupload(state: Hub, asked: Asked, name: str, revision: str) -> tuple[Any, ...]:
    files = [
        {"path": file["path"], "uploadMode": _mode(file["path"]), "shouldIgnore": False, "oid": None}
        for file in json.loads(asked.body)["files"]
    ]
    return 200, {"files": files}


def _mode(path: str) -> str:
    return "lfs" if path.endswith(".parquet") else "regular"


def _batch(state: Hub, asked: Asked, name: str) -> tuple[Any, ...]:
    answers = []
    for item in json.loads(asked.body)["objects"]:
        upload = {"upload": {"href": f"{state.address}/objects/{item['oid']}", "header": {}}}
        held = item["oid"] in state.objects
        answers.append({"oid": item["oid"], "size": item["size"], **({} if held else {"actions": upload})})
    return 200, {"objects": answers, "transfer": "basic"}


def _put(state: Hub, asked: Asked, digest: str) -> tuple[Any, ...]:
    if hashlib.sha256(asked.body).hexdigest() != digest:
        return 400, {"error": "another digest"}
    state.objects[digest] = asked.body
    state.uploads += 1
    return 200, {}


def _commit(state: Hub, asked: Asked, name: str, revision: str) -> tuple[Any, ...]:
    repo = state.repos[name]
    if state.fail_after is not None and len(repo.commits) >= state.fail_after:
        return 403, {"error": "Storage limit reached"}
    paths = []
    for line in asked.body.splitlines():
        item = json.loads(line)
        value = item["value"]
        if item["key"] == "file":
            repo.files[value["path"]] = base64.b64decode(value["content"])
        elif item["key"] == "lfsFile":
            repo.files[value["path"]] = state.objects[value["oid"]]
            repo.large.add(value["path"])
        else:
            continue
        paths.append(value["path"])
    repo.commits.append(paths)
    return 200, {"commitUrl": f"{state.address}/datasets/{name}/commit/{'1' * 40}", "commitOid": "1" * 40}


_ROUTES: list[tuple[str, str, Any]] = [
    ("POST", "/api/repos/create", _create),
    ("POST", "/api/validate-yaml", _validate),
    ("GET", "/api/datasets/([^/]+/[^/]+)", _info),
    ("GET", "/api/datasets/([^/]+/[^/]+)/tree/([^/]+)", _tree),
    ("GET", "/api/datasets/([^/]+/[^/]+)/tree/([^/]+)/(.+)", _tree),
    ("GET", "/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", _resolve),
    ("HEAD", "/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", _resolve),
    ("POST", "/api/datasets/([^/]+/[^/]+)/preupload/([^/]+)", _preupload),
    ("POST", r"/datasets/([^/]+/[^/]+)\.git/info/lfs/objects/batch", _batch),
    ("PUT", "/objects/([0-9a-f]{64})", _put),
    ("POST", "/api/datasets/([^/]+/[^/]+)/commit/([^/]+)", _commit),
]
