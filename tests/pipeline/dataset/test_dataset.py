"""An output that is taken up again: what of it is lost or damaged is named, with the remedy."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config import Config
from pipeline.dataset.dataset import Output, read_output
from pipeline.dataset.layout import Layout
from pipeline.dataset.manifest import read_manifests
from pipeline.dataset.opening import open_output
from pipeline.export.rows import read_rows
from pipeline.loading.hf import committed_shards
from pipeline.loading.rows import RowQuery, select_rows
from pipeline.monitoring.status import Observer
from pipeline.report.rejects import find_examples
from pipeline.report.sample import take_sample
from pipeline.verify.duplicates import find_duplicates
from tests.pipeline.conftest import Tokenized
from tests.support import CORPUS, demo_config, tokenize_in_process


@pytest.fixture
def layout(tokenized: Tokenized, tmp_path: Path) -> Layout:
    """Of an output that a test may spoil."""
    return Layout(str(shutil.copytree(tokenized.output, tmp_path / "codes")))


def test_who_begins_an_output_and_who_goes_on_with_it_write_the_same_card(tmp_path: Path):
    folder = CORPUS / "folder"
    splits = f"input.splits={{train: ['{folder / 'librivox'}'], dev: ['{folder / 'sounds'}']}}"
    config = demo_config(tmp_path / "codes", splits)
    cards = []
    for output in (open_output(config), open_output(config)):
        output.finish()
        cards.append(Path(output.layout.card).read_text())
    assert cards[0] == cards[1]


def test_an_output_that_another_job_made_after_this_one_had_looked_is_gone_on_with(tmp_path: Path):
    config = demo_config(tmp_path / "codes", f"input.splits.train=['{CORPUS / 'folder' / 'librivox'}']")

    def no_gpu_and_meanwhile_another_job(_: Config) -> bool:
        tokenize_in_process(config)
        return False

    output = open_output(config, no_gpu_and_meanwhile_another_job)
    assert output.done == {spec.shard_id for spec in output.specs}


@pytest.mark.parametrize("use", [read_output, Observer])
def test_a_plan_that_is_gone_is_named_with_the_remedy(layout: Layout, use: Callable[[str], object]):
    Path(layout.plan).unlink()
    with pytest.raises(FileNotFoundError, match=f"{re.escape(layout.plan)}: .*put it back from a copy"):
        use(layout.root)


@pytest.mark.parametrize("name", ["run", "plan"])
def test_a_flipped_record_or_plan_is_named_with_the_remedy(layout: Layout, name: str):
    path = Path(getattr(layout, name))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}: .*put it back from a copy"):
        read_output(layout.root)


@pytest.mark.parametrize(
    "read",
    [
        take_sample,
        find_duplicates,
        lambda output: list(select_rows(output, RowQuery(), 1)[1]),
        lambda output: [row for spec in output.specs for row in read_rows(output, spec, 0)],
        lambda output: committed_shards(output, "train"),
    ],
    ids=["report", "duplicates", "decode", "export", "load_codes"],
)
def test_lost_data_of_a_committed_shard_is_named_with_the_remedy(layout: Layout, read: Callable[[Output], object]):
    output = read_output(layout.root)
    data = layout.data(next(spec for spec in output.specs if spec.split == "train"))
    Path(data).unlink()
    with pytest.raises(FileNotFoundError, match=f"{re.escape(data)}: gone, .* run moss-tok repair"):
        read(output)


def test_lost_rejects_are_named_with_the_remedy(layout: Layout):
    output = read_output(layout.root)
    by_shard = {manifest.shard_id: manifest.rejects_by_reason for manifest in read_manifests(layout, output.done)}
    spec = next(spec for spec in output.specs if by_shard[spec.shard_id])
    Path(layout.rejects(spec)).unlink()
    with pytest.raises(FileNotFoundError, match=f"{re.escape(layout.rejects(spec))}: gone"):
        find_examples(output, {reason: [spec.shard_id] for reason in by_shard[spec.shard_id]})


def test_how_much_there_is_to_do_is_told_in_a_line(layout: Layout):
    whole = read_output(layout.root)
    count = len(whole.specs)
    assert whole.progress == f"{count} shards, all of them committed already"
    Path(layout.manifest(whole.specs[0].shard_id)).unlink()
    assert read_output(layout.root).progress == f"{count} shards, {count - 1} of them committed already"
    shutil.rmtree(layout.manifests)
    assert read_output(layout.root).progress == f"{count} shards to do"
