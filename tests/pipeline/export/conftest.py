"""The demo corpus as a dataset of codes, and exports of it, for all tests of the exports."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.dataset.dataset import read_output
from pipeline.export.config import load_export_config
from pipeline.export.job import run_export
from pipeline.export.rows import ExportRow, read_rows
from pipeline.export.summary import ExportSummary
from tests.support import demo_config, tokenize_in_process


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real rows of real sound: the demo corpus in shards of ten clips, made without Ray."""
    output = tmp_path_factory.mktemp("dataset") / "codes"
    tokenize_in_process(demo_config(output, "input.clips_per_shard=10"))
    return output


@pytest.fixture(scope="session")
def clips(dataset: Path) -> dict[str, ExportRow]:
    """Every row of the dataset by its id, with all layers."""
    output = read_output(str(dataset))
    rows = [row for spec in output.specs for row in read_rows(output, spec, output.record.num_quantizers)]
    assert len({row.id for row in rows}) == len(rows) > 80
    return {row.id: row for row in rows}


@pytest.fixture
def export(dataset: Path, tmp_path: Path) -> Callable[..., tuple[Path, ExportSummary]]:
    """Export the dataset: the format, settings as on the command line, and where to if not into a new folder."""

    def run(to: str, *settings: str, out: Path | None = None, uri: Path | str = dataset) -> tuple[Path, ExportSummary]:
        folder = out or tmp_path / to
        given = {"dataset": {"uri": str(uri)}, "export": {"to": to, "uri": str(folder)}}
        report = run_export(load_export_config(None, settings, given), lambda what, done, total: None)
        assert report.rows == sum(report.written.values()) + sum(report.removed.values())
        return folder, report

    return run


@pytest.fixture(scope="session")
def json_lines() -> Callable[[Path], list[dict[str, Any]]]:
    """Every record of the JSONL files of a folder, files in the order of their names."""

    def read(folder: Path) -> list[dict[str, Any]]:
        lines = [line for path in sorted(folder.rglob("*.jsonl")) for line in path.read_text("utf-8").splitlines()]
        return [json.loads(line) for line in lines]

    return read


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, bytes]]:
    """Every file of a folder, by its path there.

    Not what a killed writer left, a name with a leading dot, nor the version of a Lance dataset, which holds the time.
    """

    def read(folder: Path) -> dict[str, bytes]:
        files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        stable = (path for path in files if path.parent.name not in ("_versions", "_transactions"))
        return {str(path.relative_to(folder)): path.read_bytes() for path in stable}

    return read
