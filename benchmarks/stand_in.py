"""A codec that only takes time, to measure the rest of the pipeline without a GPU, at any speed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from pipeline.codecs.machine import Machine
from pipeline.distributed.actor import TokenizerActor
from pipeline.items import Clip, ClipInfo, CodedClip
from pipeline.shard.tokenize import CodecJob
from pipeline.steps.encode import Encoder


@dataclass(frozen=True)
class Batch:
    """A batch, or a part of a long clip."""

    started: float
    """Seconds of the machine's monotonic clock, which all its processes share."""
    finished: float
    audio_seconds: float
    clips: int


class StandIn:
    """Behaves like a GPU of `speed` x real time with random codes. It works on one batch after the other.

    Each batch is recorded in a file of this process in `folder`.
    """

    def __init__(self, speed: float, folder: Path, sample_rate: int, samples_per_frame: int, num_quantizers: int):
        self.machine: Machine = {}
        self._speed = speed
        self._notes = (folder / f"batches-{os.getpid()}.jsonl").open("a", buffering=1)
        self._sample_rate = sample_rate
        self._samples_per_frame = samples_per_frame
        self._free_at = 0.0
        self._waiting = ThreadPoolExecutor(1)
        longest = 3600 * sample_rate // samples_per_frame
        self._codes = np.random.default_rng(0).integers(0, 1024, (num_quantizers, longest), dtype=np.int16)

    def launch(self, clips: Sequence[Clip]) -> Future[list[CodedClip]]:
        """Begin a batch as soon as the last one is done."""
        done_at = self.occupy(sum(clip.info.num_samples for clip in clips), len(clips))
        coded = [self.coded(clip.info) for clip in clips]

        def wait() -> list[CodedClip]:
            time.sleep(max(0.0, done_at - time.monotonic()))
            return coded

        return self._waiting.submit(wait)

    def stream(self) -> StandInStream:
        return StandInStream(self)

    def occupy(self, num_samples: int, clips: int) -> float:
        """Reserve the time for so many samples; returns the moment at which it ends."""
        started = max(self._free_at, time.monotonic())
        seconds = num_samples / self._sample_rate
        self._free_at = started + seconds / self._speed
        self._notes.write(json.dumps([started, self._free_at, seconds, clips]) + "\n")
        return self._free_at

    def coded(self, info: ClipInfo) -> CodedClip:
        return CodedClip(info, np.array(self._codes[:, : -(-info.num_samples // self._samples_per_frame)]))


class StandInStream:
    """Encodes a long clip part by part."""

    def __init__(self, encoder: StandIn) -> None:
        self._encoder = encoder

    def step(self, waveform: np.ndarray) -> None:
        done_at = self._encoder.occupy(waveform.shape[1], clips=0)
        time.sleep(max(0.0, done_at - time.monotonic()))

    def finish(self, info: ClipInfo) -> CodedClip:
        return self._encoder.coded(info)


def actor_with(speed: float, folder: Path) -> type[TokenizerActor]:
    """The class of the actors: as in a real run, except for the codec."""

    class StandInActor(TokenizerActor):
        def load(self, job: CodecJob) -> Encoder:
            model = job.record.model
            layers = job.record.num_quantizers
            return cast(Encoder, StandIn(speed, folder, model.sample_rate, model.samples_per_frame, layers))

    return StandInActor


def batches(folder: Path) -> list[Batch]:
    """The recorded batches of a run, in order of time."""
    lines = [line for path in folder.glob("batches-*.jsonl") for line in path.read_text().splitlines()]
    return sorted((Batch(*json.loads(line)) for line in lines), key=lambda batch: batch.started)
