"""The objects of a small shard that nobody tokenized, for tests of what is done with them."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

from pipeline.dataset.commit import AttemptInfo, shard_metadata
from pipeline.items import CodedClip, Origin, Reject, ShardSpec
from pipeline.schema import CodeColumns
from pipeline.steps.records import codes_table, rejects_table
from pipeline.steps.write import to_parquet
from tests.support import info_of

SPEC = ShardSpec(split="train", format="webdataset", uri="s3://bucket/a.tar", size=12_345, version="12345-etag")
ATTEMPT = AttemptInfo(attempt=2, started_at=1_700_000_000.0, seconds={"read": 0.5, "write": 0.25})
VERSIONS = {"torch": "2.11", "pyarrow": "21"}


def shard_bytes(
    rows: int = 20,
    rejects: int = 3,
    fingerprint: str = "f1",
    versions: Mapping[str, str] = VERSIONS,
    shard_id: str = SPEC.shard_id,
    reason: str | None = None,
) -> tuple[bytes, bytes]:
    """The data and rejects objects of a shard of `rows + rejects` clips, the rejected ones last."""
    random = np.random.default_rng(0)
    coded = [
        CodedClip(info_of(index, 19_200), random.integers(0, 1024, (2, 10), dtype=np.int16)) for index in range(rows)
    ]
    refused = [
        Reject(
            origin=Origin(index=index, source=SPEC.uri, key=str(index)),
            stage="prepare",
            reason=reason or ("empty" if index % 2 else "truncated"),
            message="no sound",
        )
        for index in range(rows, rows + rejects)
    ]
    metadata = {
        "moss_tok.fingerprint": fingerprint,
        "moss_tok.sample_rate": "24000",
        "moss_tok.versions": json.dumps(dict(versions)),
    }
    rejected = to_parquet(rejects_table(shard_id, refused), metadata, 10) if refused else b""
    summary = shard_metadata(shard_id, rows + rejects, 9_999, rejected)
    return to_parquet(codes_table(shard_id, coded, CodeColumns((1024, 1024)), 24_000), metadata | summary, 10), rejected
