"""The demo corpus as an output, for the tests of its report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.codecs import Codec
from pipeline.dataset.dataset import Output, read_output
from pipeline.loading.decode import load_decoder
from pipeline.report.gather import PageData, gather
from pipeline.report.page import render
from tests.support import demo_config, tokenize_in_process


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the demo's codes, in several shards. Tests that change it copy it."""
    folder = tmp_path_factory.mktemp("report") / "codes"
    tokenize_in_process(demo_config(folder, "input.clips_per_shard=10", "model.name=cat-tiny"))
    return folder


@pytest.fixture(scope="session")
def output(root: Path) -> Output:
    return read_output(str(root))


@pytest.fixture(scope="session")
def decoder(output: Output) -> Codec:
    return load_decoder(output.record)


@pytest.fixture(scope="session")
def data(output: Output, decoder: Codec) -> PageData:
    return gather(output, 2, lambda: decoder)


@pytest.fixture(scope="session")
def page_of(decoder: Codec) -> Callable[..., str]:
    """The page of the output at a URI."""

    def make(uri: Path | str, clips: int = 1) -> str:
        return render(gather(read_output(str(uri)), clips, lambda: decoder)).decode()

    return make
