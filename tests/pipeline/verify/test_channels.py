"""A row for each channel: the codes are those of the channel in a file of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from pipeline import schema
from pipeline.config import parse_config
from pipeline.dataset.opening import with_absolute_uris
from pipeline.export.config import load_export_config
from pipeline.export.job import run_export
from pipeline.verify import verify
from pipeline.yaml_config import ConfigError
from tests.support import rows, tokenize_in_process

CHANNELS = ("left", "right")
SAME = ("audio_xxh3", "num_samples", "duration", "text", *(schema.layer_column(layer) for layer in range(32)))


def tokenize(root: Path, name: str, records: list[dict[str, Any]], **options: Any) -> Path:
    (root / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    document = {
        "input": {"splits": {"train": [f"{root}/{name}.jsonl"]}, **options},
        "output": {"uri": f"{root}/{name}"},
        "model": {"name": "cat-tiny"},
    }
    tokenize_in_process(with_absolute_uris(parse_config(document)))
    return root / name


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A call with a speaker on each channel, each channel as a file of its own, and files of one and three channels."""
    root = tmp_path_factory.mktemp("channels")
    sound = np.random.default_rng(4).uniform(-0.4, 0.4, (6 * 44_100, 3)).astype(np.float32)
    sf.write(root / "call.wav", sound[:, :2], 44_100, subtype="FLOAT")
    sf.write(root / "one.wav", sound[:, 0], 44_100, subtype="FLOAT")
    sf.write(root / "three.wav", sound, 44_100, subtype="FLOAT")
    for channel, name in enumerate(CHANNELS):
        sf.write(root / f"{name}.wav", sound[:, channel], 44_100, subtype="FLOAT")
    return root


@pytest.fixture(scope="module")
def split(root: Path) -> Path:
    records = [
        {"audio_filepath": "call.wav", "text": "A call.", "words": [{"word": "A", "start": 0.1}]},
        {"audio_filepath": "one.wav"},
        {"audio_filepath": "three.wav"},
        {"audio_filepath": "gone.wav"},
        {"audio_filepath": "call.wav", "offset": 1.0, "duration": 2.5, "text": "A part."},
    ]
    return tokenize(root, "split", records, split_channels=2)


def test_each_channel_is_a_row_with_the_codes_of_its_own_file(root: Path, split: Path):
    whole = [{"audio_filepath": f"{name}.wav", "text": "A call."} for name in CHANNELS]
    parts = [{"audio_filepath": f"{name}.wav", "text": "A part.", "offset": 1.0, "duration": 2.5} for name in CHANNELS]
    single = rows(tokenize(root, "single", [*whole, *parts]))
    found = rows(split)
    assert [row["key"] for row in found] == [
        *("call.wav#channel=0", "call.wav#channel=1"),
        *("call.wav#t=1,3.5&channel=0", "call.wav#t=1,3.5&channel=1"),
    ]
    expected = sorted(single, key=lambda row: (row["text"], row["key"]))
    for row, alone in zip(found, expected, strict=True):
        assert {name: row[name] for name in SAME} == {name: alone[name] for name in SAME}
        assert row["source_channels"] == 2
    assert [json.loads(row["metadata"])["channel"] for row in found] == [0, 1, 0, 1]
    assert json.loads(found[1]["metadata"])["words"] == [{"word": "A", "start": 0.1}]
    assert found[0]["audio_xxh3"] != found[1]["audio_xxh3"]


def test_a_file_with_more_or_fewer_channels_is_as_many_rejects(split: Path):
    rejects = [(row["key"], row["reason"]) for row in rows(split, "rejects")]
    assert rejects == [
        *(("one.wav#channel=0", "outside_file"), ("one.wav#channel=1", "outside_file")),
        *(("three.wav#channel=0", "outside_file"), ("three.wav#channel=1", "outside_file")),
        *(("gone.wav#channel=0", "missing"), ("gone.wav#channel=1", "missing")),
    ]
    assert "split_channels is 2, and the file has 3" in rows(split, "rejects")[2]["message"]


def test_ids_are_positions_without_gaps_and_verify_encodes_them_again(split: Path):
    ids = [row["id"] for kind in ("data", "rejects") for row in rows(split, kind)]
    assert sorted(int(clip_id.rpartition("-")[2]) for clip_id in ids) == list(range(10))
    report = verify(str(split), sample=None)
    assert report.differences == []
    assert report.tallies["encoded again"].looked >= 4


def test_exports_say_which_channel_a_clip_is(split: Path, tmp_path: Path):
    given = {"dataset": {"uri": str(split)}, "export": {"to": "moss-tts", "uri": str(tmp_path / "tts")}}
    run_export(load_export_config(None, (), given), lambda what, done, total: None)
    lines = [json.loads(line) for path in (tmp_path / "tts").rglob("*.jsonl") for line in path.open()]
    places = [Path(line["audio"]).name for line in lines]
    assert places == [f"call.wav#t={times}&channel={channel}" for times in ("0,6", "1,3.5") for channel in (0, 1)]


def test_one_channel_is_no_split():
    with pytest.raises(ConfigError, match=r"input\.split_channels"):
        parse_config({"input": {"splits": {"train": ["a.wav"]}, "split_channels": 1}, "output": {"uri": "out"}})
