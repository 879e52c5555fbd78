"""Random damage to inputs: mutated audio files, tars, tables and lists. `make soak` runs it beside the kills.

A mutant may become anything but a crash, an exception that is not ours, or a clip that is told twice or not at all.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext
from pathlib import Path

from pipeline.config import PrepareConfig
from pipeline.input_config import InputConfig
from pipeline.items import Clip, ClipEnd, Origin, RawClip, Reject
from pipeline.steps.plan import PlanError, plan_shards
from pipeline.steps.prepare import Target, prepare_clip
from pipeline.steps.read import SourceChanged, read_shard
from pipeline.storage import DamagedObject, StorageError
from tests.support import CORPUS

MONO = Target(sample_rate=24_000, channels=1, samples_per_frame=1920)
ALLOWED = (PlanError, ValueError, StorageError, DamagedObject, SourceChanged)
"""What a plan or a reader may raise: each names the input and fails its shard, or the plan, with a message."""
LONGEST_SECONDS = 600.0


@dataclass
class FuzzResult:
    """What became of the mutants."""

    tried: Counter[str] = field(default_factory=Counter)
    """By kind of input."""
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    """Crashes, exceptions of others, clips that were lost or doubled: none is allowed."""


def mutate(data: bytes, chance: random.Random) -> bytes:
    """The bytes with some damage: flipped bits, a cut, a hole, a stretch that is repeated, swapped or overwritten."""
    copy = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5, 20))):
        if not copy:
            break
        at = min(int(len(copy) * chance.random() ** chance.choice((1, 4))), len(copy) - 1)  # headers more often
        size = min(chance.choice((1, 4, 64, 4096)), len(copy) - at)
        kind = chance.randrange(7)
        if kind <= 1:
            copy[at] ^= 1 << chance.randrange(8)
        elif kind == 2:
            copy[at : at + size] = chance.randbytes(size)
        elif kind == 3:
            copy[at : at + 4] = chance.choice(
                (b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\xff\xff\xff\x7f", b"\x80\0\0\0")
            )
        elif kind == 4:
            del copy[at : at + size]
        elif kind == 5:
            copy[at:at] = copy[at : at + size]
        else:
            del copy[at:]
    return bytes(copy)


def prepare_mutant(name: str, data: bytes) -> str:
    """What becomes of a mutated audio file; for a process of its own."""
    raw = RawClip(origin=Origin(index=0, source=name, key=name), name=name, data=data)
    config = PrepareConfig(max_seconds=LONGEST_SECONDS)
    last = None
    for last in prepare_clip(raw, config, MONO):  # noqa: B007
        pass
    if isinstance(last, Reject):
        return f"reject {last.reason}"
    assert isinstance(last, Clip | ClipEnd), f"it ended with {type(last).__name__}"
    return "clip"


def read_mutant(name: str, data: bytes) -> str:
    """What becomes of a mutated tar, table or list; for a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        config = InputConfig(splits={"train": (str(path),)}, clips_per_shard=5)
        try:
            specs = plan_shards(config)
            for spec in specs:
                items = list(read_shard(spec, config))
                assert sorted(item.origin.index for item in items) == list(range(len(items))), "lost or doubled"
        except ALLOWED as error:
            if not str(error):
                raise RuntimeError("an error without a message") from error
            return f"refused {type(error).__name__}"
        return "read"


def seeds() -> dict[str, list[tuple[str, bytes]]]:
    """Sound inputs to damage, by kind."""
    audio = [
        path
        for path in sorted((CORPUS / "folder").rglob("*"))
        if path.suffix in AUDIO and path.stat().st_size < 400_000
    ]
    tables = [*CORPUS.glob("webdataset/*.tar"), *CORPUS.glob("parquet/*.parquet")]
    listed = [{"audio": f"{CORPUS}/folder/librivox/0870.wav", "text": f"ünï {n}", "offset": n / 10} for n in range(12)]
    jsonl = "".join(json.dumps(record) + "\n" for record in listed).encode()
    csv = b"audio,text\n" + b"".join(b'%s,"a ""b"", c"\n' % str(record["audio"]).encode() for record in listed)
    return {
        "audio": [(path.name, path.read_bytes()) for path in audio],
        "tar": [(path.name, path.read_bytes()) for path in tables if path.suffix == ".tar"],
        "parquet": [(path.name, path.read_bytes()) for path in tables if path.suffix == ".parquet"],
        "list": [("a.jsonl", jsonl), ("a.csv", csv), ("a.tsv", csv.replace(b",", b"\t"))],
    }


AUDIO = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".webm", ".g722", ".aif", ".aiff")
_WORK: dict[str, Callable[[str, bytes], str]] = {"audio": prepare_mutant}


def _be_quiet() -> None:
    """Decoders write what they think of a file to the standard error of their process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def fuzz(chance: random.Random, rounds: Iterator[int], context: ForkServerContext, result: FuzzResult) -> None:
    """Damage inputs and read them, in a process that may die; one mutant for each of `rounds`."""
    sound = seeds()
    pool = ProcessPoolExecutor(1, mp_context=context, initializer=_be_quiet)
    for _ in rounds:
        kind = chance.choices(list(sound), weights=(70, 12, 6, 12))[0]
        name, data = chance.choice(sound[kind])
        mutant = mutate(data, chance)
        result.tried[kind] += 1
        try:
            outcome = pool.submit(_WORK.get(kind, read_mutant), name, mutant).result(timeout=300)
            result.outcomes[f"{kind}: {outcome}"] += 1
        except (BrokenProcessPool, Exception) as error:
            keep = Path(tempfile.gettempdir(), f"fuzz-{kind}-{chance.getrandbits(32):08x}-{name}")
            keep.write_bytes(mutant)
            result.faults.append(f"{keep}: {type(error).__name__}: {error}")
            pool.shutdown(wait=False, cancel_futures=True)
            pool = ProcessPoolExecutor(1, mp_context=context, initializer=_be_quiet)
    pool.shutdown()
