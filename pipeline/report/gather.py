"""Gathers what the page shows: manifests, a sample of the data, examples of rejects, and a few clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.codecs import Codec
from pipeline.dataset.dataset import Output
from pipeline.dataset.expression import Chosen
from pipeline.dataset.manifest import read_manifests
from pipeline.report.clips import choose, show
from pipeline.report.history import History, read_history
from pipeline.report.information import Information, measure
from pipeline.report.rejects import Example, find_examples
from pipeline.report.sample import Sample, take_sample
from pipeline.report.views import ClipView, view


@dataclass(frozen=True, slots=True, kw_only=True)
class PageData:
    """Everything that the page shows."""

    output: Output
    history: History
    sample: Sample
    information: Information | None
    """None if there are no rows."""
    examples: dict[str, list[Example]]
    clips: Sequence[ClipView]


def gather(output: Output, clips: int, load_decoder: Callable[[], Codec], chosen: Chosen | None = None) -> PageData:
    """Gather the page of an output, which may be incomplete, with `clips` clips. Clips and figures of rows are those of
    the chosen rows.

    The decoder is loaded only if there are clips to decode. Apart from three numbers per shard, memory does not grow
    with the output. Raises OSError, StorageError, LookupError or ValueError for data that cannot be read.
    """
    model = output.record.model
    history = read_history(read_manifests(output.layout, output.done))
    sample = take_sample(output, chosen=chosen)
    books = output.record.codebooks
    rates_of_codes = [model.sample_rate / book.samples_per_code for book in books]
    information = measure(sample.counts, rates_of_codes, [book.size for book in books])
    views: list[ClipView] = []
    if information is not None and (candidates := choose(sample.candidates, clips)):
        views = look_at(output, [candidate.clip_id for candidate in candidates], load_decoder())
    return PageData(
        output=output,
        history=history,
        sample=sample,
        information=information,
        examples=find_examples(output, history.shards_by_reason),
        clips=views,
    )


def look_at(output: Output, clip_ids: Sequence[str], codec: Codec) -> list[ClipView]:
    """Pictures and sounds of these clips, each a row of the output."""
    books = output.record.codebooks
    sizes = np.array([book.size for book in books])
    rates = np.array([output.record.model.sample_rate / book.samples_per_code for book in books])
    bit_rates = np.cumsum(np.log2(sizes) * rates)
    return [view(clip, bit_rates, sizes[:, None]) for clip in show(output, clip_ids, codec)]
