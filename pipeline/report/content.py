"""Turns figures into the words, numbers and tables of the page, section by section: the variables of its template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from moss_tok.audio import REASONS
from pipeline.codecs.protocol import MOSS
from pipeline.dataset.totals import Totals, describe_machines
from pipeline.pages.numerals import count, moment, quantity, share, shown, size, span
from pipeline.report import charts
from pipeline.report.clips import DEPTHS
from pipeline.report.gather import PageData
from pipeline.report.history import History
from pipeline.report.information import Information
from pipeline.report.meter_rows import meter_rows
from pipeline.report.rejects import Example
from pipeline.report.sample import Sample
from pipeline.report.signals import describe_signals
from pipeline.shard.tokenize import STAGES
from pipeline.steps.reject_reasons import PREPARE_REASONS, READ_REASONS

SOURCES = 8
"""Kinds of source that the table lists; the others are added up in one row."""
THROUGHPUT_BINS = 80
_LAYERS = ("codebook", "RVQ layers")


def content(data: PageData) -> dict[str, Any]:
    """The variables of the template. Control characters in foreign text are replaced here; the template escapes it."""
    output, history, record = data.output, data.history, data.output.record
    planned, done = len(output.specs), history.totals.shards
    parts = {
        "name": shown(output.layout.root.rpartition("/")[2] or output.layout.root, 80),
        "root": shown(output.layout.root),
        "trained": record.model.trained,
        "state": "" if done == planned else f"{count(done)} of {count(planned)} shards are committed.",
        "totals": _totals(data),
        "clips": data.clips,
        "no_rows": "" if history.totals.rows else _no_rows(data),
        "codes": _codes(data, data.information) if data.information else None,
        "audio": _audio(data.sample) if data.information else None,
        "rejects": describe_rejects(history.totals, data.examples),
        "work": describe_work(history) if done else None,
        "made": _made(data),
        "footer": _footer(data),
    }
    titles = {"clips": "Clips", "codes": "Codes", "audio": "Audio", "rejects": "Rejects", "work": "Work"}
    there = [(anchor, title) for anchor, title in titles.items() if parts[anchor]]
    return parts | {"sections": [*there, ("made", "Made with")]}


def _totals(data: PageData) -> list[dict[str, str]]:
    totals, record = data.history.totals, data.output.record
    # Where codebooks differ in their frame rate, the coarser ones have a part of the frames.
    finest = min(book.samples_per_code for book in record.codebooks)
    codes = sum(totals.frames * finest // book.samples_per_code for book in record.codebooks)
    clips = totals.rows + totals.rejects
    splits = ", ".join(f"{count(number)} in {shown(name)}" for name, number in sorted(totals.rows_by_split.items()))
    parts = (
        ("audio", span(totals.audio_seconds), f"{count(totals.frames)} frames"),
        ("clips", count(totals.rows), splits),
        ("rejects", count(totals.rejects), f"{share(totals.rejects, clips)} of all clips"),
        ("codes", count(codes), f"{record.num_quantizers} {_LAYERS[record.num_quantizers > 1]}"),
        ("stored", size(totals.output_bytes), f"from {size(totals.input_bytes)} of encoded audio"),
        ("shards", count(totals.shards), "all of the plan" if totals.shards == len(data.output.specs) else "so far"),
    )
    return [{"name": name, "number": number, "aside": aside} for name, number, aside in parts]


def _no_rows(data: PageData) -> str:
    if not data.history.totals.shards:
        return "Nothing is committed yet: the run that makes this output has not finished a shard."
    return "There are no rows: every clip was rejected, or the input holds none."


def _codes(data: PageData, information: Information) -> dict[str, Any]:
    sample, record = data.sample, data.output.record
    stored = _stored_rates(sample, information)
    rates = (information.nominal_rate, information.entropy_rate, stored)
    depths = [*(depth for depth in DEPTHS if depth < len(stored)), len(stored)]
    said, could = _kilobits(information.entropy_rate[-1]), _kilobits(information.nominal_rate[-1])
    lead = (
        f"{_frame(information)} By their entropy, the codes of a second hold {said} of the {could} that "
        f"they could hold; stored, a code takes {quantity(sample.bits_per_code, 'bits')}. {_basis(sample)}"
    )
    caution = (
        f"{count(information.frames)} frames are few for codebooks of {count(record.model.codebook_size)} codes: "
        "entropy and use are underestimated, and small files need more bits per code than large ones."
    )
    return {
        "lead": lead,
        "caution": caution if information.too_few else "",
        "entropy": charts.entropy_plot(information),
        "use": charts.use_plot(information),
        "rate": charts.rate_plot(information, stored),
        "rates": [[count(depth), *(quantity(rate[depth - 1] / 1000, "") for rate in rates)] for depth in depths],
        "layers": [
            [
                count(layer),
                share(information.used[layer], 1),
                quantity(information.entropy[layer], ""),
                share(information.top[layer], 1),
                quantity(rate / information.rates[layer], ""),
            ]
            for layer, rate in enumerate(np.diff(stored, prepend=0))
        ],
    }


def _frame(information: Information) -> str:
    layers, rates = len(information.rates), sorted(set(information.rates))
    if len(rates) == 1:
        holds = f"{layers} codes" if layers > 1 else "1 code"
        return f"A frame is {1000 / rates[0]:g} ms and holds {holds} of {information.nominal_bits:g} bits."
    each = ", ".join(f"{rate:.3g}" for rate in information.rates)
    return f"A second holds {each} codes of {layers} codebooks, of {information.nominal_bits:g} bits."


def _stored_rates(sample: Sample, information: Information) -> np.ndarray:
    """Stored bits per second of the first 1, 2, … layers."""
    seconds = sample.codes_in_files / information.rates.sum()
    layers = [sample.layer_bytes(layer) for layer in range(len(information.entropy))]
    return np.asarray(np.cumsum(layers) * 8 / seconds)


def _kilobits(bits: float) -> str:
    return quantity(bits / 1000, "kbit/s")


def _basis(sample: Sample) -> str:
    rows = f"rows where {shown(sample.where)}" if sample.where else "rows"
    if sample.whole:
        return f"These figures are of all {count(sample.rows)} {rows}."
    return (
        f"Figures of this and the next section are of {count(sample.rows)} {rows} of the first {count(sample.shards)} "
        "shards by id. Ids are hashes, so this is a random sample, and always the same one."
    )


def _audio(sample: Sample) -> dict[str, Any]:
    loudest = np.concatenate(sample.peak).max(initial=0)
    lead = (
        f"{share(sample.clipped_rows, sample.rows)} of the clips have samples at full scale, and "
        f"{share(sample.silent_rows, sample.rows)} are silent for nine tenths of their length or more. "
        f"The largest peak is {quantity(float(loudest), '')} of full scale. {_basis(sample)}"
    )
    kinds = [
        (f"{kind}, {rate / 1000:g} kHz, {_channels(channels)}", number)
        for (kind, rate, channels), number in sorted(sample.sources.items(), key=lambda item: (-item[1], item[0]))
    ]
    rest = sum(number for _, number in kinds[SOURCES:])
    named = kinds[:SOURCES] + ([(f"{len(kinds) - SOURCES} other kinds", rest)] if rest else [])
    return {
        "lead": lead,
        "durations": charts.duration_plot(sample),
        "levels": charts.level_plot(sample),
        "sources": meter_rows([(shown(name, 60), number, count(number)) for name, number in named]),
        **describe_signals(sample.signals),
    }


def _channels(channels: int) -> str:
    return {1: "mono", 2: "stereo"}.get(channels, f"{channels} channels")


def describe_rejects(totals: Totals, examples: Mapping[str, Sequence[Example]]) -> dict[str, Any]:
    """The section of rejects: their number, by reason, and examples of each reason."""
    if not totals.rejects:
        return {"lead": "There are none: every clip that was read has codes.", "reasons": [], "examples": []}
    meanings = {**REASONS, **READ_REASONS, **PREPARE_REASONS}
    ranked = sorted(totals.rejects_by_reason.items(), key=lambda item: (-item[1], item[0]))
    named = [
        {
            "name": shown(reason, 60),
            "meaning": _sentence(meanings.get(reason, "")),
            "examples": [describe_example(example) for example in examples.get(reason, [])],
        }
        for reason, _ in ranked
    ]
    lead = (
        f"{count(totals.rejects)} of {count(totals.rows + totals.rejects)} clips have no codes. Each has a row in "
        "rejects/ that says what is wrong with it; here are some examples of each reason."
    )
    return {"lead": lead, "reasons": meter_rows([(name, n, count(n)) for name, n in ranked]), "examples": named}


def describe_example(example: Example) -> dict[str, str]:
    """One reject."""
    return {
        "clip_id": shown(example.clip_id, 60),
        "source": shown(example.source),
        "key": shown(example.key, 160),
        "stage": {"read": "read", "prepare": "decoded", "encode": "encoded"}.get(example.stage, "read"),
        "message": shown(example.message, 400),
    }


def describe_work(history: History) -> dict[str, Any]:
    """The section of work: throughput, and what took the time."""
    timeline = history.timeline(THROUGHPUT_BINS)
    lead = "The manifests do not say when their shards were made."
    if timeline is not None:
        paused = f" {len(timeline.pauses)} pauses are left out." if timeline.pauses else ""
        lead = (
            f"{moment(timeline.started)} to {moment(timeline.finished)}: {span(timeline.busy_seconds)} at work, "
            f"{quantity(timeline.mean_speed, '')} seconds of audio per second on average.{paused} "
            "The audio of a shard is spread evenly from its beginning to its end. Stages overlap, and the times of all "
            "workers are added up."
        )
    seconds = history.totals.seconds
    stages = [(stage, seconds[stage], span(seconds[stage])) for stage in STAGES if stage in seconds]
    attempts = [(_attempt(attempt), number, count(number)) for attempt, number in sorted(history.attempts.items())]
    return {
        "lead": lead,
        "throughput": charts.throughput_plot(timeline) if timeline is not None else "",
        "stages": meter_rows(stages),
        "attempts": meter_rows(attempts),
    }


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:].removesuffix(".") + "." if words else ""


def _attempt(attempt: int) -> str:
    return {0: "rebuilt from data", 1: "first", 2: "second", 3: "third"}.get(attempt, f"{attempt}th")


def _made(data: PageData) -> list[tuple[str, str]]:
    record, model = data.output.record, data.output.record.model
    versions = [
        f"{', '.join(f'{name} {number}' for name, number in software)}"
        + (f" ({count(shards)} shards)" if len(data.history.versions) > 1 else "")
        for software, shards in data.history.versions.most_common(4)
    ] or [", ".join(f"{name} {number}" for name, number in sorted(record.versions.items()))]
    lines = [
        ("model", model.label + ("" if model.trained else ", untrained")),
        ("revision", model.revision or "local weights"),
        ("weights SHA-256", model.weights_sha256),
        ("precision", record.dtype),
        *([] if model.codec.family == MOSS else [("codec", model.codec.family)]),
        ("RVQ layers", f"{record.num_quantizers} of {model.num_quantizers}, codebooks of {count(model.codebook_size)}"),
        ("waveform", f"{count(model.sample_rate)} Hz, {_channels(model.channels)}"),
        ("frame", f"{count(model.samples_per_frame)} samples"),
        ("preprocessing", ", ".join(f"{key} {value}" for key, value in sorted(record.prepare.items()))),
        ("input", "; ".join(f"{split}: {', '.join(uris)}" for split, uris in record.input["splits"].items())),
        ("schema", record.codes_schema),
        ("fingerprint", record.fingerprint),
        *(("software", line) for line in versions),
        *([("machines", describe_machines(data.history.totals))] if data.history.totals.shards_by_machine else []),
    ]
    return [(name, shown(value, 600)) for name, value in lines]


def _footer(data: PageData) -> str:
    sample = data.sample
    return (
        f"Made by moss-tok report from {count(data.history.totals.shards)} manifests and "
        f"{count(sample.shards)} data files. This page is complete: it loads nothing from a network."
    )
