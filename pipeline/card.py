"""The dataset card: README.md with the front matter that makes `datasets.load_dataset(output)` work."""

from __future__ import annotations

import yaml

from pipeline import schema
from pipeline.provenance import RunRecord
from pipeline.totals import Totals, describe

UNTRAINED = (
    "**These codes come from an untrained model.** They show the format and the pipeline; they decode to noise, and "
    "nothing should be trained on them."
)


def dataset_card(record: RunRecord, totals: Totals, planned: int) -> str:
    """Markdown for the output's README.md. Depends on the dataset alone: no time, host or path."""
    parts = [
        f"---\n{_front_matter(record, totals)}---",
        f"# Audio codes of {record.model.label}",
        *([] if record.model.trained else [UNTRAINED]),
        _state(totals, planned),
        _figures(totals),
        "## Load\n\n```python\n" + "\n".join(load_lines("PATH_OR_REPO", next(iter(record.input["splits"])))) + "\n```",
        _decode(record),
        _provenance(record),
        _columns(record),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def load_lines(uri: str, split: str) -> list[str]:
    """The two lines that load a dataset."""
    return ["from datasets import load_dataset", f'dataset = load_dataset("{uri}", split="{split}")']


def _front_matter(record: RunRecord, totals: Totals) -> str:
    files = [{"split": split, "path": f"data/{split}/*.parquet"} for split in record.input["splits"]]
    document = {
        "configs": [{"config_name": "default", "data_files": files}],
        "tags": ["audio", "audio-codes", "rvq", "moss-audio-tokenizer"],
        "size_categories": [_size_category(totals.rows)],
    }
    return yaml.safe_dump(document, sort_keys=False)


def _size_category(rows: int) -> str:
    """The hub's own names for sizes."""
    bounds = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M", 10_000_000: "1M<n<10M"}
    return next((name for bound, name in bounds.items() if rows < bound), "n>10M")


def _state(totals: Totals, planned: int) -> str:
    if totals.shards == planned:
        return ""
    return f"**Incomplete:** {totals.shards} of {planned} shards are here; the run that made it can be resumed."


def _figures(totals: Totals) -> str:
    rows = "\n".join(f"| {name} | {value} |" for name, value in describe(totals).items())
    return f"| | |\n|---|---|\n{rows}"


def _decode(record: RunRecord) -> str:
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


def _provenance(record: RunRecord) -> str:
    model = record.model
    rows = {
        "model": model.label,
        "revision": model.revision or "local weights",
        "weights sha256": model.weights_sha256,
        "precision": record.dtype,
        "RVQ layers": f"{record.num_quantizers} of {model.num_quantizers}, codebooks of {model.codebook_size}",
        "waveform": f"{model.sample_rate} Hz, {model.channels} channel(s), {model.samples_per_frame} samples per frame",
        "preprocessing": ", ".join(f"{key} {value}" for key, value in sorted(record.prepare.items())),
        "schema": record.codes_schema,
        "fingerprint": record.fingerprint,
        "software": ", ".join(f"{name} {number}" for name, number in sorted(record.versions.items())),
    }
    lines = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"## Made with\n\n| | |\n|---|---|\n{lines}"


def _columns(record: RunRecord) -> str:
    fields = schema.codes_schema(record.num_quantizers, record.model.codebook_size)
    names = [*schema.clip_columns(), schema.layer_column(0)]
    lines = []
    for name in names:
        notes = {key.decode(): value.decode() for key, value in (fields.field(name).metadata or {}).items()}
        lines.append(f"| `{name}` | {fields.field(name).type} | {notes.get('unit', '')} | {notes['description']} |")
    return "## Columns\n\n| column | type | unit | what |\n|---|---|---|---|\n" + "\n".join(lines)
