"""A loopback HTTP proxy that does to chosen requests what networks and servers do: cut, stall, reset, 5xx, lose.

    with proxy(server["AWS_ENDPOINT_URL"]) as line:
        line.faults.append(Fault("cut", method="GET", at=3))

Signed requests pass unchanged: the signature covers the Host header, which S3 servers take as it comes.
"""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.support import DEADLINE_SECONDS

PIECE = 64 * 1024
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect"}


@dataclass(slots=True)
class Fault:
    """What happens to the `at`-th request (from 1) of those that match, and to as many more as `times` says."""

    kind: str
    """cut: the answer ends after half its body · stall: half, and then nothing · drip: a byte now and then · reset: the
    connection is reset before an answer · silent: a client that asks whether to send its body gets no answer · lost:
    the server does it, and the answer never comes · 503, 500, 429, 403, …: answered with that status without asking the
    server."""
    method: str = ""
    path: str = ""
    """Part of the path and query."""
    at: int = 1
    times: int = 1
    seen: int = 0

    def takes(self, method: str, path: str) -> bool:
        if not (method.startswith(self.method) and self.path in path):
            return False
        self.seen += 1
        return self.at <= self.seen < self.at + self.times

    @property
    def happened(self) -> int:
        """How often it was done."""
        return max(0, min(self.times, self.seen - self.at + 1))


@dataclass(slots=True)
class Line:
    """The line between client and server, and what becomes of requests on it."""

    address: str = ""
    faults: list[Fault] = field(default_factory=list)
    delay: float = 0.0
    """Seconds before each request goes on: the latency of a store."""
    bytes_per_second: float = 0.0
    """Of each answer, as an object store limits each connection; 0 is no limit."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    hung_up: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault_for(self, method: str, path: str) -> str:
        with self.lock:
            self.requests.append((method, path))
            others = [fault for fault in self.faults if fault.kind != "silent"]
            hits = [fault.kind for fault in others if fault.takes(method, path)]
        return hits[0] if hits else ""

    def is_silent(self, method: str, path: str) -> bool:
        with self.lock:
            silent = [fault for fault in self.faults if fault.kind == "silent"]
            return any(fault.takes(method, path) for fault in silent)


@contextmanager
def proxy(endpoint: str) -> Iterator[Line]:
    """A proxy to the server at `endpoint` for as long as the block lasts."""
    line = Line()
    upstream = urlsplit(endpoint)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = line.fault_for(self.command, self.path)
            if line.hung_up.wait(line.delay) if line.delay else False:
                return
            if fault == "reset":
                return self.reset()
            if fault.isdigit():
                return self.answer(int(fault), {}, _error_body(int(fault)))
            try:
                self.relay(body, fault)
            except (ConnectionError, http.client.HTTPException, OSError):
                self.reset()  # the server is gone, and so is the connection

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

        def handle_expect_100(self) -> bool:
            if line.is_silent(self.command, self.path):
                line.hung_up.wait(DEADLINE_SECONDS)
                return False
            return super().handle_expect_100()

        def relay(self, body: bytes, fault: str) -> None:
            connection = http.client.HTTPConnection(str(upstream.hostname), upstream.port, timeout=DEADLINE_SECONDS)
            try:
                headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
                connection.request(self.command, self.path, body, headers)
                response = connection.getresponse()
                if fault == "lost":
                    response.read()
                    return self.reset()
                sent = {name: value for name, value in response.getheaders() if name.lower() not in HOP_BY_HOP}
                if self.command == "HEAD" or response.status in (204, 304):
                    return self.answer(response.status, sent, b"")
                if line.bytes_per_second and not fault:
                    return self.stream(response, sent)
                self.answer(response.status, sent, response.read(), fault)
            finally:
                connection.close()

        def answer(self, status: int, headers: dict[str, str], body: bytes, fault: str = "") -> None:
            self.begin(status, headers | ({} if self.command == "HEAD" else {"Content-Length": str(len(body))}))
            if fault in ("cut", "stall", "drip"):
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                if fault == "cut":
                    return self.hang_up()
                while fault == "drip" and not line.hung_up.wait(0.2):
                    self.wfile.write(b"x")
                line.hung_up.wait(DEADLINE_SECONDS)
                return self.hang_up()
            if self.command != "HEAD":
                self.wfile.write(body)

        def stream(self, response: http.client.HTTPResponse, headers: dict[str, str]) -> None:
            self.begin(response.status, headers)
            began, sent = time.monotonic(), 0
            while piece := response.read(PIECE):
                self.wfile.write(piece)
                sent += len(piece)
                line.hung_up.wait(max(0.0, began + sent / line.bytes_per_second - time.monotonic()))

        def begin(self, status: int, headers: dict[str, str]) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def hang_up(self) -> None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        def reset(self) -> None:
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()  # the file objects keep the socket open until they are closed too
            self.wfile.close()
            self.rfile.close()

        def log_message(self, format: str, *args: object) -> None:
            """Tests look at `requests` instead."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 128

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that hangs up is part of what is tested."""

    server = Server(("127.0.0.1", 0), Handler)
    line.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield line
    finally:
        line.hung_up.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _error_body(status: int) -> bytes:
    codes = {
        403: "AccessDenied",
        429: "SlowDown",
        500: "InternalError",
        503: "ServiceUnavailable",
        400: "RequestTimeout",
    }
    code = codes.get(status, "Unknown")
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
