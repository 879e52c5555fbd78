"""Kills and damage at random, for as long as you like: `make soak`, or

    python -m tests.soak [--minutes 10] [--kills N] [--seed N] [--ray SHARE] [--fuzz N]

A round makes an output and sends SIGKILL at random moments until it is complete; then it must be that of a clean run,
byte for byte, with nothing beside it. Rounds are of three kinds:

- process: one process without Ray, killed up to KILLS_IN_A_ROUND times;
- replace: the same, of an output in which files were missing that are there again, so that shards are replaced;
- ray: the command with Ray, of which the driver, an actor, a reader or the whole tree is killed.

Beside them mutated inputs are read (see tests/fuzz.py). It goes on for so many minutes, or until so many kills. The
figures are printed as one JSON object at the end: rounds, kills, clips that were lost or doubled, objects that changed,
crashes. Ends with exit status 1 if any is not 0, and prints the seed.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from pipeline.dataset.opening import open_output
from tests.fuzz import FuzzResult, fuzz
from tests.support import CONFIG, CORPUS, data_files, demo_config, rows, start_command, tokenize_in_process

# Each is forked from one server that has imported everything: a life takes a second instead of ten.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.support", "tests.fuzz"])

VICTIMS = {"driver": "", "actor": "ray::TokenizerActor", "reader": "ray::_prepare", "tree": ""}
LONGEST_LIFE = 12.0
RAY_KILLS_IN_A_ROUND = 3
KILLS_IN_A_ROUND = 8
FUZZ_AFTER_A_ROUND = 20
FILES = ("librivox/0870.wav", "broken/nan.wav", "librivox/0880.wav", "sounds/perc_swash.wav", "prompts/es/vm-sorry.mp3")
COPIES = 3


@dataclass
class Figures:
    """What a soak has done and found."""

    seed: int
    rounds: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    """Clips that are in neither data nor rejects."""
    doubled: int = 0
    """Clips that are there more than once."""
    changed: int = 0
    """Objects that differ from those of a clean run, or are too many or too few."""
    left: int = 0
    """Temporary files that stayed."""
    failed: list[str] = field(default_factory=list)
    """Runs that ended with an error of their own."""
    fuzz: FuzzResult = field(default_factory=FuzzResult)
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        return not (self.lost or self.doubled or self.changed or self.left or self.failed or self.fuzz.faults)

    def compare(self, output: Path, clean: Path) -> None:
        """Count how an output differs from the clean one."""
        found, wanted = data_files(output), data_files(clean)
        self.changed += sum(found.get(name) != wanted.get(name) for name in found.keys() | wanted.keys())
        here, there = _clips(output), _clips(clean)
        self.lost += (there - here).total()
        self.doubled += (here - there).total()
        self.left += len(list(output.rglob("*.tmp")))

    def to_json(self) -> str:
        fuzz = vars(self.fuzz) | {"outcomes": dict(self.fuzz.outcomes.most_common(40))}
        sums = {"good": self.good, "rounds_in_all": self.rounds.total(), "kills_in_all": self.kills.total()}
        return json.dumps(sums | vars(self) | {"fuzz": fuzz})


def _clips(output: Path) -> Counter[str]:
    return Counter(row["id"] for kind in ("data", "rejects") for row in rows(output, kind))


class Soak:
    """Rounds of every kind in one folder."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.figures = Figures(seed)
        self._chance = random.Random(seed)
        self._folder = folder
        self._inputs = folder / "inputs"
        self._inputs.mkdir()
        for number, name in enumerate(FILES * COPIES):
            suffix = Path(name).suffix
            shutil.copyfile(CORPUS / "folder" / name, self._inputs / f"{number:02}{suffix}")
        self._clean = folder / "clean"
        self._end_of(self._start(folder / "first"))  # which waits for the server to start
        started = time.monotonic()
        self._end_of(self._start(self._clean))
        self._life = time.monotonic() - started
        """Seconds that a run takes which is not killed."""
        self._numbers = itertools.count(1)

    def round_of_a_process(self) -> None:
        output = self._output("process")
        self._kill_until_complete(output)
        self._done(output)

    def round_of_a_replacement(self) -> None:
        """Two files are missing at first, and killing begins when they are there again."""
        output = self._output("replace")
        open_output(demo_config(output, *self._settings()))
        away = self._folder / "away"
        away.mkdir(exist_ok=True)
        chosen = self._chance.sample(sorted(self._inputs.iterdir()), 2)
        for path in chosen:
            path.rename(away / path.name)
        self._end_of(self._start(output))
        for path in chosen:
            (away / path.name).rename(path)
        self._kill_until_complete(output, again=True)
        self._done(output)

    def round_with_ray(self) -> None:
        output = self._output("ray")
        killed: Counter[str] = Counter()
        while not (output / "_SUCCESS").exists():
            actors = f"cluster.actors={self._chance.randint(1, 2)}"
            run = start_command("tokenize", CONFIG, f"output.uri={output}", actors, *self._settings())
            while run.poll() is None and killed.total() < RAY_KILLS_IN_A_ROUND:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    run.wait(self._chance.uniform(0.0, LONGEST_LIFE))
                victim = self._chance.choice(list(VICTIMS))
                killed[victim] += kill(run.pid, victim, self._chance)
            complaint = run.communicate()[1]
            if run.returncode not in (0, -signal.SIGKILL):
                self.figures.failed.append(f"exit status {run.returncode}: {complaint[-2000:]}")
                break
        self.figures.kills += killed
        self._done(output)

    def fuzz(self, rounds: int) -> None:
        fuzz(self._chance, iter(range(rounds)), CONTEXT, self.figures.fuzz)

    def choose(self, ray: float) -> None:
        """A round of some kind; `ray` is the share of those with Ray."""
        if self._chance.random() < ray:
            self.round_with_ray()
        elif self._chance.random() < 0.3:
            self.round_of_a_replacement()
        else:
            self.round_of_a_process()

    def _output(self, kind: str) -> Path:
        self.figures.rounds[kind] += 1
        return self._folder / f"round-{next(self._numbers)}"

    def _settings(self) -> list[str]:
        return [f"input.splits.train=['{self._inputs}']", "input.clips_per_shard=3"]

    def _start(self, output: Path) -> Any:
        process = CONTEXT.Process(target=tokenize, args=(output, self._settings()))
        process.start()
        return process

    def _end_of(self, process: Any) -> None:
        process.join(600)
        if process.exitcode != 0:
            process.kill()
            self.figures.failed.append(f"a process ended with {process.exitcode}")

    def _kill_until_complete(self, output: Path, again: bool = False) -> None:
        kills = self._chance.randint(1, KILLS_IN_A_ROUND)
        for _ in range(kills):
            if (output / "_SUCCESS").exists() and not again:
                break
            process = self._start(output)
            process.join(self._chance.uniform(0.0, self._life))
            if process.exitcode is None:
                process.kill()
                self.figures.kills["process" if not again else "replacing process"] += 1
            process.join()
            if process.exitcode not in (0, -signal.SIGKILL):
                self.figures.failed.append(f"a process ended with {process.exitcode}")
        self._end_of(self._start(output))

    def _done(self, output: Path) -> None:
        self.figures.compare(output, self._clean)
        if self.figures.good:  # else it is evidence
            shutil.rmtree(output)


def tokenize(output: Path, settings: list[str]) -> None:
    """The whole of a process that may be killed."""
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    tokenize_in_process(demo_config(output, *settings))


def kill(driver: int, victim: str, chance: random.Random) -> int:
    """SIGKILL the driver, one of its workers at the named work, or all of them; returns whether any was."""
    try:
        process = psutil.Process(driver)
        workers = [child for child in process.children(recursive=True) if child.cmdline()[:1]]
        title = VICTIMS[victim]
        found = [worker for worker in workers if worker.cmdline()[0].startswith(title)] if title else [process]
        for chosen in [process, *workers] if victim == "tree" else [chance.choice(found)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                chosen.kill()
        return 1
    except (psutil.NoSuchProcess, IndexError):
        return 0  # it ended meanwhile


def rounds_until(minutes: float, kills: int | None, soak: Soak) -> Iterator[int]:
    """Numbers of rounds until the time is over, or so many processes were killed, or something is wrong."""
    end = time.monotonic() + minutes * 60
    for number in itertools.count(1):
        enough = soak.figures.kills.total() >= kills if kills is not None else time.monotonic() >= end
        if enough or not soak.figures.good:
            return
        yield number


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--kills", type=int, help="go on until so many processes were killed, however long that takes")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    parser.add_argument("--ray", type=float, default=0.2, help="share of rounds with Ray")
    parser.add_argument("--fuzz", type=int, default=FUZZ_AFTER_A_ROUND, help="mutated inputs after each round")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder), arguments.seed)
        figures = soak.figures
        for number in rounds_until(arguments.minutes, arguments.kills, soak):
            soak.choose(arguments.ray)
            soak.fuzz(arguments.fuzz)
            found = f"lost {figures.lost}, doubled {figures.doubled}, changed {figures.changed}, left {figures.left}"
            mutants = f"{figures.fuzz.tried.total()} mutants, {len(figures.fuzz.faults)} faults"
            print(f"round {number}: {figures.kills.total()} kills, {found}; {mutants}", flush=True)
        figures.seconds = round(time.monotonic() - started, 1)
        print(figures.to_json())
        for line in [*figures.failed, *figures.fuzz.faults]:
            print(f"{line}; seed {arguments.seed}", file=sys.stderr)
    return 0 if figures.good else 1


if __name__ == "__main__":
    sys.exit(main())
