"""A codec that only takes time: what is left of the pipeline without a GPU, at any speed one likes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from pipeline.actors import TokenizerActor
from pipeline.encode import Encoder, Launched
from pipeline.items import Clip, CodedClip


@dataclass(frozen=True)
class Batch:
    """One call of the encoder."""

    started: float
    """Seconds of the machine's monotonic clock, which all its processes share."""
    finished: float
    audio_seconds: float
    clips: int


class StandIn:
    """Waits as long as a GPU of `speed` x real time would take, its process idle meanwhile, and returns random codes.

    Each call is noted in a file of this process in `folder`.
    """

    def __init__(self, speed: float, folder: Path, sample_rate: int, samples_per_frame: int, num_quantizers: int):
        self._speed = speed
        self._notes = (folder / f"batches-{os.getpid()}.jsonl").open("a", buffering=1)
        self._sample_rate = sample_rate
        self._samples_per_frame = samples_per_frame
        longest = 3600 * sample_rate // samples_per_frame
        self._codes = np.random.default_rng(0).integers(0, 1024, (num_quantizers, longest), dtype=np.int16)

    def launch(self, clips: Sequence[Clip]) -> Launched:
        started = time.monotonic()
        seconds = sum(clip.info.num_samples for clip in clips) / self._sample_rate
        coded = [CodedClip(clip.info, self._codes_of(clip.info.num_samples)) for clip in clips]
        time.sleep(max(0.0, started + seconds / self._speed - time.monotonic()))
        self._notes.write(json.dumps([started, time.monotonic(), seconds, len(clips)]) + "\n")
        return Launched.done(coded)

    def _codes_of(self, num_samples: int) -> np.ndarray:
        return np.array(self._codes[:, : -(-num_samples // self._samples_per_frame)])


def actor_with(speed: float, folder: Path) -> type[TokenizerActor]:
    """What `run` makes actors of: everything as in a real run, but for the codec."""

    class StandInActor(TokenizerActor):
        def load(self) -> Encoder:
            model = self._record.model
            layers = self._record.num_quantizers
            return cast(Encoder, StandIn(speed, folder, model.sample_rate, model.samples_per_frame, layers))

    return StandInActor


def batches(folder: Path) -> list[Batch]:
    """What the stand-ins of a run have noted, in order of time."""
    lines = [line for path in folder.glob("batches-*.jsonl") for line in path.read_text().splitlines()]
    return sorted((Batch(*json.loads(line)) for line in lines), key=lambda batch: batch.started)
