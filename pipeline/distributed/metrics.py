"""Counters, gauges and histograms of a run, on the Prometheus endpoint that every node of Ray has.

The driver keeps all of them: it sees every shard that ends, and asks each actor for its figures every few seconds.
docs/operations.md lists the names, meanings and labels.
"""

from __future__ import annotations

from collections.abc import Mapping

from ray.util.metrics import Counter, Gauge, Histogram

from pipeline.dataset.manifest import ShardManifest
from pipeline.distributed.throughput import ActorFigures, Throughput

STAGE_SECONDS = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0]


class RunMetrics:
    """The metrics of one run, each labelled with its id."""

    def __init__(self, run_id: str) -> None:
        self._run = {"run": run_id}
        self._audio = _counter("audio_seconds", "Audio of committed shards, seconds.")
        self._clips = _counter("clips", "Clips of committed shards that became rows.")
        self._rejects = _counter("rejects", "Clips of committed shards that were rejected.", "reason")
        self._read = _counter("read_bytes", "Bytes of encoded audio that were read for committed shards.")
        self._written = _counter("written_bytes", "Bytes of data and rejects that were written for committed shards.")
        self._retries = _counter("retries", "Attempts at a shard after its first.")
        self._encoded = _counter("encoded_seconds", "Audio that was encoded, including open shards, seconds.")
        self._stages = Histogram(
            "moss_tok_shard_stage_seconds",
            "Time that a committed shard took in a stage, summed over its clips.",
            boundaries=STAGE_SECONDS,
            tag_keys=("run", "stage"),
        )
        self._shards = _gauge("shards", "Shards by state.", "state")
        self._actors = _gauge("actors", "Actors that have loaded the model.")
        self._speed = _gauge("speed", "Seconds of audio encoded per second, over five minutes.")
        self._busy = _gauge(
            "encoder_busy_fraction", "Fraction of the last five minutes in which the encoders were busy."
        )
        self._queue = _gauge("queue_seconds", "Audio that waits for the encoder of an actor, seconds.", "actor")
        self._encoded_before = 0.0
        self._queues: set[str] = set()

    def committed(self, manifest: ShardManifest) -> None:
        self._count(self._audio, manifest.audio_seconds)
        self._count(self._clips, manifest.rows)
        self._count(self._read, manifest.input_bytes)
        self._count(self._written, manifest.output_bytes + manifest.rejects_bytes)
        for reason, count in manifest.rejects_by_reason.items():
            self._count(self._rejects, count, reason=reason)
        for stage, seconds in manifest.seconds.items():
            self._stages.observe(seconds, self._run | {"stage": stage})

    def retried(self) -> None:
        self._count(self._retries, 1)

    def shards(self, by_state: Mapping[str, int]) -> None:
        for state, count in by_state.items():
            self._shards.set(count, self._run | {"state": state})

    def actors(self, by_name: Mapping[str, ActorFigures], throughput: Throughput, encoded_seconds: float) -> None:
        """Figures of the actors by name. `encoded_seconds` is of the whole run, including actors that are gone."""
        self._count(self._encoded, encoded_seconds - self._encoded_before)
        self._encoded_before = max(encoded_seconds, self._encoded_before)
        self._actors.set(len(by_name), self._run)
        self._speed.set(throughput.speed, self._run)
        self._busy.set(throughput.busy, self._run)
        for name in self._queues - by_name.keys():
            self._queue.set(0, self._run | {"actor": name})  # a gauge keeps its last value
        for name, figures in by_name.items():
            self._queue.set(figures.waiting_seconds, self._run | {"actor": name})
        self._queues |= by_name.keys()

    def _count(self, counter: Counter, amount: float, **labels: str) -> None:
        if amount > 0:  # Ray refuses to add 0
            counter.inc(amount, self._run | labels)


def _counter(name: str, description: str, *labels: str) -> Counter:
    return Counter(f"moss_tok_{name}", description, tag_keys=("run", *labels))


def _gauge(name: str, description: str, *labels: str) -> Gauge:
    return Gauge(f"moss_tok_{name}", description, tag_keys=("run", *labels))
