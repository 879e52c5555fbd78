"""A process whose C code never comes back is ended, and one that gives signs of life is not."""

from __future__ import annotations

import signal
import subprocess
import sys

from tests.support import DEADLINE_SECONDS, ROOT


def run(body: str, seconds: float = 0.3) -> subprocess.CompletedProcess[str]:
    code = f"import re, signal\nfrom pipeline.steps.watchdog import Watchdog\nwatchdog = Watchdog({seconds})\n{body}"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_SECONDS)


def test_a_loop_in_c_that_holds_the_lock_is_ended_and_says_where_it_was() -> None:
    ended = run("watchdog.restart()\nre.match(r'(a+)+$', 'a' * 60 + 'b')")
    assert ended.returncode == -signal.SIGALRM
    assert "re/__init__.py" in ended.stderr or "re.py" in ended.stderr


def test_signs_of_life_and_waiting_after_a_stop_are_let_be() -> None:
    body = """
def left():
    return signal.getitimer(signal.ITIMER_REAL)[0]
watchdog.restart()
signal.setitimer(signal.ITIMER_REAL, 100.0)  # of the thousand seconds most have passed
watchdog.restart()
print(left() > 900.0)
watchdog.stop()
print(left())
"""
    ended = run(body, seconds=1000.0)
    assert (ended.returncode, ended.stdout) == (0, "True\n0.0\n"), ended.stderr


def test_a_watchdog_without_patience_watches_nothing() -> None:
    body = "idle = Watchdog()\nidle.restart()\nidle.stop()\nprint('done')"
    assert run(body).stdout == "done\n"
