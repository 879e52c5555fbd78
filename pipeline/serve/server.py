"""The HTTP server of the pages: only reads, only the addresses named here, and only under names of this machine."""

from __future__ import annotations

import ipaddress
import socket
import socketserver
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from urllib.parse import parse_qs, urlsplit

from pipeline.loading.rows import RowNotFound
from pipeline.serve.pages import clip_page, frame_page, now_page
from pipeline.serve.watch import Watch
from pipeline.storage import StorageError

HTML, SCRIPT, TEXT, FLAC = "text/html; charset=utf-8", "text/javascript", "text/plain; charset=utf-8", "audio/flac"
IDLE_SECONDS = 30
"""A connection that says nothing for so long is closed."""
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class PageServer(ThreadingHTTPServer):
    """Serves the pages of an output.

    Raises OSError where the address cannot be had. `host` is a name or an address of this machine; with port 0 a free
    one is taken.
    """

    daemon_threads = True

    def __init__(self, watch: Watch, host: str, port: int) -> None:
        self.watch, self.host = watch, host
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Without asking the network for this machine's name, as HTTPServer does."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.host, int(self.server_address[1])

    @property
    def url(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.server_port}/"

    def server_close(self) -> None:
        super().server_close()
        self.watch.close()


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    server_version, sys_version = "moss-tok", ""
    timeout = IDLE_SECONDS

    def do_GET(self) -> None:
        if not _names_this_machine(self.headers.get("Host", ""), self.server.host):
            self._answer(HTTPStatus.MISDIRECTED_REQUEST, TEXT, b"this server has another name\n")
            return
        address = urlsplit(self.path)
        make = _PAGES.get(address.path)
        if make is None:
            self._answer(HTTPStatus.NOT_FOUND, TEXT, b"nothing here\n")
            return
        clip_id = parse_qs(address.query).get("id", [""])[0]
        try:
            kind, body = make(self.server.watch, clip_id)
        except RowNotFound as error:
            self._answer(HTTPStatus.NOT_FOUND, TEXT, f"{error}\n".encode("utf-8", "backslashreplace"))
        except (StorageError, OSError, ValueError, LookupError) as error:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, TEXT, f"{error}\n".encode("utf-8", "backslashreplace"))
        else:
            self._answer(HTTPStatus.OK, kind, body)

    do_HEAD = do_GET

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged."""

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, TimeoutError):
            self.close_connection = True  # the browser went away


def _names_this_machine(header: str, host: str) -> bool:
    """Whether a Host header names this machine. A page of another site that points its own name here does not
    (DNS rebinding), and an address cannot be pointed anywhere."""
    try:
        name = urlsplit(f"//{header}").hostname or ""
        if name in ("localhost", host.lower()):
            return True
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _frame(watch: Watch, clip_id: str) -> tuple[str, bytes]:
    return HTML, frame_page(watch.output, watch.look(), watch.every)


def _clip(watch: Watch, clip_id: str) -> tuple[str, bytes]:
    return HTML, clip_page(watch.output, watch.clip(clip_id.strip()))


def _script(watch: Watch, clip_id: str) -> tuple[str, bytes]:
    return SCRIPT, resources.files("pipeline.serve").joinpath("now.js").read_bytes()


_PAGES: dict[str, Callable[[Watch, str], tuple[str, bytes]]] = {
    "/": _frame,
    "/now": lambda watch, clip_id: (HTML, now_page(watch.look())),
    "/now.js": _script,
    "/clip": _clip,
    "/sound": lambda watch, clip_id: (FLAC, watch.sound(clip_id)),
    "/report": lambda watch, clip_id: (HTML, watch.report()),
}
"""Every address that there is, with what it gives for the row that it is asked for."""
