"""Reads a sample of clips from their sources, encodes them again, and compares the results with the stored rows."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

from pipeline.config import BatchConfig, PrepareConfig
from pipeline.dataset.dataset import Output
from pipeline.dataset.provenance import installed_version
from pipeline.input_config import InputConfig
from pipeline.items import CodedClip, Origin, RawClip, Reject, ShardSpec
from pipeline.shard.encode_loop import EncodeLoop
from pipeline.shard.submitter import ClipSubmitter
from pipeline.shard.tokenize import target_of
from pipeline.steps.prepare import prepare_clip
from pipeline.steps.read import SourceChanged, read_shard
from pipeline.steps.records import clip_id
from pipeline.storage import StorageError
from pipeline.verify.compare import Stored, compare_reject, compare_row, read_stored
from pipeline.verify.findings import Difference, Findings

MAX_FRAMES = BatchConfig().max_frames  # codes do not depend on it
NOT_REENCODED = ("decoder_crashed", "decoder_stalled")
"""Reasons of clips that crashed or stalled their decoder. They are not decoded again: this process must go on."""


def choose(clips: Mapping[str, int], sample: int | None, seed: int) -> dict[str, list[int]]:
    """Positions of the clips to encode again, by id of the shard: `sample` clips, or all if it is None.

    One clip of every shard is chosen before a second one of any. `clips` has the number of clips by id of the shard.
    The same numbers and seed give the same choice.
    """
    left = {shard_id: count for shard_id, count in sorted(clips.items()) if count}
    if sample is None:
        return {shard_id: list(range(count)) for shard_id, count in left.items()}
    chance = random.Random(seed)
    quota: dict[str, int] = defaultdict(int)
    while sample > 0 and left:
        for shard_id in chance.sample(list(left), min(sample, len(left))):
            quota[shard_id] += 1
            sample -= 1
            if quota[shard_id] == left[shard_id]:
                del left[shard_id]
    return {shard_id: sorted(chance.sample(range(clips[shard_id]), quota[shard_id])) for shard_id in sorted(quota)}


def check_sample(output: Output, spec: ShardSpec, positions: Collection[int], loop: EncodeLoop) -> Findings:
    """Read and encode the clips at these positions of a shard, and compare each with its row or reject."""
    findings = Findings()
    ids = {clip_id(spec.shard_id, Origin(index=index, source="", key="")): index for index in positions}
    try:
        stored = read_stored(output.layout, spec, ids)
    except Exception:  # a damaged object makes Arrow raise what it likes; the checks of the shard have found it already
        return findings
    # They have also found a clip that is in neither object, and there is nothing to compare it with.
    known = {index for name, index in ids.items() if name in stored.rows or name in stored.rejects}
    if known:
        Reencoder(output, spec, stored, findings).check(known, loop)
    return findings


class Reencoder:
    """Sends sampled clips of one shard through the pipeline again and compares what comes out with what is stored."""

    def __init__(self, output: Output, spec: ShardSpec, stored: Stored, findings: Findings) -> None:
        self._output, self._spec, self._stored, self._findings = output, spec, stored, findings
        self._target = target_of(output.record)

    def check(self, positions: set[int], loop: EncodeLoop) -> None:
        self._findings.look("sources", len(positions))
        prepare_config = PrepareConfig.model_validate(self._output.record.prepare)
        with ClipSubmitter(loop, self._target) as submitter:
            for raw in self._read(positions):
                if isinstance(raw, Reject):
                    self._reject(raw)
                elif self._stored.reason(self._id(raw.origin)) not in NOT_REENCODED:
                    for item in prepare_clip(raw, prepare_config, self._target, signals=self._output.record.signals):
                        if isinstance(item, Reject):
                            self._reject(item)
                        submitter.submit(item)
        for encoded in submitter.results():
            self._row(encoded.clip)

    def _read(self, positions: set[int]) -> Iterator[RawClip | Reject]:
        """The clips as their source gives them now. Those that it does not give become findings."""
        missing = set(positions)
        trouble = "the source has fewer clips now"
        try:
            for raw in read_shard(self._spec, InputConfig.model_validate(self._output.record.input)):
                if raw.origin.index in missing:
                    missing.discard(raw.origin.index)
                    yield raw
                if not missing:
                    return
        except (SourceChanged, StorageError, OSError, LookupError, ValueError) as error:
            trouble = str(error)
        for position in sorted(missing):
            self._differ("sources", Origin(index=position, source=self._spec.uri, key=""), (None, trouble))

    def _row(self, coded: CodedClip) -> None:
        origin = coded.info.origin
        self._findings.look("encoded again")
        self._differ("encoded again", origin, compare_row(coded, self._id(origin), self._stored, self._output.record))

    def _reject(self, reject: Reject) -> None:
        if reject.stage != "read":
            self._findings.look("encoded again")
        check = "sources" if reject.stage == "read" else "encoded again"
        self._differ(check, reject.origin, compare_reject(reject, self._id(reject.origin), self._stored))

    def _id(self, origin: Origin) -> str:
        return clip_id(self._spec.shard_id, origin)

    def _differ(self, check: str, origin: Origin, found: tuple[str | None, str] | None) -> None:
        if found is None:
            return
        column, message = found
        self._findings.differ(
            Difference(
                check=check,
                uri=origin.source if check == "sources" else self._output.layout.data(self._spec),
                shard_id=self._spec.shard_id,
                clip_id=self._id(origin),
                column=column,
                message=message,
                remedy=_remedy(check, self._output.record.versions),
            )
        )


def _remedy(check: str, made: Mapping[str, str]) -> str:
    if check == "sources":
        return "put the source back as it was; nothing is said against the output, but its clips cannot be compared"
    here = {name: installed_version(name) for name in made}
    others = [f"{name} {number} (here {here[name]})" for name, number in made.items() if here[name] != number]
    if others:
        return f"it was made with {', '.join(others)}: verify with those, on the kind of hardware that made it"
    return "verify on the kind of hardware that made it; if it differs there too, tokenize the input into a new output"
