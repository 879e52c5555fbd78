"""What the commands of `moss-tok` do and print. Results go to stdout, progress and complaints to stderr."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import soundfile

from pipeline import storage
from pipeline.card import UNTRAINED, load_lines
from pipeline.config import Config, load_config, parse_config
from pipeline.exit_status import ExitStatus
from pipeline.output import Output, open_output, read_output, with_absolute_uris
from pipeline.progress import Progress
from pipeline.provenance import RunRecord, record_run
from pipeline.totals import Totals, describe, format_bytes, format_seconds, lines_of


def tokenize(config_path: str, overrides: Sequence[str]) -> int:
    """Run the configuration with Ray and print what was made."""
    config = load_config(config_path, overrides)
    print(f"{config_path} -> {config.output.uri}", file=sys.stderr, flush=True)
    try:
        from pipeline.run import run  # takes seconds, so the configuration is checked first

        summary = run(config)
    except KeyboardInterrupt:
        print(f"\nInterrupted. Committed shards stay; to go on: {_again(config_path, overrides)}", file=sys.stderr)
        return ExitStatus.INTERRUPTED
    speed = summary.this_run.audio_seconds / max(summary.wall_seconds, 1e-9)
    timing = {f"{stage} time": format_seconds(seconds) for stage, seconds in summary.this_run.seconds.items()}
    if summary.this_run.shards:
        timing["wall time"] = f"{format_seconds(summary.wall_seconds)}, {speed:,.1f}x real time"
    _print_dataset(summary.output, summary.totals, timing)
    if summary.failed:
        print(f"\n{len(summary.failed)} shards failed:", file=sys.stderr)
        print(lines_of(summary.failed), file=sys.stderr)
        print(f"To try them again: {_again(config_path, overrides)}", file=sys.stderr)
        return ExitStatus.FAILED
    return ExitStatus.DONE


def plan(config_path: str, overrides: Sequence[str]) -> int:
    """Print what `tokenize` would do, from the listing and a sample of clips."""
    from pipeline.estimate import estimate
    from pipeline.plan import plan_shards
    from pipeline.shard import target_of

    config = load_config(config_path, overrides)
    record = record_run(config)
    specs = plan_shards(config.input)
    guess = estimate(specs, config, target_of(record), record.num_quantizers)
    by_format: dict[str, int] = {}
    for spec in specs:
        by_format[f"{spec.split}, {spec.format}"] = by_format.get(f"{spec.split}, {spec.format}", 0) + 1
    print(f"{config_path} would write to {storage.absolute(config.output.uri)}:")
    print(
        lines_of(
            {
                "model": record.model.name,
                **{f"shards ({name})": f"{count:,}" for name, count in by_format.items()},
                "input": format_bytes(sum(spec.size for spec in specs)),
                "sampled": f"{guess.clips} clips, {guess.rejects} of them rejected",
                "hours": f"about {guess.hours:,.3f}",
                "codes": f"about {guess.frames * record.num_quantizers:,.0f}",
                "output": f"about {format_bytes(guess.output_bytes)} of codes",
            }
        )
    )
    return ExitStatus.DONE


def status(uri: str, as_json: bool) -> int:
    """Print how far an output is."""
    output = read_output(uri)
    totals = output.totals()
    complete = storage.stat(output.layout.success) is not None
    if as_json:
        figures = {
            "output": output.layout.root,
            "complete": complete,
            "shards_planned": len(output.specs),
            "shards_committed": totals.shards,
            "clips": totals.rows,
            "audio_seconds": totals.audio_seconds,
            "frames": totals.frames,
            "rejects": totals.rejects,
            "rejects_by_reason": dict(sorted(totals.rejects_by_reason.items())),
            "output_bytes": totals.output_bytes,
            "model": output.record.model.name,
            "fingerprint": output.record.fingerprint,
        }
        print(json.dumps(figures, indent=1))
        return ExitStatus.DONE
    print(f"{output.layout.root}: {'complete' if complete else 'not complete'}")
    shards = f"{totals.shards:,} of {len(output.specs):,}"
    print(lines_of({"model": output.record.model.name} | describe(totals) | {"shards": shards}))
    return ExitStatus.DONE


def encode(files: Sequence[str], output_uri: str, model: dict[str, Any]) -> int:
    """Tokenize files in this process, shard after shard."""
    from pipeline.encode import load_encoder
    from pipeline.shard import tokenize_shard

    document = {
        "input": {"splits": {"train": [storage.absolute(file) for file in files]}, "format": "auto"},
        "output": {"uri": output_uri},
        "model": model,
    }
    config: Config = with_absolute_uris(parse_config(document, "moss-tok encode"))
    output = open_output(config)
    if output.todo:
        encoder = load_encoder(config.model, output.record.num_quantizers, config.batch.max_frames)
        with Progress(len(output.todo), len(output.done)) as progress:
            made = Totals()
            for spec in output.todo:
                made.add(Totals.of(tokenize_shard(spec, encoder, config, output.record)))
                progress.update(made, made.audio_seconds)
    totals = output.finish()
    _print_dataset(output, totals, {})
    return ExitStatus.FAILED if totals.rejects else ExitStatus.DONE


def decode(uri: str, clip_id: str, num_quantizers: int | None, out: Path, model_name: str | None) -> int:
    """Decode one row into a sound file."""
    from moss_tok import MossAudioTokenizerModel
    from pipeline.decode import decode_row, find_row

    output = read_output(uri)
    if out.suffix.lower() not in (".wav", ".flac"):
        raise ValueError(f"{out}: the name of the sound file ends in .wav or .flac")
    row = find_row(output, clip_id, num_quantizers)
    record = output.record
    name = model_name or record.model.name
    revision = None if model_name else record.model.revision
    model = MossAudioTokenizerModel.from_pretrained(name, revision=revision, parts="decoder").eval()
    if model.weights_sha256 != record.model.weights_sha256:
        raise ValueError(f"{name} has other weights than {record.model.name}, which made {uri}: pass that with --model")
    waveform = decode_row(row, model)
    soundfile.write(out, waveform.T, row.sample_rate)
    _warn_untrained(record)
    seconds = row.num_samples / row.sample_rate
    length = f"{row.num_samples} samples at {row.sample_rate} Hz ({seconds:.2f} s)"
    print(f"{out}: {length} from {len(row.codes)} RVQ layers")
    return ExitStatus.DONE


def agreement(files: Sequence[Path], name: str, revision: str | None, dtype: str, num_quantizers: int | None) -> int:
    """Compare a precision with float32 on audio files."""
    import torch

    from moss_tok import agreement as measure
    from moss_tok import audio
    from moss_tok.checkpoint import resolve

    config = resolve(name, revision).config
    waveforms = []
    for file in files:
        try:
            info, decoded = audio.decode(file)
        except audio.AudioError as error:
            raise ValueError(f"{file}: {error}") from error
        mixed = audio.to_channels(decoded, config.number_channels)
        waveforms.append(torch.from_numpy(audio.resample(mixed, info.sample_rate, config.sampling_rate)))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(measure.agreement(name, dtype, waveforms, revision=revision, device=device, num_quantizers=num_quantizers))
    return ExitStatus.DONE


def _print_dataset(output: Output, totals: Totals, timing: dict[str, str]) -> None:
    print(f"\n{output.layout.root}")
    print(lines_of(describe(totals) | timing))
    _warn_untrained(output.record)
    print("\nTo load it:\n")
    for line in load_lines(output.layout.root, next(iter(output.record.input["splits"]))):
        print(f"  {line}")


def _warn_untrained(record: RunRecord) -> None:
    if not record.model.trained:
        print(f"\n  {UNTRAINED.replace('**', '')}")


def _again(config_path: str, overrides: Sequence[str]) -> str:
    return shlex.join(["moss-tok", "tokenize", config_path, *overrides])
