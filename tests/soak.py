"""Kills at random moments, for as long as you like: `make soak`, or

    python -m tests.soak [--minutes 10] [--seed N]

Runs the demo corpus with Ray again and again, and sends SIGKILL to the driver, an actor or a reader at random moments
until the run is complete. Then the output must be that of a clean run, byte for byte, with nothing left beside it. Ends
with exit status 1 and the seed at the first that is not.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

from tests.support import CONFIG, data_files, demo_config, start_command, tokenize_in_process

SETTINGS = ["input.clips_per_shard=4"]
VICTIMS = {"driver": "", "actor": "ray::TokenizerActor", "reader": "ray::_prepare"}
LONGEST_LIFE = 12.0
KILLS_IN_A_ROUND = 3


def soak(minutes: float, seed: int) -> bool:
    """Rounds until the time is over; whether all were as they should be."""
    chance = random.Random(seed)
    end = time.monotonic() + minutes * 60
    with tempfile.TemporaryDirectory() as folder:
        tokenize_in_process(demo_config(Path(folder, "clean"), *SETTINGS))
        clean = data_files(Path(folder, "clean"))
        number = 0
        while time.monotonic() < end:
            number += 1
            output = Path(folder, f"round {number}")
            killed = run_until_complete(output, chance)
            left = list(output.rglob("*.tmp"))
            good = data_files(output) == clean and not left
            print(f"round {number}: {'good' if good else 'NOT EQUAL'}, killed {dict(killed)}", flush=True)
            if not good:
                print(f"left beside it: {left}; seed {seed}", file=sys.stderr)
                return False
    return True


def run_until_complete(output: Path, chance: random.Random) -> Counter[str]:
    """Start the run as often as it takes, with a few kills; how often each kind was killed."""
    killed: Counter[str] = Counter()
    while not (output / "_SUCCESS").exists():
        actors = f"cluster.actors={chance.randint(1, 2)}"
        run = start_command("tokenize", CONFIG, f"output.uri={output}", actors, *SETTINGS)
        while run.poll() is None and killed.total() < KILLS_IN_A_ROUND:
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.wait(chance.uniform(0.0, LONGEST_LIFE))
            victim = chance.choice(list(VICTIMS))
            killed[victim] += kill(run.pid, VICTIMS[victim], chance)
        complaint = run.communicate()[1]
        if run.returncode not in (0, -9):
            raise RuntimeError(f"the run ended with exit status {run.returncode}: {complaint}")
    return killed


def kill(driver: int, title: str, chance: random.Random) -> int:
    """SIGKILL the driver, or one of its workers at the named work; how many were killed."""
    try:
        process = psutil.Process(driver)
        workers = [child for child in process.children(recursive=True) if child.cmdline()[:1]]
        found = [worker for worker in workers if worker.cmdline()[0].startswith(title)] if title else [process]
        if found:
            chance.choice(found).kill()
        return len(found[:1])
    except (psutil.NoSuchProcess, IndexError):
        return 0  # it ended meanwhile


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    return 0 if soak(arguments.minutes, arguments.seed) else 1


if __name__ == "__main__":
    sys.exit(main())
