"""A Ray head on the loopback interface, for tests whose runs join a cluster as those of users do."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

from tests.support import kill, wait_for

BIN = Path(sys.executable).parent

Result = TypeVar("Result")


@dataclass(frozen=True)
class RayHead:
    """A cluster with one node of its own; it asks for a token."""

    process: subprocess.Popen[bytes]
    address: str
    """host:port, which Ray has chosen among those that were free."""
    folder: Path
    """Ray's own: sockets, logs."""
    environment: Mapping[str, str]
    """What leads a command to it."""

    def children(self) -> list[psutil.Process]:
        """All processes of the cluster but the first."""
        return psutil.Process(self.process.pid).children(recursive=True)


@contextmanager
def ray_head(log: Path, *options: str, environment: Mapping[str, str] | None = None) -> Iterator[RayHead]:
    """`ray start --head` with these options, which has started when the block begins and is gone when it ends."""
    folder = Path(tempfile.mkdtemp(prefix="moss-", dir="/tmp"))  # Unix sockets have short names: not pytest's folder
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    # `python` of a submitted job is looked up on the PATH of the head.
    given = os.environ | token | {"PATH": f"{BIN}:{os.environ['PATH']}"} | dict(environment or {})
    given.pop("RAY_ADDRESS", None)
    command = [
        *(str(BIN / "ray"), "start", "--block", "--head", "--disable-usage-stats", "--node-ip-address=127.0.0.1"),
        # Each head takes free ports, or a second one on this machine would have no agent to give a job to.
        *("--port=0", "--dashboard-agent-listen-port=0", "--object-store-memory=150000000"),
        *(f"--temp-dir={folder}", *options),
    ]
    address = folder / "ray_current_cluster"  # which Ray writes last

    def start() -> subprocess.Popen[bytes]:
        with log.open("w") as sink:
            process = subprocess.Popen(command, env=given, stdout=sink, stderr=sink, start_new_session=True)
        wait_for(lambda: (address.exists() and bool(address.read_text())) or process.poll() is not None)
        if process.poll() is not None:
            raise RuntimeError(log.read_text())
        return process

    process = again_if_late(start)
    try:
        joining = {"RAY_ADDRESS": address.read_text(), **token}
        yield RayHead(process, joining["RAY_ADDRESS"], folder, joining)
    finally:
        stop(process)
        shutil.rmtree(folder, ignore_errors=True)


def again_if_late(start: Callable[[], Result]) -> Result:
    """Start a Ray node, again if it was late: it ends if its processes have not all started within 15 s."""
    for _ in range(4):
        try:
            return start()
        except Exception as error:  # Ray has no type for this
            if "timed out" not in str(error):
                raise
    return start()


def stop(head: subprocess.Popen[bytes]) -> None:
    """End this cluster, and no other: `ray stop` would end every one on the machine."""
    with suppress(psutil.NoSuchProcess):
        kill([psutil.Process(head.pid), *psutil.Process(head.pid).children(recursive=True)])
    head.wait()
