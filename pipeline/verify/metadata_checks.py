"""Checks of the record, the plan, `_SUCCESS` and the card, and for objects that do not belong to the output."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping

import pyarrow as pa

from pipeline import schema, storage
from pipeline.dataset.dataset import Output
from pipeline.dataset.layout import Layout
from pipeline.dataset.machines import read_machine
from pipeline.dataset.manifest import committed_ids
from pipeline.dataset.plan_file import read_plan
from pipeline.dataset.provenance import RunRecord
from pipeline.dataset.recovery import REMEDY
from pipeline.items import ShardSpec
from pipeline.verify.findings import Difference, Findings

AGAIN = "run `moss-tok tokenize` with the same configuration again: it does what is missing and writes {}"
REMOVE = "find out what it is, and move it out of the output"


def check_metadata(uri: str, findings: Findings) -> Output | None:
    """The output; None if its record or its plan is not sound, so that nothing else can be checked.

    Raises FileNotFoundError if there is no output at all.
    """
    layout = Layout(storage.absolute(uri))
    if not storage.list_names(layout.root) & {"_moss_tok", "_SUCCESS", "data", "rejects"}:
        raise FileNotFoundError(f"{uri}: no output of moss-tok: neither _moss_tok nor data is there")
    record = _check_record(layout, findings)
    specs = _check_plan(layout, record, findings) if record else None
    if record is None or specs is None:
        return None
    output = Output(layout, record, specs, committed_ids(layout) & {spec.shard_id for spec in specs})
    _check_complete(output, findings)
    return output


def _check_record(layout: Layout, findings: Findings) -> RunRecord | None:
    findings.look("record")
    try:
        record = RunRecord.from_json(storage.read_bytes(layout.run))
    except (FileNotFoundError, ValueError, RecursionError) as error:
        message = "not there" if isinstance(error, FileNotFoundError) else str(error)
        findings.differ(
            Difference(check="record", uri=layout.run, message=f"{message}; nothing else was checked", remedy=REMEDY)
        )
        return None
    if record.codes_schema not in schema.READABLE:
        message = f"rows are by schema {record.codes_schema}, and this version knows {', '.join(schema.READABLE)}"
        remedy = f"verify it with the version that made it: moss-tok {record.versions.get('moss-tok')}"
        findings.differ(Difference(check="record", uri=layout.run, message=message, remedy=remedy))
        return None
    return record


def _check_plan(layout: Layout, record: RunRecord, findings: Findings) -> list[ShardSpec] | None:
    findings.look("plan")
    try:
        plan = storage.read_bytes(layout.plan)
        found = hashlib.sha256(plan).hexdigest()
        if found == record.plan_sha256:
            return read_plan(plan)
        message = f"SHA-256 {found}, and run.json names {record.plan_sha256}"
    except FileNotFoundError:
        message = "not there"
    except (pa.ArrowException, storage.NotAnObject, OSError, LookupError, TypeError, ValueError) as error:
        message = f"not a plan: {error}"
    findings.differ(
        Difference(check="plan", uri=layout.plan, message=f"{message}; no shard was checked", remedy=REMEDY)
    )
    return None


def check_machine(output: Output, recorded: bool, findings: Findings) -> None:
    """Check that machine.json is sound, and there if a manifest has `recorded` a machine."""
    uri = output.layout.machine
    findings.look("machine")
    try:
        message = "not there" if read_machine(output.layout) is None and recorded else None
    except ValueError as error:
        message = str(error).removeprefix(f"{uri}: ")
    if message is not None:
        findings.differ(Difference(check="machine", uri=uri, message=message, remedy=AGAIN.format("it")))


def _check_complete(output: Output, findings: Findings) -> None:
    """Check which shards are committed, and whether `_SUCCESS` and the card agree."""
    layout = output.layout
    findings.look("complete", len(output.specs))
    for spec in output.todo:
        message = f"not committed: there is no manifest of it ({spec.place})"
        remedy = AGAIN.format("this shard")
        uri = layout.manifest(spec.shard_id)
        findings.differ(Difference(check="complete", uri=uri, shard_id=spec.shard_id, message=message, remedy=remedy))
    findings.look("success")
    try:
        success: str | None = storage.read_bytes(layout.success).decode()
    except FileNotFoundError:
        success = None
    except UnicodeDecodeError as error:
        success = f"{error}"
    if output.todo:
        if success is not None:
            message = f"there, although {len(output.todo)} of {len(output.specs)} shards are not committed"
            findings.differ(_of_success(layout, message))
    elif success is None:
        findings.differ(_of_success(layout, "not there, although every shard is committed"))
    else:
        _compare_checksums(layout, success, findings)


def _of_success(layout: Layout, message: str) -> Difference:
    return Difference(check="success", uri=layout.success, message=message, remedy=AGAIN.format("it"))


def _compare_checksums(layout: Layout, success: str, findings: Findings) -> None:
    findings.look("card")
    if storage.stat(layout.card) is None:
        findings.differ(Difference(check="card", uri=layout.card, message="not there", remedy=AGAIN.format("it")))
        return
    written, present = success.splitlines(keepends=True), layout.checksums().splitlines(keepends=True)
    names = [line.partition("  ")[2].strip() for line in present]
    for name, wanted in zip(names, present, strict=True):
        if wanted in written:
            continue
        if name == "README.md" and sum(line.endswith("  README.md\n") for line in written) == 1:
            message = f"not as it was written: SHA-256 {wanted[:64]} is not the one in _SUCCESS"
            remedy = "what a card should say is set by `card` in the configuration: " + AGAIN.format("a new one")
            findings.differ(Difference(check="card", uri=layout.card, message=message, remedy=remedy))
        else:
            findings.differ(_of_success(layout, f"its checksum of {name} is not that of the file"))
    if len(written) != len(present) or any(line.partition("  ")[2].strip() not in names for line in written):
        findings.differ(_of_success(layout, f"{len(written)} lines, which are not those of {', '.join(names)}"))


def check_strays(output: Output, rejects: Mapping[str, int], findings: Findings) -> None:
    """Check that every object below data/, rejects/ and the manifests belongs to a committed shard.

    `rejects` has the number of rejects of each shard whose manifest is sound. Names with a leading dot are ignored:
    they are files that are being written. Each folder is listed once.
    """
    layout = output.layout
    planned = {spec.shard_id for spec in output.specs}
    expected: dict[str, set[str]] = defaultdict(set)
    for spec in output.specs:
        for uri in (layout.data(spec), layout.rejects(spec), layout.manifest(spec.shard_id)):
            folder, _, name = storage.relative(uri, layout.root).rpartition("/")
            top, _, split = folder.partition("/")
            expected[top].add(split.partition("/")[0])
            # Without a sound manifest nobody knows whether the shard has rejects, so they are not strays.
            if spec.shard_id in output.done and (top != "rejects" or rejects.get(spec.shard_id, 1)):
                expected[folder].add(name)
    manifests = storage.relative(layout.manifests, layout.root)
    folders = {f"{top}/{split}" for top in ("data", "rejects") for split in expected[top]}
    for folder in sorted({"data", "rejects", manifests} | folders):
        names = {name for name in storage.list_names(storage.join(layout.root, folder)) if not name.startswith(".")}
        findings.look("strays", len(names))
        for name in sorted(names - expected[folder]):
            remedy = AGAIN.format("its shard") if name.partition(".")[0] in planned - output.done else REMOVE
            uri = storage.join(layout.root, folder, name)
            message = "belongs to no committed shard of the plan"
            if folder.startswith("data"):
                message += ", and load_dataset would read it"
            findings.differ(Difference(check="strays", uri=uri, message=message, remedy=remedy))
