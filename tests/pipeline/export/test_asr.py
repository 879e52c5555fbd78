"""Manifests for speech recognition, read back: NeMo's lines, and Shar by lhotse itself."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lhotse import CutSet, MonoCut, SupervisionSegment
from lhotse.array import Array, TemporalArray
from lhotse.dataset.sampling.stateless import ManifestIndex, StatelessSampler
from lhotse.shar import SharWriter

from pipeline.export.rows import ExportRow

FRAME = 0.08  # seconds


def spoken(clips: dict[str, ExportRow]) -> list[ExportRow]:
    return [row for row in clips.values() if row.text]


def test_nemo_lines_have_the_documented_fields(
    export: Callable[..., Any], json_lines: Callable[..., Any], clips: dict[str, ExportRow]
):
    folder, _ = export("nemo")
    records = json_lines(folder / "train")
    assert len(records) == len(spoken(clips))
    for record in records:
        row = clips[record["id"]]
        assert record["audio_filepath"] == row.audio
        assert record["duration"] == pytest.approx(row.duration)
        assert record["text"] == row.text
        assert (record.get("lang"), record.get("speaker")) == (row.language, row.speaker_id)
        np.testing.assert_array_equal(record["audio_codes"], row.codes.T)


def test_within_a_file_clips_are_sorted_by_length(export: Callable[..., Any]):
    folder, _ = export("nemo", "asr.codes=false")
    files = list((folder / "train").iterdir())
    assert len(files) > 3
    for path in files:
        lengths = [json.loads(line)["duration"] for line in path.read_text().splitlines()]
        assert lengths == sorted(lengths)


@pytest.mark.parametrize("layers", [None, 8, 1])
def test_lhotse_reads_every_clip_with_its_codes(
    export: Callable[..., Any], clips: dict[str, ExportRow], layers: int | None
):
    folder, _ = export("lhotse", *([f"dataset.num_quantizers={layers}"] if layers else []))
    cuts = list(CutSet.from_shar(in_dir=folder / "train"))
    assert {cut.id for cut in cuts} == {row.id for row in spoken(clips)}
    assert any(row.num_samples % 1920 < 960 for row in spoken(clips)), "a length that lhotse would round down"
    for cut in cuts:
        row = clips[cut.id]
        codes = cut.load_codes()
        assert codes.dtype == np.int16
        np.testing.assert_array_equal(codes, row.codes[:layers].T)
        (supervision,) = cut.supervisions
        assert (supervision.text, supervision.language, supervision.speaker) == (row.text, row.language, row.speaker_id)
        assert supervision.duration == pytest.approx(row.duration)
        assert cut.duration == pytest.approx(row.num_frames * FRAME)
        assert (cut.audio, cut.custom["num_samples"]) == (row.audio, row.num_samples)


def test_the_shar_is_what_lhotses_own_writer_makes(
    export: Callable[..., Any], clips: dict[str, ExportRow], tmp_path: Path
):
    folder, _ = export("lhotse", "dataset.num_quantizers=4")
    ours = sorted((folder / "train").glob("codes.*.tar"))[0]
    cuts_file = ours.with_name(ours.name.replace("codes.", "cuts.").replace(".tar", ".jsonl.gz"))
    cuts = list(CutSet.from_shar(fields={"cuts": [str(cuts_file)], "codes": [str(ours)]}))
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    with SharWriter(theirs, fields={"codes": "numpy"}, shard_size=None) as writer:
        for cut in cuts:
            writer.write(lhotse_cut(clips[cut.id], tmp_path))
    with tarfile.open(ours) as mine, tarfile.open(theirs / "codes.tar") as other:
        assert mine.getnames() == other.getnames()
        for name in mine.getnames():
            left, right = mine.extractfile(name), other.extractfile(name)
            assert left is not None
            assert right is not None
            if name.endswith(".json"):
                assert json.load(left) == json.load(right)
            else:
                assert left.read() == right.read()
    reread = list(
        CutSet.from_shar(fields={"cuts": [str(theirs / "cuts.jsonl.gz")], "codes": [str(theirs / "codes.tar")]})
    )
    for mine_cut, their_cut in zip(cuts, reread, strict=True):
        assert mine_cut.id == their_cut.id
        assert mine_cut.supervisions == their_cut.supervisions
        np.testing.assert_array_equal(mine_cut.load_codes(), their_cut.load_codes())


def lhotse_cut(row: ExportRow, folder: Path) -> MonoCut:
    """The row as somebody with lhotse alone would write it."""
    path = folder / f"{row.id}.npy"
    np.save(path, np.ascontiguousarray(row.codes[:4].T))
    array = Array("numpy_files", str(path.parent), path.name, list(row.codes[:4].T.shape))
    supervision = SupervisionSegment(
        row.id, row.id, 0.0, row.duration, 0, text=row.text, language=row.language, speaker=row.speaker_id
    )
    cut = MonoCut(row.id, 0, row.num_frames * FRAME, 0, [supervision])
    cut.codes = TemporalArray(array, temporal_dim=0, frame_shift=FRAME, start=0)
    return cut


def test_lhotse_finds_any_cut_of_indexed_jsonl_and_goes_on_from_any_step(
    export: Callable[..., Any], clips: dict[str, ExportRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # lhotse 1.33 still gives its base class the argument that torch has taken away.
    monkeypatch.setattr(torch.utils.data.Sampler, "__init__", lambda self, data_source=None: None)
    folder, _ = export("lhotse", "asr.cuts=jsonl", "dataset.num_quantizers=3")
    paths = sorted((folder / "train").glob("*.jsonl"))
    indexes = [path.with_suffix(".jsonl.idx").read_text() for path in paths]
    index = ManifestIndex(paths, tmp_path / "ours.idx")
    assert index.line_offsets == ManifestIndex(paths, tmp_path / "theirs.idx", force=True).line_offsets
    assert [path.with_suffix(".jsonl.idx").read_text() for path in paths] == indexes, "not as lhotse writes it"
    cuts = [cut for path in paths for cut in CutSet.from_file(path)]
    assert {cut.id for cut in cuts} == {row.id for row in spoken(clips)}
    assert any(not row.text.isascii() for row in spoken(clips) if row.text)
    for cut in cuts:
        assert cut.supervisions[0].text == clips[cut.id].text
        np.testing.assert_array_equal(cut.codes, clips[cut.id].codes[:3].T)

    def batches(step: int) -> list[list[str]]:
        sampler = StatelessSampler(paths, tmp_path / "ours.idx", base_seed=step, max_cuts=4)
        return [[cut.id.partition("_it")[0] for cut in batch] for batch in islice(sampler, 40)]

    assert batches(7) == batches(7) != batches(8)
    assert {clip_id for batch in batches(7) for clip_id in batch} <= {row.id for row in spoken(clips)}


@pytest.mark.parametrize("to", ["nemo", "lhotse"])
def test_buckets_hold_clips_of_similar_length_and_about_as_many_hours(
    export: Callable[..., Any], clips: dict[str, ExportRow], to: str
):
    folder, report = export(to, "asr.buckets=3", "asr.codes=false")
    buckets = sorted((folder / "train").iterdir())
    assert [bucket.name for bucket in buckets] == ["bucket_00", "bucket_01", "bucket_02"]
    lengths = [bucket_lengths(bucket, to, clips) for bucket in buckets]
    assert sum(map(len, lengths)) == report.written["train"]
    for shorter, longer in pairwise(lengths):
        assert max(shorter) < min(longer)
    hours = [sum(bucket) for bucket in lengths]
    assert max(hours) < sum(hours) / 3 + max(lengths[-1])


def bucket_lengths(bucket: Path, to: str, clips: dict[str, ExportRow]) -> list[float]:
    if to == "lhotse":
        return [clips[cut.id].duration for cut in CutSet.from_shar(in_dir=bucket)]
    lines = [line for path in bucket.iterdir() for line in path.read_text().splitlines()]
    return [json.loads(line)["duration"] for line in lines]


def test_given_limits_of_buckets_are_kept(export: Callable[..., Any], json_lines: Callable[..., Any]):
    folder, _ = export("nemo", "asr.buckets=[2.0, 5.0]", "asr.codes=false")
    for bucket, low, high in (("bucket_00", 0.0, 2.0), ("bucket_01", 2.0, 5.0), ("bucket_02", 5.0, 1e9)):
        assert all(low <= record["duration"] < high for record in json_lines(folder / "train" / bucket))


def test_limits_that_do_not_ascend_are_refused(export: Callable[..., Any]):
    with pytest.raises(ValueError, match=r"asr\.buckets"):
        export("nemo", "asr.buckets=[5.0, 2.0]")
