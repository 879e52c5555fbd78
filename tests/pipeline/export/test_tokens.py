"""Token sequences with a real tokenizer: exact round trips, ids that cannot be confused, and the layout of MOSS-TTS."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from pipeline.export.config import TokensConfig
from pipeline.export.rows import ExportRow
from pipeline.export.tokens.document_rules import document_layout
from pipeline.export.tokens.documents import Content
from pipeline.export.tokens.files import read_documents
from pipeline.export.tokens.tokenizer import TextTokenizer, load_tokenizer
from pipeline.yaml_config import ConfigError

SPECIAL = ["<pad>", "<text>", "<audio>", "<end>", "<slot>", "<late>", "<voice>"]
LAYERS = 4
FLAT = ("<text>", "{text}", "<audio>", "{audio}", "<end>")
CLONE = ("<voice>", "{reference}", "<text>", "{text}", "<audio>", "{audio}", "<end>")
STREAMS = {"audio_slot": "<slot>", "delay_slot": "<late>"}
LAYOUTS: dict[str, dict[str, Any]] = {
    "flat": {"template": FLAT},
    "flat, no marks": {},
    "flat, one codebook": {"template": FLAT, "separate_layers": False},
    "flat, audio first": {"template": ("{audio}", "{text}"), "audio_offset": 0, "text_offset": 40_000},
    "flat, voice": {"template": CLONE},
    "delay": {"layout": "delay", "template": FLAT, **STREAMS},
    "delay, one slot": {"layout": "delay", "audio_slot": "<slot>"},
    "delay, own": {"layout": "delay", "template": FLAT, "delays": (0, 2, 2, 1), "audio_pad": 5000, **STREAMS},
    "delay, voice": {"layout": "delay", "template": CLONE, "reference_slot": "<voice>", **STREAMS}
    | {"template": ("<pad>", "{reference}", "<text>", "{text}", "<audio>", "{audio}", "<end>")},
    "parallel": {"layout": "parallel", "template": FLAT, "audio_offset": 7, **STREAMS},
}


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """A byte-level BPE tokenizer, trained on the demo corpus: every text has ids, and they decode to it."""
    lines = (corpus / "folder" / "manifest.jsonl").read_text("utf-8").splitlines()
    texts = [record["text"] for line in lines if (record := json.loads(line)).get("text")]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


@pytest.fixture(scope="module")
def tokenizer(tokenizer_file: Path) -> TextTokenizer:
    return load_tokenizer(str(tokenizer_file))


codes = st.integers(0, 7).flatmap(lambda frames: arrays(np.int16, (LAYERS, frames), elements=st.integers(0, 1023)))


@pytest.mark.parametrize("name", LAYOUTS)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=20), target=codes, reference=codes)
def test_any_document_comes_back(
    name: str, text: str, target: np.ndarray, reference: np.ndarray, tokenizer: TextTokenizer
):
    layout = document_layout(TokensConfig(tokenizer="t", **LAYOUTS[name]), tokenizer, LAYERS, 1024)
    if "{reference}" not in layout.template:
        reference = reference[:, :0]
    ids = np.array(tokenizer.encode(text), np.int64)
    document = layout.document(Content(ids, target, reference))
    assert document is not None
    assert document.shape[1] == layout.streams
    assert document.max(initial=0) <= layout.largest_id
    back = type(layout).model_validate_json(layout.model_dump_json()).content(document)
    np.testing.assert_array_equal(back.text, ids)
    np.testing.assert_array_equal(back.codes, target)
    np.testing.assert_array_equal(back.reference, reference)


def test_the_delay_layout_is_what_moss_tts_feeds_its_model(tokenizer: TextTokenizer):
    """Their _get_unified_codes: text and slots in column 0, delayed codes beside them, 1024 where there is no code."""
    config = TokensConfig(tokenizer="t", layout="delay", template=("{text}", "<audio>", "{audio}", "<end>"), **STREAMS)
    target = np.arange(8, dtype=np.int16).reshape(4, 2)
    document = document_layout(config, tokenizer, 4, 1024).document(
        Content(np.array([300, 301]), target, target[:, :0])
    )
    slot, late, audio, end, pad = (tokenizer.id_of(name) for name in ("<slot>", "<late>", "<audio>", "<end>", "<pad>"))
    none = 1024
    assert pad != none
    assert document is not None
    assert document.tolist() == [
        [300, none, none, none, none],
        [301, none, none, none, none],
        [audio, none, none, none, none],
        [slot, 0, none, none, none],
        [slot, 1, 2, none, none],
        [late, none, 3, 4, none],
        [late, none, none, 5, 6],
        [late, none, none, none, 7],
        [end, none, none, none, none],
    ]


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["parquet", "npy"])
@pytest.mark.parametrize(
    "packing",
    [[], ["tokens.sequence_length=4096"], ["tokens.sequence_length=1000", "tokens.pack=cut"]],
    ids=["documents", "whole", "cut"],
)
@pytest.mark.parametrize("layout", ["flat", "delay", "parallel"])
def test_the_demo_corpus_comes_back_from_its_files(
    export: Callable[..., Any],
    clips: dict[str, ExportRow],
    tokenizer_file: Path,
    layout: str,
    packing: list[str],
    storage: str,
):
    chosen = keys("tokens", layout=layout, storage=storage, tokenizer=str(tokenizer_file.parent), template=list(FLAT))
    slots = [] if layout == "flat" else ["tokens.audio_slot=<slot>"]
    folder, report = export("tokens", *chosen, *slots, *packing, "tokens.pad=<pad>")
    read = Tokenizer.from_file(str(tokenizer_file))
    found = dict(read_documents(str(folder / "train")))
    assert len(found) == report.written["train"] > 40
    for clip_id, content in found.items():
        np.testing.assert_array_equal(content.codes, clips[clip_id].codes)
        assert read.decode(content.text.tolist(), skip_special_tokens=False) == clips[clip_id].text
    missing = {row.id for row in clips.values() if row.text} - found.keys()
    assert len(missing) == report.removed.get("longer_than_sequence", 0)


def test_sequences_are_as_long_as_asked_and_say_what_is_in_them(
    export: Callable[..., Any], clips: dict[str, ExportRow]
):
    settings = ["tokens.template=['{audio}', 1024]", "dataset.num_quantizers=1", "tokens.audio_offset=0"]
    folder, _ = export("tokens", *settings, *keys("tokens", sequence_length=100, pack="cut", pad=1025))
    tables = [pq.read_table(path) for path in sorted((folder / "train").iterdir())]
    rows = [row for table in tables for row in table.to_pylist()]
    assert {len(row["tokens"]) for row in rows} == {100}
    assert sum(sum(row["lengths"]) for row in rows) == sum(row.num_frames + 1 for row in clips.values())
    last = tables[0].to_pylist()[-1]
    used = sum(last["lengths"])
    assert last["tokens"][used:] == [1025] * (100 - used)
    assert last["tokens"][used - 1] == 1024


def test_arrays_map_into_memory_with_the_smallest_type(export: Callable[..., Any], clips: dict[str, ExportRow]):
    settings = ["tokens.template=['{audio}']", "dataset.num_quantizers=2"]
    settings += keys("tokens", storage="npy", layout="parallel", audio_slot=5, sequence_length=128, pack="cut", pad=6)
    folder, _ = export("tokens", *settings)
    arrays = [np.load(path, mmap_mode="r") for path in sorted((folder / "train").glob("*.npy"))]
    assert all(array.dtype == np.uint16 for array in arrays)
    assert all(array.shape[0] % 128 == 0 and array.shape[1] == 3 for array in arrays)
    index = pq.read_table(sorted((folder / "train").glob("*.index.parquet"))[0]).to_pylist()
    piece = index[0]
    codes = arrays[0][piece["start"] : piece["start"] + piece["length"], 1:]
    np.testing.assert_array_equal(codes, clips[piece["id"]].codes[:2].T[: piece["length"]])


def test_references_are_part_of_documents_where_the_template_says(
    export: Callable[..., Any], clips: dict[str, ExportRow], tokenizer_file: Path
):
    template = "tokens.template=['{reference}', <text>, '{text}', <audio>, '{audio}']"
    settings = ["references.enabled=true", f"tokens.tokenizer={tokenizer_file}", "dataset.num_quantizers=4"]
    folder, report = export("tokens", template, *settings)
    found = dict(read_documents(str(folder / "train")))
    assert len(found) == report.references == report.written["train"] > 0
    assert report.removed["no_reference"] > 0
    of_speaker: dict[str | None, list[ExportRow]] = {}
    for row in clips.values():
        of_speaker.setdefault(row.speaker_id, []).append(row)
    for clip_id, content in found.items():
        others = [row for row in of_speaker[clips[clip_id].speaker_id] if row.id != clip_id]
        assert any(np.array_equal(content.reference, row.codes[:4]) for row in others)


def keys(section: str, **values: Any) -> list[str]:
    """Settings as the command line has them."""
    return [f"{section}.{key}={json.dumps(value)}" for key, value in values.items()]


def test_text_that_spells_a_special_token_is_text(tokenizer: TextTokenizer):
    ids = tokenizer.encode("say <end> and <pad>")
    assert not {tokenizer.id_of(name) for name in SPECIAL} & set(ids)


def test_text_with_an_id_that_marks_something_is_left_out(tokenizer: TextTokenizer):
    mark = tokenizer.encode("a")[0]
    layout = document_layout(TokensConfig(tokenizer="t", template=("{text}", mark, "{audio}")), tokenizer, 1, 1024)
    none = np.empty((1, 0), np.int16)
    assert layout.document(Content(np.array(tokenizer.encode("a")), none, none)) is None
    assert layout.document(Content(np.array(tokenizer.encode("b")), none, none)) is not None


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"template": ("{text}",)}, "no {audio}"),
        ({"template": ("{audio}", "{audio}")}, "{audio} occurs twice"),
        ({"template": ("{reference}", "{text}", "{audio}")}, "put a token between"),
        ({"template": ("<none>", "{audio}")}, "no token '<none>'"),
        ({"audio_offset": 10}, "codes would have the ids 10 to 4105, and text has the ids 0 to"),
        ({"template": (1000, "{audio}"), "audio_offset": 600}, "1000 is the id of a code"),
        ({"layout": "delay"}, "audio_slot"),
        ({"layout": "delay", "audio_slot": 3, "delays": (0, 1)}, "delays"),
        ({"layout": "delay", "audio_slot": 3, "audio_pad": 1000}, "audio_pad: 1000 is the id of a code"),
        ({"layout": "delay", "audio_slot": 3, "template": (3, "{audio}")}, "both a slot and a token"),
        ({"sequence_length": 100}, "tokens.pad"),
        ({"text_offset": 2**31}, "31 bits"),
    ],
)
def test_layouts_that_could_not_be_read_back_are_refused(
    tokenizer: TextTokenizer, settings: dict[str, Any], complaint: str
):
    with pytest.raises(ConfigError) as caught:
        document_layout(TokensConfig(tokenizer="t", **settings), tokenizer, LAYERS, 1024)
    assert complaint in str(caught.value)


def test_a_tokenizer_that_is_none_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="no such file"):
        load_tokenizer(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"tokenizer\.json: not a tokenizer\.json"):
        load_tokenizer(str(tmp_path))


def test_text_needs_a_tokenizer_and_a_reference_needs_references(export: Callable[..., Any]):
    with pytest.raises(ConfigError, match=r"tokens\.tokenizer"):
        export("tokens")
    with pytest.raises(ConfigError, match=r"references\.enabled"):
        export("tokens", "tokens.template=['{reference}', 5, '{audio}']")
