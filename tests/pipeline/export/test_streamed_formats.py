"""The formats that trainers stream, each read back by its own library: WebDataset, Megatron, LitData and Lance.

MosaicML Streaming does not install beside our numpy and transformers; `read_mds` follows its published layout.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from pipeline.config import parse_config
from pipeline.dataset.dataset import read_output
from pipeline.dataset.opening import with_absolute_uris
from pipeline.export.rows import ExportRow, read_rows
from pipeline.yaml_config import ConfigError
from tests.support import tokenize_in_process

Clips = dict[str, ExportRow]


def check(sample_id: str, codes: np.ndarray, metadata: dict[str, Any], clips: Clips, layers: int | None = None) -> None:
    """The codes of the clip, and everything that is known of it."""
    row = clips[sample_id]
    assert codes.dtype == np.int16
    np.testing.assert_array_equal(codes, row.codes[:layers].T)
    assert (metadata["id"], metadata["audio"], metadata["duration"]) == (row.id, row.address, row.duration)
    assert (metadata["num_frames"], metadata["num_samples"]) == (row.num_frames, row.num_samples)
    for name in ("text", "language", "speaker_id", "labels"):
        assert metadata.get(name) == getattr(row, name)
    assert metadata.get("source_metadata", {}) == json.loads(row.metadata)


def test_webdataset_reads_every_clip_with_its_codes(export: Callable[..., Any], clips: Clips):
    import webdataset as wds

    folder, report = export("webdataset", "references.enabled=true", "export.file_bytes=100000")
    tars = sorted(map(str, (folder / "train").glob("*.tar")))
    assert len(tars) > 8
    samples = list(wds.WebDataset(tars, shardshuffle=False, empty_check=False).decode())
    assert {sample["__key__"] for sample in samples} == clips.keys()
    for sample in samples:
        check(sample["__key__"], sample["npy"], sample["json"], clips)
        if reference := sample["json"].get("reference_id"):
            np.testing.assert_array_equal(sample["reference.npy"], clips[reference].codes.T)
    assert sum("reference.npy" in sample for sample in samples) == report.references > 5


def test_metadata_has_what_the_source_says(export: Callable[..., Any], clips: Clips):
    assert any(json.loads(row.metadata) for row in clips.values())
    assert any(row.labels for row in clips.values())
    assert any(row.text and not row.text.isascii() for row in clips.values())


def test_litdata_reads_every_clip_with_its_codes(export: Callable[..., Any], clips: Clips):
    from litdata import StreamingDataset

    folder, _ = export("litdata", "dataset.num_quantizers=8", "export.file_bytes=100000")
    dataset = StreamingDataset(str(folder / "train"))
    samples = [dataset[number] for number in range(len(dataset))]
    assert {sample["id"] for sample in samples} == clips.keys()
    assert len(samples) == len(clips)
    for sample in samples:
        check(sample["id"], sample["codes"], json.loads(sample["metadata"]), clips, 8)


def test_lance_reads_every_clip_and_any_prefix_of_the_layers(export: Callable[..., Any], clips: Clips):
    import lance

    folder, _ = export("lance", "export.file_bytes=100000", "splits.shares={train: 1, test: 1}")
    assert len(list((folder / "train" / "data").iterdir())) > 4
    rows = [row for split in ("train", "test") for row in lance.dataset(folder / split).to_table().to_pylist()]
    assert sorted(row["id"] for row in rows) == sorted(clips)
    layers = [f"codes_{layer:02d}" for layer in range(32)]
    for row in rows:
        check(row["id"], np.array([row[name] for name in layers], np.int16).T, json.loads(row["metadata"]), clips)
        assert (row["text"], row["duration"]) == (clips[row["id"]].text, clips[row["id"]].duration)
    dataset = lance.dataset(folder / "train")
    (taken,) = dataset.take([dataset.count_rows() - 1], columns=["id", *layers[:3]]).to_pylist()
    np.testing.assert_array_equal([taken[name] for name in layers[:3]], clips[taken["id"]].codes[:3])


def test_references_are_columns_of_lance(export: Callable[..., Any], clips: Clips):
    import lance

    folder, report = export("lance", "references.enabled=true", "dataset.num_quantizers=2")
    rows = lance.dataset(folder / "train").to_table().to_pylist()
    with_reference = [row for row in rows if row["reference_codes_01"] is not None]
    assert len(with_reference) == report.references
    for row in with_reference:
        reference = clips[json.loads(row["metadata"])["reference_id"]]
        np.testing.assert_array_equal(row["reference_codes_01"], reference.codes[1])


@pytest.mark.slow  # the import of Megatron takes seconds
@pytest.mark.parametrize(("settings", "dtype"), [([], np.int32), (["tokens.separate_layers=false"], np.uint16)])
def test_megatron_reads_every_document(
    export: Callable[..., Any], clips: Clips, settings: list[str], dtype: type[np.number]
):
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    layout = ["tokens.template=[70000, '{audio}', 1]"] if dtype is np.int32 else ["tokens.template=['{audio}', 1]"]
    folder, _ = export("megatron", *layout, "dataset.num_quantizers=4", "export.file_bytes=100000", *settings)
    documents = []
    for path in sorted((folder / "train").glob("*.idx")):
        dataset = IndexedDataset(str(path.with_suffix("")))
        assert list(dataset.document_indices) == list(range(len(dataset) + 1))
        documents += [np.array(dataset[number]) for number in range(len(dataset))]  # it unmaps its file when it goes
    assert all(document.dtype == dtype for document in documents)
    first = 70001 if dtype is np.int32 else 2
    step = 1024 if dtype is np.int32 else 0
    expected = []
    for row in clips.values():
        ids = (row.codes[:4].T.astype(int) + first + step * np.arange(4)).reshape(-1).tolist()
        expected.append([*([70000] if dtype is np.int32 else []), *ids, 1])
    assert sorted(document.tolist() for document in documents) == sorted(expected)


@pytest.mark.parametrize("setting", ["tokens.layout=delay", "tokens.sequence_length=100"])
def test_what_megatron_cannot_have_is_refused(export: Callable[..., Any], setting: str):
    with pytest.raises(ConfigError, match=r"megatron: .* leave out tokens\.layout and tokens\.sequence_length"):
        export("megatron", "tokens.template=['{audio}']", "tokens.pad=1", setting)


def test_mds_shards_are_what_their_layout_says(export: Callable[..., Any], clips: Clips):
    folder, _ = export("mds", "export.file_bytes=100000")
    samples = list(read_mds(folder / "train"))
    assert sorted(sample["id"] for sample in samples) == sorted(clips)
    for sample in samples:
        check(sample["id"], sample["codes"], sample["metadata"], clips)


@pytest.mark.parametrize("to", ["mds", "litdata"])
def test_samples_that_must_be_alike_all_have_a_reference(export: Callable[..., Any], clips: Clips, to: str):
    folder, report = export(to, "references.enabled=true", "dataset.num_quantizers=2")
    assert report.removed["no_reference"] == len(clips) - report.references
    if to == "mds":
        samples = list(read_mds(folder / "train"))
    else:
        from litdata import StreamingDataset

        dataset = StreamingDataset(str(folder / "train"))
        samples = [dataset[number] for number in range(len(dataset))]
    assert len(samples) == report.references
    for sample in samples:
        metadata = sample["metadata"] if to == "mds" else json.loads(sample["metadata"])
        np.testing.assert_array_equal(sample["reference"], clips[metadata["reference_id"]].codes[:2].T)


def read_mds(folder: Path) -> Iterator[dict[str, Any]]:
    """Every sample, by the layout in github.com/mosaicml/streaming, `streaming/base/format/mds`."""
    index = json.loads((folder / "index.json").read_text())
    assert index["version"] == 2
    assert {shard["raw_data"]["basename"] for shard in index["shards"]} == {path.name for path in folder.glob("*.mds")}
    for shard in index["shards"]:
        assert (shard["version"], shard["format"], shard["compression"], shard["zip_data"]) == (2, "mds", None, None)
        data = (folder / shard["raw_data"]["basename"]).read_bytes()
        assert len(data) == shard["raw_data"]["bytes"]
        (count,) = struct.unpack_from("<I", data)
        assert count == shard["samples"]
        offsets = struct.unpack_from(f"<{count + 1}I", data, 4)
        columns = json.loads(data[8 + 4 * count : offsets[0]])
        assert columns == {name: shard[name] for name in columns}
        names, encodings = columns["column_names"], columns["column_encodings"]
        assert names == sorted(names)
        for start, stop in pairwise(offsets):
            sizes = struct.unpack_from(f"<{len(names)}I", data, start)
            at = start + 4 * len(names)
            sample = {}
            for name, encoding, size in zip(names, encodings, sizes, strict=True):
                sample[name] = _MDS[encoding](data[at : at + size])
                at += size
            assert at == stop
            yield sample
        assert offsets[-1] == len(data)


def mds_array(data: bytes) -> np.ndarray:
    dtype = {17: np.int16, 33: np.int32}[data[0]]
    dimensions, width = divmod(data[1], 4)
    lengths = np.frombuffer(data, [np.uint8, np.uint16, np.uint32][width], dimensions, 2)
    return np.frombuffer(data, dtype, offset=2 + lengths.nbytes).reshape(lengths)


_MDS: dict[str, Callable[[bytes], Any]] = {"ndarray": mds_array, "str": bytes.decode, "json": json.loads}


@pytest.mark.parametrize(("to", "module"), [("litdata", "litdata.streaming.writer"), ("lance", "lance")])
def test_a_library_that_is_not_installed_is_named(
    export: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, to: str, module: str
):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"export\.to={to}: .*pip install 'moss-tok\[{to}\]'"):
        export(to)
    assert not (tmp_path / to).exists()


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recordings: parts of one file with a gap, by two speakers, and a file that is whole."""
    root = tmp_path_factory.mktemp("talk")
    for name, seconds in (("long.wav", 10), ("short.wav", 2)):
        sf.write(root / name, np.random.default_rng(seconds).uniform(-0.3, 0.3, seconds * 24_000), 24_000)
    parts = [(0.5, 1.5, "ann", "One."), (2.0, 1.25, "bob", "Two."), (5.0, 3.0, "ann", "Three.")]
    records = [
        {
            "audio_filepath": "long.wav",
            "offset": start,
            "duration": seconds,
            "speaker": who,
            "text": text,
            "lang": "en",
        }
        for start, seconds, who, text in parts
    ]
    records.append({"audio_filepath": "short.wav", "text": "Alone.", "words": [{"word": "Alone.", "start": 0.5}]})
    (root / "list.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    document = {"input": {"splits": {"train": [f"{root}/list.jsonl"]}}, "output": {"uri": f"{root}/codes"}}
    tokenize_in_process(with_absolute_uris(parse_config({**document, "model": {"name": "cat-tiny"}})))
    return root / "codes"


@pytest.mark.parametrize("to", ["webdataset", "lance"])
def test_clips_of_a_source_are_one_document_with_their_times(export: Callable[..., Any], talk: Path, to: str):
    folder, report = export(to, "samples.join=source", "references.enabled=true", uri=talk)
    (spec,) = read_output(str(talk)).specs
    rows = list(read_rows(read_output(str(talk)), spec, 32))
    assert report.rows == len(rows) == 4
    if to == "lance":
        import lance

        table = lance.dataset(folder / "train").to_table().to_pylist()
        samples = [
            (np.array([row[f"codes_{layer:02d}"] for layer in range(32)], np.int16).T, json.loads(row["metadata"]))
            for row in table
        ]
    else:
        import webdataset as wds

        tars = sorted(map(str, (folder / "train").glob("*.tar")))
        samples = [(one["npy"], one["json"]) for one in wds.WebDataset(tars, shardshuffle=False).decode()]
    (long, about), (_, alone) = samples
    np.testing.assert_array_equal(long, np.concatenate([row.codes.T for row in rows[:3]]))
    assert about["text"] == "One. Two. Three."
    assert "speaker_id" not in about
    assert about["language"] == "en"
    assert about["num_frames"] == len(long)
    times = [(part["start"], part["duration"], part["speaker_id"], part["text"]) for part in about["parts"]]
    assert times == [(0.5, 1.5, "ann", "One."), (2.0, 1.25, "bob", "Two."), (5.0, 3.0, "ann", "Three.")]
    for part, row in zip(about["parts"], rows[:3], strict=True):
        frames = long[part["first_frame"] : part["first_frame"] + part["num_frames"]]
        np.testing.assert_array_equal(frames, row.codes.T)
    assert alone["parts"][0]["source_metadata"]["words"] == [{"word": "Alone.", "start": 0.5}]
    assert "reference_id" not in about, "a reference from the document itself"
