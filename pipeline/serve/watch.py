"""What the pages show of an output that may grow: how far it is, the work, the latest rejects and clips, any row."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import soundfile

from pipeline.codecs import Codec
from pipeline.dataset import manifest
from pipeline.dataset.dataset import Output
from pipeline.dataset.manifest import ShardManifest
from pipeline.items import ShardSpec
from pipeline.loading.decode import decode_in_pieces, load_decoder
from pipeline.loading.rows import Row, RowQuery, select_rows
from pipeline.monitoring.status import Observer, Status
from pipeline.report.gather import gather, look_at
from pipeline.report.history import History
from pipeline.report.page import render
from pipeline.report.rejects import Example, first_rejects
from pipeline.report.tables import open_file
from pipeline.report.views import ClipView

LATEST = 10
"""Rejects, and clips, that are shown of the shards that were committed last."""
REPORT_CLIPS = 4


@dataclass(frozen=True, slots=True)
class LatestClip:
    """A row that was written lately."""

    clip_id: str
    key: str
    duration: float
    """Seconds."""
    text: str | None


@dataclass(frozen=True, slots=True)
class Look:
    """The output at one moment."""

    status: Status
    history: History
    rejects: Sequence[Example]
    """The latest, from the shard that was committed last on."""
    clips: Sequence[LatestClip]


class Watch:
    """Looks at one output, for many threads. Each manifest is read once for the status and once for the history.

    Args:
        uri: of the output; raises FileNotFoundError if there is none.
        model: where the decoder is, if not where the record says.
        every: seconds; within these a look is not repeated.
    """

    def __init__(self, uri: str, model: str | None = None, every: float = 5.0) -> None:
        self.every = every
        self._model = model
        self._observer = Observer(uri)
        self._history = History()
        self._done: set[str] = set()
        self._looking, self._decoding = threading.Lock(), threading.Lock()
        self._look: tuple[float, Look] | None = None
        self._report: tuple[int, bytes] | None = None
        self._layout = self._observer.output.layout
        self._specs = {spec.shard_id: spec for spec in self._observer.output.specs}

    @property
    def output(self) -> Output:
        """The output, with the shards that were committed at the last look."""
        return replace(self._observer.output, done=set(self._done))

    def look(self) -> Look:
        """The output now, or a few seconds ago. Raises StorageError, OSError or ValueError where it cannot be read."""
        with self._looking:
            if self._look is None or time.monotonic() - self._look[0] > self.every:
                self._look = (time.monotonic(), self._look_again(self._look[1] if self._look else None))
            return self._look[1]

    def _look_again(self, before: Look | None) -> Look:
        status = self._observer.look()
        committed = manifest.committed_ids(self._layout) & self._specs.keys()
        new = list(manifest.read_manifests(self._layout, committed - self._done))
        rejects, clips = self._latest(new) if new else ([], [])
        for shard in new:
            self._history.add(shard)
        self._done |= committed
        old_rejects, old_clips = (before.rejects, before.clips) if before else ((), ())
        return Look(status, self._history, [*rejects, *old_rejects][:LATEST], [*clips, *old_clips][:LATEST])

    def _latest(self, shards: Sequence[ShardManifest]) -> tuple[list[Example], list[LatestClip]]:
        """Rejects and clips of the shards that were committed last, as many as are shown."""
        rejects: list[Example] = []
        clips: list[LatestClip] = []
        for shard in sorted(shards, key=lambda shard: -shard.finished_at):
            spec = self._specs[shard.shard_id]
            if shard.rejects and len(rejects) < LATEST:
                rejects += first_rejects(self._layout, spec, LATEST)
            if shard.rows and len(clips) < LATEST:
                clips += self._first_clips(spec)
        return rejects, clips

    def _first_clips(self, spec: ShardSpec) -> list[LatestClip]:
        with open_file(self._layout, self._layout.data(spec)) as file:
            batch = next(file.iter_batches(LATEST, columns=["id", "key", "duration", "text"], use_threads=False))
            return [LatestClip(row["id"], row["key"], row["duration"], row["text"]) for row in batch.to_pylist()]

    def clip(self, clip_id: str) -> ClipView:
        """Pictures and sounds of a row. Raises RowNotFound if the output does not have it (yet)."""
        self._row(clip_id)
        with self._decoding:
            (view,) = look_at(self.output, [clip_id], self._codec)
            return view

    def sound(self, clip_id: str) -> bytes:
        """The whole sound of a row, from all layers, as FLAC. Raises RowNotFound."""
        row = self._row(clip_id)
        sink = io.BytesIO()
        with self._decoding:
            description = self._codec.description
            rate, channels = description.output_rate, description.channels
            with soundfile.SoundFile(sink, "w", rate, channels, "PCM_16", format="FLAC") as file:
                for piece in decode_in_pieces(row, self._codec):
                    file.write(piece.clip(-1, 1).T)
        return sink.getvalue()

    def report(self) -> bytes:
        """The page of `moss-tok report`, made again where shards were committed since."""
        self.look()
        with self._decoding:
            output = self.output
            if self._report is None or self._report[0] != len(output.done):
                self._report = (len(output.done), render(gather(output, REPORT_CLIPS, lambda: self._codec)))
            return self._report[1]

    def close(self) -> None:
        """Wait for the decoder, which cannot be stopped while it works."""
        self._decoding.acquire()

    def _row(self, clip_id: str) -> Row:
        self.look()
        _, rows = select_rows(self.output, RowQuery(ids=(clip_id,)))
        return next(rows)

    @cached_property
    def _codec(self) -> Codec:
        return load_decoder(self._observer.output.record, self._model)
