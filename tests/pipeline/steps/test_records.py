"""Codes and rejects become tables in source order, and what is written is what was coded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.items import CodedClip, Description, Origin, Reject, Segment
from pipeline.schema import CodeColumns
from pipeline.steps.records import clip_id, codes_table, rejects_table
from pipeline.steps.write import to_parquet
from tests.support import info_of

LAYERS = 5
DESCRIPTION = Description(
    text="héllo", language="cy", speaker_id="7", labels=("/m/09x0r", "Speech"), metadata={"b": [1, None], "a": "ü"}
)


def coded_of(index: int, codes: np.ndarray, **changes: Any) -> CodedClip:
    return CodedClip(info_of(index, codes.shape[1] * 1920 - 7, **changes), codes)


def random_codes(seed: int, frames: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1024, (LAYERS, frames), dtype=np.int16)


def table_of(coded: list[CodedClip]) -> pa.Table:
    return codes_table("f00d", coded, CodeColumns((1024,) * LAYERS), 24_000)


@settings(max_examples=30, deadline=None)
@given(
    frames=st.lists(st.integers(1, 50), max_size=8), seed=st.integers(0, 1000), order=st.randoms(use_true_random=False)
)
def test_codes_come_back_from_parquet_as_they_were_in_source_order(
    tmp_path_factory: pytest.TempPathFactory, frames: list[int], seed: int, order: Any
) -> None:
    coded = [coded_of(index, random_codes(seed + index, count)) for index, count in enumerate(frames)]
    shuffled = list(coded)
    order.shuffle(shuffled)
    path = tmp_path_factory.mktemp("codes") / "codes.parquet"
    path.write_bytes(to_parquet(table_of(shuffled), {}, row_group_rows=3))
    rows = pq.read_table(path).to_pylist()
    assert [row["id"] for row in rows] == [f"f00d-{index:08d}" for index in range(len(frames))]
    for row, clip in zip(rows, coded, strict=True):
        found = np.array([row[f"codes_{layer:02d}"] for layer in range(LAYERS)])
        assert np.array_equal(found, clip.codes)
        assert row["num_frames"] == clip.codes.shape[1]


def test_every_field_of_a_clip_is_in_its_row() -> None:
    origin = Origin(index=7, source="s3://bucket/a.tar", key="key 7", segment=Segment(start=1.25, duration=0.5))
    clip = coded_of(7, random_codes(0, 3), gain_db=1.5, description=DESCRIPTION, origin=origin)
    (row,) = table_of([clip]).to_pylist()
    codes = {f"codes_{layer:02d}": clip.codes[layer].tolist() for layer in range(LAYERS)}
    assert row == codes | {
        "id": "f00d-00000007",
        "source": "s3://bucket/a.tar",
        "key": "key 7",
        "start": 1.25,
        "num_frames": 3,
        "num_samples": 5753,
        "sample_rate": 24_000,
        "duration": 5753 / 24_000,
        "source_format": "wav",
        "source_codec": "pcm_16",
        "source_sample_rate": 44_100,
        "source_channels": 2,
        "peak": 0.5,
        "rms": 0.25,
        "clipping": 0.0,
        "silence": 0.125,
        "gain_db": 1.5,
        "audio_xxh3": f"{7:032x}",
        "text": "héllo",
        "language": "cy",
        "speaker_id": "7",
        "labels": ["/m/09x0r", "Speech"],
        "metadata": '{"a": "ü", "b": [1, null]}',
    }


def test_metadata_does_not_depend_on_the_order_of_its_keys() -> None:
    one = coded_of(0, random_codes(0, 2), description=Description(metadata={"a": 1, "b": {"x": 1, "y": 2}}))
    other = coded_of(0, random_codes(0, 2), description=Description(metadata={"b": {"y": 2, "x": 1}, "a": 1}))
    assert table_of([one]).equals(table_of([other]))


def test_codes_of_another_type_or_range_are_not_written_wrongly() -> None:
    wide = CodedClip(info_of(0, 1920), np.full((LAYERS, 1), 40_000, np.int64))
    with pytest.raises(pa.ArrowInvalid):
        table_of([wide])


def test_no_clips_and_no_rejects_are_tables_of_no_rows(tmp_path: Path) -> None:
    for name, table in (("codes", table_of([])), ("rejects", rejects_table("f00d", []))):
        (tmp_path / name).write_bytes(to_parquet(table, {"k": "v"}, row_group_rows=10))
        back = pq.read_table(tmp_path / name)
        assert back.num_rows == 0
        assert back.schema.equals(table.schema)


def test_rejects_are_in_source_order_with_the_ids_that_their_clips_would_have() -> None:
    rejects = [
        Reject(
            origin=Origin(index=index, source="a.tar", key=f"k{index}"),
            stage="prepare",
            reason="empty",
            message="no bytes",
        )
        for index in (11, 2)
    ]
    table = rejects_table("f00d", rejects)
    assert table.to_pylist() == [
        {
            "id": f"f00d-{index:08d}",
            "source": "a.tar",
            "key": f"k{index}",
            "stage": "prepare",
            "reason": "empty",
            "message": "no bytes",
        }
        for index in (2, 11)
    ]
    assert table["id"][0].as_py() == clip_id("f00d", rejects[1].origin)


def test_metadata_that_json_lacks_is_an_error_and_not_a_bad_row() -> None:
    with pytest.raises(ValueError, match="JSON"):
        table_of([coded_of(0, random_codes(0, 1), description=Description(metadata={"n": float("nan")}))])
    assert json.loads(table_of([coded_of(0, random_codes(0, 1))])["metadata"][0].as_py()) == {}
