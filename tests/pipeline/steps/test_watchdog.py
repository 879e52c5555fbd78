"""A process whose C code never comes back is ended, and one that gives signs of life is not."""

from __future__ import annotations

import signal
import subprocess
import sys

from tests.support import ROOT

PATIENCE = 0.3


def run(body: str) -> subprocess.CompletedProcess[str]:
    code = f"import re, time\nfrom pipeline.steps.watchdog import Watchdog\nwatchdog = Watchdog({PATIENCE})\n{body}"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_a_loop_in_c_that_holds_the_lock_is_ended_and_says_where_it_was() -> None:
    ended = run("watchdog.restart()\nre.match(r'(a+)+$', 'a' * 60 + 'b')")
    assert ended.returncode == -signal.SIGALRM
    assert "re/__init__.py" in ended.stderr or "re.py" in ended.stderr


def test_signs_of_life_and_waiting_after_a_stop_are_let_be() -> None:
    living = f"for _ in range(4):\n    watchdog.restart()\n    time.sleep({PATIENCE / 2})\n"
    ended = run(living + f"watchdog.stop()\ntime.sleep({PATIENCE * 2})\nprint('done')")
    assert (ended.returncode, ended.stdout) == (0, "done\n")


def test_a_watchdog_without_patience_watches_nothing() -> None:
    body = "idle = Watchdog()\nidle.restart()\nidle.stop()\nprint('done')"
    assert run(body).stdout == "done\n"
