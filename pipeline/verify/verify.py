"""Runs all checks of an output."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from pipeline.codecs import load_codec
from pipeline.codecs.machine import NOT_RECORDED, machine_differences, name_machine
from pipeline.concurrency import in_order
from pipeline.dataset.dataset import Output
from pipeline.dataset.manifest import ShardManifest
from pipeline.dataset.provenance import WAVEFORM_VERSION, source_of
from pipeline.dataset.totals import Totals
from pipeline.items import ShardSpec
from pipeline.shard.encode_loop import EncodeLoop
from pipeline.verify.findings import Findings
from pipeline.verify.metadata_checks import check_machine, check_metadata, check_strays
from pipeline.verify.reencode import MAX_FRAMES, check_sample, choose
from pipeline.verify.shard_checks import CheckedShard, check_shard
from pipeline.verify.totals_checks import check_totals

if TYPE_CHECKING:
    from pipeline.steps.encode import Encoder

THREADS = 8
"""Shards that are checked at once: reading waits for the store; hashing and unpacking release Python's lock."""

Advance: TypeAlias = Callable[[str, int, int], None]
"""Is called with what is counted, how many are done, and of how many."""


def verify(
    uri: str,
    sample: int | None = 20,
    seed: int = 0,
    model: str | None = None,
    advance: Advance = lambda what, done, total: None,
) -> Findings:
    """Check everything that is stored, and encode `sample` clips again: all clips if it is None, none if it is 0.

    `model` is where the codec is, if it is not where the record says. Memory is bounded by the batches of a few shards,
    the clips that are compared at once, and about 200 bytes per planned shard. Only clips whose bits this machine can
    make again are encoded; the findings say how many others there are, and why. Raises FileNotFoundError if there is no
    output, ValueError for a codec with other weights, and StorageError if the store fails. Whatever is wrong with the
    output itself is in the findings.
    """
    findings = Findings()
    output = check_metadata(uri, findings)
    if output is None:
        return findings
    encoder = None if sample == 0 else _encoder(output, model)  # fails before hours of reading
    clips: dict[str, int] = {}
    rejects: dict[str, int] = {}
    totals = Totals()
    for count, checked in enumerate(_check_shards(output, output.committed), 1):
        findings.add(checked.findings)
        if (manifest := checked.manifest) is not None:
            obstacle = None if encoder is None else _obstacle(output, manifest, encoder)
            if obstacle is None:
                clips[checked.spec.shard_id] = manifest.rows + manifest.rejects
            else:
                findings.unchecked[obstacle] += manifest.rows + manifest.rejects
            rejects[checked.spec.shard_id] = manifest.rejects
            totals.add(Totals.of(manifest))
        advance("shards", count, len(output.committed))
    check_machine(output, any(name != NOT_RECORDED for name in totals.shards_by_machine), findings)
    check_strays(output, rejects, findings)
    if totals.shards == len(output.specs):
        check_totals(output, totals, findings)
    if encoder is not None:
        chosen = choose(clips, sample, seed)
        specs = [spec for spec in output.committed if spec.shard_id in chosen]
        with EncodeLoop(encoder, MAX_FRAMES) as loop:
            for count, spec in enumerate(specs, 1):
                findings.add(check_sample(output, spec, chosen[spec.shard_id], loop))
                advance("shards encoded again", count, len(specs))
    return findings


def _obstacle(output: Output, manifest: ShardManifest, encoder: Encoder) -> str | None:
    """Why this machine cannot make the bits of a shard again; None if it can, or if nothing is known."""
    version = output.record.waveform_version
    if version != WAVEFORM_VERSION:
        return f"their waveforms are of version {version}, and this moss-tok makes those of version {WAVEFORM_VERSION}"
    if not manifest.machine or not machine_differences(manifest.machine, encoder.machine):
        return None
    return f"they were made on {name_machine(manifest.machine)}, and this is {name_machine(encoder.machine)}"


def _check_shards(output: Output, specs: Iterable[ShardSpec]) -> Iterator[CheckedShard]:
    """The findings in the order of the plan, a few shards at a time."""
    return in_order(partial(check_shard, output), specs, THREADS)


def _encoder(output: Output, name: str | None) -> Encoder:
    from pipeline.steps.encode import Encoder, device_of  # and torch, only where something is encoded

    record = output.record
    source = source_of(record, name)
    found = (source.checkpoint.weights_sha256, source.config_hash)
    if found != (record.model.weights_sha256, record.model.config_hash):
        raise ValueError(
            f"{source.name} has other weights than {record.model.name}, which made {output.layout.root}: pass that one "
            "with --model, or --sample 0 to encode nothing"
        )
    device = device_of("auto")
    codec = load_codec(source, device, record.dtype, parts="encoder", latents=record.latents)
    return Encoder(codec, record.num_quantizers, MAX_FRAMES, device)
