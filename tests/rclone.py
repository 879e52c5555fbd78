"""A real S3 server that ignores If-None-Match: `rclone serve s3`, which keeps a bucket as a folder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.seaweed import KEYS, free_ports, wait_until_it_answers


@contextmanager
def rclone(folder: Path) -> Iterator[Mapping[str, str]]:
    """The environment that leads S3 clients to a server which lives as long as the block; each folder is a bucket."""
    (port,) = free_ports(1)
    command = [
        *(str(Path(sys.executable).parent / "rclone"), "serve", "s3", str(folder), "--addr", f"127.0.0.1:{port}"),
        *("--auth-key", f"{KEYS['AWS_ACCESS_KEY_ID']},{KEYS['AWS_SECRET_ACCESS_KEY']}", "--config", "/dev/null"),
    ]
    log = folder.parent / "rclone.log"
    with log.open("w") as sink:
        server = subprocess.Popen(command, stdout=sink, stderr=sink)
        try:
            wait_until_it_answers(f"http://127.0.0.1:{port}", server, log)
            yield KEYS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
        finally:
            server.kill()
            server.wait()
