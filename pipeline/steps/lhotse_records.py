"""Records of Lhotse's manifests in JSONL: cuts, recordings, and supervisions with the recordings that they name.

A cut becomes a clip: its part of the recording, with its channels. The transcript is that of its supervision, or of all
its supervisions in the order of their starts. A supervision becomes a clip too. Times are rounded as Lhotse rounds them
(`lhotse.utils.compute_num_samples`: halves up). Cuts that are mixed, padded or transformed are refused, because no part
of a file has their samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.input_config import InputConfig
from pipeline.items import Segment
from pipeline.steps.segments import SegmentError, make_segment, shift_times

_CUTS = ("MonoCut", "MultiCut", "Cut")
_OF_THE_RECORDING = ("recording", "features", "type", "start", "duration")


def is_lhotse(fields: Mapping[str, Any]) -> bool:
    """Whether a record is one of Lhotse's."""
    return (
        isinstance(fields.get("recording"), Mapping)
        or isinstance(fields.get("sources"), list)
        or str(fields.get("type")).endswith("Cut")
        or recording_id(fields) is not None
    )


def recording_id(fields: Mapping[str, Any]) -> str | None:
    """The id of the recording that a supervision belongs to; None for any other record."""
    name = fields.get("recording_id")
    timed = "start" in fields and "duration" in fields
    return name if timed and isinstance(name, str) and "recording" not in fields else None


def source_of(
    fields: Mapping[str, Any], config: InputConfig, recordings: Mapping[str, Any]
) -> tuple[str, Segment | None, dict[str, Any]]:
    """Path or URI of the audio, the part of it that the record stands for, and the other fields.

    `recordings` has the records of the recordings that supervisions name, by id. Raises SegmentError.
    """
    name = recording_id(fields)
    if name is not None:
        return _supervision(fields, config, name, recordings)
    if isinstance(fields.get("sources"), list):
        path, _ = _source(fields, None)
        return path, None, {key: value for key, value in fields.items() if key != "sources"}
    return _cut(fields, config)


def _cut(fields: Mapping[str, Any], config: InputConfig) -> tuple[str, Segment | None, dict[str, Any]]:
    kind = fields.get("type", "MonoCut")
    if kind not in _CUTS:
        raise SegmentError(f"a {kind} of Lhotse is no part of one file: save its audio, or its cuts before mixing")
    recording = fields.get("recording")
    if not isinstance(recording, Mapping):
        raise SegmentError("a cut of Lhotse without a recording: there is no audio to read")
    path, channels = _source(recording, fields.get("channel"))
    segment = _segment(fields, channels)
    rest = {key: value for key, value in fields.items() if key not in _OF_THE_RECORDING}
    rest["recording_id"] = recording.get("id")
    return path, segment, rest | _spoken(fields.get("supervisions"), config)


def _supervision(
    fields: Mapping[str, Any], config: InputConfig, name: str, recordings: Mapping[str, Any]
) -> tuple[str, Segment | None, dict[str, Any]]:
    recording = recordings.get(name)
    if not isinstance(recording, Mapping):
        raise SegmentError(f"no recording {name!r} in the list of recordings: see input.recordings")
    path, channels = _source(recording, fields.get("channel"))
    segment = _segment(fields, channels)
    rest = {key: value for key, value in fields.items() if key not in ("start", "duration")}
    if isinstance(rest.get("alignment"), Mapping):
        rest["alignment"] = {kind: _aligned(items, segment.start) for kind, items in rest["alignment"].items()}
    return path, segment, _in_our_columns(rest, config)


def _segment(fields: Mapping[str, Any], channels: tuple[int, ...] | None) -> Segment:
    start, duration = fields.get("start", 0), fields.get("duration")
    for name, value in (("start", start), ("duration", duration)):
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise SegmentError(f"{name} is {value!r:.80}, and seconds are expected")
    return make_segment(start, None, duration, channels=channels, halves_up=True)


def _source(recording: Mapping[str, Any], channel: Any) -> tuple[str, tuple[int, ...] | None]:
    """The one source that holds the wanted channels, and their positions in it; None for all channels."""
    if recording.get("transforms"):
        raise SegmentError("a recording of Lhotse with transforms: save its audio, and list that")
    sources = [source for source in recording.get("sources") or [] if isinstance(source, Mapping)]
    wanted = [channel] if isinstance(channel, int) else channel
    held = [source for source in sources if wanted is None or _positions(source, wanted) is not None]
    if len(held) != 1 or (wanted is None and len(sources) != 1):
        raise SegmentError(f"channels {wanted} are not in one of the {len(sources)} sources of the recording")
    source = held[0]
    path = source.get("source")
    if source.get("type") not in ("file", "url") or not isinstance(path, str) or not path:
        raise SegmentError(f"a source of type {source.get('type')!r:.40}: only those of type file and url are read")
    positions = None if wanted is None else _positions(source, wanted)
    everything = positions is None or positions == tuple(range(len(source["channels"])))
    return path, None if everything else positions


def _positions(source: Mapping[str, Any], wanted: Sequence[Any]) -> tuple[int, ...] | None:
    channels = source.get("channels")
    if not isinstance(channels, list) or not isinstance(wanted, list) or any(one not in channels for one in wanted):
        return None
    return tuple(sorted(channels.index(one) for one in wanted))


def _spoken(supervisions: Any, config: InputConfig) -> dict[str, Any]:
    """The texts of a cut's supervisions, joined, and the language and the speaker where all name the same."""
    if not isinstance(supervisions, list):
        return {}
    entries = [entry for entry in supervisions if isinstance(entry, Mapping)]
    entries.sort(key=lambda entry: entry["start"] if isinstance(entry.get("start"), int | float) else 0)
    texts = [entry["text"] for entry in entries if isinstance(entry.get("text"), str)]
    found: dict[str, Any] = {config.text_column: " ".join(texts)} if texts else {}
    for name, column in (("language", config.language_column), ("speaker", config.speaker_column)):
        values = {str(entry[name]) for entry in entries if entry.get(name) is not None}
        if len(values) == 1:
            found[column or name] = values.pop()
    return found


def _in_our_columns(fields: Mapping[str, Any], config: InputConfig) -> dict[str, Any]:
    """The fields of a supervision under the names that the configuration has for them."""
    names = {"text": config.text_column, "language": config.language_column, "speaker": config.speaker_column}
    return {names.get(name) or name: value for name, value in fields.items()}


def _aligned(items: Any, start: float) -> Any:
    """Alignments as objects. Lhotse writes each item as [symbol, start, duration, score]."""
    if not isinstance(items, list):
        return items
    return [
        [item[0], round(item[1] - start, 9), *item[2:]]
        if isinstance(item, list) and len(item) > 1 and isinstance(item[1], int | float)
        else shift_times(item, start)
        for item in items
    ]
