"""The dataset card: README.md with the front matter that makes `datasets.load_dataset(output)` work."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import yaml

from moss_tok.embedded import EMBEDDED_LICENSES
from pipeline import schema
from pipeline.codecs.protocol import MOSS
from pipeline.config import CardConfig
from pipeline.dataset.provenance import RunRecord
from pipeline.dataset.statistics import DURATION_EDGES, SampleStatistics
from pipeline.dataset.totals import Totals, describe, describe_machines
from pipeline.steps.clip_signals import with_labels

UNTRAINED = (
    "**These codes come from an untrained model.** They show the format and the pipeline; they decode to noise, and "
    "nothing should be trained on them."
)
LANGUAGE_CODE = re.compile("[a-z]{2,3}")  # what the hub accepts: ISO 639
BAR = 40  # characters
TAGS = {MOSS: ["rvq", "moss-audio-tokenizer"]}
"""What the hub knows a family by, where it is more than its name."""


def dataset_card(record: RunRecord, totals: Totals, planned: int, about: CardConfig, seen: SampleStatistics) -> str:
    """The Markdown of the output's README.md. It depends on the dataset and on `about` alone, not on time, host or
    path."""
    splits = [split for split in record.input["splits"] if split in totals.rows_by_split]
    parts = [
        f"---\n{_front_matter(record, totals, splits, about, seen)}---",
        f"# {about.pretty_name or f'Audio codes of {record.model.label}'}",
        *([] if record.model.trained else [UNTRAINED]),
        _state(totals, planned),
        _licence_and_source(about),
        _figures(totals, splits),
        _plots(record, seen),
        _load(splits or list(record.input["splits"]), record),
        _decode(record),
        _provenance(record, totals),
        _columns(record),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def load_lines(uri: str, split: str) -> list[str]:
    """The two lines of Python that load a dataset."""
    what = f'"{uri}"'
    if "://" in uri:  # Datasets would take the URI for a local path: it reads the cards of folders and of the hub only
        files = {split: f"{uri}/data/{split}/*.parquet"}
        what = f'"parquet", data_files={json.dumps(files)}'
    return ["from datasets import load_dataset", f'dataset = load_dataset({what}, split="{split}")']


def column_rows(columns: Sequence[Mapping[str, str]]) -> str:
    """A Markdown table of columns, made from their definitions in `schemas/`."""
    keys = ("type", "unit", "description")
    rows = [[f"`{column['name']}`", *(column.get(key, "") for key in keys)] for column in columns]
    return _table(["column", "type", "unit", "what"], rows)


def _front_matter(
    record: RunRecord, totals: Totals, splits: Sequence[str], about: CardConfig, seen: SampleStatistics
) -> str:
    files = [{"split": split, "path": f"data/{split}/*.parquet"} for split in splits]
    languages = about.language or sorted(name for name in seen.languages if LANGUAGE_CODE.fullmatch(name))
    document = {
        "pretty_name": about.pretty_name,
        "license": about.license,
        "language": list(languages),
        "configs": [{"config_name": "default", "data_files": files}] if files else [],
        "tags": ["audio", "audio-codes", *TAGS.get(record.model.codec.family, [record.model.codec.family])],
        "size_categories": [_size_category(totals.rows)],
    }
    return yaml.safe_dump({key: value for key, value in document.items() if value}, sort_keys=False)


def _size_category(rows: int) -> str:
    """The size as one of the categories that the Hugging Face hub knows."""
    bounds = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M", 10_000_000: "1M<n<10M"}
    return next((name for bound, name in bounds.items() if rows < bound), "n>10M")


def _state(totals: Totals, planned: int) -> str:
    if totals.shards == planned:
        return ""
    return f"**Incomplete:** {totals.shards} of {planned} shards are here; the run that made it can be resumed."


def _licence_and_source(about: CardConfig) -> str:
    fill = "*not stated: set `card.{}` and run the command that made the dataset again, which writes this card anew*"
    rows = {name: getattr(about, name) or fill.format(name) for name in ("license", "source")}
    return "## Licence and source\n\n" + "\n".join(f"- {name}: {value}" for name, value in rows.items())


def _figures(totals: Totals, splits: Sequence[str]) -> str:
    rows = [
        [
            split,
            f"{totals.rows_by_split[split]:,}",
            f"{totals.seconds_by_split[split] / 3600:,.3f}",
            f"{totals.rejects_by_split[split]:,}",
        ]
        for split in splits
    ]
    by_split = _table(["split", "clips", "hours", "rejects"], rows)
    return f"## Figures\n\n{by_split}\n\n{_pairs(describe(totals))}"


def _plots(record: RunRecord, seen: SampleStatistics) -> str:
    if not seen.clips:
        return ""
    edges = [f"{edge:g} s" for edge in DURATION_EDGES]
    names = [f"{low} to {high}" for low, high in pairwise(edges)] + [f"{edges[-1]} and more"]
    shown = [(name, count) for name, count in zip(names, seen.durations, strict=True) if count]
    most = max(count for _, count in shown)
    durations = [f"{name:>18} {'#' * math.ceil(BAR * count / most):<{BAR}} {count:,}" for name, count in shown]
    limit = math.log2(record.model.codebook_size)
    too_few = ", so few that it comes out too small" if seen.frames < 10 * record.model.codebook_size else ""
    entropy = [
        f"{schema.layer_column(layer):>18} {'#' * round(BAR * bits / limit):<{BAR}} {bits:.2f}"
        for layer, bits in enumerate(seen.entropy)
    ]
    return f"""Length of {seen.clips:,} clips from shards at even distances:

{_block(durations)}

Entropy of their codes in bits, of {limit:g} that a code can hold, from {seen.frames:,} frames{too_few}:

{_block(entropy)}"""


def _load(splits: Sequence[str], record: RunRecord) -> str:
    layers = min(8, record.num_quantizers)
    plain = "\n".join(load_lines("PATH_OR_REPO", splits[0]))
    return f"""## Load

With Hugging Face Datasets alone, a list of codes for each RVQ layer:

```python
{plain}
```

With moss-tok, rows of {_codes_of_a_row(record)}, reading the wanted layers only. The path of a repo is
`hf://datasets/OWNER/NAME`:

```python
from pipeline.loading import load_codes

codes = load_codes("PATH", split="{splits[0]}", num_quantizers={layers})
```"""


def _codes_of_a_row(record: RunRecord) -> str:
    if not record.model.codec.single_rate:
        return "one array for each codebook"
    return f"one {schema.code_type(record.model.codebook_size)} matrix (num_quantizers, frames)"


def _decode(record: RunRecord) -> str:
    if record.model.codec.family != MOSS:
        return _decode_any(record)
    return f"""## Decode

Columns `{schema.layer_column(0)}` to `{schema.layer_column(record.num_quantizers - 1)}` hold one RVQ layer each; the
first k alone decode to a coarser waveform, and reading fewer columns reads fewer bytes.

```python
import torch
from moss_tok import MossAudioTokenizerModel

model = MossAudioTokenizerModel.from_pretrained({record.model.label!r}, revision={record.model.revision!r})
row = dataset[0]
codes = torch.tensor([row[f"codes_{{layer:02d}}"] for layer in range({record.num_quantizers})])
waveform = model.decode(codes[:, None]).audio[0, :, : row["num_samples"]]  # (channels, samples)
```"""


def _decode_any(record: RunRecord) -> str:
    codec = record.model.codec
    meaning = (
        "the first k alone decode to a coarser sound, and reading fewer columns reads fewer bytes"
        if codec.prefix
        else "only all of them together decode"
    )
    return f"""## Decode

Columns `{schema.layer_column(0)}` to `{schema.layer_column(record.num_quantizers - 1)}` hold one codebook each;
{meaning}. `moss-tok decode` turns rows into sound at {codec.output_rate} Hz, with the model that is named below:

```bash
moss-tok decode PATH --rows 0:10 -o sounds
```"""


def _books(record: RunRecord) -> str:
    codec = record.model.codec
    kinds = Counter((book.size, codec.sample_rate / book.samples_per_code) for book in record.codebooks)
    listed = ", ".join(f"{count} of {size} codes at {rate:g} Hz" for (size, rate), count in kinds.items())
    return f"{record.num_quantizers} of {record.model.num_quantizers} codebooks: {listed}"


def _provenance(record: RunRecord, totals: Totals) -> str:
    model = record.model
    moss = model.codec.family == MOSS
    rows = {
        "model": model.label,
        "revision": model.revision or "local weights",
        "weights sha256": model.weights_sha256,
        **({"weights licence": EMBEDDED_LICENSES[model.name]} if model.name in EMBEDDED_LICENSES else {}),
        "precision": record.dtype,
        **(
            {"RVQ layers": f"{record.num_quantizers} of {model.num_quantizers}, codebooks of {model.codebook_size}"}
            if moss
            else {"codec": model.codec.family, "codes": _books(record)}
        ),
        "waveform": f"{model.sample_rate} Hz, {model.channels} channel(s), {model.samples_per_frame} samples per frame",
        "preprocessing": _listed(record.prepare),
        **({"signals": _listed(with_labels(record.signals))} if record.signals else {}),
        **({"cut at pauses": _listed(record.split_at_pauses)} if record.split_at_pauses else {}),
        "schema": record.codes_schema,
        "fingerprint": record.fingerprint,
        "software": ", ".join(f"{name} {number}" for name, number in sorted(record.versions.items())),
        **({"machines": describe_machines(totals)} if totals.shards_by_machine else {}),
    }
    return f"## Made with\n\n{_pairs(rows)}"


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {json.dumps(value, sort_keys=True)}" for key, value in sorted(values.items()))


def _columns(record: RunRecord) -> str:
    codes = record.code_columns.definitions()
    kinds = [codes[0], *codes[record.num_quantizers :]]  # a codebook, and scales where there are any
    return "## Columns\n\n" + column_rows([*schema.definition(record.codes_schema)["columns"], *kinds])


def _block(lines: Sequence[str]) -> str:
    return "\n".join(["```text", *lines, "```"])


def _pairs(rows: Mapping[str, str]) -> str:
    return _table(["", ""], [[name, value] for name, value in rows.items()])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    ruler = ["---"] * len(header)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ruler, *rows))
