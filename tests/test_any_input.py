"""A corpus of odd and hostile inputs through the whole pipeline: each clip is the right row or the right reject."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TypeAlias

import psutil
import pytest
import yaml

from moss_tok.audio import REASONS
from pipeline.config import Config, parse_config
from pipeline.dataset.dataset import read_output
from pipeline.steps.reject_reasons import PREPARE_REASONS, READ_REASONS
from tests.hostile.files import FILES, GOOD, LINES, MAX_CLIP_BYTES, MAX_SECONDS, SPRUNG, write_files
from tests.hostile.tables import TABLES, write_tables
from tests.hostile.tars import TARS, write_tars
from tests.support import data_files, rows, start_command, tokenize_in_process

READER_BYTES = 600_000_000  # at the most resident, shared memory and libraries counted: 430 MB were measured
ACTOR_BYTES = 1_300_000_000  # 930 MB

Outcomes: TypeAlias = "dict[str, list[tuple[str, str]]]"
"""By the name of the object that was read: key and outcome of each clip, in order."""


def hostile_config(corpus: Path, output: Path) -> Config:
    return parse_config(
        {
            "input": {
                "splits": {
                    "train": [
                        f"{corpus}/files/files.jsonl",
                        f"{corpus}/files/lines.jsonl",
                        f"{corpus}/tars/*",
                        f"{corpus}/tables/*",
                    ]
                },
                "max_clip_bytes": MAX_CLIP_BYTES,
            },
            "output": {"uri": str(output)},
            "model": {"name": "cat-tiny", "num_quantizers": 2},
            "prepare": {"max_seconds": MAX_SECONDS},
            "run": {"max_missing_fraction": 1},
        }
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    corpus = tmp_path_factory.mktemp("hostile")
    write_files(corpus / "files")
    write_tars(corpus / "tars")
    write_tables(corpus / "tables")
    return corpus


@pytest.fixture(scope="module")
def made(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What becomes of it in this process."""
    output = tmp_path_factory.mktemp("made") / "codes"
    tokenize_in_process(hostile_config(corpus, output))
    return output


@pytest.fixture(scope="module")
def outcomes(made: Path) -> Outcomes:
    names = {spec.shard_id: Path(spec.uri).name for spec in read_output(str(made)).specs}
    found = [(row["id"], row["key"], "row") for row in rows(made)]
    found += [(row["id"], row["key"], row["reason"]) for row in rows(made, "rejects")]
    outcomes: Outcomes = {}
    for clip_id, key, outcome in sorted(found):
        outcomes.setdefault(names[clip_id.rpartition("-")[0]], []).append((key, outcome))
    return outcomes


def test_the_corpus_is_large_enough():
    assert len(FILES) + len(LINES) + len(TARS) + len(TABLES) >= 100


@pytest.mark.parametrize("name", FILES)
def test_a_file(outcomes: Outcomes, name: str):
    assert dict(outcomes["files.jsonl"])[name] == FILES[name][1]


def test_lines_of_a_manifest(outcomes: Outcomes):
    assert [outcome for _, outcome in outcomes["lines.jsonl"]] == list(LINES.values())


@pytest.mark.parametrize("name", TARS)
def test_a_tar(outcomes: Outcomes, name: str):
    assert outcomes.get(name, []) == TARS[name][1]


@pytest.mark.parametrize("name", TABLES)
def test_a_table(outcomes: Outcomes, name: str):
    assert outcomes.get(name, []) == TABLES[name][1]


def test_every_reject_has_a_documented_reason_and_a_message(made: Path):
    for reject in rows(made, "rejects"):
        assert reject["reason"] in {**READ_REASONS, **PREPARE_REASONS, **REASONS}
        assert len(reject["message"]) > 10, reject
        assert not re.search(r"0x[0-9a-f]{6}", reject["message"]), "an address differs at every run"


def test_nothing_is_unpacked_or_unpickled(made: Path, corpus: Path):
    assert not Path(SPRUNG).exists()
    assert sorted(path.name for path in corpus.iterdir()) == ["files", "tables", "tars"]
    assert not (corpus.parent / "up.flac").exists()


def test_good_clips_among_all_of_it_have_the_codes_that_they_have_alone(made: Path, tmp_path: Path):
    write_files(tmp_path / "files", GOOD)
    config = hostile_config(tmp_path, tmp_path / "codes")
    alone = config.input.model_copy(update={"splits": {"train": (f"{tmp_path}/files/files.jsonl",)}})
    tokenize_in_process(config.model_copy(update={"input": alone}))
    expected = {row["key"]: row for row in rows(tmp_path / "codes")}
    assert expected.keys() == set(GOOD)
    for row in rows(made):
        if row["source"].endswith(GOOD):
            for column in ("codes_00", "codes_01", "audio_xxh3", "num_frames"):
                assert row[column] == expected[row["key"]][column]


def test_a_run_under_ray_survives_all_of_it_in_bounded_memory(made: Path, corpus: Path, tmp_path: Path):
    config = hostile_config(corpus, tmp_path / "codes").model_dump(mode="json", exclude_defaults=True)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    process = start_command("tokenize", str(tmp_path / "config.yaml"), "cluster.actors=1")
    peaks = watch_memory(process)
    assert process.returncode == 0, process.communicate()[1]
    assert (tmp_path / "codes" / "_SUCCESS").exists()
    assert data_files(tmp_path / "codes") == data_files(made)
    assert peaks["ray::_prepare"] < READER_BYTES
    assert peaks["ray::TokenizerActor"] < ACTOR_BYTES


def watch_memory(process: subprocess.Popen[str]) -> dict[str, int]:
    """Run to the end; the most bytes that a worker of each kind ever held, by the name that Ray gives it."""
    peaks: dict[str, int] = {}
    while process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            try:
                name = (child.cmdline() or [""])[0].partition(".")[0].partition("(")[0]
                status = Path(f"/proc/{child.pid}/status").read_text()
            except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
                continue
            if name.startswith("ray::") and (peak := re.search(r"VmHWM:\s+(\d+) kB", status)):
                peaks[name] = max(peaks.get(name, 0), 1024 * int(peak[1]))
        try:
            process.wait(0.5)
        except subprocess.TimeoutExpired:
            continue
    return peaks
