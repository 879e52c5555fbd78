"""What the end-to-end tests share: the command in a process of its own, and what the demo corpus must become."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

from pipeline.config import Config, load_config
from pipeline.dataset.opening import open_outputs, with_absolute_uris
from pipeline.items import ClipInfo, Origin
from pipeline.shard import in_process

ROOT = Path(__file__).parent.parent
CORPUS = ROOT / "demo" / "corpus"
CONFIG = "configs/demo.yaml"
PRETEND_GPUS = ("model.device=cpu", "cluster.gpus_per_actor=1")
"""For nodes that claim GPUs they have not: Ray places actors by them."""
DEADLINE_SECONDS = 900.0
"""Ends a wait that would never end. It measures nothing: on a busy machine all takes many times as long."""

FORKSERVER = multiprocessing.get_context("forkserver")
"""For processes of tests. Each is forked from one server that has imported all this: a case takes a second, not ten."""
FORKSERVER.set_forkserver_preload(["tests.support"])


running: list[subprocess.Popen[str]] = []
"""Commands that the current test has started."""


def start_command(
    *arguments: str, environment: Mapping[str, str] | None = None, **options: Any
) -> subprocess.Popen[str]:
    """`moss-tok …` in the project's folder, with its output captured; `environment` is added to this process's own.

    A run starts a Ray of its own, unless `environment` leads it to a cluster.
    """
    own = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment = {**own, "PYTHONUNBUFFERED": "1", "CUDA_VISIBLE_DEVICES": "", **(environment or {})}
    command = [sys.executable, "-m", "pipeline.cli", *arguments]
    options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # Tests that watch a command read what it has said when it is over: a small pipe would be full, and hold it up.
    process = subprocess.Popen(command, cwd=ROOT, env=environment, pipesize=2**20, **options)
    running.append(process)
    return process


def end_commands() -> None:
    """End what a test that failed has left running, with the Ray that it started."""
    while running:
        process = running.pop()
        if process.poll() is None:
            children = psutil.Process(process.pid).children(recursive=True)
            kill([psutil.Process(process.pid), *children])
            process.communicate()


def kill(processes: list[psutil.Process]) -> None:
    """SIGKILL to each that is still there."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def run_command(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `moss-tok …` to its end."""
    process = start_command(*arguments, **options)
    try:
        out, err = process.communicate(timeout=DEADLINE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def wait_for(condition: Callable[[], bool]) -> None:
    """Look every few moments until it is so, with most of the time left to those who are waited for."""
    began = time.monotonic()
    look = began
    while not condition():
        now = time.monotonic()
        assert now < began + DEADLINE_SECONDS, "it did not happen in time"
        time.sleep(max(0.02, 2 * (now - look)))
        look = time.monotonic()


def answers(address: str) -> bool:
    """Whether an HTTP server is there, whatever it says."""
    try:
        urllib.request.urlopen(address, timeout=DEADLINE_SECONDS).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def data_files(output: Path) -> dict[str, bytes]:
    """Every data and rejects file of an output, by its path."""
    paths = [*output.glob("data/**/*.parquet"), *output.glob("rejects/**/*.parquet")]
    return {str(path.relative_to(output)): path.read_bytes() for path in paths}


def rows(output: Path, kind: str = "data") -> list[dict[str, Any]]:
    """Every row of an output, of `data` or of `rejects`."""
    return [row for path in sorted(output.glob(f"{kind}/**/*.parquet")) for row in pq.read_table(path).to_pylist()]


def demo_config(output: Path, *overrides: str) -> Config:
    """The demo's configuration with another output."""
    return with_absolute_uris(load_config(CONFIG, [f"output.uri={output}", *overrides]))


def tokenize_in_process(config: Config) -> None:
    """The oracle: every shard that is not committed, one after the other, without Ray; with `models`, with each."""
    outputs = open_outputs(config)
    in_process.tokenize_in_process(config, outputs)
    for output in outputs:
        output.finish()


def info_of(index: int, num_samples: int, **changes: Any) -> ClipInfo:
    """What is known of a clip that was never there, where a test wants codes rather than audio."""
    fields: dict[str, Any] = {
        "origin": Origin(index=index, source="s3://bucket/a.tar", key=f"key {index}"),
        "num_samples": num_samples,
        "source_format": "wav",
        "source_codec": "pcm_16",
        "source_sample_rate": 44_100,
        "source_channels": 2,
        "peak": 0.5,
        "rms": 0.25,
        "clipping": 0.0,
        "silence": 0.125,
        "audio_xxh3": f"{index:032x}",
    }
    return ClipInfo(**fields | changes)


def as_nobody(work: Callable[[], str]) -> str:
    """What `work` returns, or the text of what it raises, in a process that is not root, to whom modes mean nothing."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65_534)
                os.setuid(65_534)
            said = work()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        with contextlib.suppress(BaseException):
            os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    return said


@contextlib.contextmanager
def closed_to_others(folder: Path) -> Iterator[None]:
    """Nobody but root can list the folder, and everybody can come as far as to it."""
    above = [
        path for path in folder.parents if path.stat().st_mode & 0o055 != 0o055 and path.stat().st_uid == os.geteuid()
    ]
    modes = {path: path.stat().st_mode for path in (folder, *above)}
    for path in above:
        path.chmod(0o755)
    folder.chmod(0o000)
    try:
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
