"""Averages that are honest: over clips that have a value, with the others counted, and with confidence intervals.

Clips of one evaluation are resampled alike for all subjects, so differences between two subjects are of pairs.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.evaluate.agreement import Agreement, summarize_agreement
from pipeline.evaluate.bootstrap import Draws, Estimate

SIMILAR_BITRATE = 0.1
"""Two points are compared where their bits per second differ by at most this fraction."""


@dataclass(frozen=True, slots=True)
class Point:
    """A subject at a number of quantizers."""

    subject: str
    num_quantizers: int
    bits_per_second: float
    estimates: dict[str, Estimate]
    """By metric; one without any value is not there."""
    undefined: dict[str, dict[str, int]]
    """By metric: how many clips have no value, by reason."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The mean of second minus first over the clips that have a value of both."""

    first: tuple[str, int]
    second: tuple[str, int]
    metric: str
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class Summary:
    """What an evaluation found."""

    clips: int
    seconds: float
    rejects: dict[str, int]
    """By reason."""
    points: list[Point]
    differences: list[Difference]
    agreements: list[Agreement]
    machines: dict[str, list[str]]
    """By subject, the kinds of machine that made its codes."""


def summarize(table: pa.Table, metrics: Sequence[str], seed: int) -> Summary:
    """From the rows of all results files, in the order of the plan. The same rows and seed give the same figures."""
    columns = {name: table[name].to_pylist() for name in ("id", "subject", "num_quantizers", "reject_reason")}
    clip_ids = list(dict.fromkeys(columns["id"]))
    index_of = {name: index for index, name in enumerate(clip_ids)}
    clip_of_row = np.array([index_of[name] for name in columns["id"]], np.int64)
    keys = list(zip(columns["subject"], columns["num_quantizers"], strict=True))
    draws = Draws(len(clip_ids), seed)
    points = [key for key in dict.fromkeys(keys) if key[0] is not None]
    values = {key: _values_by_clip(table, metrics, keys, key, clip_of_row, len(clip_ids)) for key in points}
    seconds = dict(zip(columns["id"], table["duration"].to_pylist(), strict=True))
    return Summary(
        clips=len(clip_ids),
        seconds=sum(value for value in seconds.values() if value is not None),
        rejects=dict(sorted(Counter(reason for reason in columns["reject_reason"] if reason).items())),
        points=[_point(table, keys, key, values[key], metrics, draws) for key in points],
        differences=_differences(table, keys, points, values, metrics, draws),
        agreements=summarize_agreement(table, clip_of_row, draws),
        machines=_machines(table),
    )


def _machines(table: pa.Table) -> dict[str, list[str]]:
    found: dict[str, set[str]] = {}
    for subject, machine in set(zip(table["subject"].to_pylist(), table["machine"].to_pylist(), strict=True)):
        if subject is not None:
            found.setdefault(subject, set()).add(machine)
    return {subject: sorted(kinds) for subject, kinds in sorted(found.items())}


def _values_by_clip(
    table: pa.Table,
    metrics: Sequence[str],
    keys: list[tuple[str, int]],
    key: tuple[str, int],
    clips: np.ndarray,
    n: int,
) -> dict[str, np.ndarray]:
    rows = np.array([other == key for other in keys])
    found = {}
    for metric in metrics:
        column = table[metric].to_numpy(zero_copy_only=False).astype(np.float64)
        values = np.full(n, np.nan)
        values[clips[rows]] = column[rows]
        found[metric] = values
    return found


def _point(
    table: pa.Table,
    keys: list[tuple[str, int]],
    key: tuple[str, int],
    values: dict[str, np.ndarray],
    metrics: Sequence[str],
    draws: Draws,
) -> Point:
    rows = [number for number, other in enumerate(keys) if other == key]
    undefined: dict[str, Counter[str]] = {metric: Counter() for metric in metrics}
    for number in rows:
        for metric, reason in json.loads(table["undefined"][number].as_py()).items():
            undefined[metric][reason] += 1
    estimates = {metric: draws.estimate(values[metric]) for metric in metrics}
    return Point(
        subject=key[0],
        num_quantizers=key[1],
        bits_per_second=table["bits_per_second"][rows[0]].as_py(),
        estimates={metric: estimate for metric, estimate in estimates.items() if estimate is not None},
        undefined={metric: dict(sorted(counts.items())) for metric, counts in undefined.items() if counts},
    )


def _differences(
    table: pa.Table,
    keys: list[tuple[str, int]],
    points: list[tuple[str, int]],
    values: dict[tuple[str, int], dict[str, np.ndarray]],
    metrics: Sequence[str],
    draws: Draws,
) -> list[Difference]:
    """Of every two subjects where their bit rates are similar."""
    rates = {key: table["bits_per_second"][keys.index(key)].as_py() for key in points}
    found = []
    for position, first in enumerate(points):
        for second in points[position + 1 :]:
            similar = abs(rates[first] - rates[second]) <= SIMILAR_BITRATE * max(rates[first], rates[second])
            if first[0] == second[0] or not similar:
                continue
            for metric in metrics:
                estimate = draws.estimate(values[second][metric] - values[first][metric])
                if estimate is not None:
                    found.append(Difference(first, second, metric, estimate))
    return found
