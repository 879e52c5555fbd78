"""Signals: columns that are measured where clips are decoded, and not a bit of difference in the codes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from pipeline.codecs import Codec
from pipeline.config import Config, PrepareConfig, parse_config
from pipeline.dataset.dataset import read_output
from pipeline.dataset.expression import Chosen
from pipeline.dataset.opening import OutputMismatch, open_output
from pipeline.items import Clip, ClipEnd, Origin, RawClip
from pipeline.loading import load_codes
from pipeline.report.gather import gather
from pipeline.report.page import render
from pipeline.report.values import read_values
from pipeline.steps.clip_signals.bandwidth import Bandwidth, MeanSpectrum
from pipeline.steps.prepare import PART_FRAMES, Preparer, Target
from pipeline.verify.verify import verify
from tests.support import tokenize_in_process

RATES = (8_000, 16_000, 44_100)
MEASURED = {"bandwidth": {"threshold_db": -50.0}}


def config_of(folder: Path, name: str, **signals: Any) -> Config:
    document = {
        "input": {"splits": {"train": [str(folder / "sound")]}},
        "output": {"uri": str(folder / name)},
        "model": {"name": "cat-tiny", "num_quantizers": 2},
        "batch": {"max_frames": 32},  # so that the longest is encoded in parts
        "signals": signals,
    }
    return parse_config(document)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise at three rates and a silent clip, and what they are tokenized to with signals and without."""
    folder = tmp_path_factory.mktemp("signals")
    (folder / "sound").mkdir()
    draw = np.random.default_rng(0)
    for number, rate in enumerate(RATES):
        noise = draw.standard_normal((rate * (1 + 2 * number), 2)) * 0.1
        soundfile.write(folder / "sound" / f"{rate}.wav", noise, rate)
    soundfile.write(folder / "sound" / "silent.wav", np.zeros(4_000), 16_000)
    tokenize_in_process(config_of(folder, "with", bandwidth=True))
    tokenize_in_process(config_of(folder, "without"))
    return folder


def table_of(output: Path) -> Any:
    (path,) = output.glob("data/train/*.parquet")
    return pq.read_table(path)


def test_a_signal_is_a_column_and_changes_no_other(folder: Path):
    with_, without = (table_of(folder / name) for name in ("with", "without"))
    assert "bandwidth" not in without.column_names
    assert with_.drop_columns(["bandwidth"]).equals(without)
    assert b'"signals"' not in (folder / "without" / "_moss_tok" / "run.json").read_bytes()
    found = dict(zip(with_["key"].to_pylist(), with_["bandwidth"].to_pylist(), strict=True))
    assert found.pop("silent.wav") is None
    assert all(found[f"{rate}.wav"] == pytest.approx(rate / 2, rel=0.02) for rate in RATES)


def test_what_measured_it_is_recorded_and_another_run_needs_the_same(folder: Path):
    record = read_output(str(folder / "with")).record
    assert record.signals == MEASURED
    assert record.file_metadata()["moss_tok.signals"] == '{"bandwidth": {"threshold_db": -50.0}}'
    assert table_of(folder / "with").schema.metadata[b"moss_tok.signals"] == b'{"bandwidth": {"threshold_db": -50.0}}'
    with pytest.raises(
        OutputMismatch, match=r"signals\.bandwidth: the output has {'threshold_db': -50.0}, this run None"
    ):
        open_output(config_of(folder, "with"))
    with pytest.raises(OutputMismatch, match=r"signals\.bandwidth: .* this run {'threshold_db': -60.0}"):
        open_output(config_of(folder, "with", bandwidth={"threshold_db": -60}))


def test_a_model_may_lie_elsewhere_but_not_be_another(folder: Path):
    record = read_output(str(folder / "with")).record
    here, there, other = (
        replace(record, signals={"language": {"model": model, "sha256": sha256}})
        for model, sha256 in (("/a/tiny", "1"), ("/b/tiny", "1"), ("/a/tiny", "2"))
    )
    assert here.fingerprint == there.fingerprint != other.fingerprint
    assert here.differences(there) == []
    assert "signals.language" in here.differences(other)[0]
    assert here.file_metadata()["moss_tok.signals"] == '{"language": {"model": "tiny", "sha256": "1"}}'
    assert type(here).from_json(here.to_json()) == here


def test_rows_are_chosen_by_it_and_loaded_with_it(folder: Path, tmp_path: Path):
    output = read_output(str(folder / "with"))
    chosen = Chosen("bandwidth > 5000", output.record.value_columns)
    values = read_values(output, "bandwidth", chosen)
    assert values.rows == 2
    assert read_values(output, "bandwidth is null").words == {"False": 3, "True": 1}
    loaded = load_codes(output.layout.root, where="bandwidth > 5000", columns=("key", "bandwidth"), cache_dir=tmp_path)
    assert sorted(loaded["key"]) == ["16000.wav", "44100.wav"]
    card = (folder / "with" / "README.md").read_text()
    assert '| signals | bandwidth {"threshold_db": -50.0} |' in card
    assert "| `bandwidth` | float32 | Hz |" in card


def test_verify_measures_again(folder: Path):
    findings = verify(str(folder / "with"), sample=None)
    assert findings.differences == []
    assert findings.tallies["encoded again"].looked == len(RATES) + 1


def test_each_clip_is_measured_once_for_all_targets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.random.default_rng(0).standard_normal(8_000 * 3) * 0.1, 8_000)
    raw = RawClip(origin=Origin(index=0, source="a.wav", key="a.wav"), name="a.wav", data=path.read_bytes())
    started: list[int] = []
    start = Bandwidth.start
    monkeypatch.setattr(Bandwidth, "start", lambda self, rate: started.append(rate) or start(self, rate))
    short = Target(sample_rate=24_000, channels=1, samples_per_frame=2 * 24_000 // PART_FRAMES)  # more than one part
    targets = (short, Target(sample_rate=16_000, channels=2, samples_per_frame=320))
    config = PrepareConfig.model_validate({"loudness": {}})  # decodes what has parts twice
    items = [item for _, item in Preparer(config, targets, signals=MEASURED).prepare(raw)]
    ends = [item.info.signals for item in items if isinstance(item, Clip | ClipEnd)]
    assert len(ends) == 2
    assert ends[0] == ends[1]
    assert ends[0]["bandwidth"] == pytest.approx(4_000, rel=0.02)
    assert started == [8_000]


def test_a_signal_that_fails_is_null_and_its_clip_a_row(folder: Path, monkeypatch: pytest.MonkeyPatch):
    add = MeanSpectrum.add

    def fail_once(self: MeanSpectrum, samples: np.ndarray) -> None:
        if self._sample_rate == 44_100:
            raise RuntimeError("out of order")
        add(self, samples)

    monkeypatch.setattr(MeanSpectrum, "add", fail_once)
    tokenize_in_process(config_of(folder, "failing", bandwidth=True))
    failing, sound = (table_of(folder / name) for name in ("failing", "with"))
    assert failing.drop_columns(["bandwidth"]).equals(sound.drop_columns(["bandwidth"]))
    found = dict(zip(failing["key"].to_pylist(), failing["bandwidth"].to_pylist(), strict=True))
    assert {key for key, value in found.items() if value is None} == {"44100.wav", "silent.wav"}


def test_the_report_shows_signals_where_there_are_some(folder: Path):
    with_, without = (
        render(gather(read_output(str(folder / name)), 0, load_decoder)).decode() for name in ("with", "without")
    )
    assert "<caption>Signals</caption>" in with_
    assert '<th scope="row">bandwidth</th>' in with_
    assert "<caption>Signals</caption>" not in without


def load_decoder() -> Codec:
    raise AssertionError("there is nothing to decode")
