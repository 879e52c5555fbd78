"""Codes of two kinds of machine are never mixed unasked, and each shard says what made it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from moss_tok import MossAudioTokenizerModel
from pipeline.codecs import machine as machine_module
from pipeline.codecs.machine import NOT_RECORDED, describe_machine, machine_differences, name_machine
from pipeline.codecs.moss_codec import MossCodec
from pipeline.dataset.checksummed_json import dump_checksummed, load_checksummed
from pipeline.dataset.dataset import read_output
from pipeline.dataset.layout import Layout
from pipeline.dataset.machines import OutputMachine
from pipeline.dataset.manifest import read_manifest, read_manifests
from pipeline.dataset.opening import OutputMismatch
from pipeline.dataset.totals import Totals, describe_machines
from pipeline.monitoring.status import Observer
from pipeline.verify import verify
from tests.pipeline.conftest import Tokenized
from tests.support import data_files, demo_config, tokenize_in_process

HERE = {"processor": "a CPU", "instructions": "AVX512", "kernels": "oneDNN", "torch": "2.11"}
OTHER = HERE | {"instructions": "AVX2", "kernels": "BLAS"}


@pytest.fixture
def layout(tokenized: Tokenized, tmp_path: Path) -> Layout:
    """The layout of an output that a test may change."""
    return Layout(str(shutil.copytree(tokenized.output, tmp_path / "codes")))


@pytest.fixture
def another_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine becomes one of another maker."""
    monkeypatch.setattr(machine_module, "_vendor", lambda: "Elsewhere")


def rewrite(layout: Layout, shard_id: str, **changes: object) -> None:
    path = Path(layout.manifest(shard_id))
    document = load_checksummed(path.read_bytes())
    path.write_bytes(dump_checksummed({**document, **changes}))


def test_a_machine_is_described_by_what_its_bits_depend_on():
    model = MossAudioTokenizerModel.from_pretrained("cat-tiny", parts="encoder")
    machine = describe_machine(MossCodec(model), "cpu")
    assert machine.keys() == {"processor", "instructions", "kernels", "torch"}
    assert machine["kernels"] == model.numerics.name
    assert all(value in name_machine(machine) for value in machine.values())


def test_instructions_that_a_variable_takes_away_are_part_of_it(monkeypatch: pytest.MonkeyPatch):
    model = MossCodec(MossAudioTokenizerModel.from_pretrained("cat-tiny", parts="encoder"))
    before = describe_machine(model, "cpu")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert [line.partition(":")[0] for line in machine_differences(before, describe_machine(model, "cpu"))] == [
        "instructions"
    ]


def test_variables_that_change_what_a_gpu_computes_are_part_of_it(monkeypatch: pytest.MonkeyPatch):
    """Its libraries and the compiler obey them whatever torch says."""
    model = MossCodec(MossAudioTokenizerModel.from_pretrained("cat-tiny", parts="encoder"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    assert describe_machine(model, "cuda")["instructions"] == "sm_90"
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    assert describe_machine(model, "cuda")["instructions"] == "sm_90 NVIDIA_TF32_OVERRIDE=1 TORCHDYNAMO_DISABLE=1"


@pytest.mark.parametrize(("policy", "refused"), [("same", True), ("any", False)])
def test_the_first_machine_decides_and_another_kind_is_refused_unless_asked_for(layout: Layout, policy, refused):
    output = replace(read_output(layout.root), done=set())
    Path(layout.machine).unlink(missing_ok=True)
    first, second = OutputMachine(output, policy), OutputMachine(output, policy)
    assert first.objection(HERE) is None
    assert first.objection(HERE) is second.objection(HERE) is None
    objection = second.objection(OTHER)
    assert (objection is not None) == refused
    if refused:
        assert name_machine(HERE) in objection
        assert name_machine(OTHER) in objection
        with pytest.raises(OutputMismatch, match=r"run\.machines=any"):
            second.check(OTHER)


def test_a_lost_record_of_the_machine_is_made_again_from_a_manifest(layout: Layout):
    output = read_output(layout.root)
    made_on = read_manifest(layout, min(output.done)).machine
    assert made_on
    Path(layout.machine).unlink()
    assert OutputMachine(output, "same").objection(HERE) is not None
    assert OutputMachine(output, "same").objection(made_on) is None
    assert Path(layout.machine).exists()


def test_an_output_of_before_takes_the_machine_that_goes_on_with_it(layout: Layout, caplog: pytest.LogCaptureFixture):
    Path(layout.machine).unlink()
    output = read_output(layout.root)
    for shard_id in output.done:
        rewrite(layout, shard_id, machine={})
    assert OutputMachine(output, "same").objection(HERE) is None
    assert "not recorded" in caplog.text
    assert OutputMachine(output, "same").objection(OTHER) is not None


@pytest.mark.parametrize("damage", [b"", b"[1]", b"{}", dump_checksummed({"machine": 3})])
def test_a_damaged_record_of_the_machine_is_named(layout: Layout, damage: bytes):
    Path(layout.machine).write_bytes(damage)
    with pytest.raises(ValueError, match=r"machine\.json: damaged"):
        OutputMachine(read_output(layout.root), "same").objection(HERE)


def test_each_shard_says_what_made_it_and_a_resumed_run_leaves_the_same_bytes(tmp_path: Path):
    config = demo_config(
        tmp_path / "codes", "input.splits.train=[demo/corpus/folder/sounds]", "input.clips_per_shard=2"
    )
    tokenize_in_process(config)
    layout = Layout(str(tmp_path / "codes"))
    clean = data_files(tmp_path / "codes")
    card = Path(layout.card).read_bytes()
    output = read_output(layout.root)
    machines = {name_machine(manifest.machine) for manifest in read_manifests(layout, output.done)}
    assert len(machines) == 1
    assert NOT_RECORDED not in machines
    spec = output.specs[0]
    for uri in (layout.manifest(spec.shard_id), layout.data(spec), layout.success):
        Path(uri).unlink(missing_ok=True)
    tokenize_in_process(config)
    assert data_files(tmp_path / "codes") == clean
    assert Path(layout.card).read_bytes() == card
    assert machines.pop() in card.decode()


def test_shards_of_two_kinds_are_counted_wherever_figures_are_shown(layout: Layout):
    output = read_output(layout.root)
    odd = min(output.done)
    rewrite(layout, odd, machine=OTHER)
    Path(layout.totals).unlink()
    status = Observer(layout.root).look()
    assert f"1 shard on {name_machine(OTHER)}" in status.lines()["made on"]
    assert json.loads(json.dumps(status.to_json()))["shards_by_machine"][name_machine(OTHER)] == 1
    output.finish()
    assert f"1 shard on {name_machine(OTHER)}" in Path(layout.card).read_text()


def test_verify_encodes_what_this_machine_can_make_again_and_counts_the_rest(layout: Layout):
    output = read_output(layout.root)
    odd = min(output.done)
    manifest = read_manifest(layout, odd)
    rewrite(layout, odd, machine=OTHER)
    findings = verify(layout.root, sample=None)
    (obstacle,) = findings.unchecked
    assert name_machine(OTHER) in obstacle
    assert findings.unchecked[obstacle] == manifest.rows + manifest.rejects
    all_clips = sum(one.rows + one.rejects for one in read_manifests(layout, output.done))
    assert findings.tallies["sources"].looked == all_clips - manifest.rows - manifest.rejects
    assert findings.tallies["encoded again"].wrong == 0
    assert findings.as_json()["unchecked"] == dict(findings.unchecked)


def test_verify_on_another_kind_encodes_nothing(layout: Layout, another_kind: None):
    findings = verify(layout.root, sample=5)
    assert findings.tallies["encoded again"].looked == 0
    assert sum(findings.unchecked.values()) > 0
    assert "Elsewhere" in min(findings.unchecked)


def test_totals_that_were_stored_before_machines_were_are_read():
    document = Totals(shards=3).to_json()
    del document["shards_by_machine"]
    assert describe_machines(Totals.from_json(document)) == NOT_RECORDED
