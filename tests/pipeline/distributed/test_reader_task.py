"""Decoders that crash and hang in a real reader process: their clip is a reject, and every other clip is there once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
import soundfile as sf

from pipeline.config import PrepareConfig
from pipeline.distributed.reader_task import prepare_remotely
from pipeline.input_config import InputConfig
from pipeline.items import Clip, ClipEnd, ClipPart, Prepared, Reject, ShardSpec
from pipeline.shard.chunks import prepare_shard
from pipeline.steps.plan import plan_shards
from pipeline.steps.prepare import Target
from pipeline.steps.reject_reasons import PREPARE_REASONS
from tests.ray_head import again_if_late
from tests.support import DEADLINE_SECONDS

MONO = Target(sample_rate=24_000, channels=1, samples_per_frame=1920)

BAD_DECODER = '''
"""Readers load this at their start: a decoder that crashes, hangs or is killed at clips of certain names."""
import ctypes, importlib.abc, importlib.util, os, signal, sys

class AfterImport(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "moss_tok.audio":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        spec.loader.exec_module = lambda module: (load(module), spoil(module))
        return spec

def spoil(module):
    decode_blocks = module.decode_blocks
    def spoiled(source, limits, *, name):
        info, blocks = decode_blocks(source, limits, name=name)
        return info, spoiled_blocks(blocks, name)
    module.decode_blocks = spoiled

def spoiled_blocks(blocks, name):
    for number, block in enumerate(blocks):
        if "crash" in name:
            ctypes.string_at(0)
        if "hang" in name:
            ctypes.PyDLL(None).sleep(10**9)  # years inside C, with the interpreter locked
        if "once" in name and number == ("long" in name) * 39:
            if first_time(name):
                os.kill(os.getpid(), signal.SIGKILL)
        if "later" in name and number == 0 and not first_time(name) and first_time(name + " again"):
            os.kill(os.getpid(), signal.SIGKILL)
        yield block

def first_time(name):
    try:
        os.close(os.open(os.environ["KILLED_ONCE"] + name, os.O_CREAT | os.O_EXCL))
        return True
    except FileExistsError:
        return False

sys.meta_path.insert(0, AfterImport())
'''


@pytest.fixture(scope="module")
def ray_with_a_bad_decoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A local Ray whose workers have the decoder above."""
    folder = tmp_path_factory.mktemp("sitecustomize")
    (folder / "sitecustomize.py").write_text(BAD_DECODER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{folder}:{Path(__file__).parents[3]}")
        patch.setenv("KILLED_ONCE", f"{folder}/")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.delenv("RAY_ADDRESS", raising=False)
        options = {"include_dashboard": False, "logging_level": "ERROR", "log_to_driver": False}
        again_if_late(lambda: ray.init(address="local", num_cpus=2, **options))
        yield
        ray.shutdown()


def shard_of(folder: Path, names: dict[str, float]) -> tuple[ShardSpec, InputConfig]:
    """One shard of files with so many seconds each."""
    for seed, (name, seconds) in enumerate(names.items()):
        noise = np.random.default_rng(seed).standard_normal(round(seconds * 8000)) * 0.1
        sf.write(folder / name, noise, 8000)
    config = InputConfig(splits={"train": (str(folder),)})
    (spec,) = plan_shards(config)
    return spec, config


def summary(item: Prepared) -> tuple[int, str]:
    if isinstance(item, Reject):
        return item.origin.index, item.reason
    return item.info.origin.index, type(item).__name__  # type: ignore[union-attr]


@pytest.mark.usefixtures("ray_with_a_bad_decoder")
def test_a_clip_that_kills_two_readers_in_a_row_is_a_reject_and_all_others_are_there(tmp_path: Path) -> None:
    names = {"a.wav": 1.0, "b-crash.wav": 1.0, "c.wav": 1.0, "d-hang.wav": 1.0, "e.wav": 1.0}
    spec, config = shard_of(tmp_path, names)
    chunks = prepare_remotely(spec, config, PrepareConfig(), [MONO], stall_seconds=10.0)
    items = [item for chunk in chunks for item in chunk.items[0]]
    assert [summary(item) for item in items] == [
        (0, "Clip"),
        (1, "decoder_crashed"),
        (2, "Clip"),
        (3, "decoder_stalled"),
        (4, "Clip"),
    ]
    for reject in (items[1], items[3]):
        assert isinstance(reject, Reject)
        assert reject.reason in PREPARE_REASONS
        assert reject.origin.key == list(names)[reject.origin.index]
        assert len(reject.message) > 20


@pytest.mark.usefixtures("ray_with_a_bad_decoder")
def test_a_reader_that_is_killed_for_no_fault_of_its_clip_costs_no_clip(tmp_path: Path) -> None:
    """Once at a short clip, and once in the middle of a long one, of which parts were sent already."""
    spec, config = shard_of(tmp_path, {"a.wav": 1.0, "b-once.wav": 1.0, "c-once-long.wav": 500.0, "d.wav": 1.0})
    prepare_config = PrepareConfig()
    chunks = prepare_remotely(spec, config, prepare_config, [MONO], stall_seconds=DEADLINE_SECONDS)
    received = [item for chunk in chunks for item in chunk.items[0]]
    assert [summary(item) for item in received if not isinstance(item, ClipPart)] == [
        (0, "Clip"),
        (1, "Clip"),
        (2, "ClipEnd"),
        (3, "Clip"),
    ]
    starts = [item.start for item in received if isinstance(item, ClipPart)]
    assert starts.count(0) == 2, "it was killed in the middle, and began anew"
    last = len(received) - 1 - [getattr(item, "start", None) for item in reversed(received)].index(0)
    expected = [item for chunk in prepare_shard(spec, config, prepare_config, [MONO]) for item in chunk.items[0]]
    begun = next(position for position, item in enumerate(expected) if isinstance(item, ClipPart))
    kept = received[:begun] + received[last:]
    assert len(kept) == len(expected)
    for one, other in zip(kept, expected, strict=True):
        assert type(one) is type(other)
        if isinstance(one, Clip | ClipPart):
            assert np.array_equal(one.waveform, other.waveform)  # type: ignore[union-attr]
        if isinstance(one, Clip | ClipEnd):
            assert one.info == other.info  # type: ignore[union-attr]


@pytest.mark.usefixtures("ray_with_a_bad_decoder")
def test_a_recording_whose_pauses_cannot_be_looked_for_is_one_reject(tmp_path: Path) -> None:
    """Recordings become two clips each. One kills every reader; one only the first, that looks for its pauses; one the
    first that prepares its clips."""
    names = {"a.wav": 10.0, "b-crash.wav": 10.0, "c-once-split.wav": 10.0, "d-later.wav": 10.0, "e.wav": 1.0}
    spec, config = shard_of(tmp_path, names)
    config = InputConfig.model_validate(
        {"splits": config.splits, "split_at_pauses": {"max_seconds": 6, "min_seconds": 3}}
    )
    signals = {"bandwidth": {"threshold_db": -50.0}}
    chunks = prepare_remotely(spec, config, PrepareConfig(), [MONO], DEADLINE_SECONDS, signals)
    items = [item for chunk in chunks for item in chunk.items[0]]
    found = [summary(item) for item in items]
    crashed = [(2, "decoder_crashed")]
    assert found == [(0, "Clip"), (1, "Clip"), *crashed, *((index, "Clip") for index in range(3, 8))]
    measured = [item.info.signals["bandwidth"] for item in items if isinstance(item, Clip)]
    assert measured == [pytest.approx(4_000, rel=0.02)] * 7
