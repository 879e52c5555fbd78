"""Datasets as they are published: each layout through its own configuration and the real pipeline."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from pipeline.config import load_config
from pipeline.dataset.opening import with_absolute_uris
from tests.support import ROOT, rows, tokenize_in_process

SPEECH = ROOT / "demo" / "corpus" / "folder" / "librivox"
CLIPS = ("0870.wav", "0880.wav", "0890.wav")
Tokenize = Callable[..., Path]


@pytest.fixture
def tokenize(tmp_path: Path) -> Tokenize:
    """Tokenize inputs by a configuration of the project, with the small codec; gives the output."""

    def run(config: str, splits: dict[str, str], *overrides: str) -> Path:
        own = [f"input.splits={json.dumps(splits)}", f"output.uri={tmp_path / 'codes'}", "model.name=cat-tiny"]
        tokenize_in_process(with_absolute_uris(load_config(ROOT / "configs" / config, [*own, *overrides])))
        return tmp_path / "codes"

    return run


def by_key(output: Path) -> dict[str, dict[str, Any]]:
    return {row["key"]: row | {"metadata": json.loads(row["metadata"])} for row in rows(output)}


def test_librispeech_brings_transcripts_and_speakers(tokenize: Tokenize, tmp_path: Path):
    root = tmp_path / "LibriSpeech" / "test-clean"
    names = ["19-198-0000", "19-198-0001", "26-495-0000"]
    for name, clip in zip(names, CLIPS, strict=True):
        folder = root.joinpath(*name.split("-")[:2])
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(SPEECH / clip, folder / f"{name}.flac")  # the bytes decide how they are decoded
    (root / "19" / "198" / "19-198.trans.txt").write_text(
        "19-198-0000 NORTHANGER ABBEY\n19-198-0001 THIS LITTLE WORK\n"
    )
    (tmp_path / "LibriSpeech" / "SPEAKERS.TXT").write_text("; not audio\n")
    output = tokenize("librispeech_folder.yaml", {"test": str(tmp_path / "LibriSpeech")}, "input.clips_per_shard=2")
    found = by_key(output)
    assert [found[key]["text"] for key in sorted(found, key=lambda key: key[-16:])] == [
        "NORTHANGER ABBEY",
        "THIS LITTLE WORK",
        None,
    ]
    assert sorted(row["speaker_id"] for row in found.values()) == ["19", "19", "26"]
    assert {row["metadata"]["chapter_id"] for row in found.values()} == {"198", "495"}
    assert len(list(output.glob("data/test/*.parquet"))) == 2
    card = datasets.load_dataset(str(output), split="test", cache_dir=str(tmp_path / "cache"))
    assert len(card) == 3


def test_librispeech_transcripts_that_cannot_be_read_cost_no_clip(tokenize: Tokenize, tmp_path: Path):
    root = tmp_path / "LibriSpeech"
    for name, clip in zip(("19-198-0000", "26-495-0000"), CLIPS, strict=False):
        speaker, chapter, _ = name.split("-")
        (root / speaker / chapter).mkdir(parents=True)
        shutil.copy(SPEECH / clip, root / speaker / chapter / f"{name}.flac")
    (root / "19" / "198" / "19-198.trans.txt").mkdir()
    with (root / "26" / "495" / "26-495.trans.txt").open("wb") as file:
        file.truncate(2**30)
    found = by_key(tokenize("librispeech_folder.yaml", {"test": str(root)}))
    assert {row["text"] for row in found.values()} == {None}
    why = {row["speaker_id"]: row["metadata"]["unreadable_transcripts"] for row in found.values()}
    assert "not a file but a directory" in why["19"]
    assert "1073741824 bytes" in why["26"]


def test_common_voice_brings_sentences_speakers_and_the_language(tokenize: Tokenize, tmp_path: Path):
    clips = tmp_path / "cv" / "fr" / "clips"
    clips.mkdir(parents=True)
    names = ["common_voice_fr_1.mp3", "common_voice_fr_2.mp3", "common_voice_fr_3.mp3"]
    for name, clip in zip(names, CLIPS, strict=True):
        shutil.copy(SPEECH / clip, clips / name)
    sentences = ['"Oui, dit-il.', "Rien", 'Un "mot" et\u00a0un autre"']
    lines = ["client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tlocale"]
    for number, (name, text) in enumerate(zip(names, sentences, strict=True)):
        lines.append(f"s{number}\t{name}\t{text}\t2\t0\t\tfr")
    lines.append("s9\tcommon_voice_fr_9.mp3\tPerdu\t2\t0\t\tfr")
    (tmp_path / "cv" / "fr" / "train.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    output = tokenize("common_voice.yaml", {"train": str(tmp_path / "cv" / "fr" / "train.tsv")})
    found = by_key(output)
    assert [found[name]["text"] for name in names] == sentences
    assert [found[name]["speaker_id"] for name in names] == ["s0", "s1", "s2"]
    assert {row["language"] for row in found.values()} == {"fr"}
    assert (
        found[names[0]]["metadata"] == {"up_votes": "2", "down_votes": "0", "age": ""}
        or "up_votes" in (found[names[0]]["metadata"])
    )
    (reject,) = rows(output, "rejects")
    assert (reject["key"], reject["reason"]) == ("common_voice_fr_9.mp3", "missing")
    assert "- fr\n" in (output / "README.md").read_text(), "the card has the languages of the data"


def test_audioset_tars_bring_labels(tokenize: Tokenize, tmp_path: Path):
    labels = [["Speech", "Male speech, man speaking"], ["Music"], []]
    with tarfile.open(tmp_path / "eval-000.tar", "w") as tar:
        for number, (clip, names) in enumerate(zip(CLIPS, labels, strict=True)):
            for ending, data in (
                ("wav", (SPEECH / clip).read_bytes()),
                ("json", json.dumps({"video_id": f"v{number}", "labels": names}).encode()),
            ):
                header = tarfile.TarInfo(f"v{number}.{ending}")
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))
    output = tokenize("audioset.yaml", {"eval": str(tmp_path / "*.tar")})
    found = by_key(output)
    assert [found[f"v{number}"]["labels"] for number in range(3)] == labels
    assert found["v1"]["metadata"] == {"video_id": "v1"}
    assert "belongs to its uploaders" in (output / "README.md").read_text()


def audio_table(column: str, names: list[list[str]]) -> datasets.Dataset:
    audio = [{"bytes": (SPEECH / clip).read_bytes(), "path": clip} for clip in CLIPS]
    audio[1] = {"bytes": b"RIFF, and then nothing", "path": "broken.wav"}
    made = datasets.Dataset.from_dict({"audio": audio, "id": ["a", "b", "c"], column: names})
    return made.cast_column("audio", datasets.Audio(decode=False))


def test_audioset_in_parquet_as_the_hub_has_it(tokenize: Tokenize, tmp_path: Path):
    table = audio_table("human_labels", [["Speech"], ["Music"], ["Speech", "Inside, small room"]])
    table.add_column("labels", [["/m/09x0r"]] * 3).to_parquet(tmp_path / "00.parquet")
    output = tokenize("audioset.yaml", {"train": str(tmp_path / "*.parquet")}, "input.labels_column=human_labels")
    found = by_key(output)
    assert found["c"]["labels"] == ["Speech", "Inside, small room"]
    assert found["c"]["metadata"]["labels"] == ["/m/09x0r"]
    assert [reject["key"] for reject in rows(output, "rejects")] == ["b"], "a broken clip is a reject, and not the end"


def test_a_folder_of_datasets_gives_the_rows_that_parquet_gives(tokenize: Tokenize, tmp_path: Path):
    table = audio_table("labels", [["x"], [], ["y", "z"]])
    datasets.DatasetDict({"train": table, "test": table.select([2])}).save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / "train" / "cache-0123.arrow").write_bytes(b"what map has computed")
    pattern = {split: str(tmp_path / "saved" / split) for split in ("train", "test")}
    output = tokenize("datasets_folder.yaml", pattern)
    found = by_key(output)
    assert sorted(found) == ["a", "c"]
    assert found["c"]["labels"] == ["y", "z"]
    assert [reject["key"] for reject in rows(output, "rejects")] == ["b"]
    assert len(rows(output)) == 3
