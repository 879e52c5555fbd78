"""The page of an evaluation: one HTML document that needs nothing else and runs no script."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from pipeline.evaluate.bootstrap import Estimate
from pipeline.evaluate.summary import Summary
from pipeline.evaluate.table import (
    AGREEMENT_HEADS,
    PUBLISHED_SOURCE,
    Row,
    agreement_by_layer,
    agreement_cells,
    agreement_names,
    cell,
    metric_named,
)
from pipeline.evaluate.worst import Heard
from pipeline.pages.document import render_page
from pipeline.pages.plots import Axis, Bar, Line, axis, bar_plot, line_plot, roof
from pipeline.pages.sound import flac

BINS = 24
BASE_BITRATE = 125.0
KINDS = ("first", "second", "third")


def render(
    title: str, summary: Summary, rows: Sequence[Row], table: pa.Table, metrics: Sequence[str], heard: Sequence[Heard]
) -> bytes:
    """The page: the table, each metric against bits per second, its distribution, and the worst clips."""
    return render_page(
        "pipeline.evaluate",
        "page.html",
        title=title,
        clips=f"{summary.clips:,}",
        hours=f"{summary.seconds / 3600:,.2f}",
        rejects=summary.rejects,
        heads=[metric_named(name).label for name in metrics],
        rows=[_cells(row, metrics) for row in rows],
        published=PUBLISHED_SOURCE if any(row.published for row in rows) else "",
        plots=[plot for name in metrics for plot in _metric_plots(name, rows, table)],
        agreement=_agreement(summary) if summary.agreements else None,
        heard=[_sounds(clip) for clip in heard],
    )


def _cells(row: Row, metrics: Sequence[str]) -> dict[str, Any]:
    return {
        "name": row.name,
        "numbers": [f"{row.bits_per_second:,.0f}", f"{row.frame_rate:g}", str(row.num_quantizers)],
        "cells": [cell(row.cells.get(name)) for name in metrics],
        "published": row.published,
    }


def _metric_plots(name: str, rows: Sequence[Row], table: pa.Table) -> list[dict[str, Any]]:
    """Each metric against bits per second, one line a codec, and how its values are distributed."""
    metric = metric_named(name)
    better = f"{metric.label}: {metric.better} is better"
    lines = _lines(name, rows)
    if not lines:
        return []
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    low, high = min(ys), max(ys)
    margin = 0.08 * (high - low or 1.0)
    plot = line_plot(_bitrates(min(xs), max(xs)), axis(low - margin, high + margin, metric.label), lines, better)
    legend = [{"name": line.name, "kind": line.kind} for line in lines]
    return [{"title": better, "svg": plot, "legend": legend}, *_distribution(name, table)]


def _agreement(summary: Summary) -> dict[str, Any]:
    """How far codecs of one model agree: tables, and the share of equal codes from layer to layer."""
    names = agreement_names(summary)
    lines = [
        Line([(float(layer), 100 * share) for layer, share in enumerate(found.layers, 1)], name, _kind(number))
        for number, (found, name) in enumerate(zip(summary.agreements, names, strict=True))
        if len(found.layers) > 1
    ]
    plot = None
    if lines:
        last, low = max(x for line in lines for x, _ in line.points), min(y for line in lines for _, y in line.points)
        title = "Equal codes in each layer"
        svg = line_plot(axis(1, last, "layer"), axis(min(low, 99.0), 100, title, unit=" %"), lines, title)
        plot = {"title": title, "svg": svg, "legend": [{"name": line.name, "kind": line.kind} for line in lines]}
    return {
        "heads": AGREEMENT_HEADS,
        "rows": agreement_cells(summary),
        "layer_heads": ["Layer", *names],
        "layers": agreement_by_layer(summary),
        "machines": {subject: "; ".join(kinds) for subject, kinds in summary.machines.items()},
        "plot": plot,
    }


def _kind(number: int) -> str:
    return KINDS[number % len(KINDS)]


def _bitrates(low: float, high: float) -> Axis:
    """`low` and `high` are logarithms: bits per second double from mark to mark."""
    first, last = math.floor(low), max(math.ceil(high), math.floor(low) + 1)
    ticks = [(float(power), f"{BASE_BITRATE * 2.0**power:,.0f}") for power in range(first, last + 1)]
    return Axis(float(first), float(last), ticks, "bits per second")


def _lines(name: str, rows: Sequence[Row]) -> list[Line]:
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        value = row.cells.get(name)
        if value is None:
            continue
        mean = value.mean if isinstance(value, Estimate) else value
        points.setdefault(row.name, []).append((math.log2(row.bits_per_second / BASE_BITRATE), mean))
    return [Line(sorted(found), codec, _kind(number)) for number, (codec, found) in enumerate(points.items())]


def _distribution(name: str, table: pa.Table) -> list[dict[str, Any]]:
    """Of the values at most quantizers, all subjects together."""
    most = pc.max(table["num_quantizers"]).as_py()
    if most is None:
        return []
    values = table.filter(pc.field("num_quantizers") == most)[name].drop_null().to_numpy()
    values = values[np.isfinite(values)]
    if len(values) < 2 or values.min() == values.max():
        return []
    counts, edges = np.histogram(values, BINS)
    bars = [
        Bar(float(left), float(right), float(count), f"{count:,} clips from {left:.3f} to {right:.3f}")
        for count, left, right in zip(counts, edges[:-1], edges[1:], strict=True)
    ]
    title = f"{metric_named(name).label} of the clips at {most} quantizers"
    x = axis(float(edges[0]), float(edges[-1]), metric_named(name).label)
    svg = bar_plot(x, axis(0, roof(float(counts.max())), "clips"), bars, title)
    return [{"title": title, "svg": svg, "legend": []}]


def _sounds(clip: Heard) -> dict[str, Any]:
    return {
        "subject": clip.subject,
        "num_quantizers": clip.num_quantizers,
        "key": clip.key,
        "source": clip.source,
        "id": clip.id,
        "value": f"{clip.value:.3f}",
        "reference": _data_uri(flac(clip.reference, clip.reference_rate)),
        "decoded": _data_uri(flac(clip.decoded, clip.decoded_rate)),
    }


def _data_uri(sound: bytes) -> Markup:
    return Markup("data:audio/flac;base64,") + Markup(base64.b64encode(sound).decode("ascii"))
