"""A whole evaluation, shard by shard, from configuration to results; killed, it goes on where it was.

<uri>/
  data/<shard_id>.parquet        the values of each clip; created once, its presence is the commit
  evaluation.json, plan.parquet  what is evaluated, with what; another setting is refused
  results.json, table.md, index.html   written when every shard is there
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from typing import Any

import pyarrow as pa

from pipeline import storage
from pipeline.config import PrepareConfig
from pipeline.dataset.dataset import Output, read_output
from pipeline.dataset.plan_file import plan_bytes, read_plan
from pipeline.evaluate.config import EvaluateConfig
from pipeline.evaluate.measure import Work, measure_shard
from pipeline.evaluate.metrics import require_packages
from pipeline.evaluate.models import ModelNames
from pipeline.evaluate.results import FORMAT, to_results
from pipeline.evaluate.subjects import Subject, find_codes, find_subject
from pipeline.evaluate.summary import Summary, summarize
from pipeline.input_config import InputConfig
from pipeline.items import ShardSpec
from pipeline.parquet import read_table
from pipeline.steps.plan import plan_shards
from pipeline.yaml_config import ConfigError

Advance = Callable[[int, int], None]
"""Called with the shards that are done and all of them."""
Map = Callable[[Callable[["Task"], str], Sequence["Task"]], Iterable[str]]
"""Runs a function over tasks, in this process or in others, and yields the results as they come."""


@dataclass(frozen=True, slots=True)
class Task:
    """One shard to measure."""

    spec: ShardSpec
    work: Work
    root: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An evaluation as it is found."""

    root: str
    specs: list[ShardSpec]
    work: Work
    config: EvaluateConfig

    def data(self, shard_id: str) -> str:
        return storage.join(self.root, "data", f"{shard_id}.parquet")

    def done(self) -> set[str]:
        """Ids of the shards that are measured."""
        names = storage.list_names(storage.join(self.root, "data"))
        return {name.removesuffix(".parquet") for name in names if name.endswith(".parquet")}


def open_evaluation(config: EvaluateConfig, device: str) -> Evaluation:
    """Begin the evaluation, or take it up. Raises ConfigError where it was begun with other settings, and what finding
    the codecs, the packages and the input raises.
    """
    require_packages(list(config.evaluate.metrics))
    root = storage.absolute(config.evaluate.uri)
    outputs = [read_output(uri) for uri in config.dataset]
    specs = _specs(config, outputs)
    subjects = _subjects(config, outputs, device)
    plan = plan_bytes(specs)
    record = _record(config, subjects, outputs)
    record_uri, plan_uri = storage.join(root, "evaluation.json"), storage.join(root, "plan.parquet")
    if not storage.create(plan_uri, plan):
        specs = read_plan(storage.read_bytes(plan_uri))
        if {spec.shard_id for spec in specs} != {spec.shard_id for spec in read_plan(plan)}:
            raise ConfigError(f"{root}: an evaluation of other audio: choose another folder with --out")
    if not storage.create(record_uri, record) and (found := storage.read_bytes(record_uri)) != record:
        raise ConfigError(
            f"{root}: an evaluation with other settings ({_differences(found, record)}): choose another folder with "
            "--out, or the old settings to go on with it"
        )
    return Evaluation(root, specs, _work(config, subjects, outputs, device), config)


def run_evaluation(evaluation: Evaluation, run_tasks: Map, advance: Advance) -> Summary:
    """Measure every shard that is left, and summarize all."""
    done = evaluation.done()
    left = [spec for spec in evaluation.specs if spec.shard_id not in done]
    total = len(evaluation.specs)
    advance(total - len(left), total)
    tasks = [Task(spec, evaluation.work, evaluation.root) for spec in left]
    for count, _ in enumerate(run_tasks(measure_task, tasks), 1):
        advance(total - len(left) + count, total)
    return summarize(read_results(evaluation), evaluation.work.metrics, evaluation.config.evaluate.seed)


def measure_task(task: Task) -> str:
    """Measure one shard and create its results; returns its id. Of two that do it at the same time one is kept."""
    rows = measure_shard(task.spec, task.work)
    uri = storage.join(task.root, "data", f"{task.spec.shard_id}.parquet")
    storage.create(uri, to_results(rows, task.work.metrics))
    return task.spec.shard_id


def in_this_process(function: Callable[[Task], str], tasks: Sequence[Task]) -> Iterator[str]:
    """The plainest `Map`."""
    return map(function, tasks)


def in_processes(function: Callable[[Task], str], tasks: Sequence[Task], workers: int) -> Iterator[str]:
    """A `Map` over processes of this machine, each with its own codecs. Raises BrokenProcessPool where one dies."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(function, task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def read_results(evaluation: Evaluation) -> pa.Table:
    """The rows of all shards, in the order of the plan."""
    return pa.concat_tables(
        read_table(io.BytesIO(storage.read_bytes(evaluation.data(spec.shard_id)))) for spec in evaluation.specs
    )


def _specs(config: EvaluateConfig, outputs: Sequence[Output]) -> list[ShardSpec]:
    """The plan of the input, or the shards that all outputs hold."""
    if config.input is not None:
        return plan_shards(config.input)
    first, *others = outputs
    for other in others:
        if {spec.shard_id for spec in other.specs} != {spec.shard_id for spec in first.specs}:
            raise ConfigError(f"dataset: {other.layout.root} is made of other sources than {first.layout.root}")
        if other.record.prepare != first.record.prepare:
            raise ConfigError(f"dataset: {other.layout.root} has other settings of prepare than {first.layout.root}")
    specs = [spec for spec in first.specs if all(spec.shard_id in output.done for output in outputs)]
    if not specs:
        raise ConfigError(f"{' and '.join(config.dataset)}: no shard is committed yet: run tokenize first")
    return specs


def _subjects(config: EvaluateConfig, outputs: Sequence[Output], device: str) -> tuple[Subject, ...]:
    wanted = config.evaluate.num_quantizers
    several = len(outputs) > 1
    stored = [find_codes(output, wanted, output.layout.root if several else "") for output in outputs]
    subjects = (*stored, *(find_subject(model, wanted, device) for model in config.models))
    labels = [subject.label for subject in subjects]
    if len(set(labels)) != len(labels):
        raise ConfigError(f"models: {', '.join(labels)}: the same codec twice")
    return subjects


def _work(config: EvaluateConfig, subjects: tuple[Subject, ...], outputs: Sequence[Output], device: str) -> Work:
    source, prepare = config.input, config.prepare
    if outputs:
        source = InputConfig.model_validate(outputs[0].record.input)
        prepare = PrepareConfig.model_validate(outputs[0].record.prepare)
    assert source is not None
    names = ModelNames(config.speakers.model, config.recognizer.model, config.recognizer.language)
    return Work(
        subjects=subjects,
        input=source,
        prepare=prepare,
        metrics=config.evaluate.metrics,
        names=names,
        max_clips=config.evaluate.max_clips,
        device=device,
    )


def _record(config: EvaluateConfig, subjects: Sequence[Subject], outputs: Sequence[Output]) -> bytes:
    """Everything that decides the values; not where results lie, nor how many processes measure."""
    evaluate = config.evaluate
    document: dict[str, Any] = {
        "subjects": [[subject.label, subject.config_hash, list(subject.num_quantizers)] for subject in subjects],
        "format": FORMAT,
        "dataset": [output.record.fingerprint for output in outputs],
        "metrics": list(evaluate.metrics),
        "max_clips": evaluate.max_clips,
        "prepare": config.prepare.model_dump(mode="json"),
        "speakers": config.speakers.model_dump(mode="json"),
        "recognizer": config.recognizer.model_dump(mode="json"),
        "versions": _versions(),
    }
    return json.dumps(document, indent=1, sort_keys=True).encode()


def _versions() -> dict[str, str]:
    found = {}
    for name in ("torch", "numpy", "pystoi", "pesq", "speechmos", "resemblyzer", "faster-whisper"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _differences(found: bytes, wanted: bytes) -> str:
    try:
        there = json.loads(found)
    except ValueError:
        return "its evaluation.json is damaged"
    here = json.loads(wanted)
    return ", ".join(sorted(key for key in here if there.get(key) != here[key])) or "of another version"
