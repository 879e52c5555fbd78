"""A web server for tests: files, refusals, redirects, and what it was asked for."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Website:
    """What the server has: bytes, a status, or the address that it sends the client on to, by path."""

    address: str = ""
    pages: dict[str, bytes | int | str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """Each path with its query, in the order of the requests."""
    users: list[str] = field(default_factory=list)
    """What clients that said who they are said."""

    @property
    def host(self) -> str:
        return self.address.removeprefix("http://")


@contextmanager
def serve(**pages: bytes | int | str) -> Iterator[Website]:
    """A website with some pages: `a_wav` is /a.wav."""
    site = Website(pages={f"/{name.replace('_', '.')}": page for name, page in pages.items()})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append(self.path)
            if user := self.headers.get("Authorization"):
                site.users.append(base64.b64decode(user.removeprefix("Basic ")).decode())
            page = site.pages.get(self.path.partition("?")[0], 404)
            body = page if isinstance(page, bytes) else b"no audio"
            self.send_response(page if isinstance(page, int) else 302 if isinstance(page, str) else 200)
            if isinstance(page, str):
                self.send_header("Location", page)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing is printed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        site.address = f"http://127.0.0.1:{server.server_port}"
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()
