"""Manifests that Lhotse itself writes are input lists, and each clip is what Lhotse's own cut loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from lhotse import CutSet, MonoCut, MultiCut, Recording, RecordingSet, SupervisionSegment, SupervisionSet
from lhotse.supervision import AlignmentItem

from moss_tok import audio
from pipeline.items import Reject
from tests.pipeline.steps.test_segments import infos, noise, run, waveforms, write, write_list


def loaded(cut: Any) -> np.ndarray:
    """What Lhotse loads, mixed and resampled as any clip is."""
    waveform = audio.to_channels(np.ascontiguousarray(cut.load_audio(), np.float32), 1)
    return audio.resample(waveform, cut.sampling_rate, 24_000)


def recording(path: Path, name: str = "rec") -> Recording:
    return Recording.from_file(path, recording_id=name)


@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100])
@pytest.mark.parametrize("packed", [False, True])
def test_cuts_are_what_lhotse_loads_halves_of_samples_included(tmp_path: Path, rate: int, packed: bool) -> None:
    found = recording(write(tmp_path / "a.flac", 20, rate))
    cuts = [
        MonoCut(f"cut-{number}", start=start, duration=duration, channel=0, recording=found)
        for number, (start, duration) in enumerate([(0, 20), (0.01, 0.33), (3.07, 1.11), (3.09, 2.45), (17.55, 2.45)])
    ]
    path = tmp_path / f"cuts.jsonl{'.gz' if packed else ''}"
    CutSet.from_cuts(cuts).to_file(path)
    items = run(path)
    assert [info.description.metadata["id"] for info in infos(items)] == [cut.id for cut in cuts]
    for cut, info, waveform in zip(cuts, infos(items), waveforms(items), strict=True):
        wanted = loaded(cut)
        if cut.start == 17.55 and rate == 22_050:  # both halves are rounded up: Lhotse makes up the last sample
            frames = np.ascontiguousarray(cut.load_audio()[:, :-1], np.float32)
            wanted = audio.resample(frames, rate, 24_000)
        assert np.array_equal(waveform, wanted)
        assert info.origin.segment.start == cut.start
        assert info.description.metadata["recording_id"] == "rec"


def test_a_cut_has_the_words_of_its_supervisions_and_the_channels_that_it_names(tmp_path: Path) -> None:
    found = recording(write(tmp_path / "a.wav", 10, 16_000, channels=3))
    words = {"word": [AlignmentItem("hello", 0.5, 0.25, 0.9)]}
    one = SupervisionSegment("s1", "rec", 0.25, 1.0, 1, text="hello", language="en", speaker="ann", alignment=words)
    two = SupervisionSegment("s2", "rec", 1.5, 1.0, 1, text="world", language="en", speaker="bob", gender="m")
    cuts = [
        MonoCut("mono", start=2, duration=3, channel=1, supervisions=[two, one], recording=found),
        MultiCut("multi", start=4, duration=2, channel=[0, 2], recording=found),
        MonoCut("single", start=6, duration=2, channel=2, supervisions=[one], recording=found),
    ]
    CutSet.from_cuts(cuts).to_file(tmp_path / "cuts.jsonl")
    items = run(tmp_path / "cuts.jsonl")
    for cut, waveform in zip(cuts, waveforms(items), strict=True):
        assert np.array_equal(waveform, loaded(cut))
    mono, multi, single = (info.description for info in infos(items))
    assert (mono.text, mono.language, mono.speaker_id) == ("hello world", "en", None)
    assert (multi.text, multi.language, multi.speaker_id) == (None, None, None)
    assert (single.text, single.language, single.speaker_id) == ("hello", "en", "ann")
    assert [entry["id"] for entry in mono.metadata["supervisions"]] == ["s2", "s1"]
    (alignment,) = [entry["alignment"]["word"] for entry in mono.metadata["supervisions"] if entry["id"] == "s1"]
    assert alignment == [["hello", 0.5, 0.25, 0.9]]  # Lhotse counts them from the cut already


def test_supervisions_find_their_recordings_in_the_list_beside(tmp_path: Path) -> None:
    found = [recording(write(tmp_path / f"{name}.wav", 10, channels=2), name) for name in ("a", "b", "c")]
    RecordingSet.from_recordings(found).to_file(tmp_path / "corpus_recordings_train.jsonl.gz")
    words = {"word": [AlignmentItem("hello", 2.5, 0.25)]}
    spoken = [
        SupervisionSegment("s1", "a", 2, 1.5, 0, text="hello", speaker="ann", alignment=words),
        SupervisionSegment("s2", "a", 4, 1.5, 1, text="again", custom={"score": 0.5}),
        SupervisionSegment("s3", "c", 0.125, 9, 1, text="far", language="fr"),
    ]
    path = tmp_path / "corpus_supervisions_train.jsonl.gz"
    SupervisionSet.from_segments(spoken).to_file(path)
    items = run(path, clips_per_shard=2)
    for said, info, waveform in zip(spoken, infos(items), waveforms(items), strict=True):
        source = next(entry for entry in found if entry.id == said.recording_id)
        cut = MonoCut("cut", said.start, said.duration, said.channel, recording=source)
        assert np.array_equal(waveform, loaded(cut))
        description = info.description
        assert (description.text, description.speaker_id, description.language) == (
            said.text,
            said.speaker,
            said.language,
        )
        assert description.metadata["id"] == said.id
    assert infos(items)[0].description.metadata["alignment"] == {"word": [["hello", 0.5, 0.25, None]]}
    assert infos(items)[1].description.metadata["custom"] == {"score": 0.5}
    elsewhere = tmp_path / "lists"
    elsewhere.mkdir()
    path.rename(elsewhere / "said.jsonl.gz")
    assert (
        len(
            infos(
                run(
                    elsewhere / "said.jsonl.gz",
                    recordings=str(tmp_path / "corpus_recordings_train.jsonl.gz"),
                    allow=str(tmp_path),
                )
            )
        )
        == 3
    )
    rejects = run(elsewhere / "said.jsonl.gz")
    assert [item.reason for item in rejects if isinstance(item, Reject)] == 3 * ["bad_record"]
    assert all("input.recordings" in item.message for item in rejects if isinstance(item, Reject))


def test_recordings_are_whole_files(tmp_path: Path) -> None:
    found = [
        recording(write(tmp_path / f"{name}.wav", seconds, channels=2), name) for name, seconds in (("a", 1), ("b", 2))
    ]
    RecordingSet.from_recordings(found).to_file(tmp_path / "recordings.jsonl")
    items = run(tmp_path / "recordings.jsonl")
    assert [info.origin.segment for info in infos(items)] == [None, None]
    assert [info.description.metadata["id"] for info in infos(items)] == ["a", "b"]
    for entry, waveform in zip(found, waveforms(items), strict=True):
        assert np.array_equal(waveform, loaded(entry.to_cut()))


def test_a_recording_in_a_file_for_each_channel(tmp_path: Path) -> None:
    for name in ("left", "right"):
        sf.write(tmp_path / f"{name}.wav", noise(4, 16_000) * (1 if name == "left" else -0.5), 16_000)
    sources = [
        {"type": "file", "channels": [channel], "source": f"{name}.wav"}
        for channel, name in enumerate(("left", "right"))
    ]
    whole = {"id": "rec", "sources": sources, "sampling_rate": 16_000, "num_samples": 64_000, "duration": 4.0}
    cut = {"id": "cut", "start": 1, "duration": 2, "recording": whole, "type": "MonoCut"}
    items = run(
        write_list(tmp_path / "cuts.jsonl", {**cut, "channel": 1}, {**cut, "channel": [0, 1], "type": "MultiCut"})
    )
    (info,) = infos(items)
    assert info.origin.source == str(tmp_path / "right.wav")
    frames, _ = sf.read(tmp_path / "right.wav", start=16_000, stop=48_000, dtype="float32")
    assert np.array_equal(waveforms(items[:1])[0], audio.resample(frames[None], 16_000, 24_000))
    assert isinstance(items[1], Reject)
    assert "channels [0, 1]" in items[1].message


SOURCE = {"type": "file", "channels": [0], "source": "a.wav"}
RECORDING = {"id": "rec", "sources": [SOURCE], "sampling_rate": 16_000, "num_samples": 128_000, "duration": 8.0}
CUT = {"id": "cut", "start": 1, "duration": 2, "channel": 0, "recording": RECORDING, "type": "MonoCut"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "MixedCut", "tracks": []}, "MixedCut"),
        ({"type": "PaddingCut"}, "PaddingCut"),
        ({"recording": None, "features": {}}, "without a recording"),
        ({"channel": 5}, "channels [5]"),
        ({"channel": {"a": 1}}, "channels"),
        ({"recording": {**RECORDING, "transforms": [{"name": "Speed"}]}}, "transforms"),
        ({"recording": {**RECORDING, "sources": []}}, "0 sources"),
        (
            {"recording": {**RECORDING, "sources": [{**SOURCE, "type": "command", "source": "touch hacked"}]}},
            "'command'",
        ),
        ({"recording": {**RECORDING, "sources": [{**SOURCE, "type": "memory"}]}}, "'memory'"),
        ({"recording": {**RECORDING, "sources": [{**SOURCE, "source": 7}]}}, "source of type"),
        ({"start": "soon"}, "start is 'soon'"),
        ({"duration": None}, "duration is None"),
        ({"duration": -1}, "-1 s"),
    ],
)
def test_a_cut_that_is_no_part_of_one_file_is_a_reject(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write(tmp_path / "a.wav")
    bad, good = run(write_list(tmp_path / "cuts.jsonl", {**CUT, **change}, CUT))
    assert isinstance(bad, Reject)
    assert bad.reason == "bad_record"
    assert message in bad.message
    assert bad.message.startswith("line 1: ")
    assert len(infos([good])) == 1


def test_a_channel_that_the_file_does_not_have_is_a_reject(tmp_path: Path) -> None:
    write(tmp_path / "a.wav")
    lying = {**RECORDING, "sources": [{**SOURCE, "channels": [0, 1]}]}
    (bad,) = run(write_list(tmp_path / "cuts.jsonl", {**CUT, "channel": 1, "recording": lying}))
    assert isinstance(bad, Reject)
    assert (bad.reason, "channel 1" in bad.message) == ("outside_file", True)
