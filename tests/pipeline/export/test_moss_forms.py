"""All forms of MOSS-TTS, read by the rules of their finetuning scripts: github.com/OpenMOSS/MOSS-TTS.

`read` does what `moss_tts_local/finetuning/dataset.py` does with a record before the processor gets it, and
`read_realtime` what `moss_tts_realtime/finetuning/dataset.py` does. They are our own, by the same rules.
"""

from __future__ import annotations

import json
from collections.abc import Callable
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

TALK = [  # conversation, speaker, role, seconds, text
    ("a", "ann", "user", 1.3, "Hello!"),
    ("a", "bob", "assistant", 1.0, "Good morning."),
    ("a", "ann", "user", 1.28, "Where is the cathedral?"),
    ("a", "bob", "assistant", 2.2, "Beyond the river: la cathédrale."),
    ("b", "ann", "assistant", 1.5, "A clip of its own."),
    ("c", "bob", None, 1.2, "One."),
    ("c", "bob", None, 1.1, "Two."),
    ("c", "cid", None, 1.2, "Three."),
    ("d", "cid", "user", 1.2, "Nobody answers."),
    (None, "ann", None, 1.4, "Alone."),
    ("e", "ann", None, 1.2, "Before."),
    ("e", "bob", None, 1.2, None),
    ("e", "ann", None, 1.2, "After."),
    ("f", "ann", None, 1.2, "Who are you?"),
    ("f", "eve", None, 1.2, "Eve, and I speak only once."),
]
USER_MESSAGE_KEYS = ("text", "instruction", "tokens", "quality", "sound_event", "ambient_sound", "language")


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Turns of dialogues, and four clips with fields of the prompt, all in one shard."""
    root = tmp_path_factory.mktemp("talk")
    noise = np.random.default_rng(5)
    records: list[dict[str, Any]] = [
        {"dialogue": dialogue, "speaker": speaker, "role": role, "text": text, "lang": "en", "seconds": seconds}
        for dialogue, speaker, role, seconds, text in TALK
    ]
    records += [
        {"text": "Aye.", "instruction": "An old sailor.", "quality": "high", "speaker": "dan", "seconds": 1.0},
        {"ambient_sound": "Rain on a roof.", "sound_event": "rain", "seconds": 1.0},
        {"caption": "Footsteps.", "instruction": {"not": "a string"}, "seconds": 1.0},
        {"text": "A door.", "seconds": 1.0},
    ]
    for number, record in enumerate(records):
        samples = noise.uniform(-0.3, 0.3, round(record.pop("seconds") * 24_000))
        sf.write(root / f"{number:02d}.wav", samples, 24_000)
        record["audio_filepath"] = f"{number:02d}.wav"
    kept = [{name: value for name, value in record.items() if value is not None} for record in records]
    (root / "list.jsonl").write_text("".join(json.dumps(record) + "\n" for record in kept))
    document = {"input": {"splits": {"train": [f"{root}/list.jsonl"]}}, "output": {"uri": f"{root}/codes"}}
    tokenize_in_process(with_absolute_uris(parse_config({**document, "model": {"name": "cat-tiny"}})))
    return root / "codes"


@pytest.fixture(scope="module")
def clip(talk: Path) -> Callable[[str], ExportRow]:
    output = read_output(str(talk))
    rows = {Path(row.audio).stem: row for spec in output.specs for row in read_rows(output, spec, 32)}
    return lambda name: rows[Path(name).stem]


def matrix(value: Any) -> np.ndarray:
    codes = np.array(value)
    assert (codes.ndim, codes.dtype.kind) == (2, "i")
    return codes


def read(record: dict[str, Any], n_vq: int) -> dict[str, Any]:
    """What the processor's user message and the loss get of a record."""
    target = matrix(record["audio_codes"])
    assert target.shape[1] == n_vq, "Expected n_vq"
    references: list[np.ndarray | None] | None = None
    if record.get("reference_audio_codes") is not None:
        value = record["reference_audio_codes"]
        assert isinstance(value, list)
        references = [None if item is None else matrix(item) for item in value]
    elif record.get("ref_audio_codes") is not None:
        references = [matrix(record["ref_audio_codes"])]
    else:
        assert not {"reference", "reference_audio", "ref_audio"} & record.keys(), "would be encoded from its path"
    assert all(item is None or item.shape[1] == n_vq for item in references or [])
    message = {key: record[key] for key in USER_MESSAGE_KEYS if record.get(key) is not None}
    assert all(isinstance(value, int if key == "tokens" else str) for key, value in message.items())
    return {"target": target, "reference": references, **message}


def read_realtime(record: dict[str, Any]) -> list[tuple[str, str, np.ndarray]]:
    """Role, text and codes of each turn that is trained on or heard, after the codes of the reference."""

    def codes_of(value: Any) -> np.ndarray:
        codes = matrix(value)
        if codes.shape[0] == 16 != codes.shape[1]:
            codes = codes.T
        if codes.shape[1] < 16:
            codes = np.pad(codes, ((0, 0), (0, 16 - codes.shape[1])), constant_values=1024)
        return codes[:, :16]

    turns = []
    if record.get("ref_audio_codes") is not None:
        turns.append(("reference", record["ref_wav"], codes_of(record["ref_audio_codes"])))
    else:
        assert record.get("ref_wav") is None, "Record has `ref_wav` but no `ref_audio_codes`"
    assert any(turn["role"] == "assistant" for turn in record["conversations"])
    for number, turn in enumerate(record["conversations"], 1):
        assert turn["role"] in ("user", "assistant")
        assert isinstance(turn["text"], str)
        if turn["role"] == "user" and number == len(record["conversations"]):
            break
        turns.append((turn["role"], turn["text"], codes_of(turn["audio_codes"])))
    return turns


@pytest.mark.slow
def test_realtime_has_dialogues_of_turns_with_the_reference_of_the_assistant(
    export: Callable[..., Any], json_lines: Callable[..., Any], talk: Path, clip: Callable[[str], ExportRow]
):
    dialogue = ["moss_tts.form=realtime", "moss_tts.conversation=dialogue", "dataset.num_quantizers=16"]
    references = ["references.enabled=true", "references.candidates=9"]
    folder, report = export("moss-tts", *dialogue, *references, uri=talk)
    records = json_lines(folder / "train")
    assert report.removed == {"no_text": 3, "no_assistant": 1}
    assert report.written == {"train": 15}
    said = [[(turn["role"], turn["text"]) for turn in record["conversations"]] for record in records]
    assert said == [
        [(role, text) for _, _, role, _, text in TALK[:4]],
        [("assistant", "A clip of its own.")],
        [("user", "One."), ("user", "Two."), ("assistant", "Three.")],
        [("assistant", "Alone.")],
        [("assistant", "Before.")],
        [("assistant", "After.")],
        [("user", "Who are you?"), ("assistant", "Eve, and I speak only once.")],
        [("assistant", "Aye.")],
        [("assistant", "A door.")],
    ]
    heard = 0
    for record in records:
        turns = read_realtime(record)
        for (_, _, codes), turn in zip(turns[-len(record["conversations"]) :], record["conversations"], strict=True):
            np.testing.assert_array_equal(codes, clip(turn["wav"]).codes[:16].T)
        if turns[0][0] == "reference":
            reference = clip(turns[0][1])
            np.testing.assert_array_equal(turns[0][2], reference.codes[:16].T)
            assistant = {
                clip(turn["wav"]).speaker_id for turn in record["conversations"] if turn["role"] == "assistant"
            }
            assert assistant == {reference.speaker_id}
            assert reference.audio not in {turn["wav"] for turn in record["conversations"]}
            heard += 1
    assert heard >= 4, "each clip of ann that is alone"
    assert any(clip(turn["wav"]).num_frames == 16 for record in records for turn in record["conversations"])


def test_realtime_takes_sixteen_layers_and_no_others(export: Callable[..., Any], talk: Path):
    with pytest.raises(ConfigError, match=r"16 layers, and these have 32: set dataset\.num_quantizers=16"):
        export("moss-tts", "moss_tts.form=realtime", uri=talk)


def test_splits_that_would_cut_dialogues_are_refused(export: Callable[..., Any], talk: Path):
    with pytest.raises(ConfigError, match=r"leave out splits\.shares"):
        export("moss-tts", "moss_tts.form=ttsd", "moss_tts.conversation=dialogue", "splits.shares={a: 1}", uri=talk)


def test_ttsd_marks_speakers_and_has_a_reference_or_null_for_each(
    export: Callable[..., Any], json_lines: Callable[..., Any], talk: Path, clip: Callable[[str], ExportRow]
):
    dialogue = ["moss_tts.form=ttsd", "moss_tts.conversation=dialogue", "dataset.num_quantizers=16"]
    settings = ["references.enabled=true", "moss_tts.tokens=true", "moss_tts.languages={en: English}"]
    folder, _ = export("moss-tts", *dialogue, *settings, uri=talk)
    records = json_lines(folder / "train")
    messages = [read(record, 16) for record in records]
    assert [message["text"] for message in messages][:3] == [
        "[S1] Hello! [S2] Good morning. [S1] Where is the cathedral? [S2] Beyond the river: la cathédrale.",
        "[S1] A clip of its own.",
        "[S1] One. Two. [S2] Three.",
    ]
    assert messages[0]["language"] == "English"
    turns = [clip(f"{number:02d}.wav") for number in range(4)]
    np.testing.assert_array_equal(messages[0]["target"], np.concatenate([row.codes[:16].T for row in turns]))
    assert messages[0]["tokens"] == sum(row.num_frames for row in turns)
    (two,) = [record["reference"] for record in records if "Eve" in record["text"]]
    assert clip(two[0]).speaker_id == "ann"
    assert two[1] is None
    for record, message in zip(records, messages, strict=True):
        for path, codes in zip(record.get("reference", []), message["reference"] or [], strict=True):
            assert (path is None) == (codes is None)
            if codes is not None:
                np.testing.assert_array_equal(codes, clip(path).codes[:16].T)


def test_text_that_marks_its_speakers_is_left_as_it_is(
    export: Callable[..., Any], json_lines: Callable[..., Any], tmp_path: Path
):
    sf.write(tmp_path / "long.wav", np.random.default_rng(1).uniform(-0.3, 0.3, 48_000), 24_000)
    text = "[S1] Hello. [S2] Hello yourself."
    (tmp_path / "list.jsonl").write_text(json.dumps({"audio_filepath": "long.wav", "text": text}) + "\n")
    document = {"input": {"splits": {"train": [f"{tmp_path}/list.jsonl"]}}, "output": {"uri": f"{tmp_path}/codes"}}
    tokenize_in_process(with_absolute_uris(parse_config({**document, "model": {"name": "cat-tiny"}})))
    folder, _ = export("moss-tts", "moss_tts.form=ttsd", uri=tmp_path / "codes")
    (record,) = json_lines(folder / "train")
    assert read(record, 32)["text"] == text


@pytest.mark.parametrize("layers", [12, 16, 32])
def test_local_models_get_as_many_layers_as_they_have(
    export: Callable[..., Any], json_lines: Callable[..., Any], talk: Path, layers: int
):
    settings = [f"dataset.num_quantizers={layers}", "moss_tts.tokens=true", "references.enabled=true"]
    folder, report = export("moss-tts", *settings, uri=talk)
    messages = [read(record, layers) for record in json_lines(folder / "train")]
    assert len(messages) == report.written["train"]
    assert all(message["tokens"] == len(message["target"]) for message in messages)
    assert sum(message["reference"] is not None for message in messages) == report.references > 5


def test_fields_of_the_prompt_come_from_the_source(
    export: Callable[..., Any], json_lines: Callable[..., Any], talk: Path, tmp_path: Path
):
    def prompts(name: str, *settings: str) -> tuple[list[dict[str, Any]], dict[str, int]]:
        folder, report = export("moss-tts", *settings, out=tmp_path / name, uri=talk)
        messages = [read(record, 32) for record in json_lines(folder / "train")]
        return [
            {key: message[key] for key in USER_MESSAGE_KEYS if key in message} for message in messages
        ], report.removed

    spoken, _ = prompts("spoken")
    assert {"text": "Aye.", "instruction": "An old sailor.", "quality": "high"} in spoken
    assert {"text": "A door."} in spoken
    voices, removed = prompts("voices", "moss_tts.need=[text, instruction]")
    assert voices == [{"text": "Aye.", "instruction": "An old sailor.", "quality": "high"}]
    assert removed["no_prompt"] == len(spoken) - 1
    effects, _ = prompts("effects", "moss_tts.need=[ambient_sound]")
    assert effects == [{"ambient_sound": "Rain on a roof.", "sound_event": "rain"}]
    captions, _ = prompts("captions", "moss_tts.need=[ambient_sound]", "moss_tts.fields={ambient_sound: caption}")
    assert captions == [{"ambient_sound": "Footsteps."}]
    texts, _ = prompts("texts", "moss_tts.need=[ambient_sound]", "moss_tts.fields={ambient_sound: text}")
    assert {"ambient_sound": "A door."} in texts
    assert not any("text" in message for message in texts)
