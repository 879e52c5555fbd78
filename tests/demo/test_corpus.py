"""The demo corpus keeps its promises: what is in it, that it is sound where it says so and broken where it says so."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile as sf

from demo.corpus_builder import audio, debian, packings
from demo.corpus_builder.build import main
from demo.corpus_builder.clip import Clip

DEMO = Path(__file__).parents[2] / "demo"
CORPUS = DEMO / "corpus"
PARQUET = CORPUS / "parquet" / "train-00000-of-00001.parquet"
TARS = sorted((CORPUS / "webdataset").glob("*.tar"))
LANGUAGES = {"en", "fr", "es", "it", "ru"}


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def tar_members(path: Path) -> list[tuple[str, bytes]]:
    with tarfile.open(path) as tar:
        return [(member.name, tar.extractfile(member).read()) for member in tar.getmembers()]  # type: ignore[union-attr]


def packed_clips() -> Iterator[tuple[str, str, str, bytes | None, str | None]]:
    """(packing, source, key, audio bytes, text) of all that the packings hold, read without the inventory."""
    for line in read_lines(CORPUS / "folder" / "manifest.jsonl"):
        yield (
            "folder",
            f"folder/{line['audio']}",
            line["audio"],
            (CORPUS / "folder" / line["audio"]).read_bytes(),
            line.get("text"),
        )
    for path in TARS:
        samples: dict[str, dict[str, bytes]] = {}
        for name, content in tar_members(path):
            key, _, suffix = name.partition(".")
            assert suffix not in samples.setdefault(key, {}), f"{name} occurs twice"
            samples[key][suffix] = content
        for key, sample in samples.items():
            assert isinstance(json.loads(sample.pop("json")), dict)
            text = sample.pop("txt", None)
            (data,) = sample.values()
            yield "webdataset", f"webdataset/{path.name}", key, data, None if text is None else text.decode("utf-8")
    for row in pq.read_table(PARQUET).to_pylist():
        yield "parquet", f"parquet/{PARQUET.name}", row["id"], row["audio"]["bytes"], row["text"]


INVENTORY = read_lines(CORPUS / "inventory.jsonl")
CLIPS = {(packing, key): (source, data, text) for packing, source, key, data, text in packed_clips()}
ROWS = [entry for entry in INVENTORY if entry["expected"] == "row"]
REJECTS = [entry for entry in INVENTORY if entry["expected"] == "reject"]


def audio_of(entry: dict[str, Any]) -> bytes | None:
    return CLIPS[entry["packing"], entry["key"]][1]


def text_of(entry: dict[str, Any]) -> str | None:
    return CLIPS[entry["packing"], entry["key"]][2]


def name_of(entry: dict[str, Any]) -> str:
    return f"{entry['packing']}:{entry['key']}"


def decode_with_av(data: bytes) -> tuple[np.ndarray, int]:
    with av.open(io.BytesIO(data)) as source:
        stream = source.streams.audio[0]
        resampler = av.AudioResampler(format="fltp", layout=stream.layout, rate=stream.rate)
        blocks = [block.to_ndarray() for frame in source.decode(stream) for block in resampler.resample(frame)]
        return np.concatenate(blocks, axis=1), stream.rate


def declared_data_bytes(wav: bytes) -> tuple[int, int]:
    """The bytes of samples that a WAV header declares, and those that follow it."""
    position = 12
    while wav[position : position + 4] != b"data":
        position += 8 + struct.unpack_from("<I", wav, position + 4)[0]
    return struct.unpack_from("<I", wav, position + 4)[0], len(wav) - position - 8


def find_defect(data: bytes | None) -> str | None:
    """Why these bytes are no sound clip, in words that a defect of the inventory begins with; None if they are."""
    if not data:
        return "empty" if data is not None else "null"
    if data.lstrip().lower().startswith(b"<!doctype html"):
        with pytest.raises(sf.LibsndfileError):
            sf.info(io.BytesIO(data))
        return "not audio"
    if data.startswith(b"RIFF"):
        declared, present = declared_data_bytes(data)
        if declared > present:
            return "WAV whose header declares ten times" if declared == 10 * present else "truncated WAV"
    try:
        samples, _ = decode_with_av(data) if data[4:8] == b"ftyp" else sf.read(io.BytesIO(data))
    except sf.LibsndfileError:
        return "truncated FLAC" if data.startswith(b"fLaC") else "undecodable"
    return None if np.isfinite(samples).all() else "float WAV with NaN"


def test_corpus_stays_under_six_megabytes() -> None:
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < 6_000_000


def test_inventory_and_packings_hold_the_same_clips() -> None:
    listed = [(entry["packing"], entry["source"], entry["key"], entry["has_text"]) for entry in INVENTORY]
    packed = [(packing, source, key, text is not None) for (packing, key), (source, _, text) in CLIPS.items()]
    assert sorted(listed) == sorted(packed)
    assert len({(packing, key) for packing, _, key, _ in listed}) == len(listed)


def test_every_file_of_the_folder_is_in_its_manifest() -> None:
    files = {
        path.relative_to(CORPUS / "folder").as_posix() for path in (CORPUS / "folder").rglob("*") if path.is_file()
    }
    assert files - {"manifest.jsonl"} == {key for packing, key in CLIPS if packing == "folder"}


@pytest.mark.parametrize("entry", ROWS, ids=name_of)
def test_sound_clip_decodes_to_what_the_inventory_states(entry: dict[str, Any]) -> None:
    data = audio_of(entry)
    assert data is not None
    assert find_defect(data) is None
    samples, sample_rate = decode_with_av(data)
    assert (sample_rate, samples.shape[0]) == (entry["sample_rate"], entry["channels"])
    assert samples.shape[1] / sample_rate == pytest.approx(entry["seconds"], abs=0.1)
    assert np.abs(samples).max() > 0.01, "silence"
    if entry["codec"] != "aac":
        samples, sample_rate = sf.read(io.BytesIO(data), always_2d=True)
        assert (sample_rate, samples.shape[1]) == (entry["sample_rate"], entry["channels"])
        assert samples.shape[0] / sample_rate == pytest.approx(entry["seconds"], abs=0.1)


@pytest.mark.parametrize("entry", REJECTS, ids=name_of)
def test_broken_clip_is_broken_as_the_inventory_says(entry: dict[str, Any]) -> None:
    defect = find_defect(audio_of(entry))
    assert defect is not None
    assert entry["defect"].startswith(defect)


def test_each_packing_holds_every_kind_of_defect_that_is_natural_there() -> None:
    kinds = Counter((entry["packing"], entry["defect"].split(":")[0]) for entry in REJECTS)
    assert set(kinds.values()) == {1}
    everywhere = {"not audio", "truncated FLAC", "float WAV with NaN samples"}
    for packing in ("folder", "webdataset", "parquet"):
        assert everywhere <= {defect for where, defect in kinds if where == packing}
    assert {"empty file", "truncated WAV"} <= {defect for where, defect in kinds if where == "folder"}
    assert {"empty bytes in the audio column", "null bytes in the audio column, and its path leads nowhere"} <= {
        defect for where, defect in kinds if where == "parquet"
    }


def test_formats_rates_channels_and_durations_are_covered() -> None:
    codecs = {"pcm_s16le", "pcm_s24le", "pcm_f32le", "flac", "mp3", "vorbis", "opus", "aac"}
    assert {entry["codec"] for entry in ROWS} == codecs
    assert {entry["container"] for entry in ROWS} == {"wav", "flac", "mp3", "ogg", "m4a"}
    assert {entry["sample_rate"] for entry in ROWS} == {8_000, 16_000, 22_050, 44_100, 48_000}
    assert sum((entry["sample_rate"], entry["channels"]) == (44_100, 2) for entry in ROWS) >= 8
    assert {entry["channels"] for entry in ROWS} == {1, 2}
    assert min(entry["seconds"] for entry in ROWS) == pytest.approx(0.2, abs=0.01)
    for packing in ("folder", "webdataset", "parquet"):
        assert max(entry["seconds"] for entry in ROWS if entry["packing"] == packing) > 30


def test_librivox_clips_are_the_same_samples_as_wav_and_as_flac() -> None:
    flac = {
        key.partition("_")[2]: data
        for (packing, key), (_, data, _) in CLIPS.items()
        if (packing, key[:8]) == ("parquet", "librivox")
    }
    assert len(flac) == 3
    for name, data in flac.items():
        wav = (CORPUS / "folder" / "librivox" / f"{name}.wav").read_bytes()
        assert np.array_equal(sf.read(io.BytesIO(data), dtype="int16")[0], sf.read(io.BytesIO(wav), dtype="int16")[0])


def test_five_librivox_clips_and_sixty_prompts_have_transcripts_in_proper_utf8() -> None:
    origins = Counter(entry["origin"].partition(":")[0] for entry in ROWS if entry["packing"] == "folder")
    assert origins["pocketsphinx-testdata"] == 5
    texts: dict[str, list[str]] = {language: [] for language in LANGUAGES}
    for entry in ROWS:
        if "asterisk" in entry["origin"]:
            texts[entry["language"]].append(text_of(entry) or "")
    assert sum(map(len, texts.values())) >= 60
    assert all(len(prompts) >= 12 and all(prompts) for prompts in texts.values())
    assert "désolé" in " ".join(texts["fr"]).lower()
    assert "è" in " ".join(texts["it"])
    assert "está" in " ".join(texts["es"])
    assert all("Ѐ" <= letter <= "ӿ" for prompt in texts["ru"] for letter in prompt if letter.isalpha())
    assert not any(mark in prompt for prompts in texts.values() for prompt in prompts for mark in "?�Ã")


def test_some_webdataset_samples_have_labels_and_no_text() -> None:
    members = [member for path in TARS for member in tar_members(path)]
    names = {name for name, _ in members}
    labelled = [name for name, content in members if name.endswith(".json") and json.loads(content).get("labels")]
    assert len(labelled) == 5
    assert not {name.replace(".json", ".txt") for name in labelled} & names


def test_licence_texts_cover_every_clip() -> None:
    texts = {path.stem: path.read_text(encoding="utf-8") for path in (CORPUS / "LICENSES").glob("*.txt")}
    assert "Redistributions of source code must retain" in texts["pocketsphinx-testdata"]
    assert "CC0" in texts["sonic-pi-samples"]
    assert "creativecommons.org/publicdomain/zero/1.0" in texts["sonic-pi-samples"]
    for heading in ("License: CC-BY-SA-3.0\n THE WORK", "License: CC-BY-3.0\n Creative Commons Legal Code"):
        assert f"\n{heading}" in texts["asterisk-core-sounds"]
    readme = (CORPUS / "README.md").read_text(encoding="utf-8")
    for entry in INVENTORY:
        if entry["license"] == "Apache-2.0":
            assert entry["origin"] == "made by demo/build_corpus.py"
            continue
        package, _, path = entry["origin"].partition(": ")
        stated = debian.license_and_holder(*copyright_entry(package, Path(path).stem, texts))
        assert stated == (entry["license"], entry["copyright"])
        assert entry["license"] in readme


def copyright_entry(package: str, name: str, texts: dict[str, str]) -> tuple[str, str]:
    """The copyright text of a package and the name that it gives to a recording."""
    if package.startswith("asterisk-core-sounds-"):
        return texts["asterisk-core-sounds"], f"{package.split('-')[3]}-{name}"
    return texts[package], {"sonic-pi-samples": f"etc/samples/{name}.flac"}.get(package, f"test/data/{name}.wav")


def test_datasets_sees_an_audio_column(tmp_path: Path) -> None:
    dataset = datasets.load_dataset("parquet", data_files=str(PARQUET), split="train", cache_dir=str(tmp_path))
    assert isinstance(dataset.features["audio"], datasets.Audio)
    undecoded = dataset.cast_column("audio", datasets.Audio(decode=False))
    assert [row["audio"]["bytes"] for row in undecoded] == [
        data for (packing, _), (_, data, _) in CLIPS.items() if packing == "parquet"
    ]
    assert pq.ParquetFile(PARQUET).num_row_groups > 1


@pytest.mark.parametrize("path", TARS, ids=lambda path: path.name)
def test_tars_are_rebuilt_to_the_same_bytes(path: Path) -> None:
    assert packings.tar_bytes(tar_members(path)) == path.read_bytes()


def test_parquet_is_rebuilt_to_the_same_table_and_always_to_the_same_bytes(tmp_path: Path) -> None:
    clips = [
        Clip(
            packing="parquet",
            stem=row["id"],
            suffix=Path(row["audio"]["path"]).suffix,
            data=row["audio"]["bytes"],
            text=row["text"],
            language=row["language"],
            speaker=None,
            labels=(),
            license="",
            copyright="",
            origin="",
            changes="",
        )
        for row in pq.read_table(PARQUET).to_pylist()
    ]
    first, second = (
        packings.write_parquet(order, tmp_path / str(number)) for number, order in enumerate((clips, clips[::-1]))
    )
    paths = {*first.values(), *second.values()}
    assert len({path.read_bytes() for path in paths}) == 1
    assert pq.read_table(paths.pop()).equals(pq.read_table(PARQUET), check_metadata=True)


@pytest.mark.parametrize("encoding", ["WAV_16", "WAV_24", "WAV_FLOAT", "FLAC", "MP3", "VORBIS", "OPUS", "AAC"])
def test_encoding_twice_gives_the_same_bytes(encoding: str) -> None:
    waveform, sample_rate = audio.decode((CORPUS / "folder" / "librivox" / "0880.wav").read_bytes(), ".wav")
    first, second = (audio.encode(waveform, sample_rate, getattr(audio, encoding), 48_000) for _ in range(2))
    assert first == second
    assert audio.measure(first).seconds == pytest.approx(waveform.shape[1] / sample_rate, abs=0.1)


def test_a_missing_package_is_named_with_its_version(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"pocketsphinx-testdata version 0\.8"):
        debian.unpack(tmp_path, tmp_path / "root")


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path)])
    assert "is not an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
