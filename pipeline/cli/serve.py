"""Serve pages about OUTPUT to a browser on this machine, until Ctrl-C: they follow a run while it is on.

The page shows progress, throughput, rejects as they come, and the latest clips; any row can be listened to by its id,
and the whole report is there too. OUTPUT is only read, and may be anywhere:

  moss-tok serve out/demo                          http://127.0.0.1:8000/
  moss-tok serve s3://bucket/codes --port 0        on any free port
  ssh -L 8000:127.0.0.1:8000 HEAD                  from elsewhere, to a server on HEAD

Exit status: 0, and 2 if there is no output or the address is taken.
"""

from __future__ import annotations

import argparse
import ipaddress

from pipeline import signals
from pipeline.cli.exit_status import ExitStatus
from pipeline.cli.options import add_output

HELP = "serve a page that follows a run"


def configure(parser: argparse.ArgumentParser) -> None:
    add_output(parser)
    parser.add_argument("--port", type=int, default=8000, help="0 for any free one (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--every", type=float, default=5.0, metavar="SECONDS", help="between two looks (default: %(default)g)"
    )
    parser.add_argument("--model", help="folder, hub repo or embedded model, if it is not where the dataset says")


def run(arguments: argparse.Namespace) -> int:
    if not arguments.every > 0:
        raise ValueError(f"--every {arguments.every:g}: give a number of seconds above 0")
    if not 0 <= arguments.port < 2**16:
        raise ValueError(f"--port {arguments.port}: ports are 0 to 65535")

    from pipeline.serve.server import PageServer
    from pipeline.serve.watch import Watch

    watch = Watch(arguments.output, arguments.model, arguments.every)
    try:
        server = PageServer(watch, arguments.host, arguments.port)
    except OSError as error:
        raise ValueError(
            f"--host {arguments.host} --port {arguments.port}: {error}: --port 0 takes a free one"
        ) from None
    with server:
        if not _is_loopback(arguments.host):
            print("Whoever reaches this address can see and hear the output.", flush=True)
        print(f"{server.url} (Ctrl-C stops)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            signals.interrupted()  # seen: this is how the command is meant to end
            print("stopped")
    return ExitStatus.DONE


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
