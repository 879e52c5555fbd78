"""The sounds of a shown clip: those of the row and of its source, cut to what a page can hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.codecs import Codec
from pipeline.dataset.dataset import Output
from pipeline.loading.decode import Row, decode_row
from pipeline.report.clips import MAX_SECONDS, show
from pipeline.report.views import view
from tests.support import rows


@pytest.mark.slow
def test_a_long_clip_is_cut_and_its_sounds_are_the_beginning_of_the_whole(root: Path, output: Output, decoder: Codec):
    row = max(rows(root), key=lambda row: row["duration"])
    assert row["duration"] > 2 * MAX_SECONDS
    (clip,) = show(output, [row["id"]], decoder)
    samples = round(MAX_SECONDS * 24_000)
    assert clip.codes.shape == (32, 100)
    assert list(clip.decoded) == [1, 4, 8, 16, 32]
    assert clip.original is not None
    assert clip.original.shape == (1, samples)
    codes = np.array([row[f"codes_{layer:02d}"] for layer in range(8)], np.int16)
    whole = decode_row(Row(row["id"], codes, row["num_samples"], 24_000), decoder)
    np.testing.assert_allclose(clip.decoded[8], whole[:, :samples], atol=1e-5)

    shown = view(clip, np.arange(1, 33) * 125.0, 1024)
    assert "the first 8.0" in shown.facts[0]
    assert [panel.note.partition("\u202f")[0] for panel in shown.panels[1:]] == [
        "0.125",
        "0.500",
        "1.00",
        "2.00",
        "4.00",
    ]
