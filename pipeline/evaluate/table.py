"""The results as JSON, and as a Markdown table with the columns of the published one."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

from pipeline.evaluate.bootstrap import Estimate
from pipeline.evaluate.metrics import METRICS, UNDEFINED, Metric
from pipeline.evaluate.models import MODEL_METRICS, ModelMetric
from pipeline.evaluate.subjects import Subject
from pipeline.evaluate.summary import Difference, Point, Summary

PUBLISHED_SOURCE = "https://github.com/OpenMOSS/MOSS-Audio-Tokenizer (README.md)"
ARROWS = {"higher": "↑", "lower": "↓"}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: ours with an interval, or a published one without."""

    name: str
    bits_per_second: float
    frame_rate: float
    num_quantizers: int
    cells: dict[str, Estimate | float]
    published: bool


def metric_named(name: str) -> Metric | ModelMetric:
    """The metric of that name."""
    return METRICS[name] if name in METRICS else MODEL_METRICS[name]


def table_rows(summary: Summary, subjects: Sequence[Subject], published: str | None) -> list[Row]:
    """Ours and the published rows of the same data, by subject and then by bits per second."""
    by_label = {subject.label: subject for subject in subjects}
    rows = [_row(point, by_label[point.subject]) for point in summary.points]
    return rows + (published_rows(published) if published else [])


def _row(point: Point, subject: Subject) -> Row:
    about = subject.description
    cells: dict[str, Estimate | float] = dict(point.estimates)
    frame_rate = about.sample_rate / about.samples_per_frame
    return Row(point.subject, point.bits_per_second, frame_rate, point.num_quantizers, cells, published=False)


def published_rows(dataset: str) -> list[Row]:
    """The published figures for a dataset: librispeech (test-clean), aishell2, audioset (evaluation) or musdb."""
    text = resources.files("pipeline.evaluate").joinpath("published.csv").read_text(encoding="utf-8")
    metrics = ("sim", "stoi", "pesq_nb", "pesq_wb", "mel", "stft")
    return [
        Row(
            name=f"{line['model']} (published)",
            bits_per_second=float(line["bps"]),
            frame_rate=float(line["frame_rate"]),
            num_quantizers=int(line["num_quantizers"]),
            cells={metric: float(line[metric]) for metric in metrics if line[metric]},
            published=True,
        )
        for line in csv.DictReader(text.splitlines())
        if line["dataset"] == dataset
    ]


def markdown(summary: Summary, rows: Sequence[Row], metrics: Sequence[str]) -> str:
    """The table, what has no value and why, the differences between codecs, and the rejects."""
    heads = [f"{metric_named(name).label} {ARROWS[metric_named(name).better]}" for name in metrics]
    lines = [
        f"{summary.clips:,} clips, {summary.seconds / 3600:,.2f} hours. Means over clips that have a value, with 95 % "
        "intervals of a bootstrap over clips.",
        "",
        *_markdown_table(["Model", "bps", "Frame rate", "Nq", *heads], [_line(row, metrics) for row in rows]),
    ]
    if any(row.published for row in rows):
        lines += ["", f"Published rows: {PUBLISHED_SOURCE}."]
    lines += _undefined(summary)
    lines += _differences(summary.differences)
    lines += _agreements(summary)
    if summary.rejects:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in summary.rejects.items())
        lines += ["", f"Rejected clips, which have no values: {reasons}."]
    return "\n".join(lines) + "\n"


def results_json(summary: Summary, rows: Sequence[Row], metrics: Sequence[str]) -> bytes:
    """Everything that the table and the page show."""
    document: dict[str, Any] = {
        "metrics": {name: {"label": metric_named(name).label, "better": metric_named(name).better} for name in metrics},
        "summary": asdict(summary),
        "published": [asdict(row) for row in rows if row.published],
        "published_source": PUBLISHED_SOURCE,
    }
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False).encode()


def _line(row: Row, metrics: Sequence[str]) -> list[str]:
    cells = [row.name, f"{row.bits_per_second:,.0f}", f"{row.frame_rate:g}", str(row.num_quantizers)]
    return [*cells, *(cell(row.cells.get(name)) for name in metrics)]


def cell(value: Estimate | float | None) -> str:
    """A mean with half of its interval; a published value as it is; a dash for none."""
    if value is None:
        return "—"
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value.mean:.3f} ± {(value.high - value.low) / 2:.3f}"


AGREEMENT_HEADS = (
    *("Model", "Compared with", "Nq", "Equal codes", "Equal frames", "Same sound"),
    *("Mel loss between the sounds", "SI-SDR between the sounds (dB)"),
)


def agreement_cells(summary: Summary) -> list[list[str]]:
    """A line under AGREEMENT_HEADS for every two subjects of one model and each number of quantizers."""
    return [
        [
            *(found.subject, found.reference, str(sound.num_quantizers)),
            *(percent(sound.equal_codes), percent(sound.equal_frames)),
            f"{sound.equal_sounds:,} of {found.clips:,} clips",
            *(cell(sound.mel), cell(sound.si_sdr)),
        ]
        for found in summary.agreements
        for sound in found.sounds
    ]


def agreement_by_layer(summary: Summary) -> list[list[str]]:
    """For each layer its number, counted from 1, and the share of equal codes of each comparison; a dash without."""
    deepest = max((len(found.layers) for found in summary.agreements), default=0)
    return [
        [
            str(layer + 1),
            *(percent(found.layers[layer]) if layer < len(found.layers) else "—" for found in summary.agreements),
        ]
        for layer in range(deepest)
    ]


def agreement_names(summary: Summary) -> list[str]:
    """The heads of `agreement_by_layer` beside the layer."""
    return [f"{found.subject} and {found.reference}" for found in summary.agreements]


def percent(share: float) -> str:
    """Three places: a few codes in a thousand differ between kinds of machine. All is said only where it is so."""
    return f"{min(100 * share, 100.0 if share == 1 else 99.999):.3f} %"


def _agreements(summary: Summary) -> list[str]:
    if not summary.agreements:
        return []
    return [
        *("", "Agreement of codecs of one model, with the first of them:", ""),
        *_markdown_table(AGREEMENT_HEADS, agreement_cells(summary)),
        *("", "Equal codes in each layer:", ""),
        *_markdown_table(["Layer", *agreement_names(summary)], agreement_by_layer(summary)),
        *("", "Made on:", ""),
        *(f"- {subject}: {'; '.join(kinds)}" for subject, kinds in summary.machines.items()),
    ]


def _markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(line) + " |" for line in (heads, ["---"] * len(heads), *rows)]


def _undefined(summary: Summary) -> list[str]:
    lines = [
        [
            *(point.subject, str(point.num_quantizers), metric_named(metric).label),
            *(f"{reason}: {UNDEFINED[reason]}", f"{count:,}"),
        ]
        for point in summary.points
        for metric, counts in point.undefined.items()
        for reason, count in counts.items()
    ]
    if not lines:
        return []
    heads = ["Model", "Nq", "Metric", "Why", "Clips"]
    return ["", "Clips without a value, which no mean counts:", "", *_markdown_table(heads, lines)]


def _differences(differences: Sequence[Difference]) -> list[str]:
    if not differences:
        return []
    lines = [
        [
            f"{found.second[0]} at {found.second[1]} minus {found.first[0]} at {found.first[1]}",
            metric_named(found.metric).label,
            f"{found.estimate.mean:+.3f} ({found.estimate.low:+.3f} to {found.estimate.high:+.3f})",
            f"{found.estimate.clips:,}",
        ]
        for found in differences
    ]
    heads = ["Difference", "Metric", "Mean (95 %)", "Clips"]
    return ["", "Paired differences at similar bit rates:", "", *_markdown_table(heads, lines)]
