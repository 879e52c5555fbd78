"""A small Hugging Face hub on the loopback interface: the part of its API that a dataset repo is made and filled with.

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
from urllib.parse import urlparse

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


@contextmanager
def hub() -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            """Nothing is printed."""

        def do_GET(self) -> None:
            self._answer("GET")

        def do_POST(self) -> None:
            self._answer("POST")

        def do_PUT(self) -> None:
            self._answer("PUT")

        def _answer(self, method: str) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = urlparse(self.path).path
            if method != "PUT" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._send(401, {"error": "Invalid credentials"})
                return
            for verb, pattern, action in _ROUTES:
                if verb == method and (match := re.fullmatch(pattern, path)):
                    self._send(*action(state, *match.groups(), body))
                    return
            self._send(404, {"error": f"no such place: {method} {path}"})

        def _send(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
            data = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
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


def _create(state: Hub, body: bytes) -> tuple[Any, ...]:
    asked = json.loads(body)
    name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
    assert asked["type"] == "dataset"
    private = asked.get("visibility") == "private" or bool(asked.get("private"))
    state.repos[name] = Repo(private)
    return 200, {"url": f"{state.address}/datasets/{name}", "name": name}


def _validate(state: Hub, body: bytes) -> tuple[Any, ...]:
    header = json.loads(body)["content"].split("---\n")[1]
    errors = [] if isinstance(yaml.safe_load(header), dict) else [{"message": "no front matter"}]
    return 200, {"errors": errors, "warnings": []}


def _info(state: Hub, name: str, body: bytes) -> tuple[Any, ...]:
    repo = state.repos.get(name)
    if repo is None:
        return 404, {"error": "Repository not found"}, ABSENT
    return 200, {"id": name, "private": repo.private, "sha": "0" * 40, "siblings": []}


def _tree(state: Hub, name: str, revision: str, body: bytes) -> tuple[Any, ...]:
    repo = state.repos[name]
    entries = []
    for path, data in repo.files.items():
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data)}
        entry["oid"] = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        if path in repo.large:
            digest = hashlib.sha256(data).hexdigest()
            entry |= {"oid": "f" * 40, "lfs": {"oid": digest, "size": len(data), "pointerSize": 134}}
        entries.append(entry)
    return 200, entries


def _preupload(state: Hub, name: str, revision: str, body: bytes) -> tuple[Any, ...]:
    files = [
        {"path": asked["path"], "uploadMode": _mode(asked["path"]), "shouldIgnore": False, "oid": None}
        for asked in json.loads(body)["files"]
    ]
    return 200, {"files": files}


def _mode(path: str) -> str:
    return "lfs" if path.endswith(".parquet") else "regular"


def _batch(state: Hub, name: str, body: bytes) -> tuple[Any, ...]:
    answers = []
    for asked in json.loads(body)["objects"]:
        upload = {"upload": {"href": f"{state.address}/objects/{asked['oid']}", "header": {}}}
        held = asked["oid"] in state.objects
        answers.append({"oid": asked["oid"], "size": asked["size"], **({} if held else {"actions": upload})})
    return 200, {"objects": answers, "transfer": "basic"}


def _put(state: Hub, digest: str, body: bytes) -> tuple[Any, ...]:
    if hashlib.sha256(body).hexdigest() != digest:
        return 400, {"error": "another digest"}
    state.objects[digest] = body
    state.uploads += 1
    return 200, {}


def _commit(state: Hub, name: str, revision: str, body: bytes) -> tuple[Any, ...]:
    repo = state.repos[name]
    if state.fail_after is not None and len(repo.commits) >= state.fail_after:
        return 403, {"error": "Storage limit reached"}
    paths = []
    for line in body.splitlines():
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
    ("POST", "/api/datasets/([^/]+/[^/]+)/preupload/([^/]+)", _preupload),
    ("POST", r"/datasets/([^/]+/[^/]+)\.git/info/lfs/objects/batch", _batch),
    ("PUT", "/objects/([0-9a-f]{64})", _put),
    ("POST", "/api/datasets/([^/]+/[^/]+)/commit/([^/]+)", _commit),
]
