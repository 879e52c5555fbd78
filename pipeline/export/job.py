"""Runs an export, part by part, from its configuration to its summary."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

from pipeline import storage
from pipeline.dataset.dataset import Output, read_output
from pipeline.dataset.expression import expression
from pipeline.export.buckets import Buckets
from pipeline.export.config import ExportConfig
from pipeline.export.filters import read_ids
from pipeline.export.formats import SECTIONS, make_format
from pipeline.export.part import ExportFile, Format, IndexedFormat, export_manifests, read_export_manifest
from pipeline.export.record import EXPORT_VERSION, ExportRecord, hash_of_ids, open_export
from pipeline.export.selection import RowSelector
from pipeline.export.summary import ExportSummary
from pipeline.export.survey import OnProgress, survey
from pipeline.export.tokens.tokenizer import TextTokenizer, tokenizer_of
from pipeline.export.workers import Work, write_parts
from pipeline.items import ShardSpec
from pipeline.yaml_config import ConfigError

READ_THREADS = 16  # reading a manifest is mostly waiting for the store


class NothingToExport(ValueError):
    """No row is left to export; the message counts the reasons."""


def run_export(config: ExportConfig, progress: OnProgress) -> ExportSummary:
    """Run the export, or what is left of it, and write its summary.

    Raises ConfigError for settings that cannot be used, NothingToExport if every row is left out, and ValueError,
    OSError or StorageError if the dataset cannot be read. Parts that are committed stay: the same call continues.
    """
    output = read_output(config.dataset.uri)
    specs = _shards(output, config)
    if config.filters.where is not None:
        expression(config.filters.where, output.record.value_columns)  # raises for one that cannot be understood
    tokenizer = tokenizer_of(config)
    form = make_format(config, output.record, Buckets(()), tokenizer)
    root = storage.absolute(config.export.uri)
    open_export(root, _record(config, output, specs, tokenizer, form))
    done = {name.removesuffix(".json") for name in storage.list_names(export_manifests(root))}
    left = [spec for spec in specs if spec.shard_id not in done]
    if left:
        with tempfile.TemporaryDirectory(prefix="moss-tok-export-") as folder:
            database = Path(folder) / "references.sqlite"
            buckets = survey(root, config, RowSelector(config, form.need_text, database), output, specs, progress)
            for number, _ in enumerate(write_parts(Work(config, root, database, buckets), output, left), 1):
                progress("exporting", number, len(left))
    return _finish(root, config, specs, form)


def _shards(output: Output, config: ExportConfig) -> list[ShardSpec]:
    """The committed shards. Raises ConfigError if some are missing, unless dataset.partial allows it."""
    specs = output.committed
    if len(specs) < len(output.specs) and not config.dataset.partial:
        raise ConfigError(
            f"{config.dataset.uri}: {len(specs)} of {len(output.specs)} shards are committed: finish it with moss-tok "
            "tokenize, or set dataset.partial=true to export what is there"
        )
    asked, there = config.dataset.num_quantizers, output.record.num_quantizers
    if asked is not None and asked > there:
        raise ConfigError(f"dataset.num_quantizers: {asked}, and the dataset has {there}")
    return specs


def _record(
    config: ExportConfig, output: Output, specs: Sequence[ShardSpec], tokenizer: TextTokenizer | None, form: Format
) -> ExportRecord:
    sections = ("filters", "splits", "references", "text", *SECTIONS[config.export.to])
    settings = {name: getattr(config, name).model_dump(mode="json") for name in sections}
    settings["dataset"] = {"num_quantizers": config.dataset.num_quantizers or output.record.num_quantizers}
    settings["export"] = {"to": config.export.to, "file_bytes": config.export.file_bytes}
    inputs = {"reject_lists": hash_of_ids(sorted(read_ids(settings["filters"].pop("reject_lists"))))}
    libraries = [*(["whisper-normalizer"] if config.text.normalize != "none" else []), *getattr(form, "libraries", ())]
    if settings["filters"]["where"] is None:
        del settings["filters"]["where"]  # exports that were begun before there were conditions go on
    else:
        libraries.append("duckdb")
    if tokenizer is not None:
        inputs["tokenizer"] = tokenizer.sha256
        del settings["tokens"]["tokenizer"]
        libraries.append("tokenizers")
    return ExportRecord(
        export_version=EXPORT_VERSION,
        fingerprint=output.record.fingerprint,
        shards=len(specs),
        shards_sha256=hash_of_ids([spec.shard_id for spec in specs]),
        settings=settings,
        inputs=inputs,
        versions={name: version(name) for name in libraries},
    )


def _finish(root: str, config: ExportConfig, specs: Sequence[ShardSpec], form: Format) -> ExportSummary:
    report = ExportSummary()
    files: dict[str, ExportFile] = {}
    indexed = isinstance(form, IndexedFormat)
    with ThreadPoolExecutor(READ_THREADS) as pool:
        for part in pool.map(lambda spec: read_export_manifest(root, spec.shard_id), specs):
            report.add(part)
            files.update(part.files if indexed else {})
    report.unknown_rejects = len(read_ids(config.filters.reject_lists)) - report.removed.get("reject_list", 0)
    storage.publish(storage.join(root, "_moss_tok", "report.json"), report.to_json())
    if not report.rows:
        raise NothingToExport(f"{config.dataset.uri}: nothing to export: the dataset has no rows")
    if not report.written:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(report.removed.items()))
        raise NothingToExport(
            f"{config.dataset.uri}: nothing to export: all {report.rows:,} rows are left out: {reasons}"
        )
    success = storage.join(root, "_SUCCESS")
    if isinstance(form, IndexedFormat) and storage.stat(success) is None:
        for path, data in form.index(files).items():
            storage.publish(storage.join(root, path), data)
    storage.publish(success, b"")
    return report
