"""All shards of a configuration in this process, one after the other, without Ray."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline.config import Config
from pipeline.dataset.dataset import Output
from pipeline.dataset.machines import OutputMachine, restore_machine
from pipeline.dataset.manifest import ShardManifest
from pipeline.shard.tokenize import CodecJob, tokenize_shards
from pipeline.steps.encode import Encoder, load_encoder


def tokenize_in_process(
    config: Config,
    outputs: Sequence[Output],
    on_committed: Callable[[Sequence[ShardManifest]], None] = lambda manifests: None,
) -> None:
    """Do the shards that are not committed yet. The outputs are those of `open_outputs`; `finish` them afterwards.

    `on_committed` gets the manifests of each shard. Raises OutputMismatch where this machine may not encode.
    """
    for output in outputs:
        restore_machine(output)
    if not any(output.todo for output in outputs):
        return
    codecs: list[tuple[CodecJob, Encoder]] = []
    for each, output in zip(config.of_each_model(), outputs, strict=True):
        record = output.record
        encoder = load_encoder(each.model, record.num_quantizers, each.batch.max_frames, record.latents, record.dtype)
        OutputMachine(output, each.run.machines).check(encoder.machine)
        codecs.append((CodecJob(each, record), encoder))
    for spec in outputs[0].specs:
        todo = [number for number, output in enumerate(outputs) if spec.shard_id not in output.done]
        if todo:
            replaced = [outputs[number].retries.get(spec.shard_id) for number in todo]
            on_committed(tokenize_shards(spec, [codecs[number] for number in todo], replaced))
